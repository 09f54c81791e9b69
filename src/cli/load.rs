//! What several commands do first: flags over configuration, oddlog's own log, the model and its devices.

use std::{
    path::{Path, PathBuf},
    thread::available_parallelism,
};

use clap::Args;
use serde_json::{Map, Value, json};

use super::{
    download,
    twins::{self, Runner},
    watch::Watch,
};
use crate::{
    classify::Task,
    compiled::{self, Cache, Gate, Wanted},
    config::{self, Config, LogFormat, ModelPrecision},
    device::{
        CPU_RUN_TOKENS, FakeDevice, GPU_RUN_TOKENS, Place, Placement, driver,
        onnx::{self, CpuOptions, CudaError, CudaOptions, OnnxDevice, Runtime, Survey},
    },
    engine::Fleet,
    error::StartError,
    fidelity::shipped_samples,
    memory,
    model::{
        Model, ModelFiles,
        graph::{self, Precision},
        hub::{RepoId, Weights},
    },
};

/// Flags that choose configuration, model and devices.
#[derive(Debug, Default, Args)]
pub struct LoadArgs {
    /// Configuration file (TOML); every key is explained in the shipped config.toml
    #[arg(long, value_name = "FILE", env = "ODDLOG_CONFIG")]
    pub config: Option<PathBuf>,
    /// Model directory, or hub repository owner/name[@revision]; weights alone are compiled first
    #[arg(long, value_name = "DIR|REPO")]
    pub model: Option<String>,
    /// Arithmetic of a model that comes as weights: auto, int8, fp16 (for GPUs), fp32; or onnx, its own graph
    #[arg(long, value_name = "PRECISION")]
    pub precision: Option<String>,
    /// Device: auto, cpu, cuda (every GPU), cuda:0, ...; give it several times for several workers
    #[arg(long, value_name = "DEVICE")]
    pub device: Vec<String>,
}

impl LoadArgs {
    /// The configuration with these flags and `more` (nested JSON) on top.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn config(&self, more: Value) -> Result<Config, StartError> {
        let mut flags = match more {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        let mut of_model = Map::new();
        of_model.extend(self.model.iter().map(|source| ("source".to_owned(), json!(source))));
        of_model.extend(self.precision.iter().map(|precision| ("precision".to_owned(), json!(precision))));
        if !of_model.is_empty() {
            flags.insert("model".into(), of_model.into());
        }
        if !self.device.is_empty() {
            flags.insert("devices".into(), json!({ "devices": self.device }));
        }
        Config::load(self.config.as_deref(), Value::Object(flags))
    }
}

/// Starts oddlog's own log on standard error.
///
/// # Errors
/// [`StartError::Config`] if `log.level` cannot be read.
pub fn start_log(config: &Config) -> Result<(), StartError> {
    use std::io::IsTerminal;
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log.level)
        .map_err(|e| StartError::Config(format!("log.level = {:?}: {e}", config.log.level)))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start in one process keeps the first one's log.
    let _ = match config.log.format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    Ok(())
}

/// Opens the configured model. One that is named by its hub repository is fetched first if need be; one that comes as
/// weights is compiled first, unless the cache of compiled models has it.
///
/// # Errors
/// [`StartError`] says what cannot be had, read or made.
pub fn open_model(config: &Config) -> Result<Model, StartError> {
    let model = open_any_model(config)?;
    compiled::check(&model.files.dir, &config.model)?;
    Ok(model)
}

/// As [`open_model`], even if the model may not serve because its 8 or 16 bits are too far from single precision.
///
/// # Errors
/// As [`open_model`].
pub fn open_any_model(config: &Config) -> Result<Model, StartError> {
    let runner = Runner::here(placement(config)?.has_gpu());
    open_graph(&model_dir(config, runner)?, config, runner)
}

/// The model in `dir` with the graph for `runner`.
fn open_graph(dir: &Path, config: &Config, runner: Runner) -> Result<Model, StartError> {
    let mut model = Model::open(dir, config.model.max_length)?;
    model.files.onnx = twins::graph(&model.files, runner, config.model.precision);
    memory::give_back();
    Ok(model)
}

/// A model in one arithmetic, and the configuration with which it runs.
pub struct InPrecision {
    /// The configuration.
    pub config: Config,
    /// The model.
    pub model: Model,
    /// Whether it is one of two graphs with the same 8-bit weights.
    pub is_twin: bool,
}

