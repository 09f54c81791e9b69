//! DeBERTa-v2/v3 weights as a fast ONNX graph.
//!
//! ```text
//! config.json -> DebertaConfig -+
//! model.safetensors -> Weights -+-> deberta::emit -> Emitter -> model.onnx.data (weights, streamed)
//!                                     layers, attention         model.onnx      (operators)
//! ```
//!
//! Every result is an ordinary ONNX file with external data that ONNX Runtime opens; those that are not portable need the
//! operators of the domain `oddlog` besides. This room does not know what runs the graph, nor where checkpoints come from.

mod attention;
mod config;
mod data;
mod deberta;
mod emitter;
mod error;
mod halves;
mod linear;
mod packed;
mod positions;
mod proto;
mod skew;
mod stage;
mod weights;

use std::{fmt, path::Path};

use config::DebertaConfig;
use data::DataFile;
use emitter::Emitter;
use halves::Body;
use weights::Weights;

pub use error::GraphError;
pub use stage::{MARKER, Stage};

/// Version of the graph that is made from a checkpoint. It changes whenever the same checkpoint gives another graph.
pub const GRAPH_VERSION: u32 = 4;

const GRAPH_FILE: &str = "model.onnx";
const DATA_FILE: &str = "model.onnx.data";

/// Arithmetic of the linear layers; the rest of the graph is in single precision, unless it is said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Single precision: the logits of transformers, up to rounding. Attention and what follows a matrix product are
    /// oddlog's own operators.
    Fp32,
    /// The same arithmetic, up to rounding, in operators that every ONNX Runtime has.
    Fp32Portable,
    /// 8 bits, one scale for each row of activations and each output channel, in oddlog's own operators.
    Int8,
    /// The same arithmetic in operators that every ONNX Runtime has. On x86 processors without VNNI, ONNX Runtime's
    /// 8-bit products can saturate, which costs accuracy.
    Int8Portable,
    /// 16 bits from the embeddings to the last layer, in operators of ONNX and `com.microsoft` that GPUs have. Sums are in
    /// single precision: of products, in softmax (as GPUs compute it) and LayerNorm (as ONNX says). So are pooler and
    /// classifier.
    Fp16,
    /// What [`Self::Fp16`] computes, for processors without arithmetic of 16 bits: single precision that is rounded after
    /// every operator. It is slow, and shows on any machine what 16 bits lose.
    Fp16Rounded,
}

impl Precision {
    /// Whether the graph uses oddlog's own operators, without padding.
    const fn is_packed(self) -> bool {
        matches!(self, Self::Fp32 | Self::Int8)
    }

    /// Whether it serves only if its verdicts are those of single precision.
    pub const fn is_gated(self) -> bool {
        matches!(self, Self::Int8 | Self::Int8Portable | Self::Fp16)
    }

    /// As the command line and file names have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp32Portable => "fp32-portable",
            Self::Int8 => "int8",
            Self::Int8Portable => "int8-portable",
            Self::Fp16 => "fp16",
            Self::Fp16Rounded => "fp16-rounded",
        }
    }

    /// What a processor runs to tell how this precision scores: itself, unless the processor would compute more exactly.
    pub const fn on_processors(self) -> Self {
        match self {
            Self::Fp16 => Self::Fp16Rounded,
            other => other,
        }
    }

    const fn body(self) -> Body {
        match self {
            Self::Fp16 => Body::Half,
            Self::Fp16Rounded => Body::Rounded,
            Self::Fp32 | Self::Fp32Portable | Self::Int8 | Self::Int8Portable => Body::Single,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Parts of the model that are done, of all of them.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// From 0 to `total`.
    pub done: usize,
    /// At least 1.
    pub total: usize,
}

/// Whether the directory's `config.json` describes a model that can be compiled.
pub fn covers(dir: &Path) -> bool {
    DebertaConfig::read(&dir.join("config.json")).is_ok()
}

/// Compiles the checkpoint in `source` (`config.json`, `model.safetensors`, `tokenizer.json`) into a model directory at
/// `place`, which appears whole or not at all. What oddlog made there before is replaced; anything else only with
/// `force`.
///
/// # Errors
/// [`GraphError`] names the file, tensor or key; nothing is left behind.
pub fn compile(
    source: &Path,
    place: &Path,
    precision: Precision,
    force: bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), GraphError> {
    let config = DebertaConfig::read(&source.join("config.json"))?;
    let mut weights = Weights::open(&source.join("model.safetensors"))?;
    if precision.body() != Body::Single {
        weights = weights.for_half();
    }
    let stage = Stage::new(place, source, force)?;
    for name in ["config.json", "tokenizer.json"] {
        stage.copy(&source.join(name), name)?;
    }
    let data = DataFile::create(&stage.dir().join(DATA_FILE))?;
    let mut graph = Emitter::new(data, DATA_FILE, precision.body());
    let logits = deberta::emit(&mut graph, &weights, &config, precision, progress)?;
    let version = GRAPH_VERSION.to_string();
    let notes = [("oddlog.graph_version", version.as_str()), ("oddlog.precision", precision.name())];
    let model = graph.finish(&logits, config.classes, &notes)?;
    stage.write(GRAPH_FILE, model.bytes())?;
    stage.write(MARKER, marker(precision).as_bytes())?;
    stage.publish()
}

/// The text of [`MARKER`]: what made the directory, and how.
fn marker(precision: Precision) -> String {
    let made = serde_json::json!({
        "made_by": concat!("oddlog ", env!("CARGO_PKG_VERSION")),
        "graph_version": GRAPH_VERSION,
        "precision": precision.name(),
    });
    format!("{made:#}\n")
}
