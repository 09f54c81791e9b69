//! `[templates]`: what is learned of the kinds of messages.

use serde::{Deserialize, Serialize};

/// `[templates]`: what is learned of the kinds of messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Templates {
    /// Learn the template of each log: how often it comes, since when, and what its verdicts are. Off by default, because
    /// templates are made of the logs' words, are shown to whoever may ask, and are written to disk if a folder is named.
    pub enabled: bool,
    /// Most templates that are remembered; for further ones the least useful are forgotten.
    pub max_templates: usize,
    /// Memory for them in bytes, about.
    pub max_bytes: usize,
    /// Folder where they outlive the process, one for each server; empty for none.
    pub snapshot_dir: String,
    /// Time between two snapshots, in seconds. There is one at the end, too.
    pub snapshot_interval_s: u64,
}

impl Default for Templates {
    fn default() -> Self {
        Self {
            enabled: false,
            max_templates: 20_000,
            max_bytes: 32 << 20,
            snapshot_dir: String::new(),
            snapshot_interval_s: 60,
        }
    }
}

impl Templates {
    /// # Errors
    /// A text that names the first key that cannot be used.
    pub(super) fn check(&self) -> Result<(), String> {
        const MOST: usize = 1_000_000;
        const LEAST_BYTES: usize = 1 << 16;
        if !(1..=MOST).contains(&self.max_templates) {
            return Err(format!("templates.max_templates must be from 1 to {MOST}, not {}", self.max_templates));
        }
        if self.max_bytes < LEAST_BYTES {
            return Err(format!("templates.max_bytes must be at least {LEAST_BYTES}, not {}", self.max_bytes));
        }
        if self.snapshot_interval_s == 0 {
            return Err("templates.snapshot_interval_s must be at least 1; an empty snapshot_dir makes none".into());
        }
        Ok(())
    }
}
