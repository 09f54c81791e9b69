//! AVX-512 with VNNI: `vpdpbusd` multiplies 64 pairs of bytes and adds them to 16 sums.

use std::arch::x86_64::*;

use super::{
    gelu,
    pack::{BLOCK, STEP},
    path::{Columns, Sums, TILE_COLUMNS, TILE_ROWS, Table, Tile, row_scale},
};

pub(super) static VNNI: Table = Table { name: "avx512-vnni", rows: TILE_ROWS, quantise, tile, finish };

/// Values in a vector.
const LANES: usize = 16;

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn quantise(x: &[f32], q: &mut [u8]) -> f32 {
    assert!(x.len() <= q.len(), "a row fits its place");
    let whole = x.len() / LANES * LANES;
    let rest = (1u16 << (x.len() - whole)) - 1;
    // SAFETY: `whole + lanes of rest` values lie within `x`; masked lanes are not read.
    let tail = unsafe { _mm512_maskz_loadu_ps(rest, x.as_ptr().add(whole)) };
    let absolute = _mm512_set1_epi32(i32::MAX);
    let mut largest = _mm512_and_si512(_mm512_castps_si512(tail), absolute);
    for i in (0..whole).step_by(LANES) {
        // SAFETY: i + 16 <= whole <= x.len().
        let values = unsafe { _mm512_loadu_ps(x.as_ptr().add(i)) };
        largest = _mm512_max_epu32(largest, _mm512_and_si512(_mm512_castps_si512(values), absolute));
    }
    let scale = row_scale(_mm512_reduce_max_epu32(largest));
    if scale.is_nan() {
        return scale;
    }
    let inverse = _mm512_set1_ps(1.0 / scale);
    let offset = _mm512_set1_epi32(128);
    for i in (0..whole).step_by(LANES) {
        // SAFETY: i + 16 <= whole <= x.len() <= q.len().
        unsafe {
            let values = _mm512_loadu_ps(x.as_ptr().add(i));
            let steps = _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(values, inverse)), offset);
            _mm_storeu_si128(q.as_mut_ptr().add(i).cast(), _mm512_cvtepi32_epi8(steps));
        }
    }
    let steps = _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(tail, inverse)), offset);
    // SAFETY: only the lanes of `rest` are written, and they lie within `q`.
    unsafe { _mm512_mask_cvtepi32_storeu_epi8(q.as_mut_ptr().add(whole).cast(), rest, steps) };
    q[x.len()..].fill(0);
    scale
}

type TileFn = unsafe fn(&Tile, &mut Sums);

/// One function for each number of rows, with one and with two blocks.
static TILES: [[TileFn; 2]; TILE_ROWS] = [
    [rows::<1, 1>, rows::<1, 2>],
    [rows::<2, 1>, rows::<2, 2>],
    [rows::<3, 1>, rows::<3, 2>],
    [rows::<4, 1>, rows::<4, 2>],
    [rows::<5, 1>, rows::<5, 2>],
    [rows::<6, 1>, rows::<6, 2>],
    [rows::<7, 1>, rows::<7, 2>],
    [rows::<8, 1>, rows::<8, 2>],
    [rows::<9, 1>, rows::<9, 2>],
    [rows::<10, 1>, rows::<10, 2>],
    [rows::<11, 1>, rows::<11, 2>],
    [rows::<12, 1>, rows::<12, 2>],
    [rows::<13, 1>, rows::<13, 2>],
    [rows::<14, 1>, rows::<14, 2>],
];

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn tile(tile: &Tile, sums: &mut Sums) {
    let two = usize::from(tile.weight.len() > tile.steps * BLOCK * STEP);
    // SAFETY: this function's features are those that `rows` needs.
    unsafe { TILES[tile.rows - 1][two](tile, sums) }
}