/// Opens the configured model in `precision`, whether or not it may serve in it. Weights are compiled; a graph in 8 bits
/// that has a twin in single precision comes in both.
///
/// # Errors
/// As [`open_model`]; also if the model does not come in that precision.
pub fn open_in_precision(config: &Config, precision: ModelPrecision) -> Result<InPrecision, StartError> {
    let mut config = config.clone();
    config.model.precision = precision;
    let dir = find_model(&config.model.source);
    let own = ModelFiles::find(&dir).ok().filter(|_| !dir.join("model.safetensors").is_file());
    let is_twin = matches!(precision, ModelPrecision::Int8 | ModelPrecision::Fp32)
        && own.is_some_and(|files| twins::has_fp32(&files));
    let model = if is_twin {
        open_graph(&dir, &config, Runner::here(placement(&config)?.has_gpu()))?
    } else {
        open_any_model(&config)?
    };
    Ok(InPrecision { config, model, is_twin })
}

/// The directory with the graphs for `runner`.
fn model_dir(config: &Config, runner: Runner) -> Result<PathBuf, StartError> {
    let (source, precision) = (&config.model.source, config.model.precision);
    let dir = find_model(source);
    let (dir, of_hub) = match hub_repository(source).filter(|_| !dir.is_dir()) {
        None => (dir, false),
        Some(repo) if precision == ModelPrecision::Onnx => (download::model_folder(&repo, Weights::Onnx)?, true),
        Some(repo) => (download::best_model_folder(&repo)?, true),
    };
    let compiles = dir.join("model.safetensors").is_file() && graph::covers(&dir);
    // Whoever puts a graph beside the weights wants it served; in the hub's cache it may lie there by chance.
    let brings_graph = !of_hub && ModelFiles::find(&dir).is_ok();
    let wanted = match precision {
        ModelPrecision::Onnx => return Ok(dir),
        ModelPrecision::Auto if brings_graph || !compiles => return Ok(dir),
        ModelPrecision::Auto if runner == Runner::Gpu => Wanted::best_on(["cuda"]),
        ModelPrecision::Auto if runner == Runner::Vectors => Wanted::best_on(["cpu"]),
        ModelPrecision::Int8 => Wanted::Only(Precision::Int8),
        ModelPrecision::Fp16 => Wanted::Only(Precision::Fp16),
        ModelPrecision::Fp32 if runner == Runner::Vectors => Wanted::Only(Precision::Fp32),
        ModelPrecision::Auto | ModelPrecision::Fp32 => Wanted::Only(Precision::Fp32Portable),
    };
    if let Wanted::Only(precision) = wanted
        && !dir.join("model.safetensors").is_file()
    {
        return compiled::made_as(&dir, precision).map(|()| dir);
    }
    let runtime = load_runtime(config)?;
    let samples = shipped_samples();
    let ask = |model: &Model| Task::configured(&config.scoring, &model.tokenizer);
    let gate = Gate { samples: &samples, ask: &ask, threshold: config.scoring.threshold };
    let cache = Cache::find(&config.model.cache)?;
    let mut watch = Watch::new(true);
    let wanted = (wanted, &config.model);
    let place = compiled::cached(&cache, &dir, wanted, gate, runtime, &mut |step| watch.report(step));
    watch.finish();
    place
}

/// ONNX Runtime from where the configuration says.
///
/// # Errors
/// As [`Runtime::load`].
pub fn load_runtime(config: &Config) -> Result<Runtime, StartError> {
    Runtime::load(&Runtime::find(&config.devices.onnxruntime))
}

/// The repository that `source` names, unless it reads as a path: the shipped model's, or one whose first folder exists.
fn hub_repository(source: &str) -> Option<RepoId> {
    let first = Path::new(source).components().next()?;
    let path = source == config::Model::default().source || Path::new(&first).exists();
    if path { None } else { source.parse().ok() }
}

/// A relative directory is looked for from the working directory, then beside the program and its source tree, so that
/// the shipped model is found from anywhere.
fn find_model(source: &str) -> PathBuf {
    let given = Path::new(source);
    let program = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
    let beside = program.iter().flat_map(|dir| [dir.join(given), dir.join("../..").join(given)]);
    std::iter::once(given.to_owned()).chain(beside).find(|dir| dir.is_dir()).unwrap_or_else(|| given.to_owned())
}

