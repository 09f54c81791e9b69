//! Sessions on NVIDIA's GPUs, and the question which GPUs can have one.

use std::{env, path::Path, sync::OnceLock};

use ort::{
    ep::{ArbitrarilyConfigurableExecutionProvider, ArenaExtendStrategy, CUDA, ExecutionProvider, cuda},
    session::{
        Session,
        builder::{AutoDevicePolicy, GraphOptimizationLevel, SessionBuilder},
    },
    value::TensorRef,
};

use super::{
    super::driver::{self, DriverError, Gpu},
    CudaError, Runtime, libraries,
};

/// How a session on a GPU is set up.
#[derive(Debug, Clone)]
pub struct CudaOptions {
    /// The GPU's number.
    pub gpu: u32,
    /// Most padded tokens in one run; larger inputs are run in slices of rows.
    pub max_run_tokens: usize,
    /// Most bytes of the GPU's memory that the session takes for weights and scratch.
    pub memory_limit: usize,
    /// Whether products of single precision may be computed with the 10-bit mantissa of TF32.
    pub tf32: bool,
    /// Whether cuDNN is used.
    pub cudnn: bool,
}

/// The GPUs that the driver shows, and whether ONNX Runtime runs on each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// By their numbers, at least one.
    pub gpus: Vec<(Gpu, Result<(), CudaError>)>,
    /// The newest CUDA version that the driver runs.
    pub cuda: String,
}

/// A graph of the one operator `Abs`, for one number `x` to one number `y`: what a GPU can run that works at all.
const PROBE: &[u8] = b"\x08\x08\x3a\x36\x0a\x0b\x0a\x01x\x12\x01y\x22\x03Abs\x12\x05probe\x5a\x0f\x0a\x01x\x12\x0a\x0a\
    \x08\x08\x01\x12\x04\x0a\x02\x08\x01\x62\x0f\x0a\x01y\x12\x0a\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x01\x42\x04\x0a\
    \x00\x10\x11";

impl Runtime {
    /// Loads CUDA's libraries from `folder` (or, if that is empty, from where they usually are) and looks which GPUs can
    /// run anything. The first call's answer holds for the process.
    ///
    /// # Errors
    /// [`CudaError`] if no GPU can, whichever.
    pub fn survey(self, folder: &str, cudnn: bool) -> Result<Survey, CudaError> {
        static FOUND: OnceLock<Result<Survey, CudaError>> = OnceLock::new();
        FOUND.get_or_init(|| self.look(folder, cudnn)).clone()
    }

    fn look(self, folder: &str, cudnn: bool) -> Result<Survey, CudaError> {
        if !CUDA::is_available().unwrap_or(false) {
            return Err(CudaError::NotBuiltIn { library: self.library().to_owned() });
        }
        let failures = libraries::preload(&libraries::folders(folder, self.library()));
        let first = CudaOptions { gpu: 0, max_run_tokens: 1, memory_limit: 1 << 20, tf32: false, cudnn };
        // Loads the provider's library and what that needs, and counts the GPUs.
        let provider = self.gpu_builder(&first).map(drop).map_err(|e| refined(e.message()));
        match provider.clone() {
            Err(CudaError::Missing { file, parent }) => return Err(deeper(file, parent, &failures)),
            Err(fault @ (CudaError::NoDriver | CudaError::OldDriver { .. })) => return Err(fault),
            _ => {}
        }
        if cudnn && let Some(file) = libraries::missing_of_cudnn() {
            return Err(CudaError::Missing { file: file.into(), parent: None });
        }
        let gpus = driver::gpus().map_err(|error| match error {
            DriverError::Absent(_) => CudaError::NoDriver,
            error => CudaError::Driver(error.to_string()),
        })?;
        if gpus.list.is_empty() {
            return Err(CudaError::NoGpu { hidden_by: env::var("CUDA_VISIBLE_DEVICES").ok() });
        }
        let probed = gpus.list.into_iter().map(|gpu| {
            let options = CudaOptions { gpu: gpu.index, ..first.clone() };
            let works = provider.clone().and_then(|()| self.probe(&options).map_err(|e| refined(e.message())));
            (gpu, works)
        });
        Ok(Survey { gpus: probed.collect(), cuda: gpus.cuda })
    }

