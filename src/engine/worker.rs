//! A device's thread: asks for a batch, pads it, runs it, answers its jobs. It cannot die of a batch.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use metrics::Histogram;

use super::admission::Admission;
use crate::{
    batching::{Batcher, Entry, Job, JobError, JobOutput, JobTimes, Limits, still_wanted},
    device::{Device, DeviceError},
    metrics::Metrics,
    model::{InputTensors, Model, PairTokenizer},
};

pub(super) struct Worker {
    device: Box<dyn Device>,
    batcher: Arc<Batcher>,
    limits: Limits,
    tokenizer: Arc<PairTokenizer>,
    pad_id: u32,
    classes: usize,
    admission: Arc<Admission>,
    metrics: Arc<Metrics>,
    run_time: Histogram,
    inputs: InputTensors,
    logits: Vec<f32>,
}

impl Worker {
    pub fn new(
        device: Box<dyn Device>,
        model: &Model,
        batcher: Arc<Batcher>,
        limits: Limits,
        admission: Arc<Admission>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            run_time: metrics.device_run(device.name()),
            device,
            batcher,
            limits,
            tokenizer: model.tokenizer.clone(),
            pad_id: model.spec.pad_id,
            classes: model.spec.classes,
            admission,
            metrics,
            inputs: InputTensors::default(),
            logits: Vec::new(),
        }
    }

    /// Works until the inbox is closed and empty.
    pub fn run(mut self) {
        while let Some(batch) = self.batcher.next_batch(&self.limits) {
            self.run_entries(batch.entries);
        }
    }

    /// Runs the entries; on an error halves them until what fails is alone, so that it harms no neighbour.
    fn run_entries(&mut self, entries: Vec<Entry<Job>>) {
        let mut entries = still_wanted(entries, Instant::now());
        if entries.is_empty() {
            return;
        }
        let started = Instant::now();
        match self.run_once(&entries) {
            Ok(()) => self.answer(entries, started, started.elapsed()),
            Err(error) if entries.len() == 1 => {
                tracing::warn!(device = self.device.name(), %error, "the model failed on one log");
                self.metrics.failed_jobs(1);
                for entry in entries {
                    entry.item.reply.send(Err(JobError::Failed));
                }
            }
            Err(error) => {
                tracing::warn!(device = self.device.name(), %error, logs = entries.len(), "a batch failed; halving it");
                let second = entries.split_off(entries.len() / 2);
                self.run_entries(entries);
                self.run_entries(second);
            }
        }
    }

    fn run_once(&mut self, entries: &[Entry<Job>]) -> Result<(), DeviceError> {
        let rows = entries.iter().map(|e| e.rows).sum();
        let longest = entries.iter().map(|e| e.padded_len).max().unwrap_or_default();
        self.inputs.reset(rows, longest, self.pad_id);
        for job in entries.iter().map(|e| &e.item) {
            for hypothesis in job.hypotheses.iter() {
                self.inputs.push(&self.tokenizer, &job.log.ids, hypothesis);
            }
        }
        self.inputs.finish();
        let started = Instant::now();
        let (device, inputs, logits) = (&mut self.device, &self.inputs, &mut self.logits);
        let run = catch_unwind(AssertUnwindSafe(|| device.run(inputs, logits)));
        let time = started.elapsed();
        self.run_time.record(time);
        run.map_err(|_| DeviceError("the device panicked".into()))??;
        if self.logits.len() != rows * self.classes {
            return Err(DeviceError(format!("{} logits for {rows} rows", self.logits.len())));
        }
        let cells = rows * longest;
        self.admission.observe_run(cells, time);
        self.metrics.batch_rows.record(rows as f64);
        self.metrics.batch_tokens.record(cells as f64);
        self.metrics.batch_padding.record(1.0 - self.inputs.tokens() as f64 / cells as f64);
        Ok(())
    }

    fn answer(&self, entries: Vec<Entry<Job>>, started: Instant, inference: Duration) {
        let mut at = 0;
        for entry in entries {
            let values = entry.rows * self.classes;
            let logits = self.logits[at..at + values].to_vec();
            at += values;
            if logits.iter().any(|z| !z.is_finite()) {
                self.metrics.failed_jobs(1);
                entry.item.reply.send(Err(JobError::Failed));
                continue;
            }
            let times = JobTimes { queue: started - entry.enqueued_at, inference };
            entry.item.reply.send(Ok(JobOutput { logits, times }));
        }
    }
}
