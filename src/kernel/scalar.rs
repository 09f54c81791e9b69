//! The path in plain Rust: the definition that the others are held to.

use super::{
    attention::scalar::attend,
    gelu::{self, gelu_of_row as gelu},
    norm::scalar as norm,
    pack::{BLOCK, STEP},
    path::{Columns, Sums, TILE_ROWS, Table, Tile, row_scale},
    strided::{LINE, Line, Strided},
};

pub(super) static SCALAR: Table = Table { name: "scalar", rows: TILE_ROWS, quantise, tile, finish, attend, gelu, norm };

fn quantise(x: &[f32], mut q: Strided<Line>) -> f32 {
    let scale = row_scale(x.iter().fold(0, |largest: u32, x| largest.max(x.abs().to_bits())));
    if scale.is_nan() {
        return scale;
    }
    for (i, x) in x.chunks(LINE).enumerate() {
        quantise_by(1.0 / scale, x, &mut q.row(i)[0].0);
    }
    scale
}

/// `q` = `x * inverse` + 128, half to even, followed by zeros.
pub(super) fn quantise_by(inverse: f32, x: &[f32], q: &mut [u8]) {
    let (values, rest) = q.split_at_mut(x.len());
    for (q, x) in values.iter_mut().zip(x) {
        *q = ((x * inverse).round_ties_even() as i32 + 128) as u8;
    }
    rest.fill(0);
}

fn tile(tile: &Tile, sums: &mut Sums) {
    for (row, sums) in sums.0[..tile.rows].iter_mut().enumerate() {
        *sums = *tile.start;
        for (block, sums) in tile.weight.chunks_exact(tile.steps * BLOCK * STEP).zip(sums.chunks_mut(BLOCK)) {
            for (i, weights) in block.chunks(BLOCK * LINE).enumerate() {
                let q = &tile.q[i * tile.pitch + row].0;
                for (weights, q) in weights.chunks_exact(BLOCK * STEP).zip(q.chunks_exact(STEP)) {
                    for (sum, weights) in sums.iter_mut().zip(weights.chunks_exact(STEP)) {
                        let products = weights.iter().zip(q).map(|(w, q)| i32::from(*w) * i32::from(*q));
                        *sum = sum.wrapping_add(products.sum());
                    }
                }
            }
        }
    }
}

fn finish(sums: &Sums, row_scales: &[f32], columns: &Columns, mut y: Strided<f32>) {
    for (row, (sums, row_scale)) in sums.0.iter().zip(row_scales).enumerate() {
        for (i, y) in y.row(row).iter_mut().enumerate() {
            *y = (sums[i] as f32 * row_scale).mul_add(columns.scale[i], columns.bias[i]);
            if columns.gelu {
                *y = gelu::gelu(*y);
            }
        }
    }
}
