//! A tile of results, and the transposition of keys.

use super::{super::super::strided::Strided, Lanes};

/// What a tile of R neighbouring rows and V vectors of the head reads and writes.
pub struct Mix<'a, 'y> {
    pub tokens: usize,
    /// The first row's weights; rows of `weights_pitch`.
    pub weights: &'a [f32],
    pub weights_pitch: usize,
    /// What the rows' weights add up to.
    pub sums: &'a [f32],
    /// Values from the first vector on, rows of `values_pitch`.
    pub values: &'a [f32],
    pub values_pitch: usize,
    /// All rows of the result, and where the tile begins in them. The last vector may reach beyond their width.
    pub y: &'a mut Strided<'y, f32>,
    pub row: usize,
    pub column: usize,
}

/// # Safety
/// The processor must have the features of `L`.
///
/// # Panics
/// If a slice does not hold what the tile wants.
#[inline(always)]
pub unsafe fn mix<L: Lanes, const R: usize, const V: usize>(tile: Mix) {
    let Mix { tokens, weights, weights_pitch, sums, values, values_pitch, y, row, column } = tile;
    assert!(tokens > 0 && weights.len() >= (R - 1) * weights_pitch + tokens, "weights of {R} rows");
    assert!(values.len() >= (tokens - 1) * values_pitch + V * L::N, "values of {V} vectors");
    // SAFETY: j < tokens, r < R and v < V, so that the assertions cover what is read; the caller warrants the features.
    unsafe {
        let (weights, values) = (weights.as_ptr(), values.as_ptr());
        let mut sum = [[L::splat(0.0); V]; R];
        for j in 0..tokens {
            let mut value = [L::splat(0.0); V];
            for (v, value) in value.iter_mut().enumerate() {
                *value = L::load(values.add(j * values_pitch + v * L::N));
            }
            for (r, sum) in sum.iter_mut().enumerate() {
                let weight = L::splat(*weights.add(r * weights_pitch + j));
                for (sum, value) in sum.iter_mut().zip(value) {
                    *sum = weight.mul_add(value, *sum);
                }
            }
        }
        for (r, sum) in sum.iter().enumerate() {
            let inverse = L::splat(1.0 / sums[r]);
            for (v, sum) in sum.iter().enumerate() {
                let (result, y) = (sum.mul(inverse), &mut y.row(row + r)[column + v * L::N..]);
                if y.len() >= L::N {
                    result.store(y.as_mut_ptr());
                } else {
                    let mut lanes = [0f32; super::super::PARTS];
                    result.store(lanes.as_mut_ptr());
                    y.copy_from_slice(&lanes[..y.len()]);
                }
            }
        }
    }
}

/// `from`, rows of `width` for `tokens` tokens, of which the first `size` columns are transposed to rows of `pitch`; zeros
/// for the tokens that fill up the last vector.
///
/// # Safety
/// The processor must have the features of `L`.
///
/// # Panics
/// If a slice does not hold what is wanted.
#[inline(always)]
pub unsafe fn transpose<L: Lanes>(
    from: &[f32],
    width: usize,
    (tokens, size): (usize, usize),
    to: &mut [f32],
    pitch: usize,
) {
    assert!(tokens > 0 && size <= width && from.len() >= (tokens - 1) * width + size, "rows of {tokens} tokens");
    let padded = tokens.next_multiple_of(L::N);
    assert!(padded <= pitch && to.len() >= size * pitch, "{size} rows of {padded}");
    let whole = size / L::N * L::N;
    for first in (0..tokens).step_by(L::N) {
        for d in (0..whole).step_by(L::N) {
            let rows = L::N.min(tokens - first);
            let (from, to) = (&from[first * width + d..], &mut to[d * pitch + first..]);
            // SAFETY: the rows first .. first + rows have columns up to `size`, and `to` has columns up to `padded` in
            // the rows d .. d + N; the caller warrants the features.
            unsafe { L::transpose(from.as_ptr(), width, rows, to.as_mut_ptr(), pitch) }
        }
    }
    for d in whole..size {
        let row = &mut to[d * pitch..][..padded];
        row[tokens..].fill(0.0);
        row[..tokens].iter_mut().enumerate().for_each(|(j, k)| *k = from[j * width + d]);
    }
}
