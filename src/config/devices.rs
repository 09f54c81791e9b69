//! `[devices]`: what runs the model.

use serde::{Deserialize, Serialize};

use super::at_least_one;

/// `[devices]`: what runs the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Devices {
    /// One worker and one session for each entry: `auto` or `cpu`; `auto` is a CPU worker for each core.
    pub devices: Vec<String>,
    /// Threads of one CPU session.
    pub intra_op_threads: usize,
    /// ONNX Runtime's shared library; empty looks at `ORT_DYLIB_PATH`, then where `make` puts it.
    pub onnxruntime: String,
}

impl Default for Devices {
    fn default() -> Self {
        Self { devices: vec!["auto".into()], intra_op_threads: 1, onnxruntime: String::new() }
    }
}

impl Devices {
    /// The kind of each worker's device: `auto` becomes one `cpu` for every [`Devices::intra_op_threads`] of `cores`.
    pub fn workers(&self, cores: usize) -> Vec<&str> {
        let auto = (cores / self.intra_op_threads.max(1)).max(1);
        let kinds = self.devices.iter().map(|entry| match entry.as_str() {
            "auto" => ("cpu", auto),
            other => (other, 1),
        });
        kinds.flat_map(|(kind, count)| std::iter::repeat_n(kind, count)).collect()
    }

    /// # Errors
    /// A text that names the first key that cannot be used.
    pub(super) fn check(&self) -> Result<(), String> {
        at_least_one(&[("devices.intra_op_threads", self.intra_op_threads)])?;
        if self.devices.is_empty() {
            return Err("devices.devices needs at least one entry, for example [\"cpu\"]".into());
        }
        Ok(())
    }
}
