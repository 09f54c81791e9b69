//! From waiting jobs to batches. The batcher is asked by whoever is free; it never pushes.
//!
//! ```text
//! inbox of Tickets (bounded channel) -> Batcher -> Desk (pure: Queue, Roster) -> Batch of Jobs -> the device that asked
//! ```
//!
//! It does not know what a device is, what the logits mean, or HTTP.

mod batch;
mod batcher;
mod cost;
mod desk;
mod idle;
mod job;
mod lanes;
mod pace;
mod queue;
mod roster;
mod ticket;

pub use batch::{Aim, Batch, Class, CloseReason, Entry, Limits, Size};
pub use batcher::{Batcher, Inbox, NotTaken, still_wanted};
pub use cost::{Cost, Costs};
pub use desk::{Choice, Desk};
pub use job::{Job, JobError, JobOutput, JobResult, JobRun, JobTimes, Reply};
pub use pace::{Pace, Rate};
pub use queue::Queue;
pub use roster::Asker;
pub use ticket::{Answer, Load, Ticket};
