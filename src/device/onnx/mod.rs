//! ONNX Runtime: loading its library, sessions, runs. With `custom_op`, the only place that knows `ort`.
//!
//! ```text
//! libraries -> Runtime -> cpu | cuda: a session -> OnnxDevice -> runs
//! ```

mod cpu;
mod cuda;
mod fault;
mod initializers;
mod libraries;
mod packs;
mod runs;
mod runtime;
mod session;
mod shared;
mod slices;
mod wire;

pub use cpu::{CpuOptions, prepare};
pub use cuda::{CudaOptions, Survey};
pub use fault::CudaError;
pub use packs::packs;
pub use runtime::{Runtime, TELEMETRY_VARIABLE};
pub use session::OnnxDevice;
