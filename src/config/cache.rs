//! `[cache]`: what is remembered of earlier logs.

use serde::{Deserialize, Serialize};

/// What is taken from memory instead of being asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheMode {
    /// The scores of a log that is the same to the last byte, or of whose text the model reads the same tokens.
    Exact,
    /// Besides, the scores of other logs of the same template, once enough of them were scored and are far enough from the
    /// threshold.
    Template,
    /// Nothing: every log goes to the model.
    Off,
}

/// `[cache]`: what is remembered of earlier logs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    /// What is taken from memory.
    pub mode: CacheMode,
    /// Memory for remembered scores and their logs in bytes, with everything that it takes to find them.
    pub max_bytes: usize,
    /// How long scores are remembered, in seconds.
    pub ttl_s: u64,
    /// With templates, 0.01 to 0.5: the largest estimated chance that a log's own verdict differs from its template's, with
    /// which it is answered by that. For a text that comes again the chances add up.
    pub max_doubt: f32,
    /// With templates, 0 to 1: share of their answers that are scored all the same, as bulk, to see how often they differ.
    pub check_share: f64,
    /// With templates: how many are known at once; the least useful are forgotten. Each takes about a kilobyte, all
    /// together at most about 50 MiB. Where `[templates]` are learned the memory shares them, and their bounds hold.
    pub max_templates: usize,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            mode: CacheMode::Exact,
            max_bytes: 64 << 20,
            ttl_s: 3600,
            max_doubt: 0.4,
            check_share: 0.1,
            max_templates: 20_000,
        }
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
        if !(0.01..=0.5).contains(&self.max_doubt) {
            return Err("cache.max_doubt must be between 0.01 and 0.5".into());
        }
        if !(0.0..=1.0).contains(&self.check_share) {
            return Err("cache.check_share must be between 0 and 1".into());
        }
        if self.max_templates == 0 {
            return Err("cache.max_templates must be at least 1; cache.mode = \"exact\" needs none".into());
        }
        Ok(())
    }
}
