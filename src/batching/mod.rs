//! From waiting jobs to batches. The batcher is asked by whoever is free; it never pushes.
//!
//! ```text
//! inbox (bounded channel) -> Batcher -> Queue (pure) -> Batch -> the device that asked
//! ```
//!
//! It does not know what a device is, what the logits mean, or HTTP.

mod batcher;
mod idle;
mod job;
mod queue;

pub use batcher::{Batcher, Inbox, NotTaken};
pub use job::{Job, JobError, JobOutput, JobResult, JobTimes, Reply};
pub use queue::{Batch, CloseReason, Entry, Limits, Queue};
