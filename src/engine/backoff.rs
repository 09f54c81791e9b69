//! How long to wait before a device is made again. Pure: randomness is an argument.

use std::time::Duration;

/// Waits that double up to a longest one.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// Starts with `first`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first, longest }
    }

    /// The wait after one more failure: at least half of the present step; `random`, 0 to 1, chooses the rest, so that
    /// devices that failed together do not all come back at the same moment.
    pub fn wait(&mut self, random: f64) -> Duration {
        let step = self.next.min(self.longest);
        self.next = step * 2;
        step.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_the_longest_and_spreads() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        let waits: Vec<u128> = [1.0, 0.0, 1.0, 0.5, 7.0].map(|random| backoff.wait(random).as_millis()).into();
        assert_eq!(waits, [100, 100, 350, 262, 350]);
    }
}
