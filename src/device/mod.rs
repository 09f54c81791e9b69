//! What runs the model: input tensors in, logits out.
//!
//! ```text
//! Device::run(InputTensors [rows, len]) -> logits [rows, classes]
//! ```
//!
//! It does not know what a request, a job or a label is.

pub mod custom_op;
pub mod driver;
pub mod fake;
pub mod onnx;
mod place;

use std::sync::Arc;

pub use fake::FakeDevice;
pub use place::{Place, Placement};

use crate::{
    error::StartError,
    model::{InputTensors, tensors::length_multiple},
};

/// Tokens of a run that use a processor well: larger ones gain nothing, and all that is in them waits for all of it.
pub const CPU_RUN_TOKENS: usize = 512;
/// Tokens of a run that use a GPU well: enough that each of its kernels is busy everywhere. By arithmetic (some 3 TFLOP in a base model
/// of 12 layers), for want of a GPU.
pub const GPU_RUN_TOKENS: usize = 16_384;

/// Why a model run failed; the text is for the operator's log, never for a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The run needs more memory than there is; a smaller one may succeed.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// [`Terminate::terminate`] ended the run.
    #[error("the run was terminated")]
    Terminated,
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// Something that runs the model, owned by one worker thread.
pub trait Device: Send {
    /// Its name in logs and metrics, for example `cpu:0`.
    fn name(&self) -> &str;

    /// Runs the model. `logits` is replaced by `inputs.rows` x classes values, row-major.
    ///
    /// # Errors
    /// [`DeviceError`] if the run failed; the device stays usable.
    fn run(&mut self, inputs: &InputTensors, logits: &mut Vec<f32>) -> Result<(), DeviceError>;

    /// What ends its runs from another thread, if anything can.
    fn terminator(&self) -> Option<Arc<dyn Terminate>> {
        None
    }
}

/// Ends the runs of one device from another thread.
pub trait Terminate: Send + Sync {
    /// Asks the present run to end with [`DeviceError::Terminated`], and every later one too, until
    /// [`clear`](Self::clear). It does not wait.
    fn terminate(&self);

    /// Lets runs go on again.
    fn clear(&self);
}

/// How one device is made, and made again after it failed.
pub struct DeviceMaker {
    /// The name of the devices that it makes.
    pub name: String,
    /// What they run on, for people.
    pub about: String,
    /// Lengths should be a multiple of so many tokens there, a power of two.
    pub length_multiple: usize,
    /// The GPU that they are on, if they are on one.
    pub gpu: Option<u32>,
    /// Tokens of a run that suit them, where nothing else is configured.
    pub run_tokens: usize,
    /// Whether they put the tokens of all rows one behind the other: padding costs nothing there.
    pub packs: bool,
    make: Box<MakeDevice>,
}

type MakeDevice = dyn FnMut() -> Result<Box<dyn Device>, StartError> + Send;

impl DeviceMaker {
    /// `make` is called for the first device and for each one after it. Lengths are padded as for CPUs.
    pub fn new<D: Device + 'static>(
        name: String,
        mut make: impl FnMut() -> Result<D, StartError> + Send + 'static,
    ) -> Self {
        let make: Box<MakeDevice> = Box::new(move || Ok(Box::new(make()?)));
        let (about, length_multiple) = (String::new(), length_multiple());
        Self { name, about, length_multiple, gpu: None, run_tokens: CPU_RUN_TOKENS, packs: false, make }
    }

    /// The same, with a word about what its devices run on.
    pub fn about(self, about: String) -> Self {
        Self { about, ..self }
    }

    /// The same for devices that want lengths of another multiple, a power of two.
    pub fn padding_to(self, length_multiple: usize) -> Self {
        Self { length_multiple, ..self }
    }

    /// The same for devices on this GPU.
    pub fn on_gpu(self, gpu: u32) -> Self {
        Self { gpu: Some(gpu), ..self }
    }

    /// The same for devices that runs of so many tokens suit.
    pub fn suited_by(self, run_tokens: usize) -> Self {
        Self { run_tokens, ..self }
    }

    /// The same for devices that pack rows, or do not.
    pub fn packing(self, packs: bool) -> Self {
        Self { packs, ..self }
    }

    /// A device.
    ///
    /// # Errors
    /// [`StartError`] says what is wrong with it.
    pub fn make(&mut self) -> Result<Box<dyn Device>, StartError> {
        (self.make)()
    }
}
