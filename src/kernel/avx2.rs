//! 256-bit vectors: AVX-VNNI, and AVX2 where there is no instruction for bytes that does not saturate, so that bytes are
//! widened to 16 bits first.

use std::arch::x86_64::*;

use super::{
    Norm,
    attention::vector::attend_avx2,
    gelu, norm,
    pack::{BLOCK, STEP},
    path::{Columns, Sums, TILE_COLUMNS, Table, Tile, row_scale},
    scalar,
    strided::{LINE, Line, Strided},
};

pub(super) static AVX_VNNI: Table = Table { name: "avx-vnni", rows: VNNI_ROWS, tile: tile_vnni, ..AVX2 };
pub(super) static AVX2: Table = Table {
    name: "avx2",
    rows: AVX2_ROWS,
    quantise,
    tile: tile_avx2,
    finish,
    attend: attend_avx2,
    gelu: gelu_of_row,
    norm,
};

/// 6 rows x 2 vectors of sums, 2 of weights and 1 of activations make 15 of 16 registers.
const VNNI_ROWS: usize = 6;
/// 3 rows x 4 vectors of sums, 1 of weights and 3 of activations make 16 registers.
const AVX2_ROWS: usize = 3;
/// Values in a vector.
const LANES: usize = 8;

#[target_feature(enable = "avx2,fma")]
fn quantise(x: &[f32], mut q: Strided<Line>) -> f32 {
    let (whole, rest) = x.as_chunks::<LANES>();
    let absolute = _mm256_set1_epi32(i32::MAX);
    let mut largest = _mm256_setzero_si256();
    for values in whole {
        // SAFETY: an array of 8 values.
        let bits = unsafe { _mm256_loadu_si256(values.as_ptr().cast()) };
        largest = _mm256_max_epu32(largest, _mm256_and_si256(bits, absolute));
    }
    let mut lanes = [0u32; LANES];
    // SAFETY: an array of 8 values.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), largest) };
    let scale = row_scale(rest.iter().map(|x| x.abs().to_bits()).chain(lanes).fold(0, u32::max));
    if scale.is_nan() {
        return scale;
    }
    let inverse = 1.0 / scale;
    for (line, x) in x.chunks(LINE).enumerate() {
        let line = &mut q.row(line)[0].0;
        let (whole, rest) = x.as_chunks::<LANES>();
        let (values, tail) = line.split_at_mut(whole.len() * LANES);
        for (q, x) in values.as_chunks_mut::<LANES>().0.iter_mut().zip(whole) {
            // SAFETY: arrays of 8 values and of 8 bytes.
            unsafe {
                let product = _mm256_mul_ps(_mm256_loadu_ps(x.as_ptr()), _mm256_set1_ps(inverse));
                let steps = _mm256_add_epi32(_mm256_cvtps_epi32(product), _mm256_set1_epi32(128));
                let words = _mm_packus_epi32(_mm256_castsi256_si128(steps), _mm256_extracti128_si256::<1>(steps));
                _mm_storel_epi64(q.as_mut_ptr().cast(), _mm_packus_epi16(words, words));
            }
        }
        scalar::quantise_by(inverse, rest, tail);
    }
    scale
}

/// Runs `f::<R>` for the tile's number of rows.
macro_rules! for_rows {
    ($f:ident, $tile:expr, $sums:expr, $($rows:literal)*) => {
        match $tile.rows {
            $($rows => $f::<$rows>($tile, $sums),)*
            rows => unreachable!("a tile of {rows} rows"),
        }
    };
}

#[target_feature(enable = "avx2,fma,avxvnni")]
fn tile_vnni(tile: &Tile, sums: &mut Sums) {
    for_rows!(rows_vnni, tile, sums, 1 2 3 4 5 6)
}

#[target_feature(enable = "avx2,fma")]
fn tile_avx2(tile: &Tile, sums: &mut Sums) {
    for_rows!(rows_avx2, tile, sums, 1 2 3)
}

