//! How one device is, for people: whether it is up and since when, what it did, and its last fault in plain words.
//!
//! Neither what failed nor what the runtime said is here: these texts are for whoever may see the operators' pages, the log has
//! the rest.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use crate::{batching::Cost, device::DeviceError};

/// What may happen to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A run failed.
    Failed,
    /// A run found no memory.
    OutOfMemory,
    /// A run took too long and was ended.
    Terminated,
    /// It panicked.
    Panicked,
    /// Nothing runs on it any more.
    Broken,
    /// A run could not be ended.
    Hung,
    /// It could not be made anew.
    NotMade,
    /// Nobody tries any more.
    GivenUp,
}

impl Fault {
    /// A name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::OutOfMemory => "out_of_memory",
            Self::Terminated => "terminated",
            Self::Panicked => "panicked",
            Self::Broken => "broken",
            Self::Hung => "hung",
            Self::NotMade => "not_made",
            Self::GivenUp => "given_up",
        }
    }

    /// What happened and what follows, for people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Failed => "A model run failed. Its logs are run again in halves; the server's log says why.",
            Self::OutOfMemory => "A model run found no memory. The device takes smaller batches for a while.",
            Self::Terminated => {
                "A model run took too long and was ended. Its logs got 503; see devices.run_timeout_ms."
            }
            Self::Panicked => "It panicked in a model run, and is made anew.",
            Self::Broken => {
                "Nothing runs on it any more. Its logs got 503, and it is made anew; the server's log says why."
            }
            Self::Hung => "A model run hung and could not be ended. Its thread is abandoned, and the device made anew.",
            Self::NotMade => "It could not be made anew. That is tried again after a wait; the server's log says why.",
            Self::GivenUp => "Too many of its threads hang, or none can be started. It is given up until a restart.",
        }
    }
}

impl From<&DeviceError> for Fault {
    fn from(error: &DeviceError) -> Self {
        match error {
            DeviceError::OutOfMemory(_) => Self::OutOfMemory,
            DeviceError::Terminated => Self::Terminated,
            DeviceError::Failed(_) => Self::Failed,
        }
    }
}

/// How a device is now.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceState {
    /// Its name in logs and metrics.
    pub name: String,
    /// What it runs on, for people.
    pub about: String,
    /// Whether it can answer.
    pub is_up: bool,
    /// Since when it has been up, or down.
    pub since: SystemTime,
    /// Its last fault, if it had any, and when that was. It may be over.
    pub last_fault: Option<(Fault, SystemTime)>,
    /// How long ago the last run ended that scored logs, if there was one.
    pub last_run: Option<Duration>,
    /// Runs that scored logs.
    pub runs: u64,
    /// Padded tokens of these.
    pub tokens: u64,
    /// Padded tokens that it takes at once at present.
    pub token_budget: usize,
    /// What its runs cost, once that is known.
    pub cost: Option<Cost>,
}

/// What is noted of a device while it works; whoever asks gets a copy.
#[derive(Debug)]
pub(super) struct Vitals {
    name: String,
    about: String,
    notes: Mutex<Notes>,
}

#[derive(Debug)]
struct Notes {
    is_up: bool,
    since: SystemTime,
    last_fault: Option<(Fault, SystemTime)>,
    last_run: Option<Instant>,
    runs: u64,
    tokens: u64,
    token_budget: usize,
    cost: Option<Cost>,
}

impl Vitals {
    /// Of a device that is not up yet.
    pub fn new(name: &str, about: &str, now: SystemTime) -> Self {
        let notes = Notes {
            is_up: false,
            since: now,
            last_fault: None,
            last_run: None,
            runs: 0,
            tokens: 0,
            token_budget: 0,
            cost: None,
        };
        Self { name: name.to_owned(), about: about.to_owned(), notes: Mutex::new(notes) }
    }

    /// It can answer from now on, or cannot any more.
    pub fn turned(&self, is_up: bool, now: SystemTime) {
        let mut notes = self.lock();
        (notes.is_up, notes.since) = (is_up, now);
    }

    /// Something happened to it.
    pub fn suffered(&self, fault: Fault, now: SystemTime) {
        self.lock().last_fault = Some((fault, now));
    }

    /// It scored logs, in a run of so many tokens.
    pub fn ran(&self, tokens: usize, now: Instant) {
        let mut notes = self.lock();
        notes.last_run = Some(now);
        notes.runs += 1;
        notes.tokens += tokens as u64;
    }

    /// It takes so many tokens at once.
    pub fn takes(&self, tokens: usize) {
        self.lock().token_budget = tokens;
    }

    /// Its runs cost this.
    pub fn costs(&self, cost: Cost) {
        self.lock().cost = Some(cost);
    }

    /// All of it at `now`.
    pub fn state(&self, now: Instant) -> DeviceState {
        let notes = self.lock();
        DeviceState {
            name: self.name.clone(),
            about: self.about.clone(),
            is_up: notes.is_up,
            since: notes.since,
            last_fault: notes.last_fault,
            last_run: notes.last_run.map(|at| now.saturating_duration_since(at)),
            runs: notes.runs,
            tokens: notes.tokens,
            token_budget: notes.token_budget,
            cost: notes.cost,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        // Nothing panics while it is held.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_told_with_its_age() {
        let (start, epoch) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let (after, at) = (|s| start + Duration::from_secs(s), |s| epoch + Duration::from_secs(s));
        let vitals = Vitals::new("cpu:0", "CPU", at(1));
        let new = vitals.state(start);
        assert_eq!((new.is_up, new.since, new.last_fault, new.last_run, new.runs), (false, at(1), None, None, 0));
        vitals.turned(true, at(2));
        vitals.ran(64, after(3));
        vitals.ran(32, after(5));
        vitals.takes(512);
        let cost = Cost { fixed: 1e-3, per_token: 1e-6, per_pair: 0.0 };
        vitals.costs(cost);
        vitals.suffered(Fault::Failed, at(6));
        vitals.suffered(Fault::from(&DeviceError::OutOfMemory("/secret".into())), at(7));
        let state = vitals.state(after(10));
        let expected = DeviceState {
            name: "cpu:0".into(),
            about: "CPU".into(),
            is_up: true,
            since: at(2),
            last_fault: Some((Fault::OutOfMemory, at(7))),
            last_run: Some(Duration::from_secs(5)),
            runs: 2,
            tokens: 96,
            token_budget: 512,
            cost: Some(cost),
        };
        assert_eq!(state, expected);
        // A clock that is read before another one is written harms nobody.
        assert_eq!(vitals.state(start).last_run, Some(Duration::ZERO));
    }
}
