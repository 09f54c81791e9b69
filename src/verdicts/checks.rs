//! Sampled checks: logs that their template answered are scored all the same, when there is room, and both are compared.
//!
//! ```text
//! a template's answer == bounded channel, full: dropped ==> Checks::run, a few at once -> the engine, as bulk -> learned, kept
//! ```
//!
//! No answer waits for a check. Nobody runs them but who polls [`Checks::run`]; where nobody does they are dropped.

use std::{
    convert::Infallible,
    future::pending,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::mpsc;

use super::{Memory, key::Key, templates::Templates};
use crate::{
    engine::{Class, Handle},
    templates::TemplateId,
};

/// Checks that wait for their turn.
const WAITING: usize = 64;
/// Checks that are with the engine at once.
const AT_ONCE: usize = 4;

/// A log that its template answered.
#[derive(Debug)]
pub struct Check {
    /// The log.
    pub log: String,
    /// Its template.
    pub id: TemplateId,
    /// The anomaly label's score that it was answered with.
    pub score: f32,
}

/// The checks to be made.
pub struct Checks {
    queue: mpsc::Sender<Check>,
    /// Taken by who makes them.
    todo: Mutex<Option<mpsc::Receiver<Check>>>,
    made: AtomicU64,
    differed: AtomicU64,
}

impl Checks {
    /// None yet.
    pub fn new() -> Self {
        let (queue, todo) = mpsc::channel(WAITING);
        let (made, differed) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { queue, todo: Mutex::new(Some(todo)), made, differed }
    }

    /// Puts a check into the queue; `false` if that is full.
    pub fn put(&self, check: Check) -> bool {
        self.queue.try_send(check).is_ok()
    }

    /// Of the checks that were made, the share in which the verdicts differed; 0 before the first one.
    pub fn disagreement(&self) -> f64 {
        let differed = self.differed.load(Ordering::Relaxed);
        differed as f64 / self.made.load(Ordering::Relaxed).max(1) as f64
    }

    /// Makes all checks from now on, until it is dropped. A second call makes none.
    pub(super) async fn run(&self, memory: &Memory, templates: &Templates, handle: &Handle) -> Infallible {
        let todo = self.todo.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut todo) = todo else { return pending().await };
        let mut running = FuturesUnordered::new();
        loop {
            tokio::select! {
                // The queue's other end is in `self`, so there is always a next one.
                Some(check) = todo.recv(), if running.len() < AT_ONCE => {
                    running.push(one(memory, templates, handle, check));
                }
                Some(()) = running.next(), if !running.is_empty() => {}
            }
        }
    }
}

async fn one(memory: &Memory, templates: &Templates, handle: &Handle, Check { log, id, score }: Check) {
    let task = handle.default_task();
    let encoded = handle.encode(&log, task).await;
    let key = Key::input(&encoded.log, task);
    let deadline = Instant::now() + handle.timeouts().default;
    let metrics = &templates.metrics;
    let Ok(classified) = handle.classify_encoded(encoded, task, Class::Bulk, deadline).await else {
        metrics.check_failed.increment(1);
        return;
    };
    let now = Instant::now();
    memory.store.put(key, memory.store.scored(&classified.scores, classified.truncated, now));
    templates.kinds.learn(id, &classified.scores, task.anomaly, now);
    let checks = &templates.checks;
    checks.made.fetch_add(1, Ordering::Relaxed);
    if templates.kinds.policy().agree(classified.scores[task.anomaly], score) {
        metrics.check_agreed.increment(1);
    } else {
        checks.differed.fetch_add(1, Ordering::Relaxed);
        metrics.check_disagreed.increment(1);
    }
}
