//! The batcher: the inbox's two ends and the queue between them. A free device asks it for a batch.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};

use super::{Asker, Batch, Choice, Desk, Entry, Job, JobError, Pace, Queue, Rate, Ticket, idle::Idle};
use crate::metrics::Metrics;

/// The sending end. Dropping the last one closes the inbox: what is in it is still handed out.
#[derive(Debug)]
pub struct Inbox {
    /// Taken out only by the drop.
    jobs: Option<Sender<Entry<Ticket>>>,
    idle: Arc<Idle>,
    /// Weak: the inbox must see when no device is left.
    batcher: Weak<Batcher>,
}

impl Inbox {
    /// Puts a job down and wakes a device for it. Where there is no room, what nobody waits for any more makes some.
    ///
    /// # Errors
    /// [`NotTaken`]; the job is dropped, which answers it.
    pub fn try_send(&self, entry: Entry<Ticket>) -> Result<(), NotTaken> {
        let jobs = self.jobs.as_ref().expect("it is there until the drop");
        let sent = jobs.try_send(entry).or_else(|e| {
            if e.is_full()
                && let Some(batcher) = self.batcher.upgrade()
            {
                batcher.make_room();
            }
            jobs.try_send(e.into_inner())
        });
        sent.map_err(|e| match e {
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
    arrivals: Receiver<Entry<Ticket>>,
    /// Whether others may have left something in the queue for devices that are about to wait.
    left: AtomicBool,
    idle: Arc<Idle>,
    rate: Arc<Rate>,
    metrics: Arc<Metrics>,
}

/// What only one thread at a time may touch.
struct Waiting {
    inbox: Receiver<Entry<Ticket>>,
    desk: Desk<Ticket>,
    pace: Pace,
}

/// What there is for a device that asks.
enum Offer {
    Batch(Batch<Job>),
    /// Nothing until then, or until something comes.
    Wait(Option<Instant>),
    /// What there is is left to faster devices. Ask again then.
    Leave(Instant),
    /// Nothing any more.
    Closed,
}

impl Batcher {
    /// A batcher and the way into it, for at most `jobs` jobs that nobody has looked at. Besides them it holds what is
    /// admitted, and what was given up since it last looked, which is no more. Devices will ask at `desk`. It measures into
    /// `rate`.
    pub fn new(jobs: usize, desk: Desk<Ticket>, rate: Arc<Rate>, metrics: Arc<Metrics>) -> (Inbox, Arc<Self>) {
        let (sender, inbox) = bounded(jobs);
        let (arrivals, idle) = (inbox.clone(), Arc::new(Idle::default()));
        let waiting = Mutex::new(Waiting { inbox, desk, pace: Pace::default() });
        let left = AtomicBool::new(false);
        let batcher = Arc::new(Self { waiting, arrivals, left, idle: idle.clone(), rate, metrics });
        (Inbox { jobs: Some(sender), idle, batcher: Arc::downgrade(&batcher) }, batcher)
    }

    /// Waits for the next batch; never an empty one. `None` when the inbox is closed and everything was handed out.
    ///
    /// Jobs whose deadline has passed are answered here, and those whose client is gone are dropped, before they cost
    /// a run. What faster devices finish sooner is left to them; `left` is told each time.
    pub fn next_batch(&self, asker: &Asker, left: impl Fn()) -> Option<Batch<Job>> {
        let mut rested = false;
        loop {
            let (offer, more, rank) = {
                let mut waiting = self.lock();
                let offer = self.ask(&mut waiting, asker, rested);
                self.left.store(matches!(offer, Offer::Leave(_)), Ordering::Release);
                let rank = if matches!(offer, Offer::Batch(_)) { 0 } else { waiting.desk.rank(asker) };
                (offer, !waiting.desk.queue.is_empty(), rank)
            };
            match offer {
                Offer::Batch(batch) => {
                    if more {
                        self.idle.wake_one();
                    }
                    self.metrics.batch_closed(batch.closed_by.name());
                    return Some(batch);
                }
                Offer::Wait(until) => {
                    rested = true;
                    self.idle.wait(rank, until, || !self.arrivals.is_empty() || self.left.load(Ordering::Acquire));
                }
                Offer::Leave(until) => {
                    rested = true;
                    left();
                    // The word that woke this device was meant for a faster one. Which that is depends on the job's size, so
                    // whoever is next is woken, and passes it on in turn; one that is about to wait sees the flag.
                    self.idle.wake_one();
                    Idle::pause(until);
                }
                Offer::Closed => return None,
            }
        }
    }

    /// Answers what has expired and drops what nobody waits for, for when no device asks.
    pub fn sweep(&self) {
        self.sweep_in(self.lock());
    }

    /// As [`sweep`](Self::sweep), if the inbox is full. It is empty then, so this is done once for so many jobs.
    fn make_room(&self) {
        let waiting = self.lock();
        // Else another sender was here while this one waited for the lock.
        if waiting.inbox.is_full() {
            self.sweep_in(waiting);
        }
    }

    fn sweep_in(&self, mut waiting: MutexGuard<'_, Waiting>) {
        let Waiting { inbox, desk: Desk { queue, .. }, .. } = &mut *waiting;
        if !inbox.is_empty() {
            // Before it is empty, which a device that is about to wait would believe.
            self.left.store(true, Ordering::Release);
            inbox.try_iter().for_each(|entry| queue.push(entry));
        }
        let unwanted = self.take_unwanted(queue, Instant::now());
        drop(waiting);
        answer_expired(unwanted);
    }

    /// Drops what waits, which answers it, for when no device will ever ask.
    pub fn clear(&self) {
        let mut waiting = self.lock();
        let Waiting { inbox, desk: Desk { queue, .. }, .. } = &mut *waiting;
        inbox.try_iter().for_each(|entry| queue.push(entry));
        let all = queue.take_if(|_| true);
        self.left_queue(&all);
    }

    fn ask(&self, waiting: &mut Waiting, asker: &Asker, rested: bool) -> Offer {
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
        answer_expired(self.take_unwanted(queue, now));
        loop {
            match desk.ask(asker, now, closed) {
                Choice::Wait(None) if closed => return Offer::Closed,
                Choice::Wait(until) => {
                    pace.idle();
                    return Offer::Wait(until);
                }
                Choice::Leave(until) => return Offer::Leave(until),
                Choice::Batch(batch) => {
                    self.left_queue(&batch.entries);
                    let Some(batch) = batch.try_map(Ticket::begin) else { continue };
                    if let Some(rate) = pace.taken(now, batch.size.tokens(), !desk.queue.is_empty(), rested) {
                        self.rate.set(rate, now);
                    }
                    return Offer::Batch(batch);
                }
            }
        }
    }

    /// What has expired at `now`, and what nobody waits for: all of it, not only that of the next batch, for it counts as
    /// a backlog, and would leave that batch half empty.
    fn take_unwanted(&self, queue: &mut Queue<Ticket>, now: Instant) -> Vec<Entry<Ticket>> {
        let mut unwanted = queue.take_expired(now);
        unwanted.extend(queue.take_if(|entry| entry.item.is_abandoned()));
        self.left_queue(&unwanted);
        unwanted
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A poisoned lock guards a queue that is still whole: nothing here panics between two of its changes.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left_queue(&self, entries: &[Entry<Ticket>]) {
        if !entries.is_empty() {
            self.metrics.queue_jobs.decrement(entries.len() as f64);
            self.metrics.queue_tokens.decrement(entries.iter().map(|entry| entry.tokens).sum::<usize>() as f64);
        }
    }
}

/// Those of `entries` that somebody still waits for at `now`. The others are answered: a run takes time, and what is
/// left of a batch that has to run again may not be wanted any more.
pub fn still_wanted(entries: Vec<Entry<Job>>, now: Instant) -> Vec<Entry<Job>> {
    let (expired, mut wanted): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.is_expired(now));
    for entry in expired {
        entry.item.reply.send(Err(JobError::Expired));
    }
    wanted.retain(|entry| !entry.item.reply.is_abandoned());
    wanted
}

fn answer_expired(unwanted: Vec<Entry<Ticket>>) {
    for entry in unwanted {
        // Whoever waited has been told by its own clock, or is gone.
        entry.item.send(Err(JobError::Expired));
    }
}

#[cfg(test)]
mod tests;