/// A tile of R rows and B blocks: R x B vectors of sums stay in registers over all steps.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn rows<const R: usize, const B: usize>(tile: &Tile, sums: &mut Sums) {
    let Tile { steps, stride, .. } = *tile;
    let block = steps * BLOCK * STEP;
    assert!(B * block <= tile.weight.len(), "the weights of {B} blocks");
    assert!((R - 1) * stride + steps * STEP <= tile.q.len(), "{R} quantised rows");
    let mut sum = [[_mm512_setzero_si512(); B]; R];
    for blocks in &mut sum {
        for (b, vector) in blocks.iter_mut().enumerate() {
            // SAFETY: `start` holds two blocks.
            *vector = unsafe { _mm512_loadu_si512(tile.start.as_ptr().add(b * BLOCK).cast()) };
        }
    }
    let (q, weight) = (tile.q.as_ptr(), tile.weight.as_ptr());
    let ahead = tile.next.len().div_ceil(steps);
    let mut next = tile.next.as_ptr();
    for step in 0..steps {
        _mm_prefetch::<_MM_HINT_T0>(next);
        if ahead > 64 {
            _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(64));
        }
        next = next.wrapping_add(ahead);
        let mut w = [_mm512_setzero_si512(); B];
        for (b, w) in w.iter_mut().enumerate() {
            // SAFETY: step < steps, so these 64 bytes lie within block b.
            *w = unsafe { _mm512_loadu_si512(weight.add(b * block + step * BLOCK * STEP).cast()) };
        }
        for (r, sum) in sum.iter_mut().enumerate() {
            // SAFETY: step < steps, so these 4 bytes lie within row r.
            let q = _mm512_set1_epi32(unsafe { q.add(r * stride + step * STEP).cast::<i32>().read_unaligned() });
            for (sum, w) in sum.iter_mut().zip(w) {
                *sum = _mm512_dpbusd_epi32(*sum, q, w);
            }
        }
    }
    for (sum, out) in sum.iter().zip(&mut sums.0) {
        for (b, vector) in sum.iter().enumerate() {
            // SAFETY: `out` holds two blocks.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(b * BLOCK).cast(), *vector) };
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn finish(sums: &[i32; TILE_COLUMNS], row_scale: f32, columns: &Columns, y: &mut [f32]) {
    let row_scale = _mm512_set1_ps(row_scale);
    for (b, y) in y.chunks_mut(BLOCK).enumerate().take(TILE_COLUMNS / BLOCK) {
        let first = b * BLOCK;
        // SAFETY: the three arrays hold two blocks.
        let (sums, scale, bias) = unsafe {
            (
                _mm512_loadu_si512(sums.as_ptr().add(first).cast()),
                _mm512_loadu_ps(columns.scale.as_ptr().add(first)),
                _mm512_loadu_ps(columns.bias.as_ptr().add(first)),
            )
        };
        let mut values = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sums), row_scale), scale, bias);
        if columns.gelu {
            values = gelu(values);
        }
        let lanes = u16::MAX >> (LANES - y.len());
        // SAFETY: only the lanes that `y` has are written.
        unsafe { _mm512_mask_storeu_ps(y.as_mut_ptr(), lanes, values) };
    }
}

/// [`gelu::gelu`], 16 values at once.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn gelu(x: __m512) -> __m512 {
    let (bound, half) = (_mm512_set1_ps(gelu::BOUND), _mm512_set1_ps(0.5));
    let bounded = _mm512_max_ps(_mm512_min_ps(x, bound), _mm512_set1_ps(-gelu::BOUND));
    let u = _mm512_fmadd_ps(_mm512_mul_ps(bounded, bounded), _mm512_set1_ps(gelu::FOLD), _mm512_set1_ps(-1.0));
    let mut r = _mm512_set1_ps(gelu::R[0]);
    for coefficient in &gelu::R[1..] {
        r = _mm512_fmadd_ps(r, u, _mm512_set1_ps(*coefficient));
    }
    let h = _mm512_max_ps(_mm512_min_ps(_mm512_mul_ps(bounded, r), half), _mm512_set1_ps(-0.5));
    _mm512_mul_ps(x, _mm512_add_ps(h, half))
}
