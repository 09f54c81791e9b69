//! The batcher: the inbox's receiving end and the queue behind it. A free device locks it and asks.

use std::{sync::Arc, time::Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::{Batch, Entry, Job, JobError, Limits, Queue};
use crate::metrics::Metrics;

/// Collects jobs from the inbox and hands out batches.
pub struct Batcher {
    inbox: Receiver<Entry<Job>>,
    queue: Queue<Job>,
    metrics: Arc<Metrics>,
}

impl Batcher {
    /// A batcher over `inbox`; what it holds besides is bounded by admission.
    pub fn new(inbox: Receiver<Entry<Job>>, metrics: Arc<Metrics>) -> Self {
        Self { inbox, queue: Queue::default(), metrics }
    }

    /// Waits for the next batch; never an empty one. `None` when the inbox is closed and everything was handed out.
    ///
    /// Jobs whose deadline has passed are answered here, and those whose client is gone are dropped, before they cost
    /// a run.
    pub fn next_batch(&mut self, limits: &Limits) -> Option<Batch<Job>> {
        let mut closed = false;
        loop {
            for entry in self.inbox.try_iter() {
                self.queue.push(entry);
            }
            let now = Instant::now();
            self.answer_expired(now);
            let Some(due) = self.queue.due_at(limits) else {
                self.queue.push(self.inbox.recv().ok()?);
                continue;
            };
            if due > now && !closed {
                match self.inbox.recv_deadline(due) {
                    Ok(entry) => self.queue.push(entry),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => closed = true,
                }
                continue;
            }
            if let Some(batch) = self.queue.take(limits).and_then(|batch| self.without_abandoned(batch)) {
                self.metrics.batch_closed(batch.closed_by.name());
                return Some(batch);
            }
        }
    }

    fn answer_expired(&mut self, now: Instant) {
        let expired = self.queue.take_expired(now);
        self.left_queue(&expired);
        for entry in expired {
            self.metrics.expired.increment(1);
            if !entry.item.reply.send(Err(JobError::Expired)) {
                self.metrics.dropped_by_client.increment(1);
            }
        }
    }

    fn without_abandoned(&self, mut batch: Batch<Job>) -> Option<Batch<Job>> {
        self.left_queue(&batch.entries);
        let before = batch.entries.len();
        batch.entries.retain(|entry| !entry.item.reply.is_abandoned());
        if batch.entries.len() < before {
            self.metrics.dropped_by_client.increment((before - batch.entries.len()) as u64);
            batch.rows = batch.entries.iter().map(|e| e.rows).sum();
            batch.padded_len = batch.entries.iter().map(|e| e.padded_len).max()?;
        }
        Some(batch)
    }

    fn left_queue(&self, entries: &[Entry<Job>]) {
        if !entries.is_empty() {
            self.metrics.queue_jobs.decrement(entries.len() as f64);
            self.metrics.queue_tokens.decrement(entries.iter().map(Entry::tokens).sum::<usize>() as f64);
        }
    }
}