    fn probe(self, options: &CudaOptions) -> ort::Result<()> {
        let mut session = self.gpu_builder(options)?.commit_from_memory(PROBE)?;
        session.run(ort::inputs! { "x" => TensorRef::from_array_view(([1], &[-1f32][..]))? }).map(drop)
    }

    /// A session on a GPU for the graph `path`. Graphs with oddlog's own operators do not load: these are for CPUs.
    ///
    /// # Errors
    /// What ONNX Runtime says.
    pub(super) fn open_on_gpu(self, path: &Path, options: &CudaOptions) -> ort::Result<Session> {
        self.gpu_builder(options)?.commit_from_file(path)
    }

    fn gpu_builder(self, options: &CudaOptions) -> ort::Result<SessionBuilder> {
        let index = i32::try_from(options.gpu).unwrap_or(i32::MAX);
        let provider = CUDA::default()
            .with_device_id(index)
            .with_memory_limit(options.memory_limit)
            // The default doubles each time, and keeps what it has too much.
            .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
            // Trying all of them would take seconds for each new shape.
            .with_conv_algorithm_search(cuda::ConvAlgorithmSearch::Heuristic)
            .with_tf32(options.tf32)
            .with_arbitrary_config("enable_cudnn", u8::from(options.cudnn))
            // Memory-efficient attention. cuDNN's would be taken on newer GPUs, which makes a plan for each new shape.
            .with_attention_backend(cuda::AttentionBackend::EFFICIENT_ATTENTION);
        Ok(Session::builder(self.environment)?
            .with_intra_threads(1)?
            .with_inter_threads(1)?
            .with_parallel_execution(false)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_memory_pattern(false)?
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            .with_auto_device(AutoDevicePolicy::PreferCPU)?
            .with_execution_providers([provider.build().error_on_failure()])?)
    }
}

/// The library that is missing where `file` is there and cannot be loaded for want of another one.
fn deeper(file: String, parent: Option<String>, failures: &[(String, String)]) -> CudaError {
    let why = failures.iter().find(|(name, _)| *name == file).and_then(|(_, error)| error.split(':').next());
    match why.filter(|name| name.starts_with("lib") && **name != file) {
        Some(other) => CudaError::Missing { file: other.to_owned(), parent: Some(file) },
        None => CudaError::Missing { file, parent },
    }
}

/// What `message` means, with what the driver says about itself.
fn refined(message: &str) -> CudaError {
    match CudaError::told(message) {
        None => CudaError::Other(message.to_owned()),
        Some(CudaError::OldDriver { .. }) => CudaError::OldDriver { has: driver::gpus().ok().map(|gpus| gpus.cuda) },
        Some(CudaError::NoGpu { .. }) => CudaError::NoGpu { hidden_by: env::var("CUDA_VISIBLE_DEVICES").ok() },
        Some(fault) => fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::onnx::CpuOptions;

    /// The bytes are a graph: the CPU runs it.
    #[test]
    fn the_probe_is_a_graph() {
        let runtime = Runtime::load(&Runtime::find("")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("probe.onnx");
        std::fs::write(&path, PROBE).unwrap();
        let mut session = runtime.open(&path, CpuOptions { intra_op_threads: 1, max_run_tokens: 1 }).unwrap();
        let outputs = session.run(ort::inputs! { "x" => TensorRef::from_array_view(([1], &[-3f32][..])).unwrap() });
        assert_eq!(outputs.unwrap()["y"].try_extract_tensor::<f32>().unwrap().1, [3.0]);
    }
}
