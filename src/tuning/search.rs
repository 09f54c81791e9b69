//! The search: one axis after the other, the present settings measured beside the others in every round, and a final of
//! fresh rounds that the best one must win. Pure: what measures is an argument.
//!
//! ```text
//! settle present -> for each axis: settle its values -> rounds -> the best go on -> final: best against present
//! ```
//!
//! A noisy machine is slow for minutes and fast again, so figures of different minutes are never compared: a round
//! measures all candidates of an axis and the present settings one after the other, and what counts is the ratio to the
//! latter within the round.

use serde::Serialize;

use super::{Candidate, Gain, Grid, Halt, Run, Trial, candidate::AXES, trial::median};
use crate::error::StartError;

/// Most numbers of clients that a candidate is tried with, besides the present settings.
const CLIMB: usize = 3;

/// More clients must bring at least this much, or fewer will do.
const CLIMB_GAIN: f64 = 1.05;

/// How near to the best shape the second best must be to go on, too.
const NEAR: f64 = 0.85;

/// Where one run must be to be taken as meeting the target: a single p99 is a guess.
const HEADROOM: f64 = 0.9;

/// How thorough the search is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Rounds for each axis, after the candidates have settled; at least 1.
    pub rounds: usize,
    /// Rounds of the final.
    pub final_rounds: usize,
}

/// What to search.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The present settings, which stay unless something is surely better.
    pub current: Candidate,
    /// What to try instead.
    pub grid: Grid,
    /// Numbers of clients that send at once, ascending, not empty.
    pub levels: Vec<usize>,
    /// The target for p99 in ms.
    pub p99_ms: f64,
    /// How thorough.
    pub effort: Effort,
}

impl Plan {
    /// Upper bound of the number of measurements.
    pub fn most_steps(&self) -> usize {
        let axis = |axis| {
            let bases = if axis == 1 { 2 } else { 1 };
            let tried = bases * self.grid.neighbours(axis, self.current).len();
            // The rounds have what they are compared with besides.
            tried * CLIMB + self.effort.rounds * (tried + if axis == 0 { 1 } else { 1 + bases })
        };
        self.levels.len() + (0..AXES).map(axis).sum::<usize>() + 3 * self.effort.final_rounds
    }
}

/// What is said of a candidate in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Surely better than the present settings.
    Best,
    /// The present settings.
    Current,
    /// Its p99 misses the target with every number of clients tried.
    OverTarget,
    /// Looked best, but the final did not confirm it.
    WithinNoise,
    /// Meets the target, but is not the best.
    Beaten,
}

/// What the search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Everything tried, in order; the first is the present settings.
    pub trials: Vec<Trial>,
    /// Which of them is to be used; the first if nothing is surely better, `None` if none meets the target.
    pub winner: Option<usize>,
    /// Which of them was in the final, and the gain measured there.
    pub finalist: Option<(usize, Gain)>,
    /// Whether the user ended the search; then there is no winner.
    pub interrupted: bool,
}

impl Outcome {
    /// What is said of `trials[index]`.
    pub fn verdict(&self, index: usize, p99_ms: f64) -> Verdict {
        match &self.trials[index] {
            _ if self.winner == Some(index) && index > 0 => Verdict::Best,
            trial if !trial.meets(p99_ms) => Verdict::OverTarget,
            _ if index == 0 => Verdict::Current,
            _ if self.finalist.as_ref().is_some_and(|(i, _)| *i == index) && !self.interrupted => Verdict::WithinNoise,
            _ => Verdict::Beaten,
        }
    }
}

/// Searches `plan` with at most [`Plan::most_steps`] calls of `measure(candidate, clients)`.
///
/// # Errors
/// What `measure` failed with.
pub fn search(
    plan: &Plan,
    measure: &mut dyn FnMut(&Candidate, usize) -> Result<Run, Halt>,
) -> Result<Outcome, StartError> {
    let mut search = Search { plan, measure, trials: Vec::new(), finalist: None };
    let (winner, interrupted) = match search.run() {
        Ok(winner) => (winner, false),
        Err(Halt::Interrupted) => (None, true),
        Err(Halt::Failed(error)) => return Err(error),
    };
    Ok(Outcome { trials: search.trials, winner, finalist: search.finalist, interrupted })
}

struct Search<'a> {
    plan: &'a Plan,
    measure: &'a mut dyn FnMut(&Candidate, usize) -> Result<Run, Halt>,
    trials: Vec<Trial>,
    finalist: Option<(usize, Gain)>,
}

/// Where the present settings stand among the trials.
const CURRENT: usize = 0;

