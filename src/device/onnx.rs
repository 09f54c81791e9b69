//! ONNX Runtime: loading its library, sessions, runs. With `custom_op`, the only file that knows `ort`.

mod initializers;
mod shared;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use ort::{
    environment::Environment,
    session::{
        RunOptions, Session, SessionInputValue,
        builder::{AutoDevicePolicy, GraphOptimizationLevel, SessionBuilder},
    },
    value::TensorRef,
};

use self::shared::SharedWeights;
use super::{Device, DeviceError, DeviceMaker, Terminate, custom_op};
use crate::{
    error::StartError,
    model::{InputTensors, Model, files::PREPARED_GRAPH},
};

const PREPARED_DATA: &str = "model.prepared.onnx.data";

/// The variable that keeps ONNX Runtime's official builds from sending telemetry. They read it while they load.
pub const TELEMETRY_VARIABLE: &str = "ORT_DISABLE_TELEMETRY";

/// Length of the rows of a full run after which the session still keeps its scratch memory. Attention's scratch grows
/// with the square of the length, and the arena would keep its largest size for good; so what takes more than a full
/// run of such rows is given back, which costs the next run fresh pages.
const KEEP_ARENA_UP_TO: usize = 64;

static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();

/// ONNX Runtime, loaded. There is one in a process.
#[derive(Clone, Copy)]
pub struct Runtime {
    environment: &'static Environment,
}

impl Runtime {
    /// Loads the shared library `path`; a second call returns the first one's runtime.
    ///
    /// # Errors
    /// [`StartError::Runtime`] if the library is missing, no ONNX Runtime, or too old; or if telemetry is not
    /// disabled by [`TELEMETRY_VARIABLE`] (it starts while the library loads, so it is too late afterwards).
    pub fn load(path: &Path) -> Result<Self, StartError> {
        if let Some(environment) = ENVIRONMENT.get() {
            return Ok(Self { environment });
        }
        let fail = |reason: String| StartError::Runtime(reason);
        if std::env::var_os(TELEMETRY_VARIABLE).is_none_or(|v| v != "1") {
            return Err(fail(format!("{TELEMETRY_VARIABLE}=1 must be set before the library loads")));
        }
        if !path.is_file() {
            return Err(fail(format!(
                "there is no library {}. Run `make onnxruntime`, or set ORT_DYLIB_PATH to libonnxruntime.so",
                path.display()
            )));
        }
        let builder = ort::init_from(path).map_err(|e| {
            fail(format!(
                "{} cannot be loaded ({e}: {e:?}). It must be ONNX Runtime 1.{} or newer for this machine; run \
                 `make onnxruntime` to get the right one",
                path.display(),
                ort::MINOR_VERSION
            ))
        })?;
        let environment = builder.with_name("oddlog").with_telemetry(false).build().map_err(|e| fail(e.to_string()))?;
        Ok(Self { environment: ENVIRONMENT.get_or_init(|| environment) })
    }

    /// A CPU session for the graph `path`, which may use oddlog's own operators.
    ///
    /// # Errors
    /// What ONNX Runtime says.
    pub fn open(self, path: &Path, options: CpuOptions) -> ort::Result<Session> {
        // A graph that `prepare` made is loaded as it is.
        let level = if is_prepared(path) { GraphOptimizationLevel::Disable } else { GraphOptimizationLevel::All };
        let mut builder = cpu_builder(self, options, level)?;
        one_at_first(|| builder.commit_from_file(path))
    }

    /// As [`open`](Self::open), with weights that all sessions of a prepared graph share.
    fn open_sharing(self, path: &Path, options: CpuOptions) -> ort::Result<SharingSession> {
        let weights = is_prepared(path).then(|| SharedWeights::of(path, &path.with_file_name(PREPARED_DATA))).flatten();
        let Some(weights) = weights else { return Ok(SharingSession { session: self.open(path, options)?, weights }) };
        let mut builder = cpu_builder(self, options, GraphOptimizationLevel::Disable)?;
        #[allow(unsafe_code)]
        // SAFETY: the session is dropped before the weights, and given out together with them alone.
        unsafe { weights.give(&mut builder) }?;
        let session = one_at_first(|| builder.commit_from_file(path))?;
        Ok(SharingSession { session, weights: Some(weights) })
    }

