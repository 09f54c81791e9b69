//! How much may be in the engine at once, counted in padded tokens, the unit of what a log costs.
//!
//! Single requests and batch calls have pools of their own, so a bulk load cannot shut out single requests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{config::Batching, error::RequestError, model::tensors::LENGTH_MULTIPLE};

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A single request: answered at once, or refused at once.
    Interactive,
    /// Part of a batch call: waits for its turn.
    Bulk,
}

/// The two pools and the measured rate at which devices empty them.
pub struct Admission {
    interactive: Arc<Semaphore>,
    bulk: Arc<Semaphore>,
    capacity: usize,
    devices: usize,
    /// Padded tokens a second of all devices together, smoothed.
    tokens_per_second: AtomicU64,
}

impl Admission {
    pub fn new(config: &Batching, devices: usize) -> Self {
        Self {
            devices,
            interactive: Arc::new(Semaphore::new(config.max_queue_tokens)),
            bulk: Arc::new(Semaphore::new(config.max_bulk_tokens)),
            capacity: config.max_queue_tokens + config.max_bulk_tokens,
            tokens_per_second: AtomicU64::new(0),
        }
    }

    /// Most jobs that can be admitted at once: each costs at least one row of the shortest length.
    pub fn max_jobs(&self) -> usize {
        self.capacity / LENGTH_MULTIPLE
    }

    /// Refuses early, before a log costs anything, when there is no room for any.
    ///
    /// # Errors
    /// [`RequestError::Overloaded`].
    pub fn check(&self, class: Class) -> Result<(), RequestError> {
        if class == Class::Interactive && self.interactive.available_permits() < LENGTH_MULTIPLE {
            return Err(self.overloaded());
        }
        Ok(())
    }

    /// Takes `tokens` from the pool of `class` until the permit is dropped.
    ///
    /// # Errors
    /// [`RequestError::Overloaded`] at once for a single request; [`RequestError::DeadlineExceeded`] for a part of a
    /// batch call that did not get its turn in time.
    pub async fn admit(
        &self,
        class: Class,
        tokens: usize,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, RequestError> {
        let tokens = u32::try_from(tokens).map_err(|_| self.overloaded())?;
        match class {
            Class::Interactive => {
                self.interactive.clone().try_acquire_many_owned(tokens).map_err(|_| self.overloaded())
            }
            Class::Bulk => {
                let turn = self.bulk.clone().acquire_many_owned(tokens);
                match tokio::time::timeout_at(deadline.into(), turn).await {
                    Ok(Ok(permit)) => Ok(permit),
                    Ok(Err(_)) => Err(RequestError::Draining),
                    Err(_) => Err(RequestError::DeadlineExceeded),
                }
            }
        }
    }

    /// Tells that one device took `time` for `tokens`.
    pub fn observe_run(&self, tokens: usize, time: Duration) {
        let rate = (tokens * self.devices) as f64 / time.as_secs_f64().max(1e-6);
        let old = self.tokens_per_second.load(Ordering::Relaxed);
        // A lost update between two devices only delays the estimate.
        let new = if old == 0 { rate } else { 0.9 * old as f64 + 0.1 * rate };
        self.tokens_per_second.store(new as u64, Ordering::Relaxed);
    }

    /// Time until the present backlog is worked off: 1 to 60 s.
    fn overloaded(&self) -> RequestError {
        let left = self.interactive.available_permits() + self.bulk.available_permits();
        let backlog = self.capacity.saturating_sub(left) as u64;
        let rate = self.tokens_per_second.load(Ordering::Relaxed).max(1);
        RequestError::Overloaded { retry_after: Duration::from_secs((backlog / rate).clamp(1, 60)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Admission {
        Admission::new(&Batching { max_queue_tokens: 64, max_bulk_tokens: 32, ..Batching::default() }, 2)
    }

    #[tokio::test]
    async fn a_full_pool_refuses_singles_with_a_computed_retry() {
        let pool = small();
        let soon = Instant::now() + Duration::from_secs(60);
        let held = pool.admit(Class::Interactive, 64, soon).await.unwrap();
        assert!(pool.check(Class::Interactive).is_err());
        pool.observe_run(8, Duration::from_secs(1));
        let refused = pool.admit(Class::Interactive, 16, soon).await.unwrap_err();
        assert_eq!(refused, RequestError::Overloaded { retry_after: Duration::from_secs(4) });
        let bulk = pool.admit(Class::Bulk, 32, soon).await.unwrap();
        let late = pool.admit(Class::Bulk, 16, Instant::now()).await.unwrap_err();
        assert_eq!(late, RequestError::DeadlineExceeded);
        drop((held, bulk));
        assert!(pool.admit(Class::Interactive, 64, soon).await.is_ok());
    }
}