impl Search<'_> {
    fn run(&mut self) -> Result<Option<usize>, Halt> {
        let levels = self.plan.levels.len();
        // The middle of the levels; from there as far as it goes.
        self.settle(self.plan.current, levels / 3, levels)?;
        // How many cores share a run and how large it is depend on each other, so two shapes go on to the sizes.
        let shapes = self.sweep(0, &[CURRENT])?;
        let near = |i: &&usize| self.score(**i) >= self.score(shapes[0]) * NEAR;
        let shapes: Vec<usize> = shapes.iter().take(2).filter(near).copied().collect();
        let sizes = self.sweep(1, &shapes)?;
        let best = self.sweep(2, &sizes[..1])?[0];
        if best == CURRENT {
            return Ok(self.trials[CURRENT].meets(self.plan.p99_ms).then_some(CURRENT));
        }
        self.decide(best)
    }

    /// Tries the values of one axis beside `bases`; returns all of them and what they were compared with, the best first.
    fn sweep(&mut self, axis: usize, bases: &[usize]) -> Result<Vec<usize>, Halt> {
        let mut group = vec![CURRENT];
        group.extend(bases.iter().filter(|i| **i != CURRENT));
        let first = self.trials.len();
        for &base in bases {
            let (start, from) = (self.trials[base].level, self.trials[base].candidate);
            for candidate in self.plan.grid.neighbours(axis, from) {
                self.settle(candidate, start, CLIMB)?;
            }
        }
        group.extend((first..self.trials.len()).filter(|i| self.trials[*i].meets(self.plan.p99_ms)));
        for round in 0..self.plan.effort.rounds {
            let runs = self.round(round, &group.iter().map(|i| (*i, self.trials[*i].level)).collect::<Vec<_>>())?;
            for (i, run) in group.iter().zip(&runs) {
                self.trials[*i].runs.push(*run);
                self.trials[*i].ratios.push(ratio(run, &runs[0]));
            }
        }
        // Only these rounds count, in which all were measured side by side. A change must be worth it, so the first of
        // the bases has an advantage. Equal ones keep their order.
        let rounds = self.plan.effort.rounds;
        let key = |i: usize| {
            let ratios = &self.trials[i].ratios;
            let here = median(ratios[ratios.len() - rounds..].iter().copied());
            match self.trials[i].meets(self.plan.p99_ms) {
                true if i == bases[0] => here * Gain::LEAST,
                true => here,
                false => 0.0,
            }
        };
        group.sort_by(|a, b| key(*b).total_cmp(&key(*a)));
        Ok(group)
    }

    /// Ratio to the present settings; 0 for what misses the target.
    fn score(&self, trial: usize) -> f64 {
        let trial = &self.trials[trial];
        if trial.meets(self.plan.p99_ms) { trial.ratio().unwrap_or(1.0) } else { 0.0 }
    }

    /// Fresh rounds of `best` against the present settings, which may have the number of clients of either.
    fn decide(&mut self, best: usize) -> Result<Option<usize>, Halt> {
        let target = self.plan.p99_ms;
        let (own, theirs) = (self.trials[CURRENT].level, self.trials[best].level);
        let mut group = vec![(best, theirs), (CURRENT, own)];
        group.extend((own != theirs).then_some((CURRENT, theirs)));
        let (mut ratios, mut challenger, mut present) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..self.plan.effort.final_rounds {
            let runs = self.round(round, &group)?;
            // Of its two numbers of clients the one that serves more within the target.
            let order = |a: &&Run, b: &&Run| {
                (a.p99_ms <= target).cmp(&(b.p99_ms <= target)).then(a.logs_per_s.total_cmp(&b.logs_per_s))
            };
            let reference = *runs[1..].iter().max_by(order).unwrap_or(&Run::NONE);
            ratios.push(ratio(&runs[0], &reference));
            challenger.push(runs[0]);
            present.push(reference);
        }
        let gain = Gain::of(&ratios);
        self.trials[best].runs = challenger;
        self.trials[best].ratios = ratios;
        self.trials[CURRENT].runs = present;
        let (sure, meets) = (gain.is_sure(), |i: usize| self.trials[i].meets(target));
        let winner = match (meets(best), meets(CURRENT)) {
            (true, true) if sure => Some(best),
            (true, false) => Some(best),
            (_, true) => Some(CURRENT),
            (false, false) => None,
        };
        self.finalist = Some((best, gain));
        Ok(winner)
    }

    /// Measures each of `group` once, every other round in the opposite order; results in the order of `group`.
    fn round(&mut self, round: usize, group: &[(usize, usize)]) -> Result<Vec<Run>, Halt> {
        let mut runs = vec![Run::NONE; group.len()];
        let forward = 0..group.len();
        let order: Vec<usize> = if round.is_multiple_of(2) { forward.collect() } else { forward.rev().collect() };
        for at in order {
            let (trial, level) = group[at];
            runs[at] = (self.measure)(&self.trials[trial].candidate, self.plan.levels[level])?;
        }
        Ok(runs)
    }

    /// Finds the number of clients for `candidate`, from the level `at` and with at most `most` measurements: up while
    /// that brings more logs within the target, down until the target is met. Adds the trial.
    fn settle(&mut self, candidate: Candidate, at: usize, most: usize) -> Result<(), Halt> {
        let (levels, target) = (&self.plan.levels, self.plan.p99_ms * HEADROOM);
        let mut best = (at, (self.measure)(&candidate, levels[at])?);
        // What is measured counts even if the next measurement is interrupted.
        let index = self.trials.len();
        self.trials.push(Trial { candidate, level: at, runs: vec![best.1], ratios: Vec::new() });
        let mut next = at;
        let up = best.1.p99_ms <= target;
        for _ in 1..most {
            let Some(level) = (if up { Some(next + 1) } else { next.checked_sub(1) }).filter(|l| *l < levels.len())
            else {
                break;
            };
            next = level;
            let run = (self.measure)(&candidate, levels[next])?;
            let meets = run.p99_ms <= target;
            if up && (!meets || run.logs_per_s < best.1.logs_per_s * CLIMB_GAIN) {
                break;
            }
            best = (next, run);
            let trial = &mut self.trials[index];
            (trial.level, trial.runs) = (best.0, vec![best.1]);
            if !up && meets {
                break;
            }
        }
        Ok(())
    }
}

