//! Who may come in: how much is in the engine at once, counted in tokens (padded ones where rows are padded), and whether it
//! can be answered in time.
//!
//! Single requests and batch calls have pools of their own, so a bulk load cannot shut out single requests. A single
//! request is refused at once if its pool is full, or if what is before it takes longer than it may wait. Of a batch
//! call every log waits for its turn; only a call that cannot even begin in time is refused.
//!
//! The prediction rests on a measured rate, which may be wrong: there may be none yet, or one of a bad time. Therefore a
//! request that finds nothing else is always let in, and one that finds little is if the rate is old. Then there is a
//! backlog again, and with it a new measurement.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    batching::{Class, Rate},
    config::Batching,
    error::RequestError,
};

/// Age from which a rate is not trusted to refuse what is little.
const OLD: Duration = Duration::from_secs(2);
/// Share of its time that a request's predicted wait may take: the prediction is an average.
const CERTAIN: f64 = 0.8;

/// The two pools, and how fast they empty.
pub struct Admission {
    interactive: Pool,
    bulk: Pool,
    /// Tokens of batch calls that wait for a place in their pool.
    line: AtomicUsize,
    max_wait: Duration,
    bulk_share: f64,
    /// Fewest tokens that a job counts as.
    shortest: usize,
    /// Tokens that all devices together run at once.
    at_once: usize,
    rate: Arc<Rate>,
    /// Smoothed time of a model run, in microseconds.
    run_us: AtomicU64,
}

/// Places for tokens.
struct Pool {
    places: Arc<Semaphore>,
    size: usize,
}

impl Pool {
    fn new(size: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(size)), size }
    }

    /// Tokens that wait or run.
    fn used(&self) -> usize {
        self.size.saturating_sub(self.places.available_permits())
    }
}

impl Admission {
    /// All devices together run `at_once` tokens; a job counts as `shortest` to `longest` tokens.
    pub fn new(config: &Batching, at_once: usize, (shortest, longest): (usize, usize)) -> Self {
        Self {
            interactive: Pool::new(config.queue_tokens(at_once, longest)),
            bulk: Pool::new(config.bulk_tokens(at_once, longest)),
            line: AtomicUsize::new(0),
            max_wait: Duration::from_millis(config.max_queue_wait_ms),
            bulk_share: config.bulk_share,
            shortest,
            at_once,
            rate: Arc::new(Rate::new(Instant::now())),
            run_us: AtomicU64::new(0),
        }
    }

    /// Most jobs that can be admitted at once: each counts as at least the fewest tokens.
    pub fn max_jobs(&self) -> usize {
        (self.interactive.size + self.bulk.size) / self.shortest
    }

    /// Tokens that all devices together run at once.
    pub fn at_once(&self) -> usize {
        self.at_once
    }

    /// Whether nothing waits or runs.
    pub fn is_idle(&self) -> bool {
        self.interactive.used() == 0 && self.bulk.used() == 0 && self.line.load(Ordering::Relaxed) == 0
    }

    /// Where the measured rate is to be put.
    pub fn rate(&self) -> &Arc<Rate> {
        &self.rate
    }

    /// Refuses early, before a log costs anything, what has no chance.
    ///
    /// # Errors
    /// [`RequestError::Overloaded`] if there is no room for any log, [`RequestError::TooLate`] if none would be answered
    /// by `deadline`.
    pub fn check(&self, class: Class, now: Instant, deadline: Instant) -> Result<(), RequestError> {
        match class {
            Class::Interactive if self.interactive.places.available_permits() < self.shortest => Err(self.full()),
            Class::Interactive => self.in_time(0, now, deadline),
            Class::Bulk => self.begins_in_time(now, deadline),
        }
    }

