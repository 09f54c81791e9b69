//! A job with a device: one log with all its hypotheses, which always stand in the same batch, and the reply that it is
//! owed. Before that it is a [`Ticket`](super::Ticket).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::CloseReason;
use crate::model::EncodedLog;

/// One log to score: a row for each hypothesis.
#[derive(Debug)]
pub struct Job {
    /// The log's tokens.
    pub log: EncodedLog,
    /// Token ids of each hypothesis.
    pub hypotheses: Arc<[Vec<u32>]>,
    /// Where the answer goes.
    pub reply: Reply,
    /// Its place among what is admitted: it counts until it is answered, whether or not somebody still waits.
    pub permit: OwnedSemaphorePermit,
}

/// Raw model output for one job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobOutput {
    /// Logits `[hypotheses, classes]`, row-major.
    pub logits: Vec<f32>,
    /// Where the time went.
    pub times: JobTimes,
    /// What scored it.
    pub run: JobRun,
}

/// Stage times of one job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobTimes {
    /// From enqueueing to a device.
    pub queue: Duration,
    /// The model run of its batch.
    pub inference: Duration,
}

/// The model run that scored a job, with its company.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRun {
    /// The device's name.
    pub device: Arc<str>,
    /// Jobs of the batch.
    pub jobs: usize,
    /// Its rows.
    pub rows: usize,
    /// Its tokens, padded ones where rows are padded.
    pub tokens: usize,
    /// Why it did not grow further; `None` for a part of one that failed.
    pub closed_by: Option<CloseReason>,
    /// When it began.
    pub began: Instant,
    /// When its logits were there.
    pub ended: Instant,
}

/// Why a job has no output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobError {
    /// Its deadline passed in the queue.
    Expired,
    /// The model failed on it, alone.
    Failed,
    /// The device or the whole engine went away before it ran.
    Dropped,
}

/// What a job's owner receives, exactly once.
pub type JobResult = Result<JobOutput, JobError>;

/// The duty to answer one job. Sending consumes it; dropping it unsent answers [`JobError::Dropped`].
#[derive(Debug)]
pub struct Reply(Option<oneshot::Sender<JobResult>>);

impl Reply {
    /// A reply and the end that receives it.
    pub(super) fn new() -> (Self, oneshot::Receiver<JobResult>) {
        let (to, from) = oneshot::channel();
        (Self(Some(to)), from)
    }

    /// Whether nobody waits any more.
    pub fn is_abandoned(&self) -> bool {
        self.0.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Answers; `false` if nobody waits any more.
    pub fn send(mut self, result: JobResult) -> bool {
        self.0.take().is_some_and(|to| to.send(result).is_ok())
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(to) = self.0.take() {
            // Nobody waiting is as good as answered.
            let _ = to.send(Err(JobError::Dropped));
        }
    }
}
