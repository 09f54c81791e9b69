//! The residual and LayerNorm after a linear layer, a row at a time, while the row is in the cache.
//!
//! ```text
//! x = y + residual      mean, variance over the row      y = (x - mean) / sqrt(variance + epsilon) gain + shift
//! ```
//!
//! One fixed sequence of operations, the same on every path.

use super::{
    Path,
    gemm::once_each,
    lanes::{Lanes, PARTS, total},
    strided::Shared,
};

/// Rows of one task.
const ROWS: usize = 16;

/// LayerNorm.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// One for each column.
    pub gain: &'a [f32],
    /// One for each column.
    pub shift: &'a [f32],
    /// Added to the variance.
    pub epsilon: f32,
}

impl Norm<'_> {
    /// Adds `residual` to `y` and normalises its rows, in tasks (see [`super::Linear::run_parallel`]).
    ///
    /// # Panics
    /// If `y` and `residual` do not hold the same whole number of rows, or gain and shift differ in width.
    pub(super) fn run<E>(
        &self,
        path: Path,
        residual: &[f32],
        y: &mut [f32],
        parallel: &impl Fn(usize, &(dyn Fn(usize) + Sync)) -> Result<(), E>,
    ) -> Result<(), E> {
        self.run_after(path, residual, y, parallel, |_, _| ())
    }

    /// `LayerNorm(x + bias + residual)`, in tasks (see [`super::Linear::run_parallel`]).
    ///
    /// # Errors
    /// What `parallel` returns; `y` is then unfinished.
    ///
    /// # Panics
    /// If `x`, `y` and `residual` do not hold the same whole number of rows, or bias, gain and shift differ in width.
    pub fn run_with_bias<E>(
        &self,
        path: Path,
        (x, bias, residual): (&[f32], &[f32], &[f32]),
        y: &mut [f32],
        parallel: impl Fn(usize, &(dyn Fn(usize) + Sync)) -> Result<(), E>,
    ) -> Result<(), E> {
        let width = self.gain.len();
        assert!(bias.len() == width && x.len() == y.len(), "rows of {width}");
        self.run_after(path, residual, y, &parallel, |row, y| {
            let x = &x[row * width..][..width];
            y.iter_mut().zip(x).zip(bias).for_each(|((y, x), bias)| *y = x + bias);
        })
    }

    /// As [`run`](Self::run), after `fill` made each row of `y`.
    fn run_after<E>(
        &self,
        path: Path,
        residual: &[f32],
        y: &mut [f32],
        parallel: &impl Fn(usize, &(dyn Fn(usize) + Sync)) -> Result<(), E>,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<(), E> {
        let width = self.gain.len();
        assert!(width > 0 && y.len().is_multiple_of(width), "rows of {width}");
        assert!(self.shift.len() == width && y.len() == residual.len(), "rows of {width}");
        let rows = y.len() / width;
        let y = Shared::new(y);
        once_each(parallel, rows.div_ceil(ROWS), |task| {
            for row in task * ROWS..rows.min((task + 1) * ROWS) {
                // SAFETY: each row belongs to one task, and `once_each` runs a task once.
                let mut y = unsafe { y.strided(row * width, width, width, 1) };
                fill(row, y.row(0));
                // SAFETY: `Path` is only made for a processor that has its features.
                unsafe { (path.0.norm)(self, &residual[row * width..][..width], y.row(0)) }
            }
        })
    }
}

/// The definition, in plain Rust.
pub(super) fn scalar(norm: &Norm, residual: &[f32], y: &mut [f32]) {
    let (mut sums, mut squares) = ([0f32; PARTS], [0f32; PARTS]);
    for (i, (y, r)) in y.iter_mut().zip(residual).enumerate() {
        *y += r;
        sums[i % PARTS] += *y;
    }
    let mean = total(sums) / norm.gain.len() as f32;
    for (i, y) in y.iter().enumerate() {
        squares[i % PARTS] = (y - mean).mul_add(y - mean, squares[i % PARTS]);
    }
    let factor = factor(norm, squares);
    for (i, y) in y.iter_mut().enumerate() {
        *y = ((*y - mean) * factor).mul_add(norm.gain[i], norm.shift[i]);
    }
}

fn factor(norm: &Norm, squares: [f32; PARTS]) -> f32 {
    1.0 / (total(squares) / norm.gain.len() as f32 + norm.epsilon).sqrt()
}

/// [`scalar`] with vectors.
///
/// # Safety
/// The processor must have the features of `L`.
///
/// # Panics
/// If the rows differ in width.
#[inline(always)]
pub(super) unsafe fn vector<L: Lanes>(norm: &Norm, residual: &[f32], y: &mut [f32]) {
    let width = norm.gain.len();
    assert!(norm.shift.len() == width && residual.len() == width && y.len() == width, "rows of {width}");
    let whole = width / PARTS * PARTS;
    // SAFETY: all slices hold `width` numbers, of which vectors take no more than `whole`; the caller warrants the
    // features.
    unsafe {
        let (gain, shift, residual) = (norm.gain.as_ptr(), norm.shift.as_ptr(), residual.as_ptr());
        let at = y.as_mut_ptr();
        let mut parts = [L::splat(0.0); 2];
        for (v, i) in (0..whole).step_by(L::N).enumerate() {
            let x = L::load(at.add(i)).add(L::load(residual.add(i)));
            x.store(at.add(i));
            parts[v % L::OF_PARTS] = parts[v % L::OF_PARTS].add(x);
        }
        let mut sums = spread(parts);
        for i in whole..width {
            *at.add(i) += *residual.add(i);
            sums[i - whole] += *at.add(i);
        }
        let mean = total(sums) / width as f32;
        let means = L::splat(mean);
        let mut parts = [L::splat(0.0); 2];
        for (v, i) in (0..whole).step_by(L::N).enumerate() {
            let x = L::load(at.add(i)).sub(means);
            parts[v % L::OF_PARTS] = x.mul_add(x, parts[v % L::OF_PARTS]);
        }
        let mut squares = spread(parts);
        for i in whole..width {
            let x = *at.add(i) - mean;
            squares[i - whole] = x.mul_add(x, squares[i - whole]);
        }
        let factor = factor(norm, squares);
        let factors = L::splat(factor);
        for i in (0..whole).step_by(L::N) {
            let x = L::load(at.add(i)).sub(means).mul(factors);
            x.mul_add(L::load(gain.add(i)), L::load(shift.add(i))).store(at.add(i));
        }
        for i in whole..width {
            *at.add(i) = ((*at.add(i) - mean) * factor).mul_add(*gain.add(i), *shift.add(i));
        }
    }
}

/// # Safety
/// The processor must have the features of `L`.
#[inline(always)]
unsafe fn spread<L: Lanes>(parts: [L; 2]) -> [f32; PARTS] {
    let mut sums = [0f32; PARTS];
    for (sums, part) in sums.chunks_exact_mut(L::N).zip(parts) {
        // SAFETY: a chunk holds N numbers; the caller warrants the features.
        unsafe { part.store(sums.as_mut_ptr()) }
    }
    sums
}
