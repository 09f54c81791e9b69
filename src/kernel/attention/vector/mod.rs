//! The paths with vectors: one arithmetic, written over [`lanes::Lanes`], compiled for each width.
//!
//! ```text
//! keys     transposed: a vector holds one d of neighbouring keys
//! scores   tiles of rows N apart x vectors of keys. Row r and vector v want the table's columns N (v - r) further on,
//!          so that a vector of the tables serves a whole diagonal of the tile
//! softmax  a row at a time
//! mix      tiles of neighbouring rows x vectors of the head
//! ```

mod avx2;
mod avx512;
mod lanes;
mod mix;
mod scores;
mod softmax;

use super::{
    super::strided::Strided,
    run::{Head, Sequence},
};
use lanes::Lanes;
use mix::Mix;
use scores::Scores;

pub use avx2::attend as attend_avx2;
pub use avx512::attend as attend_avx512;

/// Most rows of a tile of results.
const MIX_ROWS: usize = 6;

/// The functions of a width. All are unsafe for one reason: the processor must have the features that they are compiled
/// for. Their arguments are checked.
struct Steps {
    /// Values in a vector.
    lanes: usize,
    /// Most rows, and most vectors, of a tile of scores.
    scores_side: usize,
    /// Most vectors of a tile of results.
    mix_vectors: usize,
    /// `keys` [tokens, size] of a matrix of `width`, transposed into rows of `pitch`; zeros for keys beyond.
    transpose: unsafe fn(from: &[f32], width: usize, tokens: usize, size: usize, to: &mut [f32], pitch: usize),
    /// For 1 row and 1 vector, 1 row and 2 vectors, and so on.
    scores: &'static [unsafe fn(Scores)],
    /// A row of scores to weights, zeros from `tokens` on; returns what they add up to.
    softmax: unsafe fn(row: &mut [f32], tokens: usize) -> f32,
    /// For 1 row and 1 vector, 1 row and 2 vectors, and so on.
    mix: &'static [unsafe fn(Mix)],
}

/// # Safety
/// The processor must have the features of `steps`.
unsafe fn attend(steps: &Steps, head: &Head, scratch: &mut Sequence, y: Strided<f32>) {
    let Head { tokens, size, .. } = *head;
    let (pitch, values_pitch) = (head.pitch(), head.values_pitch());
    grow(&mut scratch.keys, size * pitch);
    grow(&mut scratch.scores, head.queries * pitch);
    grow(&mut scratch.values, tokens * values_pitch);
    grow(&mut scratch.sums, head.queries);
    for (to, from) in scratch.values.chunks_exact_mut(values_pitch).zip(head.v.values.chunks(head.v.width)).take(tokens)
    {
        to[..size].copy_from_slice(&from[..size]);
        to[size..].fill(0.0);
    }
    // SAFETY: as the caller warrants.
    unsafe {
        (steps.transpose)(head.k.values, head.k.width, tokens, size, &mut scratch.keys, pitch);
        scored(steps, head, scratch, pitch);
        for (row, sum) in scratch.scores.chunks_exact_mut(pitch).zip(&mut scratch.sums).take(head.queries) {
            *sum = (steps.softmax)(row, tokens);
        }
        mixed(steps, head, scratch, y);
    }
}

/// All tiles of scores.
///
/// # Safety
/// As [`attend`].
unsafe fn scored(steps: &Steps, head: &Head, scratch: &mut Sequence, pitch: usize) {
    let (lanes, table) = (steps.lanes, head.table);
    let vectors = head.tokens.div_ceil(lanes);
    for start in 0..lanes.min(head.queries) {
        for (first, rows) in parts((head.queries - start).div_ceil(lanes), steps.scores_side) {
            let last = start + (first + rows - 1) * lanes;
            for (vector, count) in parts(vectors, steps.scores_side) {
                let window = table.middle - last + vector * lanes;
                let first = start + first * lanes;
                let tile = Scores {
                    size: head.size,
                    q: &head.q.values[first * head.q.width..],
                    q_pitch: lanes * head.q.width,
                    keys: &scratch.keys[vector * lanes..],
                    keys_pitch: pitch,
                    pk: &table.pk[window..],
                    pq: &table.pq[window..],
                    table_pitch: table.pitch,
                    scores: &mut scratch.scores[first * pitch + vector * lanes..],
                    scores_pitch: lanes * pitch,
                };
                // SAFETY: as the caller warrants.
                unsafe { (steps.scores[(rows - 1) * steps.scores_side + count - 1])(tile) }
            }
        }
    }
}

/// All tiles of results.
///
/// # Safety
/// As [`attend`].
unsafe fn mixed(steps: &Steps, head: &Head, scratch: &Sequence, mut y: Strided<f32>) {
    let (pitch, values_pitch) = (head.pitch(), head.values_pitch());
    for (first, rows) in parts(head.queries, MIX_ROWS) {
        for (vector, count) in parts(head.size.div_ceil(steps.lanes), steps.mix_vectors) {
            let tile = Mix {
                tokens: head.tokens,
                weights: &scratch.scores[first * pitch..],
                weights_pitch: pitch,
                sums: &scratch.sums[first..],
                values: &scratch.values[vector * steps.lanes..],
                values_pitch,
                y: &mut y,
                row: first,
                column: vector * steps.lanes,
            };
            // SAFETY: as the caller warrants.
            unsafe { (steps.mix[(rows - 1) * steps.mix_vectors + count - 1])(tile) }
        }
    }
}

/// `total` in parts of at most `most`, as equal as can be: where each begins, and how large it is.
fn parts(total: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = total.div_ceil(most);
    (0..count).map(move |i| (i * total / count, (i + 1) * total / count - i * total / count))
}

fn grow(values: &mut Vec<f32>, len: usize) {
    values.resize(values.len().max(len), 0.0);
}
