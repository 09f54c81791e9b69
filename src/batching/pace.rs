//! How fast waiting work is taken, all devices together: what predicted waits rest on.
//!
//! Measured only while there is a backlog, from batch to batch: then every device is busy, and the batches have the
//! sizes that a backlog gives them. A device that fails or hangs shows by itself. Without a backlog there is nothing to
//! predict. Time is an argument.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Batches over which the measurement is smoothed.
const WINDOW: f64 = 32.0;
/// A gap counts at most as this many times the usual one. A longer one is a hung run or a process that stood still: it is
/// over when it is measured, and says nothing about what comes. A device that has become so slow is still found out, as
/// what is usual follows.
const LONGEST_GAP: f64 = 8.0;

/// The measurement, for whoever hands out batches.
#[derive(Debug, Default)]
pub struct Pace {
    /// When the last batch left, if something has been waiting ever since.
    last: Option<Instant>,
    /// Tokens of measured batches, older ones with less weight.
    tokens: f64,
    /// What they took, weighted alike.
    seconds: f64,
}

impl Pace {
    /// Nothing waits: the time until the next batch says nothing about speed.
    pub fn idle(&mut self) {
        self.last = None;
    }

    /// A batch of `tokens` left at `now`. `more` still waits, or nothing. `rested` devices had been waiting for work:
    /// their first batch was not made free by a finished one.
    ///
    /// Returns the new rate in tokens a second, if this was a measurement.
    pub fn taken(&mut self, now: Instant, tokens: usize, more: bool, rested: bool) -> Option<f64> {
        if rested {
            self.last = self.last.filter(|_| more);
            return None;
        }
        let last = std::mem::replace(&mut self.last, more.then_some(now))?;
        let usual = self.seconds * tokens as f64 / self.tokens;
        let longest = if usual > 0.0 { LONGEST_GAP * usual } else { f64::INFINITY };
        let keep = 1.0 - 1.0 / WINDOW;
        self.tokens = self.tokens * keep + tokens as f64;
        self.seconds = self.seconds * keep + (now - last).as_secs_f64().min(longest);
        Some(self.tokens / self.seconds.max(1e-6))
    }
}

/// The latest measurement, readable without a lock.
#[derive(Debug)]
pub struct Rate {
    origin: Instant,
    tokens_per_second: AtomicU64,
    /// Microseconds from `origin`.
    measured_at: AtomicU64,
}

impl Rate {
    /// Not measured yet. No time given later is before `origin`.
    pub fn new(origin: Instant) -> Self {
        Self { origin, tokens_per_second: AtomicU64::new(0), measured_at: AtomicU64::new(0) }
    }

    /// Keeps a measurement.
    pub fn set(&self, tokens_per_second: f64, now: Instant) {
        self.measured_at.store((now - self.origin).as_micros() as u64, Ordering::Relaxed);
        self.tokens_per_second.store(tokens_per_second.max(1.0) as u64, Ordering::Relaxed);
    }

    /// Tokens a second of all devices, at least 1; `None` if there was no backlog yet.
    pub fn tokens_per_second(&self) -> Option<f64> {
        match self.tokens_per_second.load(Ordering::Relaxed) {
            0 => None,
            rate => Some(rate as f64),
        }
    }

    /// How long ago it was measured.
    pub fn age(&self, now: Instant) -> Duration {
        let measured_at = Duration::from_micros(self.measured_at.load(Ordering::Relaxed));
        now.saturating_duration_since(self.origin).saturating_sub(measured_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn only_a_backlog_is_measured() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let mut taken = |ms, more, rested| {
            let rate = pace.taken(start + at(ms), 500, more, rested);
            if ms == 900 {
                pace.idle();
            }
            rate.map(f64::round)
        };
        // Two devices that rested take one batch each and leave work behind; none was made free by a finished batch.
        assert_eq!(taken(0, true, true), None);
        assert_eq!(taken(0, true, true), None);
        // The first one that comes back opens the measurement, the next ones carry it on.
        assert_eq!(taken(100, true, false), None);
        assert_eq!(taken(150, true, false), Some(10_000.0));
        // The backlog ends with this one, which still counts.
        assert_eq!(taken(200, false, false), Some(10_000.0));
        // After this one a device finds nothing.
        assert_eq!(taken(900, true, false), None);
        assert_eq!(taken(990, true, false), None);
        assert_eq!(taken(1040, true, false), Some(10_000.0));
    }

    #[test]
    fn it_follows_a_change_of_speed_and_forgets_a_pause() {
        let mut now = Instant::now();
        let mut pace = Pace::default();
        let mut run = |ms: u64, batches: usize| {
            (0..batches).fold(None, |_, _| {
                now += at(ms);
                pace.taken(now, 500, true, false)
            })
        };
        assert!((run(10, 50).unwrap() - 50_000.0).abs() < 1.0);
        let slower = run(100, 50).unwrap();
        assert!((5_000.0..7_000.0).contains(&slower), "{slower}");
        run(10, 300);
        let stood_still = run(10_000, 1).unwrap();
        assert!((40_000.0..45_000.0).contains(&stood_still), "{stood_still}");
        let recovered = run(10, 100).unwrap();
        assert!((49_000.0..50_001.0).contains(&recovered), "{recovered}");
        let very_slow = run(1000, 150).unwrap();
        assert!((500.0..600.0).contains(&very_slow), "{very_slow}");
    }

    #[test]
    fn a_rate_knows_its_age() {
        let start = Instant::now();
        let rate = Rate::new(start);
        assert_eq!(rate.tokens_per_second(), None);
        rate.set(0.1, start + at(500));
        assert_eq!((rate.tokens_per_second(), rate.age(start + at(1700))), (Some(1.0), at(1200)));
    }
}
