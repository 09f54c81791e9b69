//! The int8 kernel: `y = activation(x Wᵀ + bias)`, the activations quantised here, the weights before.
//!
//! ```text
//! x [rows, k] f32 --quantise, one scale a row--> q [rows, k] u8 --tile: exact int32 sums--> finish --> y [rows, n] f32
//!                                packed weight, read where it lies ----^       scale, bias, Gelu --^
//! ```
//!
//! Around it, in single precision: LayerNorm after it, two layers in one, disentangled attention, and what follows a matrix
//! product that another library makes: bias and Gelu, bias and LayerNorm.
//!
//! A row's result depends on that row alone: sums are exact, and what follows them is one fixed sequence of operations
//! for each element, the same on every [`Path`]. So a row has the same bits in any company, on any number of threads and
//! on any processor.
//!
//! It knows neither ONNX Runtime nor a model, and starts no thread. The only room with `unsafe`: vector loads and stores,
//! calls of functions that need processor features, and slices of one output shared by several threads.

#![allow(unsafe_code, reason = "the one room for it; each use gives its reason")]

mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod feed_forward;
mod gelu;
mod gemm;
mod lanes;
mod linear;
mod norm;
mod pack;
mod path;
mod scalar;
mod strided;
#[cfg(test)]
mod tests;

pub use attention::{Attention, AttentionError, Columns, Positions, Sequences};
pub use feed_forward::{FeedForward, run_with_norm};
pub use gelu::bias_gelu;
pub use linear::{Activation, Linear, Parameters, ShapeError};
pub use norm::Norm;
pub use pack::{QuantisedWeight, pack_weight, packed_shape, quantise_weight};
pub use path::Path;
