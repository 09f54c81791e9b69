//! One session on one execution provider: checks its signature, runs tensors in slices.

use std::sync::Arc;

use ort::{
    session::{Session, SessionInputValue},
    value::TensorRef,
};

use super::{
    super::{Device, DeviceError, DeviceMaker, GPU_RUN_TOKENS, Terminate},
    CpuOptions, CudaError, CudaOptions, Runtime,
    cpu::SharingSession,
    packs,
    runs::{RunKinds, failed},
    slices,
};
use crate::{
    error::StartError,
    model::{InputTensors, Model, tensors::GPU_LENGTH_MULTIPLE},
};

/// Length of the rows of a full run after which the session still keeps its scratch memory. Attention's scratch grows
/// with the square of the length, and the arena would keep its largest size for good; so what takes more than a full
/// run of such rows is given back, which costs the next run fresh pages. Graphs that pack rows have no such scratch.
const KEEP_ARENA_UP_TO: usize = 64;

/// One session on one execution provider.
pub struct OnnxDevice {
    name: String,
    session: SharingSession,
    classes: usize,
    wants_types: bool,
    max_run_tokens: usize,
    /// Whether the graph packs rows: its runs are cut by the rows' own tokens.
    packs: bool,
    /// Length of the rows of a full run after which the session still keeps its scratch memory.
    keeps_up_to: usize,
    /// Whether the last run found no memory: what the arena holds in unfit pieces is given back after the next one.
    is_short: bool,
    runs: Arc<RunKinds>,
}

impl OnnxDevice {
    /// A CPU session for `model`.
    ///
    /// # Errors
    /// [`StartError::Model`] if the graph does not load or is no cross-encoder: it must take `input_ids` and
    /// `attention_mask` (and at most `token_type_ids` besides) and give `logits`.
    pub fn cpu(runtime: Runtime, name: String, model: &Model, options: CpuOptions) -> Result<Self, StartError> {
        let session = runtime.open_sharing(&model.files.onnx, options).map_err(unusable(model))?;
        let packs = packs(&model.files.onnx);
        let keeps_up_to = if packs { usize::MAX } else { KEEP_ARENA_UP_TO };
        let device = Self::with(session, name, model, options.max_run_tokens, ("cpu:0", keeps_up_to))?;
        Ok(Self { packs, ..device })
    }

    /// Makes CPU sessions for `model`, as [`cpu`](Self::cpu) does.
    pub fn cpu_maker(runtime: Runtime, name: String, model: &Model, options: CpuOptions) -> DeviceMaker {
        let (model, packs) = (model.clone(), packs(&model.files.onnx));
        DeviceMaker::new(name.clone(), move || Self::cpu(runtime, name.clone(), &model, options)).packing(packs)
    }

    /// A session for `model` on a GPU.
    ///
    /// # Errors
    /// As [`cpu`](Self::cpu); [`StartError::Device`] if the GPU is what does not work.
    pub fn cuda(runtime: Runtime, name: String, model: &Model, options: &CudaOptions) -> Result<Self, StartError> {
        let session =
            runtime.open_on_gpu(&model.files.onnx, options).map_err(|e| match CudaError::told(e.message()) {
                Some(fault) => StartError::Device { name: name.clone(), reason: fault.to_string() },
                None => unusable(model)(e),
            })?;
        // The GPU's arena has a limit of its own, and giving memory back stops the GPU; so it keeps what it has.
        let arenas = format!("gpu:{}", options.gpu);
        let session = SharingSession::alone(session);
        Self::with(session, name, model, options.max_run_tokens, (&arenas, usize::MAX))
    }

    /// Makes sessions for `model` on a GPU, as [`cuda`](Self::cuda) does.
    pub fn cuda_maker(runtime: Runtime, name: String, model: &Model, options: CudaOptions) -> DeviceMaker {
        let (model, gpu) = (model.clone(), options.gpu);
        DeviceMaker::new(name.clone(), move || Self::cuda(runtime, name.clone(), &model, &options))
            .on_gpu(gpu)
            .padding_to(GPU_LENGTH_MULTIPLE)
            .suited_by(GPU_RUN_TOKENS)
    }

