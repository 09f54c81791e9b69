//! With 256-bit vectors.

use std::arch::x86_64::*;

use super::{
    super::{
        super::strided::Strided,
        run::{Head, Sequence},
    },
    Mix, Products, Scores, Steps, mix, products, scores, softmax,
};

#[target_feature(enable = "avx2,fma")]
pub fn attend(head: &Head, scratch: &mut Sequence, y: Strided<f32>) {
    // SAFETY: this function's features are those of STEPS.
    unsafe { super::attend(&STEPS, head, scratch, y) }
}

static STEPS: Steps = Steps {
    lanes: 8,
    // 4 sums, 2 keys, 2 queries, 2 of the tables and what is between make 11 of 16 registers; 3 x 3 would be 18.
    scores_side: 2,
    mix_vectors: 2,
    transpose,
    scores: &[scored::<1, 1>, scored::<1, 2>, scored::<2, 1>, scored::<2, 2>],
    // 12 sums, 2 keys and a query make 15 of 16 registers.
    products_vectors: 2,
    products: &[
        multiplied::<1, 1>,
        multiplied::<1, 2>,
        multiplied::<2, 1>,
        multiplied::<2, 2>,
        multiplied::<3, 1>,
        multiplied::<3, 2>,
        multiplied::<4, 1>,
        multiplied::<4, 2>,
        multiplied::<5, 1>,
        multiplied::<5, 2>,
        multiplied::<6, 1>,
        multiplied::<6, 2>,
    ],
    softmax,
    mix: &[
        mixed::<1, 1>,
        mixed::<1, 2>,
        mixed::<2, 1>,
        mixed::<2, 2>,
        mixed::<3, 1>,
        mixed::<3, 2>,
        mixed::<4, 1>,
        mixed::<4, 2>,
        mixed::<5, 1>,
        mixed::<5, 2>,
        mixed::<6, 1>,
        mixed::<6, 2>,
    ],
};

#[target_feature(enable = "avx2,fma")]
fn transpose(from: &[f32], width: usize, tokens: usize, size: usize, to: &mut [f32], pitch: usize) {
    // SAFETY: this function has the features.
    unsafe { mix::transpose::<__m256>(from, width, (tokens, size), to, pitch) }
}

#[target_feature(enable = "avx2,fma")]
fn scored<const R: usize, const V: usize>(tile: Scores) {
    // SAFETY: this function has the features.
    unsafe { scores::scores::<__m256, R, V>(tile) }
}

#[target_feature(enable = "avx2,fma")]
fn multiplied<const R: usize, const V: usize>(tile: Products) {
    // SAFETY: this function has the features.
    unsafe { products::products::<__m256, R, V>(tile) }
}

#[target_feature(enable = "avx2,fma")]
fn softmax(row: &mut [f32], tokens: usize) -> f32 {
    // SAFETY: this function has the features.
    unsafe { softmax::softmax::<__m256>(row, tokens) }
}

#[target_feature(enable = "avx2,fma")]
fn mixed<const R: usize, const V: usize>(tile: Mix) {
    // SAFETY: this function has the features.
    unsafe { mix::mix::<__m256, R, V>(tile) }
}
