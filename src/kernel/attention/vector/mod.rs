//! The paths with vectors: one arithmetic, written over [`Lanes`], compiled for each width.
//!
//! ```text
//! keys     transposed: a vector holds one d of neighbouring keys
//! scores   tiles of rows x vectors of keys. With positions the rows are N apart: then row r and vector v want the table's
//!          columns N (v - r) further on, so that a vector of the tables serves a whole diagonal of the tile
//! softmax  a row at a time
//! mix      tiles of neighbouring rows x vectors of the head
//! ```

mod avx2;
mod avx512;
mod mix;
mod products;
mod scores;
mod softmax;

use std::{
    arch::x86_64::{_MM_HINT_T1, _mm_prefetch},
    ops::Range,
};

use super::{
    super::{lanes::Lanes, strided::Strided},
    Columns,
    run::{Head, Sequence, Table},
};
use mix::Mix;
use products::Products;
use scores::Scores;

pub use avx2::attend as attend_avx2;
pub use avx512::attend as attend_avx512;

/// Part of a head that all tiles of scores add before they go on to the next: that much of the tables stays in the
/// first-level cache, and a query's part is a line of it.
const PART: usize = 16;
/// Most rows of a tile of results, and of one of products.
const MIX_ROWS: usize = 6;
/// Queries whose scores are worked on at a time without positions, so that they stay in the second-level cache: whole
/// tiles.
const BLOCK: usize = 8 * MIX_ROWS;

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
    /// Most vectors of a tile of products.
    products_vectors: usize,
    /// For 1 row and 1 vector, 1 row and 2 vectors, and so on.
    products: &'static [unsafe fn(Products)],
    /// A row of scores to weights, zeros from `tokens` on; returns what they add up to.
    softmax: unsafe fn(row: &mut [f32], tokens: usize) -> f32,
    /// For 1 row and 1 vector, 1 row and 2 vectors, and so on.
    mix: &'static [unsafe fn(Mix)],
}

/// # Safety
/// The processor must have the features of `steps`.
unsafe fn attend(steps: &Steps, head: &Head, scratch: &mut Sequence, mut y: Strided<f32>) {
    let Head { tokens, size, .. } = *head;
    let (pitch, values_pitch) = (head.pitch(), head.values_pitch());
    let block = if head.table.is_some() { head.queries } else { BLOCK.min(head.queries) };
    grow(&mut scratch.keys, size * pitch);
    grow(&mut scratch.scores, block * pitch);
    grow(&mut scratch.sums, block);
    if head.table.is_some() {
        gather(&head.q, head.queries, size, &mut scratch.queries, values_pitch);
    }
    gather(&head.v, tokens, size, &mut scratch.values, values_pitch);
    // SAFETY: as the caller warrants.
    unsafe {
        (steps.transpose)(head.k.values, head.k.width, tokens, size, &mut scratch.keys, pitch);
        for first in (0..head.queries).step_by(block) {
            let queries = first..head.queries.min(first + block);
            match head.table {
                Some(table) => scored(steps, head, table, scratch, pitch),
                None => multiplied(steps, head, queries.clone(), scratch, pitch),
            }
            let rows = scratch.scores.chunks_exact_mut(pitch).zip(&mut scratch.sums).take(queries.len());
            rows.for_each(|(row, sum)| *sum = (steps.softmax)(row, tokens));
            mixed(steps, head, queries, scratch, &mut y);
        }
    }
}

