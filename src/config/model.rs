//! `[model]`: which model is served, and how.

use serde::{Deserialize, Serialize};

use super::{at_least_one, share};

/// `[model]`: which model is served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// A model directory, or a hub repository `owner/name[@revision]`.
    pub source: String,
    /// Longest pair in tokens; longer logs are cut. At most what the model was made for.
    pub max_length: usize,
    /// Arithmetic of a model that comes as weights and is compiled here.
    pub precision: ModelPrecision,
    /// Share of verdicts, 0 to 1, that 8 bits must have in common with single precision to be served.
    pub least_agreement: f64,
    /// The same for 16 bits, which lose less: those that differ more than this are not what rounding explains.
    pub least_fp16_agreement: f64,
    /// Folder of compiled models; empty takes `oddlog` in the user's cache folder.
    pub cache: String,
}

/// How a model that comes as weights is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelPrecision {
    /// Compiled to 8 bits, or to 16 where a GPU is among the devices, if they agree with single precision; else to
    /// single precision.
    Auto,
    /// Compiled to 8 bits.
    Int8,
    /// Compiled to 16 bits: for GPUs. Processors run it too, slower than single precision.
    Fp16,
    /// Compiled to single precision.
    Fp32,
    /// Not compiled: the graph that the model brings.
    Onnx,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            source: "models/oddlog-minilm".into(),
            max_length: 512,
            precision: ModelPrecision::Auto,
            least_agreement: 0.99,
            least_fp16_agreement: 0.995,
            cache: String::new(),
        }
    }
}

impl Model {
    /// # Errors
    /// A text that names the first key that cannot be used.
    pub(super) fn check(&self) -> Result<(), String> {
        at_least_one(&[("model.max_length", self.max_length)])?;
        share("model.least_agreement", self.least_agreement)?;
        share("model.least_fp16_agreement", self.least_fp16_agreement)
    }
}
