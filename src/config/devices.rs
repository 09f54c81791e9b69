//! `[devices]`: what runs the model, and what happens when it fails.

use serde::{Deserialize, Serialize};

use super::at_least_one;

/// Longest time that can be set, in ms: a day.
const LONGEST_MS: u64 = 86_400_000;

/// `[devices]`: what runs the model, and what happens when it fails.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Devices {
    /// One worker and one session for each entry: `auto`, `cpu`, `cuda:0`, `cuda:1`; twice the same is two. `cuda` is every
    /// GPU; `auto` is every GPU that works, else a CPU worker for each core.
    pub devices: Vec<String>,
    /// Threads of one CPU session.
    pub intra_op_threads: usize,
    /// ONNX Runtime's shared library; empty looks at `ORT_DYLIB_PATH`, then where `make` puts it.
    pub onnxruntime: String,
    /// Time after which a model run counts as hung and is terminated, in ms. Runs of models that usually take long get
    /// more: 20 times the usual.
    pub run_timeout_ms: u64,
    /// Time in which a terminated run must end, in ms; after it the thread is abandoned and the session made anew.
    pub terminate_grace_ms: u64,
    /// Most abandoned threads of one device that still hang; beyond it the device is given up.
    pub max_abandoned_threads: usize,
    /// Wait after a session could not be made, in ms; it doubles with each failure.
    pub rebuild_backoff_ms: u64,
    /// Longest such wait, in ms.
    pub max_rebuild_backoff_ms: u64,
    /// Age of the last successful run, in ms, up to which `/readyz` takes it as proof; beyond it it asks for a run.
    pub ready_max_age_ms: u64,
    /// How long `/readyz` waits for that run, in ms.
    pub ready_timeout_ms: u64,
}

impl Default for Devices {
    fn default() -> Self {
        Self {
            devices: vec!["auto".into()],
            intra_op_threads: 1,
            onnxruntime: String::new(),
            run_timeout_ms: 3_000,
            terminate_grace_ms: 1_000,
            max_abandoned_threads: 4,
            rebuild_backoff_ms: 100,
            max_rebuild_backoff_ms: 5_000,
            ready_max_age_ms: 10_000,
            ready_timeout_ms: 1_000,
        }
    }
}

impl Devices {
    /// How many CPU workers are `auto`: one for every [`Devices::intra_op_threads`] of `cores`.
    pub fn cpu_workers(&self, cores: usize) -> usize {
        (cores / self.intra_op_threads.max(1)).max(1)
    }

    /// # Errors
    /// A text that names the first key that cannot be used.
    pub(super) fn check(&self) -> Result<(), String> {
        at_least_one(&[("devices.intra_op_threads", self.intra_op_threads)])?;
        if self.devices.is_empty() {
            return Err("devices.devices needs at least one entry, for example [\"cpu\"]".into());
        }
        for (key, ms, least) in [
            ("devices.run_timeout_ms", self.run_timeout_ms, 1),
            ("devices.terminate_grace_ms", self.terminate_grace_ms, 0),
            ("devices.rebuild_backoff_ms", self.rebuild_backoff_ms, 1),
            ("devices.max_rebuild_backoff_ms", self.max_rebuild_backoff_ms, 1),
            ("devices.ready_max_age_ms", self.ready_max_age_ms, 0),
            ("devices.ready_timeout_ms", self.ready_timeout_ms, 1),
        ] {
            if !(least..=LONGEST_MS).contains(&ms) {
                return Err(format!("{key} must be from {least} to {LONGEST_MS}, not {ms}"));
            }
        }
        if self.max_rebuild_backoff_ms < self.rebuild_backoff_ms {
            return Err("devices.max_rebuild_backoff_ms must be at least devices.rebuild_backoff_ms".into());
        }
        Ok(())
    }
}