    /// Which build of the library it is, as the library tells.
    pub fn build(self) -> &'static str {
        ort::info()
    }

    /// Where the library is: `configured` if not empty, else `ORT_DYLIB_PATH`, else `.ort/` beside the working
    /// directory, the executable, or the source tree.
    pub fn find(configured: &str) -> PathBuf {
        const NAME: &str = "libonnxruntime.so";
        if !configured.is_empty() {
            return configured.into();
        }
        if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|p| !p.is_empty()) {
            return path.into();
        }
        let beside_program = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
        let candidates =
            [Some(PathBuf::from(".ort")), beside_program.clone(), beside_program.map(|dir| dir.join("../../.ort"))];
        let mut paths = candidates.into_iter().flatten().map(|dir| dir.join(NAME));
        paths.find(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(".ort").join(NAME))
    }
}

/// How a CPU session is set up.
#[derive(Debug, Clone, Copy)]
pub struct CpuOptions {
    /// Threads of one operator.
    pub intra_op_threads: usize,
    /// Most padded tokens in one run; larger inputs are run in slices of rows.
    pub max_run_tokens: usize,
}

/// Optimises the graph in the directory `from` for this ONNX Runtime and this processor, into `to`: the weights are
/// written as the kernels want them, so that all sessions share the one file that is mapped.
///
/// # Errors
/// [`StartError::Model`] if the graph does not load or the result cannot be written.
pub fn prepare(runtime: Runtime, from: &Path, to: &Path) -> Result<(), StartError> {
    let fail = |e: ort::Error| StartError::Model { path: from.to_owned(), reason: e.message().to_owned() };
    let graph = from.join("model.onnx");
    let options = CpuOptions { intra_op_threads: 1, max_run_tokens: 1 };
    let session = || {
        let mut builder = cpu_builder(runtime, options, GraphOptimizationLevel::Level2)?
            .with_optimized_model_path(to.join(PREPARED_GRAPH))?
            .with_config_entry("session.optimized_model_external_initializers_file_name", PREPARED_DATA)?
            .with_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")?
            .with_config_entry("session.save_external_prepacked_constant_initializers", "1")?;
        one_at_first(|| builder.commit_from_file(&graph))
    };
    session().map(drop).map_err(fail)
}

/// A session and what it points into. Fields are dropped in this order.
struct SharingSession {
    session: Session,
    #[expect(dead_code, reason = "kept for the session")]
    weights: Option<Arc<SharedWeights>>,
}

/// One session on one execution provider.
pub struct OnnxDevice {
    name: String,
    session: SharingSession,
    classes: usize,
    wants_types: bool,
    max_run_tokens: usize,
    options: Arc<Options>,
}

/// Options of the two kinds of runs: they are terminated together.
struct Options {
    plain: RunOptions,
    /// Gives scratch memory back afterwards.
    shrinking: RunOptions,
}

impl OnnxDevice {
    /// A CPU session for `model`.
    ///
    /// # Errors
    /// [`StartError::Model`] if the graph does not load or is no cross-encoder: it must take `input_ids` and
    /// `attention_mask` (and at most `token_type_ids` besides) and give `logits`.
    pub fn cpu(runtime: Runtime, name: String, model: &Model, options: CpuOptions) -> Result<Self, StartError> {
        let fail = |reason: String| StartError::Model { path: model.files.onnx.clone(), reason };
        let session = runtime
            .open_sharing(&model.files.onnx, options)
            .map_err(|e| fail(format!("it is no usable ONNX model: {}", e.message())))?;
        let wants_types = check_signature(&session.session).map_err(fail)?;
        let of_runs = Options::new().map_err(|e| fail(e.to_string()))?;
        Ok(Self {
            name,
            session,
            classes: model.spec.classes,
            wants_types,
            max_run_tokens: options.max_run_tokens,
            options: Arc::new(of_runs),
        })
    }

