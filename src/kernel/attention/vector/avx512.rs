//! 512-bit vectors.

use std::arch::x86_64::*;

use super::{
    super::{
        super::strided::Strided,
        run::{Head, Sequence},
    },
    Lanes, Mix, Scores, Steps, mix, scores, softmax,
};

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub fn attend(head: &Head, scratch: &mut Sequence, y: Strided<f32>) {
    // SAFETY: this function's features are those of STEPS.
    unsafe { super::attend(&STEPS, head, scratch, y) }
}

static STEPS: Steps = Steps {
    lanes: 16,
    // 16 sums, 4 keys, 4 queries, 2 of the tables and what is between make 27 of 32 registers.
    scores_side: 4,
    mix_vectors: 4,
    transpose,
    scores: &[
        scored::<1, 1>,
        scored::<1, 2>,
        scored::<1, 3>,
        scored::<1, 4>,
        scored::<2, 1>,
        scored::<2, 2>,
        scored::<2, 3>,
        scored::<2, 4>,
        scored::<3, 1>,
        scored::<3, 2>,
        scored::<3, 3>,
        scored::<3, 4>,
        scored::<4, 1>,
        scored::<4, 2>,
        scored::<4, 3>,
        scored::<4, 4>,
    ],
    softmax,
    mix: &[
        mixed::<1, 1>,
        mixed::<1, 2>,
        mixed::<1, 3>,
        mixed::<1, 4>,
        mixed::<2, 1>,
        mixed::<2, 2>,
        mixed::<2, 3>,
        mixed::<2, 4>,
        mixed::<3, 1>,
        mixed::<3, 2>,
        mixed::<3, 3>,
        mixed::<3, 4>,
        mixed::<4, 1>,
        mixed::<4, 2>,
        mixed::<4, 3>,
        mixed::<4, 4>,
        mixed::<5, 1>,
        mixed::<5, 2>,
        mixed::<5, 3>,
        mixed::<5, 4>,
        mixed::<6, 1>,
        mixed::<6, 2>,
        mixed::<6, 3>,
        mixed::<6, 4>,
    ],
};

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn transpose(from: &[f32], width: usize, tokens: usize, size: usize, to: &mut [f32], pitch: usize) {
    // SAFETY: this function has the features.
    unsafe { mix::transpose::<__m512>(from, width, (tokens, size), to, pitch) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn scored<const R: usize, const V: usize>(tile: Scores) {
    // SAFETY: this function has the features.
    unsafe { scores::scores::<__m512, R, V>(tile) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn softmax(row: &mut [f32], tokens: usize) -> f32 {
    // SAFETY: this function has the features.
    unsafe { softmax::softmax::<__m512>(row, tokens) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn mixed<const R: usize, const V: usize>(tile: Mix) {
    // SAFETY: this function has the features.
    unsafe { mix::mix::<__m512, R, V>(tile) }
}

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
    unsafe fn sum([parts, _]: [Self; 2]) -> f32 {
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
