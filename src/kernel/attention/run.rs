//! One head of all sequences: brings together what a path's functions read, in scratch memory that the caches hold.

use std::cell::Cell;

use super::{
    super::strided::{Shared, Strided},
    Attention, Columns, PARTS, Path, Positions, Sequences,
};

/// Floats that a row of scratch memory is a multiple of. An odd multiple is taken, so that rows do not all fall into
/// a few sets of the cache.
const ROW: usize = PARTS;

thread_local! {
    static SCRATCH: Cell<Scratch> = const { Cell::new(Scratch::NEW) };
}

/// Kept from run to run; grows with the longest sequence's length, and with positions by its square for the scores.
struct Scratch {
    pk: Vec<f32>,
    pq: Vec<f32>,
    sequence: Sequence,
}

/// Scratch memory for one sequence.
pub struct Sequence {
    /// Keys, [head size, keys_pitch]: transposed.
    pub keys: Vec<f32>,
    /// Queries, [queries, values_pitch], if positions count.
    pub queries: Vec<f32>,
    /// Values, [tokens, values_pitch], filled up with zeros.
    pub values: Vec<f32>,
    /// Scores, then weights; [queries, scores_pitch], of as many queries as are worked on at a time.
    pub scores: Vec<f32>,
    /// What a row of weights adds up to; as many.
    pub sums: Vec<f32>,
}

impl Scratch {
    const NEW: Self = Self {
        pk: Vec::new(),
        pq: Vec::new(),
        sequence: Sequence {
            keys: Vec::new(),
            queries: Vec::new(),
            values: Vec::new(),
            scores: Vec::new(),
            sums: Vec::new(),
        },
    };
}

/// One head of one sequence.
pub struct Head<'a> {
    /// Tokens.
    pub tokens: usize,
    /// Queries: of all tokens, or of the first one.
    pub queries: usize,
    /// Size of the head.
    pub size: usize,
    /// The first token's and all after it, this head's columns.
    pub q: Columns<'a>,
    pub k: Columns<'a>,
    pub v: Columns<'a>,
    /// Without one, positions do not count.
    pub table: Option<&'a Table<'a>>,
    /// Tokens of the sequence after this one, which stand behind its own in `k` and `v`, and in `q` too if that has
    /// all tokens': worth fetching meanwhile.
    pub ahead: usize,
}

/// The positions of a head: column `middle - i + j` of each row is for query i and key j.
pub struct Table<'a> {
    /// [head size, pitch]
    pub pk: &'a [f32],
    /// [head size, pitch]
    pub pq: &'a [f32],
    pub pitch: usize,
    pub middle: usize,
}

impl<'a> Table<'a> {
    /// The table of one head, for sequences of up to `longest` tokens, put into `scratch`.
    fn of(
        positions: &Positions,
        (heads, size): (usize, usize),
        head: usize,
        longest: usize,
        scratch: [&'a mut Vec<f32>; 2],
    ) -> Self {
        let width = positions.keys.len() / (heads * size);
        let pitch = pitch(2 * longest + ROW);
        // The distances from longest - 1 down to 1 - longest.
        let known = positions.columns.len() / 2;
        let columns = &positions.columns[known - longest..][..2 * longest - 1];
        let [pk, pq] = scratch;
        for (table, all) in [(&mut *pk, positions.keys), (&mut *pq, positions.queries)] {
            select(columns, &all[head * size * width..][..size * width], width, table, pitch);
        }
        Self { pk, pq, pitch, middle: longest - 1 }
    }
}

impl Head<'_> {
    /// Floats from one row of transposed keys, or of scores, to the next: room for whole vectors.
    pub fn pitch(&self) -> usize {
        pitch(self.tokens)
    }

    /// Floats from one row of values, or of queries, to the next.
    pub fn values_pitch(&self) -> usize {
        self.size.next_multiple_of(ROW)
    }
}