    fn with(
        session: SharingSession,
        name: String,
        model: &Model,
        max_run_tokens: usize,
        (arenas, keeps_up_to): (&str, usize),
    ) -> Result<Self, StartError> {
        let fail = |reason: String| StartError::Model { path: model.files.onnx.clone(), reason };
        let wants_types = check_signature(&session.session).map_err(fail)?;
        let runs = Arc::new(RunKinds::new(arenas).map_err(|e| fail(e.to_string()))?);
        let classes = model.spec.classes;
        let (packs, is_short) = (false, false);
        Ok(Self { name, session, classes, wants_types, max_run_tokens, packs, keeps_up_to, is_short, runs })
    }

    fn run_rows(
        &mut self,
        inputs: &InputTensors,
        first: usize,
        rows: usize,
        logits: &mut Vec<f32>,
    ) -> Result<(), DeviceError> {
        let shape = [rows, inputs.len];
        let cells = first * inputs.len..(first + rows) * inputs.len;
        let tensor = |values| TensorRef::from_array_view((shape, values)).map_err(failed);
        let mut named: Vec<(&str, SessionInputValue)> = Vec::with_capacity(3);
        named.push(("input_ids", tensor(&inputs.input_ids[cells.clone()])?.into()));
        named.push(("attention_mask", tensor(&inputs.attention_mask[cells.clone()])?.into()));
        if self.wants_types {
            named.push(("token_type_ids", tensor(&inputs.token_type_ids[cells])?.into()));
        }
        let large = rows * inputs.len * inputs.len > self.max_run_tokens.saturating_mul(self.keeps_up_to);
        let options = if large || self.is_short { &self.runs.shrinking } else { &self.runs.plain };
        let outputs = self.session.session.run_with_options(named, options).map_err(failed)?;
        let (shape, values) = outputs["logits"].try_extract_tensor::<f32>().map_err(failed)?;
        if shape[..] != [rows as i64, self.classes as i64] {
            let text = format!("logits have the shape {shape:?}, not [{rows}, {}]", self.classes);
            return Err(DeviceError::Failed(text));
        }
        logits.extend_from_slice(values);
        Ok(())
    }
}

impl Device for OnnxDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&mut self, inputs: &InputTensors, logits: &mut Vec<f32>) -> Result<(), DeviceError> {
        logits.clear();
        // A log with many labels may exceed the budget.
        let slices = if self.packs { slices::of_packed } else { slices::of_padded };
        let mut first = 0;
        for rows in slices(inputs, self.max_run_tokens) {
            let result = self.run_rows(inputs, first, rows, logits);
            self.is_short = matches!(result, Err(DeviceError::OutOfMemory(_)));
            result?;
            first += rows;
        }
        logits.truncate(inputs.rows * self.classes);
        Ok(())
    }

    fn terminator(&self) -> Option<Arc<dyn Terminate>> {
        Some(self.runs.clone())
    }
}

fn unusable(model: &Model) -> impl FnOnce(ort::Error) -> StartError {
    let path = model.files.onnx.clone();
    move |e| StartError::Model { path, reason: format!("it is no usable ONNX model: {}", e.message()) }
}

/// Whether the graph wants `token_type_ids`.
fn check_signature(session: &Session) -> Result<bool, String> {
    let inputs: Vec<&str> = session.inputs().iter().map(|i| i.name()).collect();
    let known = ["input_ids", "attention_mask", "token_type_ids"];
    if let Some(other) = inputs.iter().find(|name| !known.contains(name)) {
        return Err(format!("the graph asks for the input {other:?}; a text cross-encoder takes only {known:?}"));
    }
    for name in &known[..2] {
        if !inputs.contains(name) {
            return Err(format!("the graph has no input {name:?}; it has {inputs:?}"));
        }
    }
    let outputs: Vec<&str> = session.outputs().iter().map(|o| o.name()).collect();
    if !outputs.contains(&"logits") {
        return Err(format!("the graph has no output \"logits\"; it has {outputs:?}"));
    }
    Ok(inputs.contains(&"token_type_ids"))
}
