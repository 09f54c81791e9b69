//! A device's thread: asks for a batch, pads it, runs it, answers its jobs. It cannot die of a batch: a failed one is
//! halved until what fails is alone, and a device that panicked, or runs nothing any more, is made anew.

mod care;

use std::{
    io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, PoisonError},
    thread,
    time::{Duration, Instant},
};

use care::drop_quietly;

use super::{budget::Budget, crew::Crew, pace::Pace, slot::Slot, vitals::Fault};
use crate::{
    batching::{Aim, Asker, CloseReason, Costs, Entry, Job, JobError, JobOutput, JobRun, JobTimes, Size, still_wanted},
    device::{Device, DeviceError},
    model::InputTensors,
};

/// How long a device that was better once may be left out before it gets a log to show what it can.
const PROBE_AFTER: Duration = Duration::from_secs(5);

pub(super) struct Worker {
    crew: Arc<Crew>,
    slot: Arc<Slot>,
    /// The slot's, for what is told of runs.
    name: Arc<str>,
    number: u64,
    /// The device to start with; without one, one is made.
    device: Option<Box<dyn Device>>,
    /// Why one would be made, for the metrics.
    reason: &'static str,
    asker: Asker,
    budget: Budget,
    pace: Pace,
    inputs: InputTensors,
    logits: Vec<f32>,
    /// Whether parts of a failed batch may wait in the slot.
    has_rest: bool,
    /// Whether the next part is a log that found no memory alone, and is tried again.
    tries_again: bool,
    /// Why the batch at hand did not grow further; `None` for such a part.
    closed_by: Option<CloseReason>,
}

/// A run that came back.
struct Ran {
    /// `None` if the device panicked.
    result: Option<Result<(), DeviceError>>,
    entries: Vec<Entry<Job>>,
    time: Duration,
}

/// Why a worker works with its device no longer.
enum End {
    /// The engine ends and nothing waits.
    Closed,
    /// Another thread works here now.
    Abandoned,
    /// The device cannot be trusted any more.
    Panicked,
    /// The device runs nothing any more.
    Broken,
}

impl Worker {
    /// A slot's first thread, with a device that ran once.
    pub fn new(crew: Arc<Crew>, slot: Arc<Slot>, device: Box<dyn Device>) -> Self {
        Self { device: Some(device), ..Self::replacement(crew, slot, 0) }
    }