/// A tile of R rows, block after block.
#[target_feature(enable = "avx2,fma,avxvnni")]
fn rows_vnni<const R: usize>(tile: &Tile, sums: &mut Sums) {
    const VECTORS: usize = BLOCK / LANES;
    for (b, block) in tile.weight.chunks_exact(tile.steps * BLOCK * STEP).enumerate() {
        let mut sum = [[_mm256_setzero_si256(); VECTORS]; R];
        let mut lines: &[Line; R] = lines_of(tile, 0);
        for (v, vector) in sum.as_flattened_mut().iter_mut().enumerate() {
            let start = &tile.start[b * BLOCK + v % VECTORS * LANES..][..LANES];
            // SAFETY: a slice of 8 values.
            *vector = unsafe { _mm256_loadu_si256(start.as_ptr().cast()) };
        }
        for (step, weights) in block.as_chunks::<{ BLOCK * STEP }>().0.iter().enumerate() {
            if step % (LINE / STEP) == 0 {
                lines = lines_of(tile, step);
            }
            // SAFETY: an array of 64 bytes.
            let w: [__m256i; VECTORS] = unsafe { [load(weights, 0), load(weights, 32)] };
            for (sum, line) in sum.iter_mut().zip(lines) {
                let q = _mm256_set1_epi32(quad(line, step));
                for (sum, w) in sum.iter_mut().zip(w) {
                    *sum = _mm256_dpbusd_avx_epi32(*sum, q, w);
                }
            }
        }
        for (sum, out) in sum.iter().zip(&mut sums.0) {
            for (v, vector) in sum.iter().enumerate() {
                let out = &mut out[b * BLOCK + v * LANES..][..LANES];
                // SAFETY: a slice of 8 values.
                unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), *vector) };
            }
        }
    }
}

/// A tile of R rows, block after block. A vector of sums holds two halves for each of 4 outputs.
#[target_feature(enable = "avx2,fma")]
fn rows_avx2<const R: usize>(tile: &Tile, sums: &mut Sums) {
    const VECTORS: usize = BLOCK / 4;
    for (b, block) in tile.weight.chunks_exact(tile.steps * BLOCK * STEP).enumerate() {
        let mut sum = [[_mm256_setzero_si256(); VECTORS]; R];
        let mut lines: &[Line; R] = lines_of(tile, 0);
        for (step, weights) in block.as_chunks::<{ BLOCK * STEP }>().0.iter().enumerate() {
            if step % (LINE / STEP) == 0 {
                lines = lines_of(tile, step);
            }
            let mut wide = [_mm256_setzero_si256(); R];
            for (wide, line) in wide.iter_mut().zip(lines) {
                *wide = _mm256_cvtepu8_epi16(_mm_set1_epi32(quad(line, step)));
            }
            for v in 0..VECTORS {
                // SAFETY: 16 of an array of 64 bytes.
                let w = unsafe { _mm_loadu_si128(weights.as_ptr().add(v * 16).cast()) };
                let w = _mm256_cvtepi8_epi16(w);
                for (sum, q) in sum.iter_mut().zip(wide) {
                    sum[v] = _mm256_add_epi32(sum[v], _mm256_madd_epi16(q, w));
                }
            }
        }
        for (sum, out) in sum.iter().zip(&mut sums.0) {
            let (start, out) = (&tile.start[b * BLOCK..][..BLOCK], &mut out[b * BLOCK..][..BLOCK]);
            for pair in 0..VECTORS / 2 {
                // The halves meet: outputs 0 1 4 5 | 2 3 6 7, put in order.
                let both = _mm256_hadd_epi32(sum[2 * pair], sum[2 * pair + 1]);
                let ordered = _mm256_permute4x64_epi64::<0b11_01_10_00>(both);
                let (start, out) = (&start[pair * LANES..][..LANES], &mut out[pair * LANES..][..LANES]);
                // SAFETY: slices of 8 values.
                unsafe {
                    let total = _mm256_add_epi32(ordered, _mm256_loadu_si256(start.as_ptr().cast()));
                    _mm256_storeu_si256(out.as_mut_ptr().cast(), total);
                }
            }
        }
    }
}

/// # Safety
/// `start + 32 <= 64`.
#[target_feature(enable = "avx2")]
unsafe fn load(bytes: &[i8; BLOCK * STEP], start: usize) -> __m256i {
    // SAFETY: as the caller warrants.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().add(start).cast()) }
}

/// The lines that hold the activations of `step`, for each of R rows.
fn lines_of<'a, const R: usize>(tile: &Tile<'a>, step: usize) -> &'a [Line; R] {
    tile.q[step * STEP / LINE * tile.pitch..].first_chunk().expect("a tile has its rows")
}