/// The scores of some queries, by their products with the keys alone.
///
/// # Safety
/// As [`attend`].
unsafe fn multiplied(steps: &Steps, head: &Head, queries: Range<usize>, scratch: &mut Sequence, pitch: usize) {
    fetch_ahead(head, queries.start * head.ahead / head.queries..queries.end * head.ahead / head.queries);
    // A tile's keys stay in the first-level cache while all queries go by.
    for (vector, count) in parts(head.tokens.div_ceil(steps.lanes), steps.products_vectors) {
        for (first, rows) in parts(queries.len(), MIX_ROWS) {
            let tile = Products {
                size: head.size,
                // Each number is read once for so many keys: where it lies does not matter.
                q: &head.q.values[(queries.start + first) * head.q.width..],
                q_pitch: head.q.width,
                keys: &scratch.keys[vector * steps.lanes..],
                keys_pitch: pitch,
                scores: &mut scratch.scores[first * pitch + vector * steps.lanes..],
                scores_pitch: pitch,
            };
            // SAFETY: as the caller warrants.
            unsafe { (steps.products[(rows - 1) * steps.products_vectors + count - 1])(tile) }
        }
    }
}

/// All scores, with positions.
///
/// # Safety
/// As [`attend`].
unsafe fn scored(steps: &Steps, head: &Head, table: &Table, scratch: &mut Sequence, pitch: usize) {
    let lanes = steps.lanes;
    let vectors = head.tokens.div_ceil(lanes);
    let starts = lanes.min(head.queries);
    let steps_in_all = head.size.div_ceil(PART) * starts;
    let queries_pitch = head.values_pitch();
    for part in (0..head.size).step_by(PART) {
        for start in 0..starts {
            let step = part / PART * starts + start;
            fetch_ahead(head, step * head.ahead / steps_in_all..(step + 1) * head.ahead / steps_in_all);
            for (first, rows) in parts((head.queries - start).div_ceil(lanes), steps.scores_side) {
                let last = start + (first + rows - 1) * lanes;
                let first = start + first * lanes;
                for (vector, count) in parts(vectors, steps.scores_side) {
                    let window = part * table.pitch + table.middle - last + vector * lanes;
                    let tile = Scores {
                        size: PART.min(head.size - part),
                        fresh: part == 0,
                        q: &scratch.queries[first * queries_pitch + part..],
                        q_pitch: lanes * queries_pitch,
                        keys: &scratch.keys[part * pitch + vector * lanes..],
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
}

/// The results of some queries, whose weights `scratch` holds.
///
/// # Safety
/// As [`attend`].
unsafe fn mixed(steps: &Steps, head: &Head, queries: Range<usize>, scratch: &Sequence, y: &mut Strided<f32>) {
    let (pitch, values_pitch) = (head.pitch(), head.values_pitch());
    for (first, rows) in parts(queries.len(), MIX_ROWS) {
        for (vector, count) in parts(head.size.div_ceil(steps.lanes), steps.mix_vectors) {
            let tile = Mix {
                tokens: head.tokens,
                weights: &scratch.scores[first * pitch..],
                weights_pitch: pitch,
                sums: &scratch.sums[first..],
                values: &scratch.values[vector * steps.lanes..],
                values_pitch,
                y,
                row: queries.start + first,
                column: vector * steps.lanes,
            };
            // SAFETY: as the caller warrants.
            unsafe { (steps.mix[(rows - 1) * steps.mix_vectors + count - 1])(tile) }
        }
    }
}

/// Brings some rows of the next sequence into the second-level cache: they are far apart, and nothing else foresees them.
fn fetch_ahead(head: &Head, rows: Range<usize>) {
    let every = if head.queries == head.tokens { &[head.q, head.k, head.v][..] } else { &[head.k, head.v] };
    for row in rows {
        for part in every {
            let start = part.values.as_ptr().wrapping_add((head.tokens + row) * part.width);
            for d in (0..head.size).step_by(PART) {
                // SAFETY: every x86-64 processor has the instruction, and it takes any address: it reads nothing.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(start.wrapping_add(d).cast()) }
            }
        }
    }
}

/// The first `size` columns of some rows, one behind the other in rows of `pitch` filled up with zeros.
fn gather(from: &Columns, rows: usize, size: usize, to: &mut Vec<f32>, pitch: usize) {
    grow(to, rows * pitch);
    for (to, from) in to.chunks_exact_mut(pitch).zip(from.values.chunks(from.width)).take(rows) {
        to[..size].copy_from_slice(&from[..size]);
        to[size..].fill(0.0);
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
