//! `[telemetry]`: traces for a collector.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// `[telemetry]`: spans of requests, sent to a collector by OTLP over HTTP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// Where the collector takes OTLP over HTTP, such as `http://127.0.0.1:4318`; `/v1/traces` is added unless it ends so.
    /// Empty: no spans are made at all.
    pub otlp_endpoint: String,
    /// Headers of each export, such as an access token.
    pub otlp_headers: Headers,
    /// `service.name` of the spans.
    pub service_name: String,
    /// Share of requests that are traced, 0 to 1. A request that brings a `traceparent` is traced if that says so.
    pub sample_ratio: f64,
    /// Longest time of an export, its retries included, and of the last one at the end, in milliseconds.
    pub export_timeout_ms: u64,
    /// Time between two exports, in milliseconds; 512 spans are sent at once.
    pub export_interval_ms: u64,
    /// Spans that wait for the collector; beyond it they are dropped and counted.
    pub max_queued_spans: usize,
}

/// Headers whose values no debug output shows.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Headers(pub BTreeMap<String, String>);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            otlp_endpoint: String::new(),
            otlp_headers: Headers::default(),
            service_name: "oddlog".into(),
            sample_ratio: 1.0,
            export_timeout_ms: 5000,
            export_interval_ms: 1000,
            max_queued_spans: 4096,
        }
    }
}

impl Telemetry {
    /// # Errors
    /// A text that names the first key that cannot be used.
    pub(super) fn check(&self) -> Result<(), String> {
        const LONGEST_MS: u64 = 600_000;
        super::share("telemetry.sample_ratio", self.sample_ratio)?;
        super::at_least_one(&[("telemetry.max_queued_spans", self.max_queued_spans)])?;
        if self.max_queued_spans > 1 << 20 {
            return Err("telemetry.max_queued_spans must be at most 1048576".into());
        }
        let times = [
            ("telemetry.export_timeout_ms", self.export_timeout_ms),
            ("telemetry.export_interval_ms", self.export_interval_ms),
        ];
        if let Some((key, _)) = times.iter().find(|(_, ms)| !(1..=LONGEST_MS).contains(ms)) {
            return Err(format!("{key} must be from 1 to {LONGEST_MS}"));
        }
        if self.service_name.trim().is_empty() {
            return Err("telemetry.service_name must not be blank".into());
        }
        Ok(())
    }
}
