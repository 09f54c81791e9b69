//! With 512-bit vectors.

use std::arch::x86_64::*;

use super::{
    super::{
        super::strided::Strided,
        run::{Head, Sequence},
    },
    Mix, Products, Scores, Steps, mix, products, scores, softmax,
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
    // 24 sums, 4 keys and a query make 29 of 32 registers.
    products_vectors: 4,
    products: &[
        multiplied::<1, 1>,
        multiplied::<1, 2>,
        multiplied::<1, 3>,
        multiplied::<1, 4>,
        multiplied::<2, 1>,
        multiplied::<2, 2>,
        multiplied::<2, 3>,
        multiplied::<2, 4>,
        multiplied::<3, 1>,
        multiplied::<3, 2>,
        multiplied::<3, 3>,
        multiplied::<3, 4>,
        multiplied::<4, 1>,
        multiplied::<4, 2>,
        multiplied::<4, 3>,
        multiplied::<4, 4>,
        multiplied::<5, 1>,
        multiplied::<5, 2>,
        multiplied::<5, 3>,
        multiplied::<5, 4>,
        multiplied::<6, 1>,
        multiplied::<6, 2>,
        multiplied::<6, 3>,
        multiplied::<6, 4>,
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
fn multiplied<const R: usize, const V: usize>(tile: Products) {
    // SAFETY: this function has the features.
    unsafe { products::products::<__m512, R, V>(tile) }
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
