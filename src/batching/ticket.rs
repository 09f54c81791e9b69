//! A job on its way to a device. What it holds lies between its two ends, and whoever drops an end takes it out.
//!
//! ```text
//! Ticket (inbox, queue) ---.                  .--- Answer (whoever waits)
//!                           > log and permit <
//! begin: a device has it --'                  '--- dropped: nothing of the job is left but the empty ticket
//! ```
//! So a client that leaves gives back its tokens and its memory at once, not when somebody next looks at the queue. What
//! a device has begun counts to the end of its run, whoever leaves.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    Job,
    job::{JobResult, Reply},
};
use crate::model::EncodedLog;

/// What a waiting job holds.
#[derive(Debug)]
pub struct Load {
    /// The log's tokens.
    pub log: EncodedLog,
    /// Token ids of each hypothesis.
    pub hypotheses: Arc<[Vec<u32>]>,
    /// Its place among what is admitted.
    pub permit: OwnedSemaphorePermit,
}

impl Load {
    /// The end that waits for a device, and the end that waits for the answer.
    pub fn wait(self) -> (Ticket, Answer) {
        let (reply, from) = Reply::new();
        let load = Arc::new(Mutex::new(Some(self)));
        (Ticket { load: End(load.clone()), reply }, Answer { _load: End(load), from })
    }
}

/// One end of a load. Dropping it frees the load, unless it was taken before.
#[derive(Debug)]
struct End(Arc<Mutex<Option<Load>>>);

impl End {
    fn take(&self) -> Option<Load> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for End {
    fn drop(&mut self) {
        drop(self.take());
    }
}

/// The right to run a job, and the duty to answer it: see [`Reply`].
#[derive(Debug)]
pub struct Ticket {
    load: End,
    reply: Reply,
}

impl Ticket {
    /// The job, which counts until it is dropped from now on; `None` if nobody waits any more.
    pub fn begin(self) -> Option<Job> {
        let Load { log, hypotheses, permit } = self.load.take()?;
        Some(Job { log, hypotheses, reply: self.reply, permit })
    }

    /// Whether nobody waits any more.
    pub fn is_abandoned(&self) -> bool {
        self.reply.is_abandoned()
    }

    /// Answers without a run; `false` if nobody waits any more.
    pub fn send(self, result: JobResult) -> bool {
        self.reply.send(result)
    }
}

/// The answer to come. Dropping it gives the job up.
#[derive(Debug)]
pub struct Answer {
    // Before the other end can see that nobody waits.
    _load: End,
    from: oneshot::Receiver<JobResult>,
}

impl Future for Answer {
    /// An error says that whoever was to answer is gone without a word.
    type Output = Result<JobResult, oneshot::error::RecvError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.from).poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use futures_util::FutureExt;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::batching::JobError;

    /// A job of 6 of the 10 places of a pool; the last one tells whether its hypotheses are still there.
    fn job() -> (Arc<Semaphore>, Ticket, Answer, Weak<[Vec<u32>]>) {
        let pool = Arc::new(Semaphore::new(10));
        let permit = pool.clone().try_acquire_many_owned(6).unwrap();
        let hypotheses: Arc<[Vec<u32>]> = vec![vec![1, 2]].into();
        let memory = Arc::downgrade(&hypotheses);
        let log = EncodedLog { ids: vec![3; 100], truncated: false };
        let (ticket, answer) = Load { log, hypotheses, permit }.wait();
        assert_eq!(pool.available_permits(), 4);
        (pool, ticket, answer, memory)
    }

    #[test]
    fn who_leaves_before_the_run_takes_everything_along() {
        let (pool, ticket, answer, memory) = job();
        assert!(!ticket.is_abandoned());
        drop(answer);
        assert_eq!((pool.available_permits(), memory.upgrade()), (10, None));
        assert!(ticket.is_abandoned());
        assert!(ticket.begin().is_none());
        assert_eq!(pool.available_permits(), 10);
    }

    #[test]
    fn what_runs_counts_to_the_end_of_its_run() {
        let (pool, ticket, answer, _) = job();
        let job = ticket.begin().unwrap();
        drop(answer);
        assert_eq!((pool.available_permits(), job.log.ids.len()), (4, 100));
        assert!(job.reply.is_abandoned());
        drop(job);
        assert_eq!(pool.available_permits(), 10);
    }

    #[test]
    fn what_never_runs_is_answered_and_counts_no_longer() {
        let (pool, ticket, mut answer, memory) = job();
        drop(ticket);
        assert_eq!((pool.available_permits(), memory.upgrade()), (10, None));
        assert_eq!((&mut answer).now_or_never(), Some(Ok(Err(JobError::Dropped))));
        let (pool, ticket, mut answer, _) = job();
        assert!(ticket.send(Err(JobError::Expired)));
        assert_eq!(pool.available_permits(), 10);
        assert_eq!((&mut answer).now_or_never(), Some(Ok(Err(JobError::Expired))));
    }
}