/// The 4 activations of a step in a line.
#[inline(always)]
fn quad(line: &Line, step: usize) -> i32 {
    // SAFETY: the start is a multiple of 4 below 64, so these 4 bytes lie within the line.
    unsafe { line.0.as_ptr().add(step * STEP % LINE).cast::<i32>().read() }
}

#[target_feature(enable = "avx2,fma")]
fn finish(sums: &Sums, row_scales: &[f32], columns: &Columns, mut y: Strided<f32>) {
    for first in (0..y.width().min(TILE_COLUMNS)).step_by(LANES) {
        // SAFETY: both arrays hold 4 vectors.
        let (scale, bias) = unsafe {
            (_mm256_loadu_ps(columns.scale.as_ptr().add(first)), _mm256_loadu_ps(columns.bias.as_ptr().add(first)))
        };
        for (row, (sums, row_scale)) in sums.0.iter().zip(row_scales).enumerate() {
            // SAFETY: a row of sums holds 4 vectors.
            let sums = unsafe { _mm256_loadu_si256(sums.as_ptr().add(first).cast()) };
            let product = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), _mm256_set1_ps(*row_scale));
            let mut values = _mm256_fmadd_ps(product, scale, bias);
            if columns.gelu {
                values = gelu(values);
            }
            let mut lanes = [0f32; LANES];
            // SAFETY: an array of 8 values.
            unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), values) };
            match y.row(row)[first..].first_chunk_mut::<LANES>() {
                Some(y) => *y = lanes,
                None => y.row(row)[first..].iter_mut().zip(lanes).for_each(|(y, value)| *y = value),
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn gelu_of_row(x: &[f32], bias: &[f32], y: &mut [f32]) {
    let ((x, x_rest), (bias, bias_rest), (y, y_rest)) = (x.as_chunks(), bias.as_chunks(), y.as_chunks_mut());
    for ((x, bias), y) in x.iter().zip(bias).zip(y) {
        let (x, bias, y): (&[f32; LANES], &[f32; LANES], &mut [f32; LANES]) = (x, bias, y);
        // SAFETY: arrays of 8 values.
        unsafe {
            let sum = _mm256_add_ps(_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(bias.as_ptr()));
            _mm256_storeu_ps(y.as_mut_ptr(), gelu(sum));
        }
    }
    gelu::gelu_of_row(x_rest, bias_rest, y_rest);
}

#[target_feature(enable = "avx2,fma")]
fn norm(norm: &Norm, residual: &[f32], y: &mut [f32]) {
    // SAFETY: this function has the features.
    unsafe { norm::vector::<__m256>(norm, residual, y) }
}

/// [`gelu::gelu`], 8 values at once.
#[target_feature(enable = "avx2,fma")]
fn gelu(x: __m256) -> __m256 {
    let (minus, size) = (_mm256_set1_ps(-0.0), _mm256_set1_ps(gelu::BOUND));
    let size = _mm256_min_ps(_mm256_andnot_ps(minus, x), size);
    let rounded = _mm256_fmadd_ps(size, _mm256_set1_ps(1.0 / gelu::STEP), _mm256_set1_ps(gelu::ROUND));
    let distance = _mm256_sub_ps(rounded, _mm256_set1_ps(gelu::ROUND));
    let distance = _mm256_fmadd_ps(distance, _mm256_set1_ps(-gelu::STEP), size);
    // The lookups take the lowest 3 bits, and the next one chooses between them, moved to the sign.
    let centre = _mm256_castps_si256(rounded);
    let upper = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(centre));
    let pieces = |i: usize| {
        // SAFETY: an array of 16 values.
        let (low, high) = unsafe {
            let piece = gelu::PIECES[i].as_ptr();
            (_mm256_loadu_ps(piece), _mm256_loadu_ps(piece.add(LANES)))
        };
        let (low, high) = (_mm256_permutevar8x32_ps(low, centre), _mm256_permutevar8x32_ps(high, centre));
        _mm256_blendv_ps(low, high, upper)
    };
    let mut h = pieces(0);
    for i in 1..gelu::PIECES.len() {
        h = _mm256_fmadd_ps(h, distance, pieces(i));
    }
    let h = _mm256_or_ps(h, _mm256_and_ps(x, minus));
    _mm256_mul_ps(x, _mm256_add_ps(h, _mm256_set1_ps(0.5)))
}
