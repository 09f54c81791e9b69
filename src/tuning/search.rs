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
mod tests;
