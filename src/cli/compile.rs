//! `oddlog compile`: a DeBERTa checkpoint becomes a fast model directory, whose path is printed.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::download;
use crate::{
    error::StartError,
    model::{
        ModelSpec, PairTokenizer,
        graph::{self, GraphError, Precision, Progress},
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
repository. It appears there whole or not at all.

Exit codes: 0 when the folder is there, 2 for an error.")]
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
    /// Replace the folder even if oddlog did not make it, with all that is in it
    #[arg(long)]
    force: bool,
}

/// [`Precision`] on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Arithmetic {
    /// Single precision: the same scores as transformers
    Fp32,
    /// 8 bits in oddlog's own operator: fastest
    Int8,
    /// 8 bits in operators of any ONNX Runtime
    Int8Portable,
}

impl From<Arithmetic> for Precision {
    fn from(arithmetic: Arithmetic) -> Self {
        match arithmetic {
            Arithmetic::Fp32 => Self::Fp32,
            Arithmetic::Int8 => Self::Int8,
            Arithmetic::Int8Portable => Self::Int8Portable,
        }
    }
}

/// Compiles the checkpoint.
///
/// # Errors
/// [`StartError`] names the file, tensor or key; nothing is left behind.
pub fn run(args: CompileArgs) -> Result<ExitCode, StartError> {
    let precision = Precision::from(args.precision);
    let (source, place) = find(&args.source, precision)?;
    let place = args.out.unwrap_or(place);
    // What the server would refuse is refused before the work.
    let spec = ModelSpec::read(&source.join("config.json"))?;
    PairTokenizer::read(&source.join("tokenizer.json"), spec.max_length.unwrap_or(usize::MAX))?;

    let bar = progress_bar();
    let outcome = graph::compile(&source, &place, precision, args.force, &mut |progress: Progress| {
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
    });
    bar.finish_and_clear();
    outcome.map_err(|error| match error {
        GraphError::Write { ref path, source } => {
            StartError::Io { what: format!("writing {}", path.display()), source }
        }
        other => StartError::Model { path: source.clone(), reason: other.to_string() },
    })?;
    writeln!(io::stdout(), "{}", place.display())
        .map_err(|source| StartError::Io { what: "printing the folder".into(), source })?;
    Ok(ExitCode::SUCCESS)
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

fn progress_bar() -> ProgressBar {
    let target = if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style =
        ProgressStyle::with_template("compiling {wide_bar} {pos}/{len} {elapsed}").expect("the template is valid");
    ProgressBar::with_draw_target(Some(0), target).with_style(style)
}