    /// Makes CPU sessions for `model`, as [`cpu`](Self::cpu) does.
    pub fn cpu_maker(runtime: Runtime, name: String, model: &Model, options: CpuOptions) -> DeviceMaker {
        let model = model.clone();
        DeviceMaker::new(name.clone(), move || Self::cpu(runtime, name.clone(), &model, options))
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
        let large = rows * inputs.len * inputs.len > self.max_run_tokens.saturating_mul(KEEP_ARENA_UP_TO);
        let options = if large { &self.options.shrinking } else { &self.options.plain };
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
        // A log with many labels may exceed the budget. No slice may be a single row (see `model::tensors`), so slices
        // have an even number of rows and an odd last row takes its neighbour along.
        let slice = (self.max_run_tokens / inputs.len).max(2) & !1;
        let mut first = 0;
        while first < inputs.padded_rows {
            let rows = match inputs.padded_rows - first {
                left if left <= slice + 1 => left,
                _ => slice,
            };
            self.run_rows(inputs, first, rows, logits)?;
            first += rows;
        }
        logits.truncate(inputs.rows * self.classes);
        Ok(())
    }

    fn terminator(&self) -> Option<Arc<dyn Terminate>> {
        Some(self.options.clone())
    }
}

impl Options {
    fn new() -> ort::Result<Self> {
        let mut shrinking = RunOptions::new()?;
        shrinking.set("memory.enable_memory_arena_shrinkage", "cpu:0")?;
        Ok(Self { plain: RunOptions::new()?, shrinking })
    }
}

impl Terminate for Options {
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
fn failed(error: ort::Error) -> DeviceError {
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
    match OUT_OF_MEMORY.iter().any(|text| message.contains(text)) {
        true => DeviceError::OutOfMemory(message.to_owned()),
        false => DeviceError::Failed(message.to_owned()),
    }
}

/// Makes a session, the process's first one alone. ONNX Runtime looks whether it knows our domain and adds it if not,
/// without a lock: two first sessions at a time would both add it, and one of them fail.
fn one_at_first(make: impl FnOnce() -> ort::Result<Session>) -> ort::Result<Session> {
    static FIRST: Mutex<()> = Mutex::new(());
    static DOMAIN_IS_KNOWN: AtomicBool = AtomicBool::new(false);
    let first =
        (!DOMAIN_IS_KNOWN.load(Ordering::Acquire)).then(|| FIRST.lock().unwrap_or_else(PoisonError::into_inner));
    let session = make()?;
    DOMAIN_IS_KNOWN.store(true, Ordering::Release);
    drop(first);
    Ok(session)
}

/// Whether [`prepare`] made the graph.
fn is_prepared(graph: &Path) -> bool {
    graph.file_name().is_some_and(|name| name == PREPARED_GRAPH)
}

fn cpu_builder(runtime: Runtime, options: CpuOptions, level: GraphOptimizationLevel) -> ort::Result<SessionBuilder> {
    Ok(Session::builder(runtime.environment)?
        .with_intra_threads(options.intra_op_threads)?
        .with_inter_threads(1)?
        .with_parallel_execution(false)?
        .with_optimization_level(level)?
        .with_memory_pattern(false)?
        .with_intra_op_spinning(false)?
        .with_inter_op_spinning(false)?
        .with_auto_device(AutoDevicePolicy::PreferCPU)?
        .with_operators(custom_op::operators()?)?
        .with_execution_providers([ort::ep::CPU::default().with_arena_allocator(true).build().error_on_failure()])?)
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
