//! `[batching]`: how requests become batches, and how many may wait.

use serde::{Deserialize, Serialize};

use super::{at_least_one, share};

/// Longest time that can be set, in ms: a day.
const LONGEST_MS: u64 = 86_400_000;

/// `[batching]`: how requests become batches, and how many may wait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Batching {
    /// Most tokens in one model run: rows x padded length where the graph pads. Everywhere here tokens are such ones.
    pub max_batch_tokens: usize,
    /// Most rows in one model run; a log has one row for each label.
    pub max_batch_rows: usize,
    /// Largest share of padding for which logs of other lengths join a batch, 0 to 1. Without effect where padding costs
    /// nothing.
    pub max_padding: f32,
    /// Time that a model run should take, in ms: a device takes what it has learned to run in it. 0 = what the limits above
    /// allow.
    pub target_run_ms: u64,
    /// How long an idle device waits for company for a log, in microseconds.
    pub max_queue_delay_us: u64,
    /// Pad every run to one of a few shapes, and run all of them twice before the first request: for devices that
    /// choose kernels or reserve memory by shape.
    pub fixed_shapes: bool,
    /// Tokens of single requests that may wait or run; beyond it 429.
    pub max_queue_tokens: usize,
    /// Tokens of batch calls that may wait or run; the rest of a call waits for its turn.
    pub max_bulk_tokens: usize,
    /// Most tokens in one model run of batch calls, at most `max_batch_tokens`; 0 takes that. A single request
    /// may have to wait for such a run.
    pub max_bulk_batch_tokens: usize,
    /// Share of the tokens run that batch calls get while single requests wait too, 0.01 to 0.9.
    pub bulk_share: f64,
    /// Longest predicted time to a single request's answer, in ms; beyond it 429. Not while nothing else waits or runs.
    pub max_queue_wait_ms: u64,
    /// Time from a request to its answer, in ms, where the request names none; beyond it 504. Of a batch call each log
    /// has it from its turn on.
    pub request_timeout_ms: u64,
    /// Largest time that a request may name in `x-request-timeout-ms`, in ms.
    pub max_request_timeout_ms: u64,
}

impl Default for Batching {
    fn default() -> Self {
        Self {
            max_batch_tokens: 512,
            max_batch_rows: 64,
            max_padding: 0.25,
            target_run_ms: 0,
            max_queue_delay_us: 0,
            fixed_shapes: false,
            max_queue_tokens: 262_144,
            max_bulk_tokens: 32_768,
            max_bulk_batch_tokens: 0,
            bulk_share: 0.2,
            max_queue_wait_ms: 1_500,
            request_timeout_ms: 30_000,
            max_request_timeout_ms: 300_000,
        }
    }
}

impl Batching {
    /// Tokens of one model run of batch calls.
    pub fn bulk_batch_tokens(&self) -> usize {
        match self.max_bulk_batch_tokens {
            0 => self.max_batch_tokens,
            tokens => tokens.min(self.max_batch_tokens),
        }
    }

    /// `longest` is what the largest log can cost, in tokens.
    ///
    /// # Errors
    /// A text that names the first key that cannot be used.
    pub(super) fn check(&self, longest: usize) -> Result<(), String> {
        at_least_one(&[("batching.max_batch_tokens", self.max_batch_tokens)])?;
        if self.max_batch_rows < 2 {
            return Err("batching.max_batch_rows must be at least 2: a log has a row for each label".into());
        }
        share("batching.max_padding", self.max_padding)?;
        if !(0.01..=0.9).contains(&self.bulk_share) {
            return Err(format!("batching.bulk_share must be from 0.01 to 0.9, not {}", self.bulk_share));
        }
        if self.target_run_ms > LONGEST_MS {
            return Err(format!("batching.target_run_ms must be at most {LONGEST_MS}, not {}", self.target_run_ms));
        }
        for (key, ms) in [
            ("batching.max_queue_wait_ms", self.max_queue_wait_ms),
            ("batching.request_timeout_ms", self.request_timeout_ms),
            ("batching.max_request_timeout_ms", self.max_request_timeout_ms),
        ] {
            if !(1..=LONGEST_MS).contains(&ms) {
                return Err(format!("{key} must be from 1 to {LONGEST_MS}, not {ms}"));
            }
        }
        for (key, tokens) in
            [("batching.max_queue_tokens", self.max_queue_tokens), ("batching.max_bulk_tokens", self.max_bulk_tokens)]
        {
            if tokens < longest {
                return Err(format!(
                    "{key} = {tokens} is too small for one log: scoring.max_labels x model.max_length needs {longest}"
                ));
            }
            if tokens > u32::MAX as usize {
                return Err(format!("{key} must be at most {}", u32::MAX));
            }
        }
        Ok(())
    }
}