/// Head `head` of all sequences; writes its columns of `y`.
pub fn head<'a>(attention: &Attention, path: Path, sequences: &Sequences<'a>, head: usize, y: &Shared<f32>) {
    let Attention { heads, size, positions } = *attention;
    let mut scratch = SCRATCH.replace(Scratch::NEW);
    let Scratch { pk, pq, sequence } = &mut scratch;
    let longest = sequences.lengths.iter().max().copied().unwrap_or(0);
    let table = positions.map(|positions| Table::of(&positions, (heads, size), head, longest, [pk, pq]));

    let per_token = sequences.q.values.len() / sequences.q.width == sequences.k.values.len() / sequences.k.width;
    let mut first = 0;
    for (number, tokens) in sequences.lengths.iter().enumerate() {
        let (row, queries) = if per_token { (first, *tokens) } else { (number, 1) };
        let part = |from: Columns<'a>, row: usize| Columns {
            values: &from.values[row * from.width + from.first + head * size..],
            width: from.width,
            first: 0,
        };
        let (q, k, v) = (part(sequences.q, row), part(sequences.k, first), part(sequences.v, first));
        let ahead = sequences.lengths.get(number + 1).copied().unwrap_or(0);
        let run = Head { tokens: *tokens, queries, size, q, k, v, table: table.as_ref(), ahead };
        // SAFETY: each head's columns belong to one task, which `once_each` runs once, and no two sequences share a row.
        let rows: Strided<f32> = unsafe { y.strided(row * heads * size + head * size, heads * size, size, queries) };
        // SAFETY: `Path` is only made for a processor that has its features.
        unsafe { (path.0.attend)(&run, sequence, rows) };
        first += tokens;
    }
    SCRATCH.set(scratch);
}

/// The `columns` of each row of `from` [rows, width], into rows of `pitch` filled up with zeros.
fn select(columns: &[i64], from: &[f32], width: usize, to: &mut Vec<f32>, pitch: usize) {
    // Most columns are neighbours: copied as one.
    let at = |i: usize| columns[i] as usize;
    let middle = columns.len() / 2;
    let steps = |range: &mut dyn Iterator<Item = usize>, sign: i64| {
        range.take_while(|i| columns[*i] - columns[middle] == sign * (*i as i64 - middle as i64).abs()).count()
    };
    let below = steps(&mut (0..middle).rev(), -1);
    let above = steps(&mut (middle..columns.len()), 1);
    let run = middle - below..middle + above;
    to.resize(from.len() / width * pitch, 0.0);
    for (to, from) in to.chunks_exact_mut(pitch).zip(from.chunks_exact(width)) {
        (0..run.start).chain(run.end..columns.len()).for_each(|i| to[i] = from[at(i)]);
        to[run.clone()].copy_from_slice(&from[at(run.start)..][..run.len()]);
        to[columns.len()..].fill(0.0);
    }
}

/// The least odd multiple of `ROW` that is at least `columns`.
fn pitch(columns: usize) -> usize {
    columns.div_ceil(ROW) / 2 * 2 * ROW + ROW
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_room_and_an_odd_pitch() {
        assert_eq!([1, 16, 17, 32, 33, 48, 49].map(pitch), [16, 16, 48, 48, 48, 48, 80]);
    }

    #[test]
    fn columns_are_selected_neighbours_or_not() {
        let from: Vec<f32> = (0..10).map(|i| i as f32).collect();
        for columns in [&[0, 0, 1, 2, 3, 4, 4][..], &[2], &[1, 2, 3], &[4, 4, 4], &[3, 2, 1], &[0, 1, 0, 1, 2]] {
            let mut to = vec![9.0; 3];
            select(columns, &from, 5, &mut to, 16);
            for (row, to) in to.chunks(16).enumerate() {
                let expected: Vec<f32> = columns.iter().map(|c| from[row * 5 + *c as usize]).collect();
                assert_eq!(to[..columns.len()], expected);
                assert!(to[columns.len()..].iter().all(|x| *x == 0.0));
            }
            assert_eq!(to.len(), 32);
        }
    }
}
