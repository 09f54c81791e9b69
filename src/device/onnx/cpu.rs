//! Sessions on the CPU, and graphs prepared for them.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use ort::session::{
    Session,
    builder::{AutoDevicePolicy, GraphOptimizationLevel, SessionBuilder},
};

use super::{super::custom_op, Runtime, shared::SharedWeights};
use crate::{error::StartError, model::files::PREPARED_GRAPH};

const PREPARED_DATA: &str = "model.prepared.onnx.data";

/// How a CPU session is set up.
#[derive(Debug, Clone, Copy)]
pub struct CpuOptions {
    /// Threads of one operator.
    pub intra_op_threads: usize,
    /// Most tokens in one run, padded ones unless the graph packs rows; larger inputs are run in slices of rows.
    pub max_run_tokens: usize,
}

impl Runtime {
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
    pub(super) fn open_sharing(self, path: &Path, options: CpuOptions) -> ort::Result<SharingSession> {
        let weights = is_prepared(path).then(|| SharedWeights::of(path, &path.with_file_name(PREPARED_DATA))).flatten();
        let Some(weights) = weights else { return Ok(SharingSession { session: self.open(path, options)?, weights }) };
        let mut builder = cpu_builder(self, options, GraphOptimizationLevel::Disable)?;
        #[allow(unsafe_code)]
        // SAFETY: the session is dropped before the weights, and given out together with them alone.
        unsafe { weights.give(&mut builder) }?;
        let session = one_at_first(|| builder.commit_from_file(path))?;
        Ok(SharingSession { session, weights: Some(weights) })
    }
}

/// A session and what it points into. Fields are dropped in this order.
pub(super) struct SharingSession {
    pub session: Session,
    #[expect(dead_code, reason = "kept for the session")]
    weights: Option<Arc<SharedWeights>>,
}

impl SharingSession {
    /// A session that points into nothing of ours.
    pub fn alone(session: Session) -> Self {
        Self { session, weights: None }
    }
}

/// Whether [`prepare`] made the graph.
fn is_prepared(graph: &Path) -> bool {
    graph.file_name().is_some_and(|name| name == PREPARED_GRAPH)
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

/// Makes a session, the process's first one alone. ONNX Runtime looks whether it knows our domain and adds it if not,
/// without a lock: two first sessions at a time would both add it, and one of them fail.
pub(super) fn one_at_first(make: impl FnOnce() -> ort::Result<Session>) -> ort::Result<Session> {
    static FIRST: Mutex<()> = Mutex::new(());
    static DOMAIN_IS_KNOWN: AtomicBool = AtomicBool::new(false);
    let first =
        (!DOMAIN_IS_KNOWN.load(Ordering::Acquire)).then(|| FIRST.lock().unwrap_or_else(PoisonError::into_inner));
    let session = make()?;
    DOMAIN_IS_KNOWN.store(true, Ordering::Release);
    drop(first);
    Ok(session)
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
