//! The batcher: the inbox's two ends and the queue between them. A free device asks it for a batch.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};

use super::{Asker, Batch, Choice, Desk, Entry, Job, JobError, Pace, Rate, idle::Idle};
use crate::metrics::Metrics;

/// The sending end. Dropping the last one closes the inbox: what is in it is still handed out.
#[derive(Debug)]
pub struct Inbox {
    /// Taken out only by the drop.
    jobs: Option<Sender<Entry<Job>>>,
    idle: Arc<Idle>,
}

impl Inbox {
    /// Puts a job down and wakes a device for it.
    ///
    /// # Errors
    /// [`NotTaken`]; the job is dropped, which answers it.
    pub fn try_send(&self, entry: Entry<Job>) -> Result<(), NotTaken> {
        let jobs = self.jobs.as_ref().expect("it is there until the drop");
        jobs.try_send(entry).map_err(|e| match e {
            TrySendError::Full(_) => NotTaken::Full,
            TrySendError::Disconnected(_) => NotTaken::Closed,
        })?;
        self.idle.wake_one();
        Ok(())
    }
}

/// Why a job was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// The inbox has no room.
    Full,
    /// The batcher is gone, and every device with it.
    Closed,
}

impl Drop for Inbox {
    fn drop(&mut self) {
        // First the channel, then the devices that wait for it.
        self.jobs = None;
        self.idle.close();
    }
}

/// Collects jobs from the inbox and hands out batches; shared by all devices.
pub struct Batcher {
    waiting: Mutex<Waiting>,
    /// Looked at without the lock, to see whether something came.
    arrivals: Receiver<Entry<Job>>,
    /// Whether something was left to faster devices, which may be about to wait.
    left: AtomicBool,
    idle: Arc<Idle>,
    rate: Arc<Rate>,
    metrics: Arc<Metrics>,
}

/// What only one device at a time may touch.
struct Waiting {
    inbox: Receiver<Entry<Job>>,
    desk: Desk<Job>,
    pace: Pace,
}

/// What there is for a device that asks.
enum Answer {
    Batch(Batch<Job>),
    /// Nothing until then, or until something comes.
    Wait(Option<Instant>),
    /// What there is is left to faster devices. Ask again then.
    Leave(Instant),
    /// Nothing any more.
    Closed,
}

impl Batcher {
    /// A batcher and the way into it, for at most `jobs` jobs that no device has looked at; what it holds besides is
    /// bounded by admission. `devices` will ask. It measures into `rate`.
    pub fn new(jobs: usize, devices: usize, rate: Arc<Rate>, metrics: Arc<Metrics>) -> (Inbox, Self) {
        let (sender, receiver) = bounded(jobs);
        let idle = Arc::new(Idle::default());
        let inbox = Inbox { jobs: Some(sender), idle: idle.clone() };
        let waiting = Waiting { inbox: receiver.clone(), desk: Desk::new(devices), pace: Pace::default() };
        let left = AtomicBool::new(false);
        (inbox, Self { waiting: Mutex::new(waiting), arrivals: receiver, left, idle, rate, metrics })
    }

    /// Waits for the next batch; never an empty one. `None` when the inbox is closed and everything was handed out.
    ///
    /// Jobs whose deadline has passed are answered here, and those whose client is gone are dropped, before they cost
    /// a run. What faster devices finish sooner is left to them; `left` is told each time.
    pub fn next_batch(&self, asker: &Asker, left: impl Fn()) -> Option<Batch<Job>> {
        let mut rested = false;
        loop {
            let (answer, more, rank) = {
                // A poisoned lock guards a queue that is still whole: nothing here panics between two of its changes.
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                let answer = self.ask(&mut waiting, asker, rested);
                self.left.store(matches!(answer, Answer::Leave(_)), Ordering::Release);
                let rank = if matches!(answer, Answer::Batch(_)) { 0 } else { waiting.desk.rank(asker) };
                (answer, !waiting.desk.queue.is_empty(), rank)
            };
            match answer {
                Answer::Batch(batch) => {
                    if more {
                        self.idle.wake_one();
                    }
                    self.metrics.batch_closed(batch.closed_by.name());
                    return Some(batch);
                }
                Answer::Wait(until) => {
                    rested = true;
                    self.idle.wait(rank, until, || !self.arrivals.is_empty() || self.left.load(Ordering::Acquire));
                }
                Answer::Leave(until) => {
                    rested = true;
                    left();
                    // The word that woke this device was meant for a faster one. Which that is depends on the job's size, so
                    // whoever is next is woken, and passes it on in turn; one that is about to wait sees the flag.
                    Idle::pause(until);
                }
                Answer::Closed => return None,
            }
        }
    }

    /// Answers what has expired, for when no device asks.
    pub fn expire(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Waiting { inbox, desk: Desk { queue, .. }, .. } = &mut *waiting;
        inbox.try_iter().for_each(|entry| queue.push(entry));
        let expired = queue.take_expired(Instant::now());
        self.left_queue(&expired);
        answer_expired(expired);
    }

    /// Drops what waits, which answers it, for when no device will ever ask.
    pub fn clear(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Waiting { inbox, desk: Desk { queue, .. }, .. } = &mut *waiting;
        inbox.try_iter().for_each(|entry| queue.push(entry));
        let all = queue.take_if(|_| true);
        self.left_queue(&all);
    }

    fn ask(&self, waiting: &mut Waiting, asker: &Asker, rested: bool) -> Answer {
        let Waiting { inbox, desk, pace } = waiting;
        let queue = &mut desk.queue;
        let closed = loop {
            match inbox.try_recv() {
                Ok(entry) => queue.push(entry),
                Err(TryRecvError::Empty) => break false,
                Err(TryRecvError::Disconnected) => break true,
            }
        };
        let now = Instant::now();
        let expired = queue.take_expired(now);
        self.left_queue(&expired);
        answer_expired(expired);
        // All of them, not only those of the next batch: they count as a backlog, and would leave it half empty.
        let abandoned = queue.take_if(|entry| entry.item.reply.is_abandoned());
        self.left_queue(&abandoned);
        drop(abandoned);
        loop {
            match desk.ask(asker, now, closed) {
                Choice::Wait(None) if closed => return Answer::Closed,
                Choice::Wait(until) => {
                    pace.idle();
                    return Answer::Wait(until);
                }
                Choice::Leave(until) => return Answer::Leave(until),
                Choice::Batch(batch) => {
                    let Some(batch) = self.without_abandoned(batch) else { continue };
                    if let Some(rate) = pace.taken(now, batch.tokens(), !desk.queue.is_empty(), rested) {
                        self.rate.set(rate, now);
                    }
                    return Answer::Batch(batch);
                }
            }
        }
    }

    fn without_abandoned(&self, mut batch: Batch<Job>) -> Option<Batch<Job>> {
        self.left_queue(&batch.entries);
        let before = batch.entries.len();
        batch.entries.retain(|entry| !entry.item.reply.is_abandoned());
        if batch.entries.len() < before {
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

/// Those of `entries` that somebody still waits for at `now`. The others are answered: a run takes time, and what is
/// left of a batch that has to run again may not be wanted any more.
pub fn still_wanted(entries: Vec<Entry<Job>>, now: Instant) -> Vec<Entry<Job>> {
    let (expired, mut wanted): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.is_expired(now));
    answer_expired(expired);
    wanted.retain(|entry| !entry.item.reply.is_abandoned());
    wanted
}

fn answer_expired(expired: Vec<Entry<Job>>) {
    for entry in expired {
        // Whoever waited has been told by its own clock, or is gone.
        entry.item.reply.send(Err(JobError::Expired));
    }
}
