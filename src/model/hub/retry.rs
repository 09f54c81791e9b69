//! Trying again: how often, how long apart, and what counts as worth it.
//!
//! It does not know what is being tried. This is the only place of the hub that sleeps.

use std::time::Duration;

use super::{Progress, error::HubError};

/// Bounds on time and on the number of attempts.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Attempts in a row that bring nothing new, at least 1.
    pub attempts: u32,
    /// Pause before the second attempt; it doubles with every further one.
    pub first_backoff: Duration,
    /// Longest pause without the server's asking.
    pub max_backoff: Duration,
    /// Longest pause that the server may ask for with `Retry-After`.
    pub max_retry_after: Duration,
    /// For resolving the host name, and again for connecting.
    pub connect_timeout: Duration,
    /// Longest silence while a reply is awaited or read.
    pub stall_timeout: Duration,
    /// Longest wait for another process that downloads the same file.
    pub lock_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_backoff: Duration::from_millis(500),
            max_backoff: Duration::from_secs(10),
            max_retry_after: Duration::from_secs(300),
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(1800),
        }
    }
}

/// Why an attempt failed.
pub(super) enum Fault {
    /// Trying again cannot help.
    Fatal(HubError),
    /// It may pass: a drop, a stall, a busy server.
    Transient {
        error: HubError,
        /// The pause that the server asked for.
        retry_after: Option<Duration>,
        /// Whether the attempt brought enough for the count to start afresh.
        advanced: bool,
    },
}

impl Fault {
    pub fn transient(error: HubError) -> Self {
        Self::Transient { error, retry_after: None, advanced: false }
    }
}

impl From<HubError> for Fault {
    fn from(error: HubError) -> Self {
        Self::Fatal(error)
    }
}

/// Runs `attempt` until it succeeds, fails for good, or `limits` are spent; `what` is named in the progress reports.
///
/// # Errors
/// The error of the last attempt.
pub(super) fn retrying<T>(
    limits: &Limits,
    what: &str,
    progress: &mut dyn FnMut(Progress<'_>),
    mut attempt: impl FnMut(&mut dyn FnMut(Progress<'_>)) -> Result<T, Fault>,
) -> Result<T, HubError> {
    let mut failures = 0;
    loop {
        let (error, retry_after, advanced) = match attempt(progress) {
            Ok(value) => return Ok(value),
            Err(Fault::Fatal(error)) => return Err(error),
            Err(Fault::Transient { error, retry_after, advanced }) => (error, retry_after, advanced),
        };
        failures = if advanced { 1 } else { failures + 1 };
        if failures >= limits.attempts {
            return Err(error);
        }
        let wait = pause_after(limits, failures, retry_after);
        progress(Progress::Retry { what, reason: &error, wait });
        pause(wait);
    }
}

/// The pause before attempt `failures + 1`.
fn pause_after(limits: &Limits, failures: u32, retry_after: Option<Duration>) -> Duration {
    match retry_after {
        Some(asked) => asked.min(limits.max_retry_after),
        None => limits.first_backoff.saturating_mul(1 << (failures - 1).min(16)).min(limits.max_backoff),
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the one place that waits between attempts; the length is bounded by Limits"
)]
pub(super) fn pause(length: Duration) {
    std::thread::sleep(length);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_bound_and_the_server_may_ask_for_more_within_its_own() {
        let limits = Limits::default();
        let pauses: Vec<_> = (1..8).map(|n| pause_after(&limits, n, None).as_millis()).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        assert_eq!(pause_after(&limits, 1, Some(Duration::from_secs(42))), Duration::from_secs(42));
        assert_eq!(pause_after(&limits, 1, Some(Duration::from_secs(86_400))), Duration::from_secs(300));
        assert_eq!(pause_after(&limits, u32::MAX, None), Duration::from_secs(10));
    }

    #[test]
    fn attempts_are_counted_afresh_only_after_an_advance() {
        let limits = Limits { attempts: 3, first_backoff: Duration::ZERO, ..Limits::default() };
        let outage = || HubError::NotAHub { url: "x".into(), why: "y" };
        let mut calls = 0;
        let result: Result<(), _> = retrying(&limits, "x", &mut |_| {}, |_| {
            calls += 1;
            Err(Fault::Transient { error: outage(), retry_after: None, advanced: calls == 2 })
        });
        assert!(result.is_err());
        assert_eq!(calls, 4);
    }
}
