//! What a model run costs on one device, learned from its runs. Pure; it knows no device and reads no clock.
//!
//! ```text
//! seconds = fixed + per_token x tokens + per_pair x tokens x length
//! ```
//! Tokens are padded ones, rows x length, where rows are padded: matrix products grow with them, attention with their product
//! with the length. Where rows are packed tokens are those of the text, and the length is the mean over them of the row that
//! each is in, so that the product is the sum of the squares.
//!
//! Runs are kept as smoothed means in buckets of like shape, and the three terms are fitted to the buckets. So a shape that
//! comes often does not outvote the others, and one odd run hardly moves the mean of its bucket. Several odd runs one after
//! another move all of them.

mod sums;

use std::time::Duration;

use self::sums::{SCALE, Sums};

/// Buckets of lengths and of tokens: each twice as wide as the one before.
const LENGTHS: usize = 8;
const SIZES: usize = 16;
/// Runs after which the cost is trusted.
const FIRST_RUNS: u64 = 8;
/// Runs between two fits, later.
const REFIT: u64 = 16;
/// Runs over which a bucket is smoothed.
const WINDOW: f64 = 16.0;
/// A run counts at most this many times as long, or as short, as its bucket's mean.
const ODD: f64 = 2.0;
/// This many odd runs one after another, all to one side, are no accident: the device has changed as a whole.
const CHANGED: u32 = 4;
/// Runs of other buckets after which a bucket counts half.
const HALF_LIFE: f64 = 512.0;
/// What a bucket counts at least: it still knows the shape of the curve.
const LEAST_WEIGHT: f64 = 0.01;
/// How many times slower a device can look because its runs fail.
const MOST_STRAIN: f64 = 64.0;
/// Share of a run's fixed time that padding may cost where one device works: simulated, less makes times longer, more makes
/// padding.
const COMPANY: f64 = 0.25;
/// Tokens and length of a usual run.
const USUAL: (usize, usize) = (1024, 64);
/// A device that takes this many times as long as it once did is not what it was.
const WORSE: f64 = 1.5;

/// The cost of runs on one device, in seconds. No term is negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Of any run.
    pub fixed: f64,
    /// Of each token.
    pub per_token: f64,
    /// Of each token and token of its row.
    pub per_pair: f64,
}

impl Cost {
    /// Time of a run of `tokens` tokens in rows of `len`.
    pub fn seconds(&self, tokens: usize, len: usize) -> f64 {
        self.fixed + self.slope(len) * tokens as f64
    }

    /// As [`seconds`](Self::seconds), at most an hour.
    pub fn time(&self, tokens: usize, len: usize) -> Duration {
        Duration::from_secs_f64(self.seconds(tokens, len).clamp(0.0, 3600.0))
    }

    /// Most tokens in rows of `len` that run in `seconds`.
    pub fn tokens_within(&self, seconds: f64, len: usize) -> usize {
        // A division by nothing is infinite, which becomes the largest number.
        ((seconds - self.fixed).max(0.0) / self.slope(len)) as usize
    }

    /// Seconds for each further token.
    pub fn slope(&self, len: usize) -> f64 {
        self.per_token + self.per_pair * len as f64
    }

    /// Most padding tokens that a batch should have for the sake of company, where one device works: what spares a run saves its
    /// fixed part, but some of the company would have been in another run anyway.
    pub fn worth_padding(&self) -> usize {
        // As above, a free token makes it the largest number.
        (COMPANY * self.fixed / self.slope(USUAL.1)) as usize
    }

    /// Seconds of a usual run, by which a device is compared with others and with what it was.
    pub fn usual(&self) -> f64 {
        self.seconds(USUAL.0, USUAL.1)
    }

    fn times(self, factor: f64) -> Self {
        let Self { fixed, per_token, per_pair } = self;
        Self { fixed: fixed * factor, per_token: per_token * factor, per_pair: per_pair * factor }
    }
}

/// Means of runs of like shape.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    runs: u64,
    /// Number of the last run.
    last: u64,
    tokens: f64,
    pairs: f64,
    seconds: f64,
}

impl Bucket {
    fn observe(&mut self, tokens: f64, pairs: f64, seconds: f64) {
        // What it would be if it were as usual. The first runs of a shape may be slow: kernels are chosen, memory is got.
        let usual = self.seconds * tokens / self.tokens.max(1.0);
        let seconds = match self.runs {
            0 => seconds,
            1..4 if seconds < usual / ODD => {
                *self = Self { runs: self.runs, last: self.last, tokens, pairs, seconds };
                seconds
            }
            _ => seconds.clamp(usual / ODD, usual * ODD),
        };
        let share = (1.0 / (self.runs as f64 + 1.0)).max(1.0 / WINDOW);
        for (mean, new) in [(&mut self.tokens, tokens), (&mut self.pairs, pairs), (&mut self.seconds, seconds)] {
            *mean += (new - *mean) * share;
        }
        self.runs += 1;
    }
}