/// Cores that this process may use: CPU affinity and cgroup quotas count.
pub fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// Where the configured devices run. A GPU is looked for only where one may be used.
///
/// # Errors
/// [`StartError::Device`] for an unknown device, and for a GPU that was named and cannot be used.
pub fn placement(config: &Config) -> Result<Placement, StartError> {
    let for_cpus = for_cpus_alone(config)?;
    let survey = |by_name: bool| -> Result<Result<Survey, CudaError>, StartError> {
        match &for_cpus {
            // Nothing need be loaded to see that there is none.
            _ if !by_name && !driver::is_there() => return Ok(Err(CudaError::NoDriver)),
            Some(reason) => return Ok(Err(CudaError::ForCpus(reason.clone()))),
            None => {}
        }
        Ok(load_runtime(config)?.survey(&config.cuda.libraries, config.cuda.cudnn))
    };
    Placement::choose(&config.devices.devices, config.devices.cpu_workers(cores()), survey)
}

/// Why the model cannot run on a GPU, if it cannot: 8 bits are computed by oddlog's own operators.
fn for_cpus_alone(config: &Config) -> Result<Option<String>, StartError> {
    let remedy = "8 bits are for CPUs; leave model.precision at \"auto\" or take \"fp16\" or \"fp32\" for a GPU";
    if config.model.precision == ModelPrecision::Int8 {
        return Ok(Some(format!("model.precision is \"int8\": {remedy}")));
    }
    let dir = find_model(&config.model.source);
    let is_int8 = compiled::Note::read(&dir)?.is_some_and(|note| note.precision.starts_with("int8"));
    Ok(is_int8.then(|| format!("{} was compiled to 8 bits: {remedy}, with the checkpoint as the model", dir.display())))
}

/// How every configured device is made.
///
/// # Errors
/// [`StartError::Runtime`] if ONNX Runtime cannot be loaded; as [`placement`].
pub fn make_devices(config: &Config, model: &Model) -> Result<Fleet, StartError> {
    let placement = placement(config)?;
    if let Some(reason) = placement.reason.as_ref().filter(|reason| reason.is_second_best) {
        tracing::warn!("devices \"auto\" takes {}", reason.text);
    }
    let max_run_tokens = config.batching.batch_tokens(CPU_RUN_TOKENS);
    let cpu = CpuOptions { intra_op_threads: config.devices.intra_op_threads, max_run_tokens };
    let mut makers = Vec::new();
    for (name, place) in placement.named() {
        makers.push(match place {
            Place::Cpu => {
                let about = format!("CPU, {} thread(s)", cpu.intra_op_threads);
                OnnxDevice::cpu_maker(load_runtime(config)?, name, model, cpu).about(about)
            }
            Place::Fake => {
                let fake = FakeDevice::new(name, model.spec.classes).packing(onnx::packs(&model.files.onnx));
                fake.maker().about("nothing: a fake".into())
            }
            Place::Cuda(gpu) => {
                let runtime = load_runtime(config)?;
                let fail = |e: CudaError| StartError::Device { name: name.clone(), reason: e.to_string() };
                let survey = runtime.survey(&config.cuda.libraries, config.cuda.cudnn).map_err(fail)?;
                let found = survey.gpus.into_iter().map(|(gpu, _)| gpu).find(|found| found.index == gpu);
                let found = found.expect("a place is on a GPU that the survey found");
                let max_run_tokens = config.batching.batch_tokens(GPU_RUN_TOKENS);
                let memory_limit = config.cuda.memory_limit(found.memory, placement.instances(gpu));
                let options =
                    CudaOptions { gpu, max_run_tokens, memory_limit, tf32: config.cuda.tf32, cudnn: config.cuda.cudnn };
                let gib = |bytes: usize| bytes as f64 / f64::from(1 << 30);
                let about = format!(
                    "{}, {:.0} of {:.0} GiB, CUDA {}",
                    found.name,
                    gib(memory_limit),
                    gib(found.memory as usize),
                    survey.cuda
                );
                OnnxDevice::cuda_maker(runtime, name, model, options).about(about)
            }
        });
    }
    Ok(Fleet { makers, rules: config.devices.clone() })
}
