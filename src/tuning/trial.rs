//! What was measured of a candidate, and what can be said of it. Pure.

use serde::Serialize;

use super::Candidate;
use crate::error::StartError;

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Run {
    /// Logs answered in a second.
    pub logs_per_s: f64,
    /// Median time from a call to its answer, in ms; infinite if there was no answer.
    pub p50_ms: f64,
    /// Time within which 99 of 100 calls were answered, in ms; infinite if there was no answer.
    pub p99_ms: f64,
    /// How many answers this rests on.
    pub answers: usize,
}

impl Run {
    /// Nothing was answered in time.
    pub const NONE: Self = Self { logs_per_s: 0.0, p50_ms: f64::INFINITY, p99_ms: f64::INFINITY, answers: 0 };
}

/// Why measuring ended early.
#[derive(Debug)]
pub enum Halt {
    /// The user asked for it.
    Interrupted,
    /// It cannot go on.
    Failed(StartError),
}

impl From<StartError> for Halt {
    fn from(error: StartError) -> Self {
        Self::Failed(error)
    }
}

/// One candidate and its measurements.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// The settings.
    pub candidate: Candidate,
    /// Which of the plan's numbers of clients it was measured with in the end.
    pub level: usize,
    /// The measurements with that many clients.
    pub runs: Vec<Run>,
    /// Its logs a second over those of the present settings in the same round.
    pub ratios: Vec<f64>,
}

impl Trial {
    /// The medians of its runs, each figure's own.
    pub fn median(&self) -> Run {
        let of = |figure: fn(&Run) -> f64| median(self.runs.iter().map(figure));
        Run {
            logs_per_s: of(|r| r.logs_per_s),
            p50_ms: of(|r| r.p50_ms),
            p99_ms: of(|r| r.p99_ms),
            answers: self.runs.iter().map(|r| r.answers).min().unwrap_or_default(),
        }
    }

    /// Whether its median p99 keeps the target.
    pub fn meets(&self, p99_ms: f64) -> bool {
        self.median().p99_ms <= p99_ms
    }

    /// Median of its logs a second over those of the present settings; `None` if the two were never compared.
    pub fn ratio(&self) -> Option<f64> {
        (!self.ratios.is_empty()).then(|| median(self.ratios.iter().copied()))
    }
}

/// How much more one setting serves than another, from rounds in which both were measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gain {
    /// Median ratio of logs a second.
    pub ratio: f64,
    /// The ratio's likely range: without the lowest and the highest round, if there are seven or more.
    pub low: f64,
    /// Upper end of that range.
    pub high: f64,
    /// Rounds that this rests on.
    pub rounds: usize,
}

impl Gain {
    /// Least gain that is worth a change of settings.
    pub const LEAST: f64 = 1.03;

    /// From one ratio a round; at least one.
    pub fn of(ratios: &[f64]) -> Self {
        let mut sorted = ratios.to_vec();
        sorted.sort_by(f64::total_cmp);
        let cut = usize::from(sorted.len() >= 7);
        let last = sorted.len().saturating_sub(1 + cut);
        let at = |i: usize| sorted.get(i).copied().unwrap_or(f64::NAN);
        Self { ratio: median(sorted.iter().copied()), low: at(cut), high: at(last), rounds: sorted.len() }
    }

    /// Whether the gain is worth it and outside the noise. Without a real difference that is so in less than one case
    /// of ten: with 7 rounds 6 must show a gain, by chance 8 of 128.
    pub fn is_sure(&self) -> bool {
        self.ratio >= Self::LEAST && self.low > 1.0
    }
}

/// The middle value; NaN of nothing.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let (below, above) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
    match (sorted.get(below), sorted.get(above)) {
        (Some(a), Some(b)) if a == b => *a,
        (Some(a), Some(b)) => (a + b) / 2.0,
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_few_and_of_none() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([1.0, 2.0].into_iter()), 1.5);
        assert_eq!(median([f64::INFINITY; 2].into_iter()), f64::INFINITY);
        assert!(median(std::iter::empty()).is_nan());
    }

    #[test]
    fn a_gain_is_sure_only_outside_the_noise() {
        assert!(Gain::of(&[1.1, 1.2, 0.9, 1.1, 1.3, 1.05, 1.15]).is_sure());
        assert!(!Gain::of(&[1.1, 1.2, 0.9, 0.95, 1.3, 1.05, 1.15]).is_sure());
        assert!(!Gain::of(&[1.02; 7]).is_sure());
        assert!(!Gain::of(&[]).is_sure());
        assert_eq!(Gain::of(&[1.1, 1.2, 0.9, 1.1, 1.3]), Gain { ratio: 1.1, low: 0.9, high: 1.3, rounds: 5 });
    }
}
