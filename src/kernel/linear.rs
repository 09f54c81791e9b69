//! A linear layer: its parameters, checked once, and running it.

use super::{
    Path, gemm,
    pack::{self, STEP},
};

/// More inputs than this could overflow the 32-bit sums (255 · 127 · k).
const MOST_INPUTS: usize = 65_536;

/// What is applied to each output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// `x Φ(x)`, with erf.
    Gelu,
}

/// The arrays of a layer of `n` outputs and `k` inputs, as [`super::quantise_weight`] and [`super::pack_weight`] make them.
#[derive(Debug, Clone, Copy)]
pub struct Parameters<'a> {
    /// int8 in the shape [`super::packed_shape`]. Fastest where it starts at a multiple of 64 bytes.
    pub weight: &'a [i8],
    /// What one step of an output's weights is worth; [n].
    pub scale: &'a [f32],
    /// Sums of an output's int8 weights; [n].
    pub column_sum: &'a [i32],
    /// [n]
    pub bias: &'a [f32],
}

/// The sizes do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// No inputs, or too many for 32-bit sums.
    #[error("{0} inputs; there must be 1 to {MOST_INPUTS}")]
    Inputs(usize),
    /// An array has another length than the layer's size asks for.
    #[error("`{name}` has {len} values; {n} outputs and {k} inputs want {expected}")]
    Length {
        /// Which array.
        name: &'static str,
        /// Its length.
        len: usize,
        /// The layer's outputs.
        n: usize,
        /// The layer's inputs.
        k: usize,
        /// The length it should have.
        expected: usize,
    },
}

/// A linear layer that borrows its parameters.
#[derive(Debug, Clone, Copy)]
pub struct Linear<'a> {
    pub(super) k: usize,
    pub(super) n: usize,
    pub(super) activation: Activation,
    pub(super) parameters: Parameters<'a>,
}

impl<'a> Linear<'a> {
    /// A layer of `k` inputs and as many outputs as `bias` has values.
    ///
    /// # Errors
    /// [`ShapeError`] if the arrays do not fit that size.
    pub fn new(k: usize, activation: Activation, parameters: Parameters<'a>) -> Result<Self, ShapeError> {
        let n = parameters.bias.len();
        if k == 0 || k > MOST_INPUTS {
            return Err(ShapeError::Inputs(k));
        }
        let lengths = [
            ("weight", parameters.weight.len(), pack::packed_shape(n, k).iter().product()),
            ("scale", parameters.scale.len(), n),
            ("column_sum", parameters.column_sum.len(), n),
        ];
        for (name, len, expected) in lengths {
            if len != expected {
                return Err(ShapeError::Length { name, len, n, k, expected });
            }
        }
        Ok(Self { k, n, activation, parameters })
    }

    /// Number of inputs.
    pub fn inputs(&self) -> usize {
        self.k
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        self.n
    }

    /// Runs the layer on one thread: `x` [rows, k] to `y` [rows, n].
    ///
    /// A row that holds a NaN or an infinity gives NaN in all its outputs, and touches no other row.
    ///
    /// # Panics
    /// If `x` or `y` do not hold as many values as `rows` wants.
    pub fn run(&self, path: Path, rows: usize, x: &[f32], y: &mut [f32]) {
        let inline = |tasks: usize, task: &(dyn Fn(usize) + Sync)| {
            (0..tasks).for_each(task);
            Ok::<(), std::convert::Infallible>(())
        };
        let Ok(()) = self.run_parallel(path, (rows, x), y, inline);
    }

    /// Runs the layer as [`Linear::run`] does, with the same bits, in tasks: `parallel(tasks, task)` must call `task` once
    /// for each number below `tasks`, on any threads and in any order, and return when all are done.
    ///
    /// # Errors
    /// What `parallel` returns; `y` is then unfinished.
    ///
    /// # Panics
    /// If `x` or `y` do not hold as many values as `rows` wants.
    pub fn run_parallel<E>(
        &self,
        path: Path,
        (rows, x): (usize, &[f32]),
        y: &mut [f32],
        parallel: impl Fn(usize, &(dyn Fn(usize) + Sync)) -> Result<(), E>,
    ) -> Result<(), E> {
        assert_eq!(x.len(), rows * self.k, "x is [{rows}, {}]", self.k);
        assert_eq!(y.len(), rows * self.n, "y is [{rows}, {}]", self.n);
        gemm::run(self, path, x, y, parallel)
    }

    /// Steps of 4 inputs.
    pub(super) fn steps(&self) -> usize {
        self.k.div_ceil(STEP)
    }
}