/// Odd runs one after another, all to one side.
#[derive(Debug, Clone, Copy, Default)]
struct Streak {
    runs: u32,
    /// The least of what they took, as a multiple of what was expected.
    ratio: f64,
}

impl Streak {
    /// A run took `ratio` times what was expected. The change of the device, if this makes it certain.
    fn observe(&mut self, ratio: f64) -> Option<f64> {
        if (1.0 / ODD..=ODD).contains(&ratio) {
            *self = Self::default();
            return None;
        }
        *self = match (self.runs, ratio > 1.0, self.ratio > 1.0) {
            (1.., true, true) => Self { runs: self.runs + 1, ratio: self.ratio.min(ratio) },
            (1.., false, false) => Self { runs: self.runs + 1, ratio: self.ratio.max(ratio) },
            _ => Self { runs: 1, ratio },
        };
        (self.runs == CHANGED).then(|| std::mem::take(self).ratio)
    }
}

/// Learns the [`Cost`] of one device. Of fixed size.
#[derive(Debug, Clone)]
pub struct Costs {
    buckets: [Bucket; LENGTHS * SIZES],
    runs: u64,
    cost: Option<Cost>,
    streak: Streak,
    /// A usual run's time when the device was at its best.
    best: f64,
    /// At least 1: doubled by each failed run, halved by each good one.
    strain: f64,
}

impl Default for Costs {
    fn default() -> Self {
        let buckets = [Bucket::default(); LENGTHS * SIZES];
        Self { buckets, runs: 0, cost: None, streak: Streak::default(), best: f64::INFINITY, strain: 1.0 }
    }
}

impl Costs {
    /// A run of `tokens` tokens in rows of `len` took `time`. Returns whether the cost is another now.
    pub fn observe(&mut self, tokens: usize, len: usize, time: Duration) -> bool {
        if tokens == 0 || time.is_zero() {
            return false;
        }
        let strained = self.strain > 1.0;
        self.strain = (self.strain / 2.0).max(1.0);
        self.runs += 1;
        let expected = self.cost.map(|cost| cost.seconds(tokens, len)).filter(|seconds| *seconds > 0.0);
        let change = expected.and_then(|expected| self.streak.observe(time.as_secs_f64() / expected));
        if let Some(change) = change {
            self.buckets.iter_mut().for_each(|bucket| bucket.seconds *= change);
        }
        let log2 = |n: usize| n.max(1).ilog2() as usize;
        let at = log2(len / 16).min(LENGTHS - 1) * SIZES + log2(tokens / 16).min(SIZES - 1);
        let bucket = &mut self.buckets[at];
        if change.is_some() {
            *bucket = Bucket::default();
        }
        bucket.last = self.runs;
        bucket.observe(tokens as f64, tokens as f64 * len as f64, time.as_secs_f64());
        let usual_time = self.runs < 2 * REFIT || self.runs.is_multiple_of(REFIT);
        let due = self.runs >= FIRST_RUNS && (usual_time || change.is_some());
        if due {
            let cost = self.fit();
            if self.runs >= REFIT {
                self.best = self.best.min(cost.usual());
            }
            self.cost = Some(cost);
        }
        due || strained
    }

    /// A run failed: the device looks slower, so that others are asked first. Returns whether the cost is another now.
    pub fn failed(&mut self) -> bool {
        let before = self.strain;
        self.strain = (self.strain * 2.0).min(MOST_STRAIN);
        self.strain > before
    }

    /// What runs cost now; `None` until enough were seen.
    pub fn cost(&self) -> Option<Cost> {
        self.cost.map(|cost| cost.times(self.strain))
    }

    /// Whether the device was better once: then it is worth trying whether it is again.
    pub fn is_worse(&self) -> bool {
        self.strain > 1.0 || self.cost.is_some_and(|cost| cost.usual() > WORSE * self.best)
    }

