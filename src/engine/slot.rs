//! The place of one configured device: how it is made, the run in progress, and who works there.
//!
//! ```text
//! worker:   arm(jobs) -> Device::run -> disarm() -> the jobs, to be answered; or nothing: it was abandoned
//! watchdog: check(now) -> terminates an overdue run; later takes the jobs and lets another thread work here
//! ```
//! The jobs of a run lie here while it runs. Whoever takes them out answers them, so each is answered once.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use super::{
    crew::Crew,
    health::Health,
    pace::Pace,
    vitals::{Fault, Vitals},
};
use crate::{
    batching::{Cost, Costs, Entry, Job},
    device::{Device, DeviceMaker, Terminate},
    error::StartError,
    metrics::DeviceMetrics,
};

pub(super) struct Slot {
    pub name: String,
    pub metrics: DeviceMetrics,
    /// How fast the first device was.
    pub first_pace: Pace,
    /// Its number.
    pub seat: usize,
    /// The GPU that it is on, if it is on one.
    pub gpu: Option<u32>,
    /// Tokens of a run that suit it.
    pub run_tokens: usize,
    /// What its runs cost, whichever thread works here.
    pub costs: Mutex<Costs>,
    vitals: Arc<Vitals>,
    maker: Mutex<DeviceMaker>,
    state: Mutex<State>,
    health: Arc<Health>,
    grace: Duration,
    max_abandoned: usize,
}

#[derive(Default)]
struct State {
    /// Number of the thread that works here. One with another number is abandoned.
    thread: u64,
    is_up: bool,
    has_ended: bool,
    /// Abandoned threads that have not come back.
    abandoned: usize,
    terminator: Option<Arc<dyn Terminate>>,
    run: Option<Run>,
    /// Parts of a failed batch that are still to be run.
    rest: Vec<Vec<Entry<Job>>>,
}

/// A run in progress.
struct Run {
    entries: Vec<Entry<Job>>,
    started: Instant,
    allowed: Duration,
    terminated_at: Option<Instant>,
}

/// A run that came back.
pub(super) struct Finished {
    pub entries: Vec<Entry<Job>>,
    /// Whether it was told to end because it took too long.
    pub terminated: bool,
}

/// A thread that was given up.
pub(super) struct Abandoned {
    /// What it was to answer.
    pub entries: Vec<Entry<Job>>,
    /// Number of the thread that is to take its place; `None` if too many hang here.
    pub next: Option<u64>,
}

impl Slot {
    /// For `device`, which is the first of `maker` and can answer, with what its first runs told.
    pub fn new(
        seat: usize,
        maker: DeviceMaker,
        device: &dyn Device,
        (first_pace, costs): (Pace, Costs),
        crew: &Crew,
    ) -> Self {
        let slot = Self {
            name: maker.name.clone(),
            metrics: crew.metrics.device(&maker.name),
            first_pace,
            seat,
            gpu: maker.gpu,
            run_tokens: maker.run_tokens,
            vitals: crew.health.vitals[seat].clone(),
            costs: Mutex::new(costs),
            maker: Mutex::new(maker),
            state: Mutex::new(State { terminator: device.terminator(), ..State::default() }),
            health: crew.health.clone(),
            grace: Duration::from_millis(crew.rules.terminate_grace_ms),
            max_abandoned: crew.rules.max_abandoned_threads,
        };
        slot.set_up(true);
        slot
    }

    /// Makes the device anew.
    ///
    /// # Errors
    /// As the maker.
    pub fn make(&self) -> Result<Box<dyn Device>, StartError> {
        let device = self.maker.lock().unwrap_or_else(PoisonError::into_inner).make()?;
        self.lock().terminator = device.terminator();
        Ok(device)
    }

    /// Whether the device can answer from now on.
    pub fn set_up(&self, up: bool) {
        self.change_up(&mut self.lock(), up);
    }

    /// Something happened to the device.
    pub fn suffered(&self, fault: Fault) {
        self.vitals.suffered(fault, SystemTime::now());
    }

    /// It scored logs in a run of so many tokens that ended at `now`.
    pub fn ran(&self, tokens: usize, now: Instant) {
        self.metrics.tokens.increment(tokens as u64);
        self.vitals.ran(tokens, now);
    }

    /// It takes so many tokens at once from now on.
    pub fn takes(&self, tokens: usize) {
        self.metrics.token_budget.set(tokens as f64);
        self.vitals.takes(tokens);
    }