    /// A thread for a slot whose last one hangs.
    pub fn replacement(crew: Arc<Crew>, slot: Arc<Slot>, number: u64) -> Self {
        let limits = crew.limits(slot.run_tokens);
        let budget = Budget::new(limits.max_tokens);
        slot.takes(budget.tokens());
        let mut worker = Self {
            pace: slot.first_pace,
            name: slot.name.as_str().into(),
            asker: Asker { seat: slot.seat, gpu: slot.gpu, limits, cost: None, probe_after: None },
            crew,
            slot,
            number,
            device: None,
            reason: "hang",
            budget,
            inputs: InputTensors::default(),
            logits: Vec::new(),
            has_rest: false,
            tries_again: false,
            closed_by: None,
        };
        // After a hang: the thread before has learned already.
        worker.learn(|_| true);
        worker
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system's.
    pub fn start(self) -> io::Result<()> {
        thread::Builder::new().name(format!("device-{}", self.slot.name)).spawn(move || self.run()).map(drop)
    }

    /// Works until the inbox is closed and empty, or the thread is abandoned.
    fn run(mut self) {
        loop {
            let device = self.device.take().map_or_else(|| self.rebuild(), Ok);
            let end = device.map_or_else(
                |end| end,
                |mut device| {
                    let end = self.serve(device.as_mut());
                    drop_quietly(device);
                    end
                },
            );
            match end {
                End::Panicked => self.reason = "panic",
                End::Broken => self.reason = "broken",
                End::Closed => return self.crew.leave(&self.slot),
                End::Abandoned => return self.slot.came_back(),
            }
        }
    }

    fn serve(&mut self, device: &mut dyn Device) -> End {
        while let Some(entries) = self.next_entries() {
            if let Err(end) = self.run_entries(device, entries) {
                return end;
            }
        }
        End::Closed
    }

    /// Parts of a failed batch first, cut to what there may be memory for.
    fn next_entries(&mut self) -> Option<Vec<Entry<Job>>> {
        if self.has_rest {
            if let Some(mut entries) = self.slot.pop_rest() {
                while entries.len() > 1 && self.size(&entries).tokens() > self.budget.tokens() {
                    self.slot.push_rest(entries.split_off(entries.len() / 2));
                }
                self.closed_by = None;
                return Some(entries);
            }
            self.has_rest = false;
        }
        let left = || self.slot.metrics.left.increment(1);
        let batch = self.crew.batcher.next_batch(&self.asker, left)?;
        self.closed_by = Some(batch.closed_by);
        Some(batch.entries)
    }

    fn run_entries(&mut self, device: &mut dyn Device, entries: Vec<Entry<Job>>) -> Result<(), End> {
        let (started, tried_again) = (Instant::now(), mem::take(&mut self.tries_again));
        let entries = still_wanted(entries, started);
        if entries.is_empty() {
            return Ok(());
        }
        let size = self.size(&entries);
        if catch_unwind(AssertUnwindSafe(|| self.fill(&entries))).is_err() {
            self.failed(entries, &DeviceError::Failed("its tensors cannot be made".into()));
            return Ok(());
        }
        let Ran { result, entries, time } = self.run_watched(device, entries)?;
        match &result {
            Some(Ok(())) => {}
            Some(Err(error)) => self.slot.suffered(error.into()),
            None => self.slot.suffered(Fault::Panicked),
        }
        match result {
            Some(Ok(())) => {
                self.observe(size, time);
                self.answer(entries, started);
                Ok(())
            }
            Some(Err(DeviceError::Terminated)) => {
                self.learn(Costs::failed);
                self.crew.refuse(entries);
                Ok(())
            }
            Some(Err(error)) => {
                let lacks_memory = matches!(error, DeviceError::OutOfMemory(_));
                match lacks_memory {
                    true => self.shrink(size.tokens()),
                    false => self.learn(Costs::failed),
                }
                // Half of it may find memory; else it must be known whose fault it is.
                if lacks_memory && entries.len() > 1 {
                    self.failed(entries, &error);
                    return Ok(());
                }
                let entries = self.examine(device, entries, &error)?;
                // The run that was just made has given back what lay about in pieces.
                if lacks_memory && !tried_again {
                    (self.tries_again, self.has_rest) = (true, true);
                    self.slot.push_rest(entries);
                    return Ok(());
                }
                self.failed(entries, &error);
                Ok(())
            }
            None => {
                self.failed(entries, &DeviceError::Failed("the device panicked".into()));
                Err(End::Panicked)
            }
        }
    }

    /// Runs what is in the tensors, with `entries` in the slot meanwhile.
    fn run_watched(&mut self, device: &mut dyn Device, entries: Vec<Entry<Job>>) -> Result<Ran, End> {
        let least = Duration::from_millis(self.crew.rules.run_timeout_ms);
        let started = Instant::now();
        self.slot.arm(entries, started, self.pace.allowed(self.crew.padding.tokens(&self.inputs), started, least));
        let (inputs, logits) = (&self.inputs, &mut self.logits);
        let result = catch_unwind(AssertUnwindSafe(|| device.run(inputs, logits)));
        let time = started.elapsed();
        let finished = self.slot.disarm(self.number).ok_or(End::Abandoned)?;
        self.slot.metrics.run_time.record(time);
        let expected = self.inputs.rows * self.crew.classes;
        let result = match result {
            Ok(Ok(())) if logits.len() != expected => {
                Some(Err(DeviceError::Failed(format!("{} logits instead of {expected}", logits.len()))))
            }
            // Whatever it says about its end: it took too long.
            Ok(Err(_)) if finished.terminated => Some(Err(DeviceError::Terminated)),
            Ok(result) => Some(result),
            Err(_) => None,
        };
        Ok(Ran { result, entries: finished.entries, time })
    }

    /// What entries that run together cost.
    fn size(&self, entries: &[Entry<Job>]) -> Size {
        Size::of(self.crew.padding.is_free(), entries)
    }

    fn fill(&mut self, entries: &[Entry<Job>]) {
        let of_job = |job: &Job| self.crew.tokenizer.pair_lens(job.log.ids.len(), &job.hypotheses).max();
        let longest = entries.iter().filter_map(|entry| of_job(&entry.item)).max();
        let shape = self.crew.padding.fit(self.size(entries).rows(), longest.unwrap_or_default());
        self.inputs.reset_to(shape, self.crew.pad_id);
        for job in entries.iter().map(|e| &e.item) {
            for hypothesis in job.hypotheses.iter() {
                self.inputs.push(&self.crew.tokenizer, &job.log.ids, hypothesis);
            }
        }
        self.inputs.finish();
    }

    fn observe(&mut self, size: Size, time: Duration) {
        let (now, tokens) = (Instant::now(), size.tokens());
        self.pace.observe(tokens, time, now);
        self.slot.ran(tokens, now);
        self.crew.health.succeeded(now);
        self.crew.admission.observe_run(tokens, time);
        self.learn(|costs| costs.observe(tokens, size.row_len(), time));
        let metrics = &self.crew.metrics;
        metrics.batch_rows.record(self.inputs.rows as f64);
        metrics.batch_tokens.record(tokens as f64);
        metrics.batch_padding.record(1.0 - self.inputs.tokens() as f64 / tokens as f64);
        if self.budget.succeeded() {
            self.set_limit();
            tracing::info!(device = self.slot.name, tokens = self.budget.tokens(), "the token budget grows back");
        }
    }

    /// Changes what is known of the device's cost, and asks accordingly from now on.
    fn learn(&mut self, change: impl FnOnce(&mut Costs) -> bool) {
        let mut costs = self.slot.costs.lock().unwrap_or_else(PoisonError::into_inner);
        if !change(&mut costs) {
            return;
        }
        let (cost, worse) = (costs.cost(), costs.is_worse());
        drop(costs);
        self.asker.learns(cost);
        self.asker.probe_after = worse.then_some(PROBE_AFTER);
        let Some(cost) = cost else { return };
        let aim = self.crew.target_run;
        self.asker.limits.aim = (!aim.is_zero()).then_some(Aim { cost, seconds: aim.as_secs_f64() });
        self.slot.tell_cost(cost);
    }

    fn shrink(&mut self, too_many: usize) {
        self.budget.shrink(too_many);
        self.set_limit();
        self.slot.metrics.budget_shrinks.increment(1);
        tracing::warn!(
            device = self.slot.name,
            too_many,
            tokens = self.budget.tokens(),
            "out of memory; taking fewer tokens"
        );
    }

    fn set_limit(&mut self) {
        self.asker.limits.max_tokens = self.budget.tokens();
        self.slot.takes(self.budget.tokens());
    }

    /// Answers a log that failed alone; halves more of them, so that none harms its neighbour.
    fn failed(&mut self, mut entries: Vec<Entry<Job>>, error: &DeviceError) {
        let device = &self.slot.name;
        if entries.len() < 2 {
            tracing::warn!(device, %error, "the model failed on one log");
            self.crew.metrics.failed_jobs(entries.len());
            return entries.into_iter().for_each(|entry| self.crew.send(entry, Err(JobError::Failed)));
        }
        tracing::warn!(device, %error, logs = entries.len(), "a batch failed; halving it");
        self.slot.metrics.halved.increment(1);
        let second = entries.split_off(entries.len() / 2);
        self.slot.push_rest(second);
        self.slot.push_rest(entries);
        self.has_rest = true;
    }

    fn answer(&self, entries: Vec<Entry<Job>>, started: Instant) {
        let ended = Instant::now();
        let inference = ended - started;
        let run = JobRun {
            device: self.name.clone(),
            jobs: entries.len(),
            rows: self.inputs.rows,
            tokens: self.crew.padding.tokens(&self.inputs),
            closed_by: self.closed_by,
            began: started,
            ended,
        };
        let mut at = 0;
        for entry in entries {
            let values = entry.rows * self.crew.classes;
            let logits = self.logits[at..at + values].to_vec();
            at += values;
            if logits.iter().any(|z| !z.is_finite()) {
                self.crew.metrics.failed_jobs(1);
                self.crew.send(entry, Err(JobError::Failed));
                continue;
            }
            let times = JobTimes { queue: started - entry.enqueued_at, inference };
            self.crew.send(entry, Ok(JobOutput { logits, times, run: run.clone() }));
        }
    }
}
