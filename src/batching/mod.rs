//! From waiting jobs to batches. The batcher is asked by whoever is free; it never pushes.
//!
//! ```text
//! inbox (bounded channel) -> Batcher -> Queue (pure) -> Batch -> the device that asked
//! ```
//!
//! It does not know what a device is, what the logits mean, or HTTP.

mod batch;
mod batcher;
mod idle;
mod job;
mod lanes;
mod pace;
mod queue;

pub use batch::{Batch, Class, CloseReason, Entry, Limits};
pub use batcher::{Batcher, Inbox, NotTaken, still_wanted};
pub use job::{Job, JobError, JobOutput, JobResult, JobRun, JobTimes, Reply};
pub use pace::{Pace, Rate};
pub use queue::Queue;
