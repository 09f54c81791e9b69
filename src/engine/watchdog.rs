//! Watches the model runs, and clears the queue of what expires or is given up while all devices are busy or gone.
//!
//! It sleeps until the next run is due, but at most for a tick: a run that starts meanwhile is due later than that.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::Receiver;

use super::{
    crew::Crew,
    slot::{Abandoned, Slot},
    vitals::Fault,
    worker::Worker,
};

/// Longest time between two looks.
const TICK: Duration = Duration::from_millis(250);

pub(super) struct Watchdog {
    pub crew: Arc<Crew>,
    pub slots: Vec<Arc<Slot>>,
    /// A word when a slot has ended.
    pub changed: Receiver<()>,
}

impl Watchdog {
    /// Watches until every slot has ended.
    pub fn run(self) {
        let timeout = Duration::from_millis(self.crew.rules.run_timeout_ms);
        let tick = TICK.min(timeout / 4).max(Duration::from_millis(1));
        let mut due = Instant::now() + tick;
        while self.slots.iter().any(|slot| !slot.has_ended()) {
            let _ = self.changed.recv_deadline(due);
            let now = Instant::now();
            // Whoever stopped this thread for so long (a debugger, a suspended machine) stopped the runs too.
            let late = now.saturating_duration_since(due);
            let lost = if late > tick { late } else { Duration::ZERO };
            due = now + tick;
            for slot in &self.slots {
                match slot.check(now, lost) {
                    Ok(None) => {}
                    Ok(Some(at)) => due = due.min(at),
                    Err(abandoned) => self.replace(slot, abandoned),
                }
            }
            self.crew.batcher.sweep();
        }
        let _ = self.crew.ended.try_send(());
    }

    /// Answers what the abandoned thread was to answer, and puts another one in its place.
    fn replace(&self, slot: &Arc<Slot>, abandoned: Abandoned) {
        self.crew.refuse(abandoned.entries);
        let Some(number) = abandoned.next else {
            tracing::error!(device = slot.name, "too many threads hang: the device is given up until a restart");
            slot.suffered(Fault::GivenUp);
            return self.crew.leave(slot);
        };
        if let Err(error) = Worker::replacement(self.crew.clone(), slot.clone(), number).start() {
            tracing::error!(device = slot.name, %error, "no thread can be started: the device is given up");
            slot.suffered(Fault::GivenUp);
            self.crew.leave(slot);
        }
    }
}