    /// It has learned what its runs cost.
    pub fn tell_cost(&self, cost: Cost) {
        let terms = [cost.fixed, 1e3 * cost.per_token, 1e6 * cost.per_pair];
        self.metrics.cost.iter().zip(terms).for_each(|(gauge, seconds)| gauge.set(seconds));
        self.vitals.costs(cost);
    }

    /// Before a run.
    pub fn arm(&self, entries: Vec<Entry<Job>>, started: Instant, allowed: Duration) {
        self.lock().run = Some(Run { entries, started, allowed, terminated_at: None });
    }

    /// After a run of the thread with this number: what it is to answer; `None` if it was abandoned meanwhile.
    pub fn disarm(&self, thread: u64) -> Option<Finished> {
        let mut state = self.lock();
        if state.thread != thread {
            return None;
        }
        let run = state.run.take().expect("only abandoning takes it from its thread, and that changes the number");
        let terminated = run.terminated_at.is_some();
        if terminated && let Some(terminator) = &state.terminator {
            terminator.clear();
        }
        Some(Finished { entries: run.entries, terminated })
    }

    /// Puts a part of a failed batch down for later.
    pub fn push_rest(&self, part: Vec<Entry<Job>>) {
        self.lock().rest.push(part);
    }

    /// The part that was put down last.
    pub fn pop_rest(&self) -> Option<Vec<Entry<Job>>> {
        self.lock().rest.pop()
    }

    /// All that was put down.
    pub fn take_rest(&self) -> Vec<Entry<Job>> {
        std::mem::take(&mut self.lock().rest).into_iter().flatten().collect()
    }

    /// Looks at the run in progress: terminates it when its time is over, and abandons its thread when that does not help
    /// in time. `lost` is time that does not count. Otherwise returns when to look again, if at all.
    pub fn check(&self, now: Instant, lost: Duration) -> Result<Option<Instant>, Abandoned> {
        let mut state = self.lock();
        let State { run: Some(run), terminator, .. } = &mut *state else { return Ok(None) };
        run.started += lost;
        run.terminated_at = run.terminated_at.map(|at| at + lost);
        let due = match run.terminated_at {
            None => run.started + run.allowed,
            Some(at) => at + self.grace,
        };
        if now < due {
            return Ok(Some(due));
        }
        if run.terminated_at.is_none()
            && let Some(terminator) = terminator
        {
            tracing::warn!(device = self.name, logs = run.entries.len(), "a model run takes too long; terminating it");
            self.metrics.terminated.increment(1);
            // Under the lock: a later run cannot be hit, for this one is not disarmed yet.
            terminator.terminate();
            run.terminated_at = Some(now);
            return Ok(Some(now + self.grace));
        }
        Err(self.abandon(&mut state))
    }

    fn abandon(&self, state: &mut State) -> Abandoned {
        let mut entries = state.run.take().map(|run| run.entries).unwrap_or_default();
        entries.extend(std::mem::take(&mut state.rest).into_iter().flatten());
        state.terminator = None;
        state.thread += 1;
        state.abandoned += 1;
        self.costs.lock().unwrap_or_else(PoisonError::into_inner).failed();
        self.metrics.abandoned.increment(1);
        self.suffered(Fault::Hung);
        self.change_up(state, false);
        let next = (state.abandoned <= self.max_abandoned).then_some(state.thread);
        tracing::error!(
            device = self.name,
            logs = entries.len(),
            hanging = state.abandoned,
            "the device hangs; its thread is abandoned"
        );
        Abandoned { entries, next }
    }

    /// An abandoned thread came back.
    pub fn came_back(&self) {
        self.lock().abandoned -= 1;
        tracing::info!(device = self.name, "an abandoned thread came back and ends");
    }

    /// Nobody works here any more.
    pub fn end(&self) {
        let mut state = self.lock();
        state.has_ended = true;
        self.change_up(&mut state, false);
    }

    /// Whether [`end`](Self::end) was called.
    pub fn has_ended(&self) -> bool {
        self.lock().has_ended
    }

    fn change_up(&self, state: &mut State, up: bool) {
        if state.is_up != up {
            state.is_up = up;
            self.metrics.up.set(f64::from(u8::from(up)));
            self.vitals.turned(up, SystemTime::now());
            match up {
                true => self.health.came_up(),
                false => self.health.went_down(),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
