//! Logs and labels to pairs, logits to scores to a verdict. Pure: no I/O, no clock, no threads.
//!
//! It does not know requests, batches or devices.

pub mod scores;
pub mod task;

pub use scores::{Head, Verdict, label_scores, verdict};
pub use task::{Labels, Task};
