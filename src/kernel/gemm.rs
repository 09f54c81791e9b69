//! Cuts a layer into tiles and runs them.
//!
//! ```text
//! for a batch of rows that the second-level cache holds:
//!   quantise its rows                                        tasks of 16 rows
//!   for each 32 outputs: for each tile of rows: sums, finish one task for each 32 outputs
//! ```
//!
//! The weights of 32 outputs stay in the first-level cache while the rows pass; those of the next 32 are fetched meanwhile.

use std::{
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::{
    Activation, Linear, Path,
    pack::{BLOCK, STEP},
    path::{Columns, Sums, TILE_COLUMNS, TILE_ROWS, Tile},
    strided::{LINE, Line, Shared},
};

/// Bytes of quantised rows that are worked on at a time: half of a usual second-level cache.
const BATCH_BYTES: usize = 1 << 20;
/// Rows that one task quantises.
const QUANTISE_ROWS: usize = 16;

thread_local! {
    /// The quantised rows and their scales, kept for the next layer: at most about `BATCH_BYTES`.
    static SCRATCH: Cell<(Vec<Line>, Vec<f32>)> = const { Cell::new((Vec::new(), Vec::new())) };
}

/// Runs `layer`; `x` and `y` have the right lengths.
pub(super) fn run<E>(
    layer: &Linear,
    path: Path,
    x: &[f32],
    y: &mut [f32],
    parallel: impl Fn(usize, &(dyn Fn(usize) + Sync)) -> Result<(), E>,
) -> Result<(), E> {
    if y.is_empty() {
        return Ok(());
    }
    let lines = (layer.steps() * STEP).div_ceil(LINE);
    let rows = y.len() / layer.n;
    let most = (BATCH_BYTES / (lines * LINE)).max(TILE_ROWS);
    // Odd, so that the lines of a tile do not all fall into a few sets of the cache.
    let pitch = rows.min(most) | 1;
    let (mut quantised, mut scales) = SCRATCH.take();
    quantised.resize(quantised.len().max(pitch * lines), Line([0; LINE]));
    scales.resize(scales.len().max(pitch), 0.0);
    let mut done = Ok(());
    for first in (0..rows).step_by(most) {
        let rows = first..rows.min(first + most);
        let batch = Batch { layer, path, lines, pitch, rows: rows.len() };
        let x = &x[rows.start * layer.k..rows.end * layer.k];
        done = batch.quantise(x, &mut quantised, &mut scales, &parallel);
        if done.is_ok() {
            done = batch.multiply(&quantised, &scales, &mut y[rows.start * layer.n..rows.end * layer.n], &parallel);
        }
        if done.is_err() {
            break;
        }
    }
    SCRATCH.set((quantised, scales));
    done
}

struct Batch<'a> {
    layer: &'a Linear<'a>,
    path: Path,
    /// Lines of a quantised row.
    lines: usize,
    /// Lines from one line of a row to its next: line i of row r is at `i * pitch + r`.
    pitch: usize,
    rows: usize,
}

