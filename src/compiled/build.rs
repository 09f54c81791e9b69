//! Making a compiled model: graph, comparison, note; as a directory that appears whole or not at all.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Gate, Note, gate};
use crate::{
    device::onnx::{self, Runtime},
    error::StartError,
    fidelity::Agreement,
    model::{
        ModelSpec, PairTokenizer,
        graph::{self, GRAPH_VERSION, GraphError, MARKER, Precision, Stage},
    },
};

/// What is to be made.
pub struct Build<'a> {
    /// The checkpoint: `config.json`, `model.safetensors`, `tokenizer.json`.
    pub checkpoint: &'a Path,
    /// The directory to make.
    pub place: &'a Path,
    /// Arithmetic of the linear layers.
    pub precision: Precision,
    /// Replaces a directory that oddlog did not make.
    pub force: bool,
    /// Optimises the graph for this machine: sessions then share the weights, but the result is for this ONNX Runtime
    /// and this processor alone.
    pub prepare: bool,
    /// What to compare 8 or 16 bits with single precision on; `None` leaves it out.
    pub gate: Option<Gate<'a>>,
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Parts of the graph, of all of them.
    Compiling(Precision, usize, usize),
    /// Sample logs scored, of all in both precisions.
    Comparing(usize, usize),
    /// ONNX Runtime optimises the graph.
    Preparing,
}

/// Makes it. Returns how 8 or 16 bits compare with single precision, if that was asked for.
///
/// # Errors
/// [`StartError`] names the file, tensor or key; nothing is left behind.
pub fn build(
    wanted: &Build,
    runtime: impl Fn() -> Result<Runtime, StartError>,
    report: &mut dyn FnMut(Step),
) -> Result<Option<Agreement>, StartError> {
    let Build { checkpoint, place, precision, .. } = *wanted;
    // What the server would refuse is refused before the work.
    let spec = ModelSpec::read(&checkpoint.join("config.json"))?;
    PairTokenizer::read(&checkpoint.join("tokenizer.json"), spec.max_length.unwrap_or(usize::MAX))?;
    let told = |error| explain(checkpoint, error);
    let stage = Stage::new(place, checkpoint, wanted.force).map_err(told)?;
    let mut compile = |precision: Precision| {
        let dir = stage.dir().join(precision.name());
        graph::compile(checkpoint, &dir, precision, false, &mut |p| {
            report(Step::Compiling(precision, p.done, p.total));
        })
        .map(|()| dir)
        .map_err(told)
    };
    let made = compile(precision)?;
    let agreement = match wanted.gate {
        Some(gate) if precision.is_gated() => {
            let fp32 = compile(Precision::Fp32)?;
            let tried = match precision.on_processors() {
                same if same == precision => made.clone(),
                other => compile(other)?,
            };
            let told = &mut |done, total| report(Step::Comparing(done, total));
            let agreement = gate::compare_with_fp32(runtime()?, &fp32, &tried, gate, told)?;
            // They take room, and are not needed any more.
            for dir in [&fp32, &tried].into_iter().filter(|dir| **dir != made) {
                fs::remove_dir_all(dir).map_err(io(dir))?;
            }
            Some(agreement)
        }
        _ => None,
    };
    if wanted.prepare {
        report(Step::Preparing);
        onnx::prepare(runtime()?, &made, stage.dir())?;
        for name in ["config.json", "tokenizer.json"] {
            stage.copy(&made.join(name), name).map_err(told)?;
        }
    } else {
        for entry in fs::read_dir(&made).map_err(io(&made))? {
            let entry = entry.map_err(io(&made))?;
            fs::rename(entry.path(), stage.dir().join(entry.file_name())).map_err(io(&made))?;
        }
    }
    fs::remove_dir_all(&made).map_err(io(&made))?;
    let full = checkpoint.canonicalize().ok();
    let note = Note {
        made_by: concat!("oddlog ", env!("CARGO_PKG_VERSION")).into(),
        graph_version: GRAPH_VERSION,
        precision: precision.name().into(),
        checkpoint: full.and_then(|path| path.to_str().map(str::to_owned)),
        agreement,
        prepared: wanted.prepare,
    };
    stage.write(MARKER, note.text().as_bytes()).map_err(told)?;
    stage.publish().map_err(told)?;
    Ok(agreement)
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> StartError {
    let what = format!("writing {}", path.display());
    move |source| StartError::Io { what: what.clone(), source }
}

fn explain(checkpoint: &Path, error: GraphError) -> StartError {
    match error {
        GraphError::Write { path, source } => StartError::Io { what: format!("writing {}", path.display()), source },
        other => StartError::Model { path: PathBuf::from(checkpoint), reason: other.to_string() },
    }
}
