//! Model files and what is read from them: configuration, tokenizer, input tensors, downloads.
//!
//! It does not know what runs the model (`device`), nor what the logits mean to a user (`classify`).

pub mod files;
pub mod graph;
pub mod hub;
mod normalizer;
mod padding;
pub mod shapes;
mod spec;
pub mod tensors;
pub mod tokenizer;
mod unigram;

use std::{path::Path, sync::Arc};

use crate::error::StartError;

pub use files::ModelFiles;
pub use padding::Padding;
pub use shapes::Shapes;
pub use spec::ModelSpec;
pub use tensors::InputTensors;
pub use tokenizer::{EncodedLog, PairTokenizer};

/// An NLI cross-encoder on disk, read and checked as far as that goes without running it.
#[derive(Clone)]
pub struct Model {
    /// Where its parts are.
    pub files: ModelFiles,
    /// What `config.json` says.
    pub spec: ModelSpec,
    /// Text to token ids.
    pub tokenizer: Arc<PairTokenizer>,
}

impl Model {
    /// Opens the model directory `dir`; a pair is at most `max_length` tokens, or what the model allows if that is less.
    ///
    /// # Errors
    /// [`StartError::Model`] names the missing or unusable file and what to do.
    pub fn open(dir: &Path, max_length: usize) -> Result<Self, StartError> {
        let files = ModelFiles::find(dir)?;
        let spec = ModelSpec::read(&files.config)?;
        let limit = spec.max_length.map_or(max_length, |of_model| of_model.min(max_length));
        let tokenizer = PairTokenizer::read(&files.tokenizer, limit)?;
        Ok(Self { files, spec, tokenizer: Arc::new(tokenizer) })
    }
}
