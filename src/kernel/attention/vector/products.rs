//! A tile of scores without positions.

use super::Lanes;

/// What a tile of R neighbouring rows and V vectors of keys reads and writes.
pub struct Products<'a> {
    /// Size of the head.
    pub size: usize,
    /// The first row's query; the next row's is `q_pitch` further on.
    pub q: &'a [f32],
    pub q_pitch: usize,
    /// Transposed keys from the first vector on, rows of `keys_pitch`.
    pub keys: &'a [f32],
    pub keys_pitch: usize,
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
pub unsafe fn products<L: Lanes, const R: usize, const V: usize>(tile: Products) {
    let Products { size, q, q_pitch, keys, keys_pitch, scores, scores_pitch } = tile;
    assert!(size > 0 && q.len() >= (R - 1) * q_pitch + size, "queries of {R} rows");
    assert!(keys.len() >= (size - 1) * keys_pitch + V * L::N, "keys of {V} vectors");
    assert!(scores.len() >= (R - 1) * scores_pitch + V * L::N, "scores of {R} rows");
    // SAFETY: d < size, r < R and v < V, so that the assertions cover what is read and written; the caller warrants the
    // features.
    unsafe {
        let (q, keys) = (q.as_ptr(), keys.as_ptr());
        let mut sum = [[L::splat(0.0); V]; R];
        for d in 0..size {
            let mut key = [L::splat(0.0); V];
            for (v, key) in key.iter_mut().enumerate() {
                *key = L::load(keys.add(d * keys_pitch + v * L::N));
            }
            for (r, sum) in sum.iter_mut().enumerate() {
                let query = L::splat(*q.add(r * q_pitch + d));
                for (v, sum) in sum.iter_mut().enumerate() {
                    *sum = query.mul_add(key[v], *sum);
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
