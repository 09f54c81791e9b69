//! What the workers and the watchdog share.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender};

use super::{admission::Admission, health::Health, slot::Slot};
use crate::{
    batching::{Batcher, Entry, Job, JobError, JobResult, Limits},
    config::{Batching, Devices},
    metrics::Metrics,
    model::{InputTensors, Padding, PairTokenizer},
};

pub(super) struct Crew {
    pub batcher: Arc<Batcher>,
    pub batching: Batching,
    /// How long a run should take; zero: as long as the limits let it.
    pub target_run: Duration,
    pub tokenizer: Arc<PairTokenizer>,
    pub pad_id: u32,
    pub classes: usize,
    /// What a new device runs first.
    pub first_run: InputTensors,
    /// What runs are padded to.
    pub padding: Padding,
    pub admission: Arc<Admission>,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    pub rules: Devices,
    /// Closed when the engine ends; nothing is ever sent.
    pub closing: Receiver<Infallible>,
    /// Slots where somebody works.
    pub working: AtomicUsize,
    /// Gets a word for each slot that ends, and for the watchdog.
    pub ended: Sender<()>,
    /// Wakes the watchdog.
    pub changed: Sender<()>,
}

impl Crew {
    /// What a device takes at once that runs of `suited` tokens suit.
    pub fn limits(&self, suited: usize) -> Limits {
        let max_tokens = self.batching.batch_tokens(suited);
        Limits {
            max_tokens,
            max_bulk_tokens: self.batching.bulk_batch_tokens(max_tokens),
            max_rows: self.batching.batch_rows(max_tokens),
            max_padding: self.batching.max_padding,
            max_padding_tokens: usize::MAX,
            bulk_share: self.batching.bulk_share,
            max_delay: Duration::from_micros(self.batching.max_queue_delay_us),
            aim: None,
        }
    }

    /// Answers one job.
    pub fn send(&self, entry: Entry<Job>, result: JobResult) {
        // Whoever does not wait any more has been counted where they left.
        entry.item.reply.send(result);
    }

    /// Answers jobs whose device went away.
    pub fn refuse(&self, entries: Vec<Entry<Job>>) {
        entries.into_iter().for_each(|entry| self.send(entry, Err(JobError::Dropped)));
    }

    /// The last act at a slot. The last of all refuses what still waits, for no device will come.
    pub fn leave(&self, slot: &Slot) {
        self.refuse(slot.take_rest());
        slot.end();
        if self.working.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.batcher.clear();
        }
        // The engine may be gone already; then nobody counts. A full channel means that the watchdog will look anyway.
        let _ = self.ended.try_send(());
        let _ = self.changed.try_send(());
    }
}
