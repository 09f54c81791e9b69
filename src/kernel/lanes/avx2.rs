//! 256-bit vectors.

use std::arch::x86_64::*;

use super::Lanes;

/// The sum of 8 numbers, as [`super::total`] goes on.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub fn halved(parts: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(parts), _mm256_extractf128_ps::<1>(parts));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}

impl Lanes for __m256 {
    const N: usize = 8;

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller warrants 8 numbers.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller warrants room for 8 numbers.
        unsafe { _mm256_storeu_ps(to, self) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn splat(x: f32) -> Self {
        _mm256_set1_ps(x)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn add(self, other: Self) -> Self {
        _mm256_add_ps(self, other)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn sub(self, other: Self) -> Self {
        _mm256_sub_ps(self, other)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn mul(self, other: Self) -> Self {
        _mm256_mul_ps(self, other)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        _mm256_fmadd_ps(self, factor, summand)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn larger(self, other: Self) -> Self {
        _mm256_max_ps(self, other)
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn keep(self, n: usize, rest: Self) -> Self {
        let places = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let kept = _mm256_cmpgt_epi32(_mm256_set1_epi32(n.min(Self::N) as i32), places);
        _mm256_blendv_ps(rest, self, _mm256_castsi256_ps(kept))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn power_of_two(self) -> Self {
        let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(self));
        _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_castps_si256(_mm256_set1_ps(1.0))))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn largest(self) -> f32 {
        let four = _mm_max_ps(_mm256_castps256_ps128(self), _mm256_extractf128_ps::<1>(self));
        let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn total([lower, upper]: [Self; 2]) -> f32 {
        halved(_mm256_add_ps(lower, upper))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn transpose(from: *const f32, pitch: usize, rows: usize, to: *mut f32, to_pitch: usize) {
        let mut r = [_mm256_setzero_ps(); 8];
        for (i, r) in r.iter_mut().enumerate().take(rows) {
            // SAFETY: the caller warrants 8 numbers in each row.
            *r = unsafe { _mm256_loadu_ps(from.add(i * pitch)) };
        }
        let mut pairs = r;
        for i in 0..4 {
            pairs[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            pairs[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        let pair = |i: usize| _mm256_castps_pd(pairs[i]);
        // Number 4 i + c holds, in its half l, column 4 l + c of the rows from 4 i on.
        for i in 0..2 {
            for c in 0..2 {
                let (a, b) = (pair(4 * i + c), pair(4 * i + c + 2));
                r[4 * i + 2 * c] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
                r[4 * i + 2 * c + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
            }
        }
        for c in 0..4 {
            let lower = _mm256_permute2f128_ps::<0x20>(r[c], r[c + 4]);
            let upper = _mm256_permute2f128_ps::<0x31>(r[c], r[c + 4]);
            // SAFETY: the caller warrants room for 8 numbers in each of 8 rows.
            unsafe {
                _mm256_storeu_ps(to.add(c * to_pitch), lower);
                _mm256_storeu_ps(to.add((4 + c) * to_pitch), upper);
            }
        }
    }
}
