//! 512-bit vectors.

use std::arch::x86_64::*;

use super::Lanes;

impl Lanes for __m512 {
    const N: usize = 16;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller warrants 16 numbers.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller warrants room for 16 numbers.
        unsafe { _mm512_storeu_ps(to, self) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn splat(x: f32) -> Self {
        _mm512_set1_ps(x)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn add(self, other: Self) -> Self {
        _mm512_add_ps(self, other)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn sub(self, other: Self) -> Self {
        _mm512_sub_ps(self, other)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn mul(self, other: Self) -> Self {
        _mm512_mul_ps(self, other)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        _mm512_fmadd_ps(self, factor, summand)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn larger(self, other: Self) -> Self {
        _mm512_max_ps(self, other)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn keep(self, n: usize, rest: Self) -> Self {
        _mm512_mask_mov_ps(rest, u16::MAX >> (Self::N - n.min(Self::N)), self)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn power_of_two(self) -> Self {
        let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(self));
        _mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_castps_si512(_mm512_set1_ps(1.0))))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn largest(self) -> f32 {
        _mm512_reduce_max_ps(self)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn total([parts, _]: [Self; 2]) -> f32 {
        let upper = _mm512_shuffle_f32x4::<0b11_10_11_10>(parts, parts);
        super::avx2::halved(_mm512_castps512_ps256(_mm512_add_ps(parts, upper)))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn transpose(from: *const f32, pitch: usize, rows: usize, to: *mut f32, to_pitch: usize) {
        let mut r = [_mm512_setzero_ps(); 16];
        for (i, r) in r.iter_mut().enumerate().take(rows) {
            // SAFETY: the caller warrants 16 numbers in each row.
            *r = unsafe { _mm512_loadu_ps(from.add(i * pitch)) };
        }
        let mut pairs = r;
        for i in 0..8 {
            pairs[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            pairs[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        let pair = |i: usize| _mm512_castps_pd(pairs[i]);
        // Number 4 i + c holds, in its quarter l, column 4 l + c of the rows from 4 i on.
        for i in 0..4 {
            for c in 0..2 {
                let (a, b) = (pair(4 * i + c), pair(4 * i + c + 2));
                r[4 * i + 2 * c] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
                r[4 * i + 2 * c + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
            }
        }
        for c in 0..4 {
            let even = [0, 8].map(|i| _mm512_shuffle_f32x4::<0b10_00_10_00>(r[i + c], r[i + c + 4]));
            let odd = [0, 8].map(|i| _mm512_shuffle_f32x4::<0b11_01_11_01>(r[i + c], r[i + c + 4]));
            let columns = [
                _mm512_shuffle_f32x4::<0b10_00_10_00>(even[0], even[1]),
                _mm512_shuffle_f32x4::<0b10_00_10_00>(odd[0], odd[1]),
                _mm512_shuffle_f32x4::<0b11_01_11_01>(even[0], even[1]),
                _mm512_shuffle_f32x4::<0b11_01_11_01>(odd[0], odd[1]),
            ];
            for (l, column) in columns.into_iter().enumerate() {
                // SAFETY: the caller warrants room for 16 numbers in each of 16 rows.
                unsafe { _mm512_storeu_ps(to.add((4 * l + c) * to_pitch), column) }
            }
        }
    }
}