impl Batch<'_> {
    fn quantise<E>(
        &self,
        x: &[f32],
        quantised: &mut [Line],
        scales: &mut [f32],
        parallel: &impl Fn(usize, &(dyn Fn(usize) + Sync)) -> Result<(), E>,
    ) -> Result<(), E> {
        let (quantised, scales) = (Shared::new(quantised), Shared::new(scales));
        once_each(parallel, self.rows.div_ceil(QUANTISE_ROWS), |task| {
            for row in task * QUANTISE_ROWS..self.rows.min((task + 1) * QUANTISE_ROWS) {
                let x = &x[row * self.layer.k..][..self.layer.k];
                // SAFETY: each row belongs to one task, and `once_each` runs a task once.
                let (q, mut scale) =
                    unsafe { (quantised.strided(row, self.pitch, 1, self.lines), scales.strided(row, 1, 1, 1)) };
                // SAFETY: `Path` is only made for a processor that has its features.
                scale.row(0)[0] = unsafe { (self.path.0.quantise)(x, q) };
            }
        })
    }

    fn multiply<E>(
        &self,
        quantised: &[Line],
        scales: &[f32],
        y: &mut [f32],
        parallel: &impl Fn(usize, &(dyn Fn(usize) + Sync)) -> Result<(), E>,
    ) -> Result<(), E> {
        let y = Shared::new(y);
        once_each(parallel, self.layer.n.div_ceil(TILE_COLUMNS), |task| {
            self.column(task * TILE_COLUMNS, quantised, scales, &y);
        })
    }

    /// The outputs from `first` on, as many as a tile has, of all rows. Writes no others.
    fn column(&self, first: usize, quantised: &[Line], scales: &[f32], y: &Shared<f32>) {
        let (layer, table) = (self.layer, self.path.0);
        let width = TILE_COLUMNS.min(layer.n - first);
        let columns = columns(layer, first, width);
        let block = layer.steps() * STEP * BLOCK;
        let weight = &layer.parameters.weight[first / BLOCK * block..];
        let (weight, next) = weight.split_at(width.div_ceil(BLOCK) * block);
        let next = &next[..next.len().min(TILE_COLUMNS / BLOCK * block)];
        let tiles = self.rows.div_ceil(table.rows);
        let mut sums = Sums([[0; TILE_COLUMNS]; TILE_ROWS]);
        for i in 0..tiles {
            // Tiles as equal as can be: a tile of few rows would wait for its own sums.
            let (start, end) = (i * self.rows / tiles, (i + 1) * self.rows / tiles);
            let tile = Tile {
                rows: end - start,
                q: &quantised[start..],
                pitch: self.pitch,
                steps: layer.steps(),
                weight,
                start: &columns.start,
                next: &next[i * next.len() / tiles..(i + 1) * next.len() / tiles],
            };
            let scales = &scales[start..end];
            // SAFETY: each range of columns belongs to one task, which `once_each` runs once; no other task's rows lie
            // within it, and this task is done with them before it takes the next ones.
            let rows = || unsafe { y.strided(start * layer.n + first, layer.n, width, end - start) };
            // SAFETY: `Path` is only made for a processor that has its features.
            unsafe {
                (table.tile)(&tile, &mut sums);
                (table.finish)(&sums, scales, &columns, rows());
            }
            if scales.iter().any(|scale| scale.is_nan()) {
                let mut y = rows();
                let lost = (0..scales.len()).filter(|row| scales[*row].is_nan());
                lost.for_each(|row| y.row(row).fill(f32::NAN));
            }
        }
    }
}

/// Runs each of `tasks` tasks at most once, whatever numbers `parallel` calls with and how often.
pub(super) fn once_each<E>(
    parallel: &impl Fn(usize, &(dyn Fn(usize) + Sync)) -> Result<(), E>,
    tasks: usize,
    run: impl Fn(usize) + Sync,
) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    parallel(tasks, &|_| {
        let task = next.fetch_add(1, Ordering::Relaxed);
        if task < tasks {
            run(task);
        }
    })
}

fn columns(layer: &Linear, first: usize, width: usize) -> Columns {
    let mut columns = Columns {
        start: [0; TILE_COLUMNS],
        scale: [0.0; TILE_COLUMNS],
        bias: [0.0; TILE_COLUMNS],
        gelu: layer.activation == Activation::Gelu,
    };
    let range = first..first + width;
    for (start, sum) in columns.start.iter_mut().zip(&layer.parameters.column_sum[range.clone()]) {
        *start = sum.wrapping_mul(-128);
    }
    columns.scale[..width].copy_from_slice(&layer.parameters.scale[range.clone()]);
    columns.bias[..width].copy_from_slice(&layer.parameters.bias[range]);
    columns
}
