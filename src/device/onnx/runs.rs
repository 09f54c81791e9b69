//! Options of runs, which end them from another thread; and what a failed run says.

use ort::session::RunOptions;

use super::{
    super::{DeviceError, Terminate},
    CudaError,
};

/// Options of the two kinds of runs: they are terminated together.
pub(super) struct RunKinds {
    pub plain: RunOptions,
    /// Gives scratch memory back afterwards.
    pub shrinking: RunOptions,
}

impl RunKinds {
    /// `arenas` are those that shrink: `cpu:0`, `gpu:1`.
    pub fn new(arenas: &str) -> ort::Result<Self> {
        let mut shrinking = RunOptions::new()?;
        shrinking.set("memory.enable_memory_arena_shrinkage", arenas)?;
        Ok(Self { plain: RunOptions::new()?, shrinking })
    }
}

impl Terminate for RunKinds {
    fn terminate(&self) {
        // Both only set a flag; ONNX Runtime looks at it before each operator.
        for result in [self.plain.terminate(), self.shrinking.terminate()] {
            result.unwrap_or_else(|error| tracing::error!(%error, "a run cannot be terminated"));
        }
    }

    fn clear(&self) {
        for result in [self.plain.unterminate(), self.shrinking.unterminate()] {
            result.unwrap_or_else(|error| tracing::error!(%error, "runs stay terminated"));
        }
    }
}

/// What ONNX Runtime says, as far as it tells what to do. Its codes do not tell these apart: all are "failure" or
/// "runtime exception".
pub(super) fn failed(error: ort::Error) -> DeviceError {
    /// Of the arena (CPU and GPU), the C++ library, CUDA, and its libraries.
    const OUT_OF_MEMORY: &[&str] = &[
        "Failed to allocate memory",
        "is smaller than requested bytes",
        "bad_alloc",
        "bad allocation",
        "out of memory",
        "ALLOC_FAILED",
    ];
    let message = error.message();
    if message.contains("terminate flag") {
        return DeviceError::Terminated;
    }
    if OUT_OF_MEMORY.iter().any(|text| message.contains(text)) {
        return DeviceError::OutOfMemory(message.to_owned());
    }
    match CudaError::told(message) {
        Some(fault @ CudaError::NoCudnn) => DeviceError::Failed(fault.to_string()),
        _ => DeviceError::Failed(message.to_owned()),
    }
}
