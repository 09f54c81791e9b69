//! What runs the model: input tensors in, logits out.
//!
//! ```text
//! Device::run(InputTensors [rows, len]) -> logits [rows, classes]
//! ```
//!
//! It does not know what a request, a job or a label is.

pub mod custom_op;
pub mod fake;
pub mod onnx;

pub use fake::FakeDevice;

use crate::model::InputTensors;

/// A model run failed; the text is for the operator's log, never for a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DeviceError(pub String);

/// Something that runs the model, owned by one worker thread.
pub trait Device: Send {
    /// Its name in logs and metrics, for example `cpu:0`.
    fn name(&self) -> &str;

    /// Runs the model. `logits` is replaced by `inputs.rows` x classes values, row-major.
    ///
    /// # Errors
    /// [`DeviceError`] if the run failed; the device stays usable.
    fn run(&mut self, inputs: &InputTensors, logits: &mut Vec<f32>) -> Result<(), DeviceError>;
}
