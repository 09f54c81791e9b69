//! A tile of scores.

use super::Lanes;

/// What a tile of R rows, as far apart as a vector is wide, and V vectors of keys reads and writes.
pub struct Scores<'a> {
    /// Part of the head that is added.
    pub size: usize,
    /// Whether it is the first part; else the scores go on from what they are.
    pub fresh: bool,
    /// The first row's query, from the part on; the next row's is `q_pitch` further on.
    pub q: &'a [f32],
    pub q_pitch: usize,
    /// Transposed keys from the first vector on, rows of `keys_pitch`.
    pub keys: &'a [f32],
    pub keys_pitch: usize,
    /// The tables' columns from the last row's first key on, rows of `table_pitch`.
    pub pk: &'a [f32],
    pub pq: &'a [f32],
    pub table_pitch: usize,
    /// The first row's scores from the first vector on; the next row's are `scores_pitch` further on.
    pub scores: &'a mut [f32],
    pub scores_pitch: usize,
}

/// # Safety
/// The processor must have the features of `L`.
///
/// # Panics
/// If a slice does not hold what the tile wants.
#[inline(always)]
pub unsafe fn scores<L: Lanes, const R: usize, const V: usize>(tile: Scores) {
    let Scores { size, fresh, q, q_pitch, keys, keys_pitch, pk, pq, table_pitch, scores, scores_pitch } = tile;
    let windows = R + V - 1;
    assert!(size > 0 && q.len() >= (R - 1) * q_pitch + size, "queries of {R} rows");
    assert!(keys.len() >= (size - 1) * keys_pitch + V * L::N, "keys of {V} vectors");
    assert!(pk.len().min(pq.len()) >= (size - 1) * table_pitch + windows * L::N, "a table of {windows} vectors");
    assert!(scores.len() >= (R - 1) * scores_pitch + V * L::N, "scores of {R} rows");
    // SAFETY: d < size, r < R, v < V, and a window is below R + V - 1, so that the assertions cover what is read and
    // written; the caller warrants the features.
    unsafe {
        let (q, keys, pk, pq) = (q.as_ptr(), keys.as_ptr(), pk.as_ptr(), pq.as_ptr());
        let mut sum = [[L::splat(0.0); V]; R];
        if !fresh {
            for (r, sum) in sum.iter_mut().enumerate() {
                for (v, sum) in sum.iter_mut().enumerate() {
                    *sum = L::load(scores.as_ptr().add(r * scores_pitch + v * L::N));
                }
            }
        }
        for d in 0..size {
            let mut key = [L::splat(0.0); V];
            for (v, key) in key.iter_mut().enumerate() {
                *key = L::load(keys.add(d * keys_pitch + v * L::N));
            }
            let mut query = [L::splat(0.0); R];
            for (r, query) in query.iter_mut().enumerate() {
                *query = L::splat(*q.add(r * q_pitch + d));
            }
            for window in 0..R + V - 1 {
                let pk = L::load(pk.add(d * table_pitch + window * L::N));
                let pq = L::load(pq.add(d * table_pitch + window * L::N));
                for r in 0..R {
                    let v = (window + r).wrapping_sub(R - 1);
                    if v < V {
                        sum[r][v] = query[r].mul_add(pk, query[r].add(pq).mul_add(key[v], sum[r][v]));
                    }
                }
            }
        }
        for (r, sum) in sum.iter().enumerate() {
            for (v, sum) in sum.iter().enumerate() {
                sum.store(scores.as_mut_ptr().add(r * scores_pitch + v * L::N));
            }
        }
    }
}
