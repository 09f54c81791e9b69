//! Sampled checks: logs that their template answered are scored all the same, when there is nothing else to do, and both are
//! compared.
//!
//! ```text
//! a template's answer == bounded channel, full: dropped ==> Checks::run, when the engine is idle -> scored, learned, kept
//! ```
//!
//! No answer waits for a check, and none waits longer because of one, but for the run that it finds in progress. An engine
//! that is never idle makes one check after each [`PATIENCE`], so that it is known even then how often templates err. Nobody
//! runs checks but who polls [`Checks::run`]; where nobody does they are dropped.

use std::{
    convert::Infallible,
    future::pending,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use futures_util::future::join_all;
use tokio::{sync::mpsc, time::sleep};

use super::{Memory, key::Key, templates::Templates};
use crate::{
    engine::{Class, Handle},
    templates::TemplateId,
};

/// Checks that wait for their turn.
const WAITING: usize = 2048;
/// Longest log in bytes that is checked: with [`WAITING`] it bounds what waits.
const MAX_LOG_BYTES: usize = 4 << 10;
/// Checks that are with an idle engine at once: they hold up who comes meanwhile.
const AT_ONCE: usize = 4;
/// Time between two looks at the engine.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Looks in a row that find nothing to do before the engine counts as idle: a stream leaves it without work for a moment
/// again and again, and a check that begins then holds up what comes next.
const LOOKS: u32 = 40;
/// Time for which a check waits for an idle engine.
const PATIENCE: Duration = Duration::from_millis(500);

/// A log that its template answered.
#[derive(Debug)]
struct Check {
    log: Box<str>,
    /// Its template.
    id: TemplateId,
    /// The anomaly label's score that it was answered with.
    score: f32,
}

/// The checks to be made.
pub struct Checks {
    queue: mpsc::Sender<Check>,
    /// Taken by who makes them.
    todo: Mutex<Option<mpsc::Receiver<Check>>>,
    made: AtomicU64,
    differed: AtomicU64,
    /// Wanted and not made yet.
    open: AtomicU64,
}

impl Checks {
    /// None yet.
    pub fn new() -> Self {
        let (queue, todo) = mpsc::channel(WAITING);
        let (made, differed, open) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        Self { queue, todo: Mutex::new(Some(todo)), made, differed, open }
    }

    /// Wants `log` to be checked, which the template `id` answered with the anomaly label's `score`; `false` if there is no
    /// room for it.
    pub fn put(&self, log: &str, id: TemplateId, score: f32) -> bool {
        let room = self.queue.try_reserve().ok().filter(|_| log.len() <= MAX_LOG_BYTES);
        let Some(room) = room else { return false };
        self.open.fetch_add(1, Ordering::Relaxed);
        room.send(Check { log: log.into(), id, score });
        true
    }

    /// Checks that are wanted and not made yet.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
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
        let mut rests = false;
        loop {
            // The queue's other end is in `self`, so there is always a next one.
            let Some(first) = todo.recv().await else { return pending().await };
            let mut batch = vec![first];
            // What was idle before the last checks and is after them has not come to work meanwhile.
            rests = (rests && still(handle).await) || idle(handle).await;
            if rests {
                batch.extend(std::iter::from_fn(|| todo.try_recv().ok()).take(AT_ONCE - 1));
            }
            let checks = batch.len() as u64;
            join_all(batch.into_iter().map(|check| one(memory, templates, handle, check))).await;
            self.open.fetch_sub(checks, Ordering::Relaxed);
        }
    }
}

/// Whether nothing came to work while checks were made. The last of them is with the engine for a moment after its answer.
async fn still(handle: &Handle) -> bool {
    for _ in 0..2 {
        sleep(LOOK_AGAIN).await;
        if !handle.is_idle() {
            return false;
        }
    }
    true
}

/// Waits until the engine has nothing to do for a while; `false` if that takes too long.
async fn idle(handle: &Handle) -> bool {
    let until = Instant::now() + PATIENCE;
    let mut looks = 0;
    loop {
        looks = if handle.is_idle() { looks + 1 } else { 0 };
        if looks == LOOKS {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        sleep(LOOK_AGAIN).await;
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
    memory.store.put(key, memory.store.scored(&classified.scores, classified.truncated, Instant::now()));
    templates.kinds.learn(id, &classified.scores, task.anomaly, SystemTime::now());
    let checks = &templates.checks;
    checks.made.fetch_add(1, Ordering::Relaxed);
    if templates.kinds.policy().agree(classified.scores[task.anomaly], score) {
        metrics.check_agreed.increment(1);
    } else {
        checks.differed.fetch_add(1, Ordering::Relaxed);
        metrics.check_disagreed.increment(1);
    }
}