    /// Takes `tokens` from the pool of `class` until the permit is dropped.
    ///
    /// # Errors
    /// As [`check`](Self::check), at once, for a single request; [`RequestError::DeadlineExceeded`] for a part of a batch
    /// call that did not get its turn in time.
    pub async fn admit(
        &self,
        class: Class,
        tokens: usize,
        now: Instant,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, RequestError> {
        let tokens = tokens.max(self.shortest);
        let places = u32::try_from(tokens).map_err(|_| self.full())?;
        if class == Class::Interactive {
            self.in_time(tokens, now, deadline)?;
            return self.interactive.places.clone().try_acquire_many_owned(places).map_err(|_| self.full());
        }
        let _in_line = InLine::new(&self.line, tokens);
        let turn = self.bulk.places.clone().acquire_many_owned(places);
        match tokio::time::timeout_at(deadline.into(), turn).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(RequestError::Draining),
            Err(_) => Err(RequestError::DeadlineExceeded),
        }
    }

    /// Tells that one device took `time` for `tokens`.
    pub fn observe_run(&self, tokens: usize, time: Duration) {
        if tokens == 0 {
            return;
        }
        let time = time.as_micros() as u64;
        let old = self.run_us.load(Ordering::Relaxed);
        // A lost update between two devices only delays the estimate.
        self.run_us.store(if old == 0 { time } else { (9 * old + time) / 10 }, Ordering::Relaxed);
    }

    /// Whether a single request of `tokens` would be answered by `deadline`, and within the longest wait.
    fn in_time(&self, tokens: usize, now: Instant, deadline: Instant) -> Result<(), RequestError> {
        let left = deadline.saturating_duration_since(now);
        if left.is_zero() {
            return Err(RequestError::DeadlineExceeded);
        }
        let before = self.interactive.used();
        let Some(rate) = self.rate.tokens_per_second().filter(|_| before > 0) else { return Ok(()) };
        if before + tokens <= 2 * self.at_once && self.rate.age(now) > OLD {
            return Ok(());
        }
        // What runs holds its places to the end of its run: the wait for a device and the own run are in this together.
        let mut predicted = (before + tokens) as f64 / rate;
        if self.bulk.used() > 0 {
            predicted = predicted / (1.0 - self.bulk_share) + self.run_us.load(Ordering::Relaxed) as f64 / 1e6;
        }
        let allowed = self.max_wait.as_secs_f64().min(left.as_secs_f64() * CERTAIN);
        if predicted <= allowed {
            Ok(())
        } else {
            Err(RequestError::TooLate { retry_after: whole(predicted - allowed) })
        }
    }

    /// Whether a batch call that comes now would get its turn by `deadline`, if all devices worked for batch calls.
    fn begins_in_time(&self, now: Instant, deadline: Instant) -> Result<(), RequestError> {
        let left = deadline.saturating_duration_since(now);
        if left.is_zero() {
            return Err(RequestError::DeadlineExceeded);
        }
        let line = self.line.load(Ordering::Relaxed);
        let Some(rate) = self.rate.tokens_per_second().filter(|_| line > 0 && self.rate.age(now) <= OLD) else {
            return Ok(());
        };
        let predicted = line as f64 / rate;
        if predicted <= left.as_secs_f64() {
            return Ok(());
        }
        Err(RequestError::TooLate { retry_after: whole(predicted - left.as_secs_f64()) })
    }

    /// With the time until the present backlog is worked off.
    fn full(&self) -> RequestError {
        let backlog = (self.interactive.used() + self.bulk.used()) as f64;
        let seconds = self.rate.tokens_per_second().map_or(0.0, |rate| backlog / rate);
        RequestError::Overloaded { retry_after: whole(seconds) }
    }
}

/// Whole seconds, as `Retry-After` has them: 1 to 60.
fn whole(seconds: f64) -> Duration {
    Duration::from_secs(seconds.ceil().clamp(1.0, 60.0) as u64)
}

/// Tokens that wait in the line as long as this lives.
struct InLine<'a> {
    line: &'a AtomicUsize,
    tokens: usize,
}

impl<'a> InLine<'a> {
    fn new(line: &'a AtomicUsize, tokens: usize) -> Self {
        line.fetch_add(tokens, Ordering::Relaxed);
        Self { line, tokens }
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.line.fetch_sub(self.tokens, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
