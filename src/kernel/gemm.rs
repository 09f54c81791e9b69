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
    marker::PhantomData,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::{
    Activation, Linear, Path,
    pack::{BLOCK, STEP},
    path::{Columns, Sums, TILE_COLUMNS, TILE_ROWS, Tile},
};

/// Bytes of quantised rows that are worked on at a time: half of a usual second-level cache.
const BATCH_BYTES: usize = 1 << 20;
/// Rows that one task quantises.
const QUANTISE_ROWS: usize = 16;

/// A cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code, reason = "read and written as bytes")] [u8; LINE]);
const LINE: usize = 64;

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
    // An odd number of lines, so that the rows of a tile do not fall into the same set of the cache.
    let lines = (layer.steps() * STEP).div_ceil(LINE) | 1;
    let most = (BATCH_BYTES / (lines * LINE)).max(TILE_ROWS);
    let rows = y.len() / layer.n;
    let (mut quantised, mut scales) = SCRATCH.take();
    quantised.resize(quantised.len().max(rows.min(most) * lines), Line([0; LINE]));
    scales.resize(scales.len().max(rows.min(most)), 0.0);
    let mut done = Ok(());
    for first in (0..rows).step_by(most) {
        let rows = first..rows.min(first + most);
        let batch = Batch { layer, path, lines, rows: rows.len() };
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
    /// Cache lines from one quantised row to the next.
    lines: usize,
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
        let (quantised, scales) = (Shared::new(&mut quantised[..self.rows * self.lines]), Shared::new(scales));
        once_each(parallel, self.rows.div_ceil(QUANTISE_ROWS), |task| {
            for row in task * QUANTISE_ROWS..self.rows.min((task + 1) * QUANTISE_ROWS) {
                let x = &x[row * self.layer.k..][..self.layer.k];
                // SAFETY: each row belongs to one task, and `once_each` runs a task once.
                let (q, scale) = unsafe { (quantised.part(row * self.lines, self.lines), scales.part(row, 1)) };
                let q = &mut bytes_mut(q)[..self.layer.steps() * STEP];
                // SAFETY: `Path` is only made for a processor that has its features.
                scale[0] = unsafe { (self.path.0.quantise)(x, q) };
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
        let n = self.layer.n;
        let y = Shared::new(y);
        once_each(parallel, n.div_ceil(TILE_COLUMNS), |task| {
            let first = task * TILE_COLUMNS;
            let width = TILE_COLUMNS.min(n - first);
            self.column(first, width, quantised, scales, |row| {
                // SAFETY: each range of columns belongs to one task, which `once_each` runs once, and which is done with
                // a row before it takes the next.
                unsafe { y.part(row * n + first, width) }
            });
        })
    }

    /// The outputs from `first` on, `width` of them, of all rows; `y(row)` is where they go.
    fn column<'y>(
        &self,
        first: usize,
        width: usize,
        quantised: &[Line],
        scales: &[f32],
        y: impl Fn(usize) -> &'y mut [f32],
    ) {
        let (layer, table) = (self.layer, self.path.0);
        let columns = columns(layer, first, width);
        let block = layer.steps() * STEP * BLOCK;
        let weight = &layer.parameters.weight[first / BLOCK * block..];
        let (weight, next) = weight.split_at(width.div_ceil(BLOCK) * block);
        let next = &next[..next.len().min(TILE_COLUMNS / BLOCK * block)];
        let tiles = self.rows.div_ceil(table.rows);
        let mut sums = Sums([[0; TILE_COLUMNS]; TILE_ROWS]);
        for i in 0..tiles {
            // Tiles as equal as can be: a tile of few rows would wait for its own sums.
            let rows = i * self.rows / tiles..(i + 1) * self.rows / tiles;
            let tile = Tile {
                rows: rows.len(),
                q: bytes(&quantised[rows.start * self.lines..rows.end * self.lines]),
                stride: self.lines * LINE,
                steps: layer.steps(),
                weight,
                start: &columns.start,
                next: &next[i * next.len() / tiles..(i + 1) * next.len() / tiles],
            };
            // SAFETY: `Path` is only made for a processor that has its features.
            unsafe { (table.tile)(&tile, &mut sums) };
            for (row, sums) in rows.zip(&sums.0) {
                match scales[row] {
                    scale if scale.is_nan() => y(row).fill(f32::NAN),
                    // SAFETY: as above.
                    scale => unsafe { (table.finish)(sums, scale, &columns, y(row)) },
                }
            }
        }
    }
}

/// Runs each of `tasks` tasks at most once, whatever numbers `parallel` calls with and how often.
fn once_each<E>(
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

fn bytes(lines: &[Line]) -> &[u8] {
    // SAFETY: a line is 64 bytes without padding, so the lines are as many bytes.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * LINE) }
}

fn bytes_mut(lines: &mut [Line]) -> &mut [u8] {
    // SAFETY: a line is 64 bytes without padding and any bytes make a line.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * LINE) }
}

/// A slice whose parts several threads write, each its own.
struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    borrowed: PhantomData<&'a mut [T]>,
}

// SAFETY: it only hands out parts, and `part` demands that no two of them overlap.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), borrowed: PhantomData }
    }

    /// The part of `len` elements from `start` on.
    ///
    /// # Safety
    /// No other part that overlaps with it may be in use.
    ///
    /// # Panics
    /// If the slice is too short.
    #[allow(clippy::mut_from_ref, reason = "that is what the contract is for")]
    unsafe fn part(&self, start: usize, len: usize) -> &'a mut [T] {
        assert!(start <= self.len && len <= self.len - start, "a part lies within the slice");
        // SAFETY: within the slice, which is borrowed for 'a; not in use otherwise, as the caller warrants.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}
