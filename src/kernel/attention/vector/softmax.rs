//! A row of scores to weights.

use super::{
    super::exp::{LEAST, LOG2_E, MINUS_LN_2, POLYNOMIAL, ROUND},
    Lanes,
};

/// The first `tokens` numbers of `row` become e to the power of what they are less than the largest, those behind them 0
/// up to a whole number of vectors; returns what they add up to.
///
/// # Safety
/// The processor must have the features of `L`.
///
/// # Panics
/// If the row does not hold whole vectors for `tokens` numbers.
#[inline(always)]
pub unsafe fn softmax<L: Lanes>(row: &mut [f32], tokens: usize) -> f32 {
    let vectors = tokens.div_ceil(L::N);
    assert!(row.len() >= vectors * L::N, "a row of {vectors} vectors");
    // SAFETY: v < vectors; the caller warrants the features.
    unsafe {
        let row = row.as_mut_ptr();
        let mut largest = L::splat(f32::NEG_INFINITY);
        for v in 0..vectors {
            let scores = L::load(row.add(v * L::N)).keep(tokens - v * L::N, L::splat(f32::NEG_INFINITY));
            largest = scores.larger(largest);
        }
        let largest = L::splat(largest.largest());
        let mut parts = [L::splat(0.0); 2];
        for v in 0..vectors {
            let scores = L::load(row.add(v * L::N));
            let weights = exp(scores.sub(largest)).keep(tokens - v * L::N, L::splat(0.0));
            weights.store(row.add(v * L::N));
            parts[v % L::OF_PARTS] = parts[v % L::OF_PARTS].add(weights);
        }
        L::total(parts)
    }
}

/// [`super::super::exp::exp`], N values at once.
///
/// # Safety
/// The processor must have the features of `L`.
#[inline(always)]
unsafe fn exp<L: Lanes>(x: L) -> L {
    // SAFETY: the caller warrants the features.
    unsafe {
        let x = L::splat(LEAST).larger(x);
        let rounded = x.mul_add(L::splat(LOG2_E), L::splat(ROUND));
        let n = rounded.sub(L::splat(ROUND));
        let r = n.mul_add(L::splat(MINUS_LN_2[0]), x);
        let r = n.mul_add(L::splat(MINUS_LN_2[1]), r);
        let mut sum = L::splat(POLYNOMIAL[0]);
        for factor in &POLYNOMIAL[1..] {
            sum = sum.mul_add(r, L::splat(*factor));
        }
        sum.mul_add(r.mul(r), r.add(L::splat(1.0))).mul(rounded.power_of_two())
    }
}
