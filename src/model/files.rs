//! The files of a model directory. It does not read them.

use std::path::{Path, PathBuf};

use crate::error::StartError;

/// Name of a graph that is optimised for this machine already.
pub const PREPARED_GRAPH: &str = "model.prepared.onnx";

/// Paths of the three files that make an NLI cross-encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFiles {
    /// The directory they were found in.
    pub dir: PathBuf,
    /// `model.onnx`, `onnx/model.onnx`, or [`PREPARED_GRAPH`].
    pub onnx: PathBuf,
    /// `tokenizer.json`.
    pub tokenizer: PathBuf,
    /// `config.json`.
    pub config: PathBuf,
}

impl ModelFiles {
    /// Looks for the files in `dir`.
    ///
    /// # Errors
    /// [`StartError::Model`] names what is missing and says where a model comes from.
    pub fn find(dir: &Path) -> Result<Self, StartError> {
        let fail = |reason: String| StartError::Model { path: dir.to_owned(), reason };
        if !dir.is_dir() {
            return Err(fail(
                "there is no such directory. Give a directory with model.onnx, tokenizer.json and config.json, \
                 or a hub repository (owner/name) after `oddlog fetch owner/name`"
                    .into(),
            ));
        }
        let one_of = |names: &[&str]| {
            names.iter().map(|name| dir.join(name)).find(|path| path.is_file()).ok_or_else(|| {
                fail(format!("it has no {}. An ONNX export of an NLI cross-encoder is needed", names.join(" or ")))
            })
        };
        Ok(Self {
            dir: dir.to_owned(),
            onnx: match dir.join(PREPARED_GRAPH) {
                prepared if prepared.is_file() => prepared,
                _ => one_of(&["model.onnx", "onnx/model.onnx"])?,
            },
            tokenizer: one_of(&["tokenizer.json"])?,
            config: one_of(&["config.json"])?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = |dir: &Path| ModelFiles::find(dir).unwrap_err().to_string();
        assert!(error(&dir.path().join("nowhere")).contains("no such directory"));
        assert!(error(dir.path()).contains("model.onnx or onnx/model.onnx"));
        std::fs::create_dir(dir.path().join("onnx")).unwrap();
        std::fs::write(dir.path().join("onnx/model.onnx"), "").unwrap();
        assert!(error(dir.path()).contains("tokenizer.json"));
        std::fs::write(dir.path().join("tokenizer.json"), "").unwrap();
        assert!(error(dir.path()).contains("config.json"));
        std::fs::write(dir.path().join("config.json"), "").unwrap();
        assert!(ModelFiles::find(dir.path()).unwrap().onnx.ends_with("onnx/model.onnx"));
    }
}
