//! `[batching]`: how requests become batches, and how many may wait.

use serde::{Deserialize, Serialize};

use super::share;

/// Longest time that can be set, in ms: a day.
const LONGEST_MS: u64 = 86_400_000;

/// Tokens of a run for each of its rows, where the rows are not configured: fewer than logs usually have.
const TOKENS_OF_A_ROW: usize = 8;
/// A log has a row for each label.
const LEAST_ROWS: usize = 2;
/// Tokens that may be in the house where nothing is configured, and how many runs of each device there may be of them at least:
/// where graphs pad, the more wait, the more alike are those that run together.
const QUEUE_TOKENS: usize = 262_144;
const BULK_TOKENS: usize = 32_768;
const RUNS_IN_HOUSE: usize = 16;

/// `[batching]`: how requests become batches, and how many may wait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Batching {
    /// Most tokens in one model run: rows x padded length where the graph pads. Everywhere here tokens are such ones. 0 = what
    /// suits each device.
    pub max_batch_tokens: usize,
    /// Most rows in one model run; a log has one row for each label. 0 = one for each [`TOKENS_OF_A_ROW`] tokens of a run.
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
    /// Tokens of single requests that may wait or run; beyond it 429. 0 = 262,144, or 16 runs of each device.
    pub max_queue_tokens: usize,
    /// Tokens of batch calls that may wait or run; the rest of a call waits for its turn. 0 = 32,768, or 16 runs of each
    /// device.
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
            max_batch_tokens: 0,
            max_batch_rows: 0,
            max_padding: 0.25,
            target_run_ms: 0,
            max_queue_delay_us: 0,
            fixed_shapes: false,
            max_queue_tokens: 0,
            max_bulk_tokens: 0,
            max_bulk_batch_tokens: 0,
            bulk_share: 0.2,
            max_queue_wait_ms: 1_500,
            request_timeout_ms: 30_000,
            max_request_timeout_ms: 300_000,
        }
    }
}

impl Batching {
    /// Tokens of one model run on a device that runs of `suited` tokens suit.
    pub fn batch_tokens(&self, suited: usize) -> usize {
        or(self.max_batch_tokens, suited)
    }

    /// Rows of one model run of so many `tokens`.
    pub fn batch_rows(&self, tokens: usize) -> usize {
        or(self.max_batch_rows, (tokens / TOKENS_OF_A_ROW).max(LEAST_ROWS))
    }

    /// Tokens of one model run of batch calls, where any may have so many `tokens`.
    pub fn bulk_batch_tokens(&self, tokens: usize) -> usize {
        or(self.max_bulk_batch_tokens, tokens).min(tokens)
    }

    /// Tokens of single requests that may wait or run, where all devices together run `at_once` and the largest log has `longest`.
    pub fn queue_tokens(&self, at_once: usize, longest: usize) -> usize {
        or(self.max_queue_tokens, (RUNS_IN_HOUSE * at_once).max(QUEUE_TOKENS).max(longest))
    }

    /// The same of batch calls.
    pub fn bulk_tokens(&self, at_once: usize, longest: usize) -> usize {
        or(self.max_bulk_tokens, (RUNS_IN_HOUSE * at_once).max(BULK_TOKENS).max(longest))
    }

    /// `longest` is what the largest log can cost, in tokens.
    ///
    /// # Errors
    /// A text that names the first key that cannot be used.
    pub(super) fn check(&self, longest: usize) -> Result<(), String> {
        if (1..LEAST_ROWS).contains(&self.max_batch_rows) {
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
            if (1..longest).contains(&tokens) {
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

/// What is configured, or else what follows from other things.
fn or(configured: usize, otherwise: usize) -> usize {
    if configured == 0 { otherwise } else { configured }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_configured_follows_from_the_devices() {
        let auto = Batching::default();
        assert_eq!((auto.batch_tokens(512), auto.batch_rows(512), auto.bulk_batch_tokens(512)), (512, 64, 512));
        assert_eq!((auto.batch_rows(8), auto.batch_rows(16_384)), (2, 2048));
        assert_eq!((auto.queue_tokens(1024, 8192), auto.bulk_tokens(1024, 8192)), (262_144, 32_768));
        assert_eq!((auto.queue_tokens(131_072, 8192), auto.bulk_tokens(16_384, 8192)), (2_097_152, 262_144));
        assert_eq!((auto.queue_tokens(512, 300_000), auto.bulk_tokens(512, 300_000)), (300_000, 300_000));
        let set = Batching {
            max_batch_tokens: 96,
            max_batch_rows: 4,
            max_bulk_batch_tokens: 400,
            max_queue_tokens: 100,
            max_bulk_tokens: 50,
            ..auto
        };
        assert_eq!((set.batch_tokens(512), set.batch_rows(512), set.bulk_batch_tokens(96)), (96, 4, 96));
        assert_eq!((set.queue_tokens(9999, 1), set.bulk_tokens(9999, 1)), (100, 50));
    }
}