/// Logs a second of `run` over those of `reference`.
fn ratio(run: &Run, reference: &Run) -> f64 {
    match (run.logs_per_s, reference.logs_per_s) {
        (a, b) if a == b => 1.0,
        (a, b) => a / b,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const CORES: usize = 4;

    fn plan(p99_ms: f64) -> Plan {
        Plan {
            current: Candidate { instances: 4, intra_op_threads: 1, max_batch_tokens: 512, max_queue_delay_us: 0 },
            grid: Grid::new(CORES, "cpu", false),
            levels: (0..9).map(|n| 1 << n).collect(),
            p99_ms,
            effort: Effort { rounds: 2, final_rounds: 7 },
        }
    }

    /// A machine of whose sessions each run takes `overhead_ms` and 1 ms for each log of 64 tokens; threads share a
    /// run with little loss.
    fn machine(c: &Candidate, clients: usize, overhead_ms: f64) -> Run {
        let logs = (c.max_batch_tokens / 64).min(clients.div_ceil(c.instances)).max(1) as f64;
        let busy = (c.instances.min(clients) * c.intra_op_threads) as f64;
        let speed = (c.intra_op_threads as f64).powf(0.9) * (CORES as f64 / busy).min(1.0);
        let run_ms = (overhead_ms + logs) / speed + c.max_queue_delay_us as f64 / 1e3 / logs;
        let logs_per_s = c.instances.min(clients) as f64 * logs / run_ms * 1e3;
        let p50_ms = clients as f64 / logs_per_s * 1e3;
        Run { logs_per_s, p50_ms, p99_ms: 1.4 * p50_ms, answers: 500 }
    }

    /// The most logs a second with the headroom to the target, by trying everything.
    fn optimum(plan: &Plan, overhead_ms: f64) -> f64 {
        let mut most = 0.0f64;
        for shape in plan.grid.neighbours(0, plan.current).into_iter().chain([plan.current]) {
            for tokens in plan.grid.neighbours(1, shape).into_iter().chain([shape]) {
                for candidate in plan.grid.neighbours(2, tokens).into_iter().chain([tokens]) {
                    let runs = plan.levels.iter().map(|clients| machine(&candidate, *clients, overhead_ms));
                    most =
                        runs.filter(|r| r.p99_ms <= HEADROOM * plan.p99_ms).map(|r| r.logs_per_s).fold(most, f64::max);
                }
            }
        }
        most
    }

    fn found(plan: &Plan, overhead_ms: f64) -> Outcome {
        let mut steps = 0;
        let outcome = search(plan, &mut |c, clients| {
            steps += 1;
            assert!(plan.levels.contains(&clients));
            Ok(machine(c, clients, overhead_ms))
        });
        assert!(steps <= plan.most_steps(), "{steps} steps, {} were announced", plan.most_steps());
        let outcome = outcome.unwrap();
        let different: HashSet<String> = outcome.trials.iter().map(|t| format!("{:?}", t.candidate)).collect();
        assert_eq!(different.len(), outcome.trials.len(), "a candidate was tried twice");
        outcome
    }

    #[test]
    fn it_finds_nearly_the_optimum_within_the_target() {
        for overhead_ms in [0.5, 4.0, 20.0] {
            for p99_ms in [60.0, 250.0, 1000.0] {
                let plan = plan(p99_ms);
                let outcome = found(&plan, overhead_ms);
                let best = optimum(&plan, overhead_ms);
                let winner = &outcome.trials[outcome.winner.unwrap()];
                assert!(winner.meets(p99_ms));
                let got = winner.median().logs_per_s;
                assert!(got >= 0.9 * best, "overhead {overhead_ms}, target {p99_ms}: {got} of {best} logs/s");
                let present = machine(&plan.current, 256, overhead_ms);
                if present.p99_ms <= p99_ms && present.logs_per_s * 1.1 < got {
                    assert_ne!(outcome.winner, Some(0));
                }
            }
        }
    }

    #[test]
    fn a_large_gain_is_taken_and_called_sure() {
        let plan = plan(1000.0);
        let outcome = found(&plan, 20.0);
        let winner = outcome.winner.unwrap();
        assert_eq!(outcome.verdict(winner, 1000.0), Verdict::Best);
        assert_eq!(outcome.verdict(0, 1000.0), Verdict::Current);
        let (finalist, gain) = outcome.finalist.unwrap();
        assert!(finalist == winner && gain.is_sure() && gain.rounds == 7);
        assert!(outcome.trials[winner].candidate.max_batch_tokens > 512);
    }

    #[test]
    fn what_misses_the_target_never_wins_and_nothing_may() {
        let out_of_reach = plan(0.5);
        let outcome = found(&out_of_reach, 4.0);
        assert_eq!(outcome.winner, None);
        assert!((0..outcome.trials.len()).all(|i| outcome.verdict(i, 0.5) == Verdict::OverTarget));
        // The present settings miss it, one other meets it although it serves less.
        let plan = plan(20.0);
        let other = Candidate { max_batch_tokens: 256, ..plan.current };
        let outcome = search(&plan, &mut |c, _| {
            let p99_ms = if *c == other { 15.0 } else { 30.0 };
            Ok(Run { logs_per_s: 10.0 * p99_ms, p50_ms: 1.0, p99_ms, answers: 500 })
        });
        let outcome = outcome.unwrap();
        assert_eq!(outcome.trials[outcome.winner.unwrap()].candidate, other);
    }

    /// The speed of a shared machine: it wanders by a factor of up to two, and each step has noise of its own.
    fn noise(seed: u64) -> impl FnMut() -> f64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut drift, mut noise) = (1.0f64, move || 1.0 + 0.04 * (random.f64() + random.f64() - 1.0));
        move || {
            drift = (drift * noise()).clamp(0.5, 1.0);
            drift * noise()
        }
    }

    #[test]
    fn inside_the_noise_the_present_settings_stay() {
        let plan = plan(250.0);
        let stayed = (0..100).filter(|seed| {
            let mut speed = noise(*seed);
            let outcome = search(&plan, &mut |_, clients| {
                let logs_per_s = 500.0 * speed() * clients.min(16) as f64 / 16.0;
                let p50_ms = clients as f64 / logs_per_s * 1e3;
                Ok(Run { logs_per_s, p50_ms, p99_ms: 1.4 * p50_ms, answers: 500 })
            });
            outcome.unwrap().winner == Some(0)
        });
        assert!(stayed.count() >= 95);
    }

    #[test]
    fn a_real_gain_is_found_on_a_noisy_machine() {
        let plan = plan(1000.0);
        let best = optimum(&plan, 4.0);
        let good = (0..100).filter(|seed| {
            let mut speed = noise(*seed);
            let outcome = search(&plan, &mut |c, clients| {
                let (speed, run) = (speed(), machine(c, clients, 4.0));
                let (p50_ms, p99_ms) = (run.p50_ms / speed, run.p99_ms / speed);
                Ok(Run { logs_per_s: run.logs_per_s * speed, p50_ms, p99_ms, ..run })
            });
            let outcome = outcome.unwrap();
            let winner = &outcome.trials[outcome.winner.unwrap()];
            machine(&winner.candidate, plan.levels[winner.level], 4.0).logs_per_s >= 0.85 * best
        });
        assert!(good.count() >= 90);
    }

    #[test]
    fn an_interruption_keeps_what_was_measured_and_an_error_is_an_error() {
        let plan = plan(250.0);
        for last in [0, 1, 5, 40] {
            let mut steps = 0;
            let outcome = search(&plan, &mut |c, clients| {
                steps += 1;
                if steps > last { Err(Halt::Interrupted) } else { Ok(machine(c, clients, 4.0)) }
            });
            let outcome = outcome.unwrap();
            assert!(outcome.interrupted && outcome.winner.is_none());
            assert_eq!(outcome.trials.is_empty(), last == 0);
            assert!(outcome.trials.iter().all(|t| !t.runs.is_empty()));
        }
        let failing = search(&plan, &mut |_, _| Err(Halt::Failed(StartError::Config("broken".into()))));
        assert!(failing.unwrap_err().to_string().contains("broken"));
    }
}
