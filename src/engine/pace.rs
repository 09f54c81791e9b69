//! How long a model run may take before it counts as hung. Pure: time is an argument.

use std::time::{Duration, Instant};

/// A run that takes this many times longer than usual may count as hung.
const UNUSUAL: f64 = 20.0;
/// After this time without a run the weights may have left the memory, and must be read again.
const COLD_AFTER: Duration = Duration::from_secs(60);
/// How much longer a run may then take.
const COLD: u32 = 10;
/// Longest time that any run may take because slow runs are usual.
const LONGEST: Duration = Duration::from_secs(3600);

/// How fast a device usually is.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    seconds_per_token: f64,
    last_run: Instant,
}

impl Pace {
    /// After a first run of `tokens` tokens that took `time` and ended at `now`.
    pub fn new(tokens: usize, time: Duration, now: Instant) -> Self {
        Self { seconds_per_token: time.as_secs_f64() / tokens.max(1) as f64, last_run: now }
    }

    /// After a further run.
    pub fn observe(&mut self, tokens: usize, time: Duration, now: Instant) {
        let new = time.as_secs_f64() / tokens.max(1) as f64;
        self.seconds_per_token = 0.9 * self.seconds_per_token + 0.1 * new;
        self.last_run = now;
    }

    /// Time that a run of `tokens` that starts at `now` may take: `least`, or more if such runs usually take long.
    pub fn allowed(&self, tokens: usize, now: Instant, least: Duration) -> Duration {
        let unusual = UNUSUAL * self.seconds_per_token * tokens as f64;
        let allowed = least.max(Duration::from_secs_f64(unusual.min(LONGEST.as_secs_f64())));
        if now.saturating_duration_since(self.last_run) > COLD_AFTER { allowed * COLD } else { allowed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_models_and_cold_memory_get_more_time() {
        let (now, least) = (Instant::now(), Duration::from_secs(3));
        let mut pace = Pace::new(100, Duration::from_millis(10), now);
        assert_eq!(pace.allowed(512, now, least), least);
        // 20 x 100 microseconds a token x 32 labels of 512 tokens.
        assert_eq!(pace.allowed(16_384, now, least).as_millis(), 32_768);
        let later = now + Duration::from_secs(61);
        assert_eq!(pace.allowed(512, later, least), 10 * least);
        for _ in 0..100 {
            pace.observe(100, Duration::from_secs(1), later);
        }
        assert_eq!(pace.allowed(100, later, least).as_secs(), 19);
        assert_eq!(Pace::new(0, Duration::MAX, now).allowed(usize::MAX, now, least), LONGEST);
    }
}
