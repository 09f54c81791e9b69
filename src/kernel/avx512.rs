//! AVX-512 with VNNI: `vpdpbusd` multiplies 64 pairs of bytes and adds them to 16 sums.

use std::arch::x86_64::*;

use super::{
    Norm,
    attention::vector::attend_avx512,
    gelu, norm,
    pack::{BLOCK, STEP},
    path::{Columns, Sums, TILE_COLUMNS, TILE_ROWS, Table, Tile, row_scale},
    strided::{LINE, Line, Strided},
};

pub(super) static VNNI: Table = Table {
    name: "avx512-vnni",
    rows: TILE_ROWS,
    quantise,
    tile,
    finish,
    attend: attend_avx512,
    gelu: gelu_of_row,
    norm,
};

/// Values in a vector.
const LANES: usize = 16;

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn quantise(x: &[f32], mut q: Strided<Line>) -> f32 {
    let (lines, rest) = x.as_chunks::<LINE>();
    let absolute = _mm512_set1_epi32(i32::MAX);
    let mut largest = [_mm512_setzero_si512(); LINE / LANES];
    let mut keep = |values: [__m512; LINE / LANES]| {
        for (largest, values) in largest.iter_mut().zip(values) {
            *largest = _mm512_max_epu32(*largest, _mm512_and_si512(_mm512_castps_si512(values), absolute));
        }
    };
    lines.iter().for_each(|line| keep(load(line)));
    keep(load(rest));
    let [a, b, c, d] = largest;
    let scale = row_scale(_mm512_reduce_max_epu32(_mm512_max_epu32(_mm512_max_epu32(a, b), _mm512_max_epu32(c, d))));
    if scale.is_nan() {
        return scale;
    }
    let inverse = _mm512_set1_ps(1.0 / scale);
    for (i, line) in lines.iter().enumerate() {
        q.row(i)[0] = steps(load(line), inverse);
    }
    if !rest.is_empty() {
        let line = &mut q.row(lines.len())[0];
        *line = steps(load(rest), inverse);
        line.0[rest.len()..].fill(0);
    }
    scale
}

/// At most 64 values, filled up with zeros.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn load(x: &[f32]) -> [__m512; LINE / LANES] {
    let mut vectors = [_mm512_setzero_ps(); LINE / LANES];
    for (vector, x) in vectors.iter_mut().zip(x.chunks(LANES)) {
        // SAFETY: only the lanes that `x` has are read.
        *vector = unsafe { _mm512_maskz_loadu_ps(u16::MAX >> (LANES - x.len()), x.as_ptr()) };
    }
    vectors
}

