//! What stands beside a compiled model about how it was made: `oddlog.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{error::StartError, fidelity::Agreement, model::graph::MARKER};

/// The text of `oddlog.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// Program and version.
    pub made_by: String,
    /// Version of the graph's form.
    pub graph_version: u32,
    /// Arithmetic of the linear layers, as `graph::Precision` names it.
    pub precision: String,
    /// The checkpoint's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// How its scores compare with single precision's, if that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<Agreement>,
    /// Whether the graph was optimised for this machine's ONNX Runtime and processor; it is then loaded as it is.
    #[serde(default)]
    pub prepared: bool,
}

impl Note {
    /// The note in `dir`; `None` if oddlog did not make it.
    ///
    /// # Errors
    /// [`StartError::Model`] if there is one that cannot be read.
    pub fn read(dir: &Path) -> Result<Option<Self>, StartError> {
        let path = dir.join(MARKER);
        let fail = |reason: String| StartError::Model { path: path.clone(), reason };
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(fail(e.to_string())),
        };
        let told = |e: serde_json::Error| fail(format!("it is not what `oddlog compile` writes: {e}; compile again"));
        serde_json::from_slice(&text).map(Some).map_err(told)
    }

    /// Whether the model serves only if its verdicts are those of single precision.
    pub fn is_gated(&self) -> bool {
        self.precision.starts_with("int8") || self.precision.starts_with("fp16")
    }

    /// The note as text.
    pub fn text(&self) -> String {
        let json = serde_json::to_string_pretty(self).expect("numbers and texts become JSON");
        json + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_it_wrote_and_tells_what_it_cannot_read() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Note::read(dir.path()).unwrap(), None);
        let note = Note {
            made_by: "oddlog 1".into(),
            graph_version: 3,
            precision: "int8".into(),
            checkpoint: Some("/a".into()),
            agreement: Some(Agreement::between(&[0.25], &[0.5], 0.5)),
            prepared: true,
        };
        std::fs::write(dir.path().join(MARKER), note.text()).unwrap();
        assert_eq!(Note::read(dir.path()).unwrap(), Some(note));
        std::fs::write(dir.path().join(MARKER), "{}").unwrap();
        assert!(Note::read(dir.path()).unwrap_err().to_string().contains("compile again"));
    }
}