    /// Least squares of relative errors over the buckets, for each choice of terms: the best that has no negative term,
    /// the simplest of those that are about as good.
    fn fit(&self) -> Cost {
        let mut sums = Sums::default();
        for bucket in self.buckets.iter().filter(|bucket| bucket.runs > 0) {
            let age = (self.runs - bucket.last) as f64;
            sums.add(bucket, (-age / HALF_LIFE).exp2().max(LEAST_WEIGHT));
        }
        let mut best = (f64::INFINITY, [0.0; 3]);
        for terms in [&[1][..], &[0, 1], &[1, 2], &[0, 1, 2], &[2], &[0, 2], &[0]] {
            let Some(found) = sums.solve(terms) else { continue };
            // By a twentieth and more: what noise explains needs no term.
            let error = sums.error(&found);
            if error < 0.95 * best.0 {
                best = (error, found);
            }
        }
        let [fixed, per_token, per_pair] = best.1;
        Cost { fixed, per_token: per_token / SCALE[1], per_pair: per_pair / SCALE[2] }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GPU: Cost = Cost { fixed: 1.5e-3, per_token: 1e-6, per_pair: 1e-9 };

    fn near(found: f64, true_value: f64, share: f64) -> bool {
        (found - true_value).abs() <= share * true_value
    }

    fn shapes() -> impl Iterator<Item = (usize, usize)> {
        let rows = [2, 4, 8, 24, 64, 128];
        [16, 32, 48, 96, 256, 512].into_iter().flat_map(move |len| rows.map(|rows| (rows * len, len)))
    }

    #[test]
    fn it_finds_the_terms() {
        let mut costs = Costs::default();
        for _ in 0..20 {
            for (tokens, len) in shapes() {
                costs.observe(tokens, len, GPU.time(tokens, len));
            }
        }
        let cost = costs.cost().unwrap();
        for (tokens, len) in shapes() {
            let (found, true_value) = (cost.seconds(tokens, len), GPU.seconds(tokens, len));
            assert!(near(found, true_value, 0.05), "{tokens} x {len}: {found} is not {true_value}");
            let within = cost.tokens_within(true_value, len);
            assert!(within.abs_diff(tokens) as f64 <= 0.06 * tokens as f64 + 150.0, "{within} is not {tokens}");
        }
    }

    #[test]
    fn one_shape_is_enough_and_nothing_is_too_little() {
        let mut costs = Costs::default();
        for _ in 0..FIRST_RUNS - 1 {
            assert!(!costs.observe(0, 0, Duration::ZERO));
            assert!(!costs.observe(512, 64, GPU.time(512, 64)));
            assert_eq!(costs.cost(), None);
        }
        assert!(costs.observe(512, 64, GPU.time(512, 64)));
        assert!(near(costs.cost().unwrap().seconds(512, 64), GPU.seconds(512, 64), 0.01));
    }

    #[test]
    fn cold_and_odd_runs_do_not_count_but_a_change_does() {
        let run = |costs: &mut Costs, factor: f64, runs: usize| {
            for _ in 0..runs {
                costs.observe(2048, 64, GPU.time(2048, 64).mul_f64(factor));
            }
            costs.cost().map_or(f64::NAN, |cost| cost.seconds(2048, 64) / GPU.seconds(2048, 64))
        };
        let mut costs = Costs::default();
        run(&mut costs, 1000.0, 1);
        assert!(near(run(&mut costs, 1.0, 64), 1.0, 0.02));
        run(&mut costs, 1000.0, 1);
        let odd = run(&mut costs, 1.0, 15);
        assert!(near(odd, 1.0, 0.08), "{odd}");
        assert!(!costs.is_worse());
        assert!(near(run(&mut costs, 8.0, CHANGED as usize), 8.0, 0.1));
        assert!(costs.is_worse());
        assert!(near(run(&mut costs, 1.0, CHANGED as usize), 1.0, 0.1));
        assert!(!costs.is_worse());
    }

    #[test]
    fn failures_make_it_look_slow_until_runs_succeed() {
        let mut costs = Costs::default();
        let run = |costs: &mut Costs, runs| (0..runs).filter(|_| costs.observe(512, 64, GPU.time(512, 64))).count();
        assert_eq!(run(&mut costs, FIRST_RUNS), 1);
        let healthy = costs.cost().unwrap().seconds(512, 64);
        assert_eq!((0..100).filter(|_| costs.failed()).count(), 6);
        assert!(near(costs.cost().unwrap().seconds(512, 64), MOST_STRAIN * healthy, 0.01) && costs.is_worse());
        // One bad log among good ones: a batch is halved until it is alone.
        run(&mut costs, 6);
        assert!(near(costs.cost().unwrap().seconds(512, 64), healthy, 0.01) && !costs.is_worse());
    }

    proptest! {
        #[test]
        fn whatever_is_measured_the_cost_can_be_used(
            runs in prop::collection::vec((1usize..100_000, 1usize..200, 1u64..10_000_000), 8..200),
        ) {
            let mut costs = Costs::default();
            for (tokens, lane, micros) in runs {
                costs.observe(tokens, 16 * lane, Duration::from_micros(micros));
                let Some(cost) = costs.cost() else { continue };
                for term in [cost.fixed, cost.per_token, cost.per_pair] {
                    prop_assert!(term.is_finite() && term >= 0.0, "{cost:?}");
                }
                let seconds = cost.seconds(tokens, 64);
                prop_assert!(seconds > 0.0 && cost.tokens_within(2.0 * seconds, 64) >= tokens / 2, "{cost:?}");
            }
        }
    }
}