/// 64 values times `inverse` plus 128, as bytes. None is beyond ±127 (see `row_scale`).
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn steps(x: [__m512; LINE / LANES], inverse: __m512) -> Line {
    let [a, b, c, d] = x.map(|x| _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse)));
    // Each quarter of `mixed` holds 4 bytes of a, of b, of c, of d.
    let mixed = _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let bytes = _mm512_xor_si512(_mm512_permutexvar_epi32(order, mixed), _mm512_set1_epi8(-128));
    let mut line = Line([0; LINE]);
    // SAFETY: a line is 64 bytes.
    unsafe { _mm512_store_si512(line.0.as_mut_ptr().cast(), bytes) };
    line
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
    let steps = tile.steps;
    let block = steps * BLOCK * STEP;
    assert!(B * block <= tile.weight.len(), "the weights of {B} blocks");
    let mut sum = [[_mm512_setzero_si512(); B]; R];
    for blocks in &mut sum {
        for (b, vector) in blocks.iter_mut().enumerate() {
            // SAFETY: `start` holds two blocks.
            *vector = unsafe { _mm512_loadu_si512(tile.start.as_ptr().add(b * BLOCK).cast()) };
        }
    }
    let weight = tile.weight.as_ptr();
    let ahead = tile.next.len().div_ceil(steps);
    let mut next = tile.next.as_ptr();
    for (i, first) in (0..steps).step_by(LINE / STEP).enumerate() {
        let q: &[Line; R] = tile.q[i * tile.pitch..].first_chunk().expect("a tile has its rows");
        let q = q.as_ptr().cast::<u8>();
        // The tile's next lines, or the first ones of the tile after it.
        let mut soon = match first + LINE / STEP < steps {
            true => q.wrapping_add(tile.pitch * LINE),
            false => tile.q.as_ptr().cast::<u8>().wrapping_add(R * LINE),
        };
        for step in 0..(steps - first).min(LINE / STEP) {
            _mm_prefetch::<_MM_HINT_T1>(next);
            if ahead > LINE {
                _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(LINE));
            }
            next = next.wrapping_add(ahead);
            _mm_prefetch::<_MM_HINT_T0>(soon.cast());
            soon = soon.wrapping_add(LINE);
            let mut w = [_mm512_setzero_si512(); B];
            for (b, w) in w.iter_mut().enumerate() {
                // SAFETY: first + step < steps, so these 64 bytes lie within block b.
                *w = unsafe { _mm512_loadu_si512(weight.add(b * block + (first + step) * BLOCK * STEP).cast()) };
            }
            for (r, sum) in sum.iter_mut().enumerate() {
                // SAFETY: r < R and step < 16, so these 4 bytes lie within line r of R.
                let q = _mm512_set1_epi32(unsafe { q.add(r * LINE + step * STEP).cast::<i32>().read() });
                for (sum, w) in sum.iter_mut().zip(w) {
                    *sum = _mm512_dpbusd_epi32(*sum, q, w);
                }
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
fn finish(sums: &Sums, row_scales: &[f32], columns: &Columns, y: Strided<f32>) {
    match columns.gelu {
        false => finish_with::<false>(sums, row_scales, columns, y),
        true => finish_with::<true>(sums, row_scales, columns, y),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn finish_with<const GELU: bool>(sums: &Sums, row_scales: &[f32], columns: &Columns, mut y: Strided<f32>) {
    let (scale, bias) = (load(&columns.scale), load(&columns.bias));
    for (row, (sums, row_scale)) in sums.0.iter().zip(row_scales).enumerate() {
        // Both blocks of a row together: rows are pages apart, and few pages can be written to at a time.
        for (b, y) in y.row(row).chunks_mut(BLOCK).enumerate().take(TILE_COLUMNS / BLOCK) {
            // SAFETY: a row of sums holds two blocks.
            let sums = unsafe { _mm512_loadu_si512(sums.as_ptr().add(b * BLOCK).cast()) };
            let product = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_set1_ps(*row_scale));
            let mut values = _mm512_fmadd_ps(product, scale[b], bias[b]);
            if GELU {
                values = gelu(values);
            }
            // SAFETY: only the lanes that `y` has are written.
            unsafe { _mm512_mask_storeu_ps(y.as_mut_ptr(), u16::MAX >> (LANES - y.len()), values) };
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn gelu_of_row(x: &[f32], bias: &[f32], y: &mut [f32]) {
    let ((x, x_rest), (bias, bias_rest), (y, y_rest)) = (x.as_chunks(), bias.as_chunks(), y.as_chunks_mut());
    for ((x, bias), y) in x.iter().zip(bias).zip(y) {
        let (x, bias, y): (&[f32; LANES], &[f32; LANES], &mut [f32; LANES]) = (x, bias, y);
        // SAFETY: arrays of 16 values.
        unsafe {
            let sum = _mm512_add_ps(_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(bias.as_ptr()));
            _mm512_storeu_ps(y.as_mut_ptr(), gelu(sum));
        }
    }
    gelu::gelu_of_row(x_rest, bias_rest, y_rest);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn norm(norm: &Norm, residual: &[f32], y: &mut [f32]) {
    // SAFETY: this function has the features.
    unsafe { norm::vector::<__m512>(norm, residual, y) }
}

/// [`gelu::gelu`], 16 values at once.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn gelu(x: __m512) -> __m512 {
    let pieces = |i: usize, centre| {
        // SAFETY: an array of 16 values.
        _mm512_permutexvar_ps(centre, unsafe { _mm512_loadu_ps(gelu::PIECES[i].as_ptr()) })
    };
    let (bits, sign) = (_mm512_castps_si512(x), _mm512_set1_epi32(i32::MIN));
    let size = _mm512_castsi512_ps(_mm512_andnot_si512(sign, bits));
    let size = _mm512_min_ps(size, _mm512_set1_ps(gelu::BOUND));
    let rounded = _mm512_fmadd_ps(size, _mm512_set1_ps(1.0 / gelu::STEP), _mm512_set1_ps(gelu::ROUND));
    // The lookup takes the lowest 4 bits.
    let centre = _mm512_castps_si512(rounded);
    let distance = _mm512_sub_ps(rounded, _mm512_set1_ps(gelu::ROUND));
    let distance = _mm512_fmadd_ps(distance, _mm512_set1_ps(-gelu::STEP), size);
    let mut h = pieces(0, centre);
    for i in 1..gelu::PIECES.len() {
        h = _mm512_fmadd_ps(h, distance, pieces(i, centre));
    }
    let h = _mm512_or_si512(_mm512_castps_si512(h), _mm512_and_si512(bits, sign));
    _mm512_mul_ps(x, _mm512_add_ps(_mm512_castsi512_ps(h), _mm512_set1_ps(0.5)))
}
