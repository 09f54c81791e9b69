//! What several commands do first: flags over configuration, oddlog's own log, the model and its devices.

use std::{
    path::{Path, PathBuf},
    thread::available_parallelism,
};

use clap::Args;
use serde_json::{Map, Value, json};

use super::download;
use crate::{
    config::{self, Config, LogFormat},
    device::{
        Device, FakeDevice,
        onnx::{CpuOptions, OnnxDevice, Runtime},
    },
    error::StartError,
    model::{
        Model,
        hub::{RepoId, Weights},
    },
};

/// Flags that choose configuration, model and devices.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Configuration file (TOML); every key is explained in the shipped config.toml
    #[arg(long, value_name = "FILE", env = "ODDLOG_CONFIG")]
    pub config: Option<PathBuf>,
    /// Model directory, or hub repository owner/name[@revision] fetched before
    #[arg(long, value_name = "DIR|REPO")]
    pub model: Option<String>,
    /// Device: auto, cpu, ...; give it several times for several workers
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
        if let Some(model) = &self.model {
            flags.insert("model".into(), json!({ "source": model }));
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

/// Opens the configured model; one that is named by its hub repository is fetched first if need be.
///
/// # Errors
/// [`StartError::Model`], or [`StartError::Download`].
pub fn open_model(config: &Config) -> Result<Model, StartError> {
    let source = &config.model.source;
    let mut dir = find_model(source);
    if !dir.is_dir()
        && let Some(repo) = hub_repository(source)
    {
        dir = download::model_folder(&repo, Weights::Onnx)?;
    }
    Model::open(&dir, config.model.max_length)
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

/// Makes every configured device.
///
/// # Errors
/// [`StartError::Runtime`] if ONNX Runtime cannot be loaded, [`StartError::Device`] for an unknown device,
/// [`StartError::Model`] if the graph cannot be used.
pub fn make_devices(config: &Config, model: &Model) -> Result<Vec<Box<dyn Device>>, StartError> {
    let options = CpuOptions {
        intra_op_threads: config.devices.intra_op_threads,
        max_run_tokens: config.batching.max_batch_tokens,
    };
    let mut devices: Vec<Box<dyn Device>> = Vec::new();
    for (index, kind) in config.devices.workers(cores()).into_iter().enumerate() {
        let name = format!("{kind}:{index}");
        devices.push(match kind {
            "cpu" => {
                let runtime = Runtime::load(&Runtime::find(&config.devices.onnxruntime))?;
                Box::new(OnnxDevice::cpu(runtime, name, model, options)?)
            }
            "fake" => Box::new(FakeDevice::new(name, model.spec.classes)),
            other => {
                return Err(StartError::Device {
                    name: other.into(),
                    reason: "is not known. Use \"auto\" or \"cpu\"".into(),
                });
            }
        });
    }
    Ok(devices)
}
