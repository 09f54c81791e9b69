//! `[cache]`: what is remembered of earlier logs.

use serde::{Deserialize, Serialize};

/// What is taken from memory instead of being asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheMode {
    /// The scores of a log that is the same to the last byte, or of whose text the model reads the same tokens.
    Exact,
    /// Nothing: every log goes to the model.
    Off,
}

/// `[cache]`: what is remembered of earlier logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    /// What is taken from memory.
    pub mode: CacheMode,
    /// Memory for remembered scores and their logs in bytes, with everything that it takes to find them.
    pub max_bytes: usize,
    /// How long scores are remembered, in seconds.
    pub ttl_s: u64,
}

impl Default for Cache {
    fn default() -> Self {
        Self { mode: CacheMode::Exact, max_bytes: 64 << 20, ttl_s: 3600 }
    }
}

impl Cache {
    /// # Errors
    /// A text that names the first key that cannot be used.
    pub(super) fn check(&self) -> Result<(), String> {
        const LEAST_BYTES: usize = 1 << 20;
        if self.max_bytes < LEAST_BYTES {
            return Err(format!("cache.max_bytes must be at least {LEAST_BYTES}; cache.mode = \"off\" takes none"));
        }
        if self.ttl_s == 0 {
            return Err("cache.ttl_s must be at least 1; cache.mode = \"off\" remembers nothing".into());
        }
        Ok(())
    }
}
