//! `oddlog compile`: a DeBERTa checkpoint becomes a fast model directory, whose path is printed.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{
    download,
    load::{LoadArgs, load_runtime, start_log},
    watch::Watch,
};
use crate::{
    classify::Task,
    compiled::{Build, Gate, build, least_agreement},
    error::StartError,
    fidelity::{read_samples, shipped_samples},
    model::{
        Model,
        graph::Precision,
        hub::{RepoId, Weights},
    },
};

/// Compile a DeBERTa-v3 checkpoint into a fast graph, and print its folder
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  oddlog compile MoritzLaurer/deberta-v3-base-zeroshot-v2.0
  oddlog compile ./my-deberta --precision int8 --out ./my-deberta-fast
  oddlog serve --model \"$(oddlog compile ./my-deberta)\"

A checkpoint is a folder with config.json, model.safetensors and tokenizer.json, or a hub repository that has them; it is
fetched if need be. The result goes to <folder>-<precision>, or to <name>-<precision> in the working directory for a
repository. It appears there whole or not at all. `oddlog serve --model <checkpoint>` compiles by itself; this command is
for folders to keep or to carry to other machines.

The gate: sample logs are scored in 8 or 16 bits and in single precision, and the agreement is printed and kept beside the
model. `serve` refuses 8 bits below model.least_agreement, 16 bits below model.least_fp16_agreement. fp16 is for GPUs; the
comparison rounds after every operator as a GPU does, so that it tells the same on a machine without one.

Exit codes: 0 when the folder is there; 1 if it is, but its verdicts agree less than that; 2 for an error.")]
pub struct CompileArgs {
    /// Checkpoint folder, or hub repository owner/name[@revision]
    #[arg(value_name = "DIR|REPO")]
    source: String,
    /// Arithmetic of the linear layers
    #[arg(long, value_enum, default_value_t = Arithmetic::Fp32)]
    precision: Arithmetic,
    /// Folder to make
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Logs to compare 8 or 16 bits with single precision on, one a line; without it those that oddlog ships
    #[arg(long, value_name = "FILE", conflicts_with = "no_gate")]
    samples: Option<PathBuf>,
    /// Do not compare 8 or 16 bits with single precision
    #[arg(long)]
    no_gate: bool,
    /// Configuration file (TOML) with labels and least agreement
    #[arg(long, value_name = "FILE", env = "ODDLOG_CONFIG")]
    config: Option<PathBuf>,
    /// Replace the folder even if oddlog did not make it, with all that is in it
    #[arg(long)]
    force: bool,
}

/// [`Precision`] on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Arithmetic {
    /// Single precision: the same scores as transformers
    Fp32,
    /// Single precision in operators of any ONNX Runtime
    Fp32Portable,
    /// 8 bits in oddlog's own operator: fastest
    Int8,
    /// 8 bits in operators of any ONNX Runtime
    Int8Portable,
    /// 16 bits, sums in single precision: for GPUs
    Fp16,
}

impl From<Arithmetic> for Precision {
    fn from(arithmetic: Arithmetic) -> Self {
        match arithmetic {
            Arithmetic::Fp32 => Self::Fp32,
            Arithmetic::Fp32Portable => Self::Fp32Portable,
            Arithmetic::Int8 => Self::Int8,
            Arithmetic::Int8Portable => Self::Int8Portable,
            Arithmetic::Fp16 => Self::Fp16,
        }
    }
}

/// Compiles the checkpoint.
///
/// # Errors
/// [`StartError`] names the file, tensor or key; nothing is left behind.
pub fn run(args: CompileArgs) -> Result<ExitCode, StartError> {
    let precision = Precision::from(args.precision);
    let load = LoadArgs { config: args.config, ..LoadArgs::default() };
    let config = load.config(json!({}))?;
    start_log(&config)?;
    let samples = match &args.samples {
        Some(path) => read_samples(path)?,
        None => shipped_samples(),
    };
    let (checkpoint, place) = find(&args.source, precision)?;
    let place = args.out.unwrap_or(place);
    let ask = |model: &Model| Task::configured(&config.scoring, &model.tokenizer);
    let gate = Gate { samples: &samples, ask: &ask, threshold: config.scoring.threshold };
    let wanted = Build {
        checkpoint: &checkpoint,
        place: &place,
        precision,
        force: args.force,
        prepare: false,
        gate: (!args.no_gate).then_some(gate),
    };
    let mut watch = Watch::new(false);
    let outcome = build(&wanted, || load_runtime(&config), &mut |step| watch.report(step));
    watch.finish();
    let agreement = outcome?;
    let mut passed = true;
    if let Some(agreement) = agreement {
        let least = least_agreement(&config.model, precision.name());
        passed = agreement.share() >= least;
        eprintln!("oddlog: {precision} beside fp32: {agreement}");
        if !passed {
            eprintln!("oddlog: `serve` refuses that; the configuration asks for {} %", least * 100.0);
        }
    }
    writeln!(io::stdout(), "{}", place.display())
        .map_err(|source| StartError::Io { what: "printing the folder".into(), source })?;
    Ok(ExitCode::from(u8::from(!passed)))
}

/// The checkpoint's folder, and where its compiled form goes unless told otherwise.
fn find(source: &str, precision: Precision) -> Result<(PathBuf, PathBuf), StartError> {
    let dir = Path::new(source);
    let fail = |reason: String| StartError::Model { path: dir.to_owned(), reason };
    if dir.is_dir() {
        // "." has a name too.
        let real = dir.canonicalize().map_err(|e| fail(e.to_string()))?;
        let name = real.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| fail("its name is no text; give --out".into()))?;
        return Ok((dir.to_owned(), real.with_file_name(format!("{name}-{precision}"))));
    }
    let repo: RepoId = source
        .parse()
        .map_err(|_| fail("there is no such directory, and a hub repository would be owner/name[@revision]".into()))?;
    let folder = download::model_folder(&repo, Weights::Safetensors)?;
    let name = source.split('@').next().and_then(|name| name.rsplit('/').next()).unwrap_or(source);
    Ok((folder, PathBuf::from(format!("{name}-{precision}"))))
}
