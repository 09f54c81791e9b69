//! Going through log files: bytes in, records with scores out, in order.
//!
//! ```text
//! Input: one thread (files, pipes, decompression, rotation) == bounded ==> Scan: records, distinct texts -> Scorer
//!                                                              caller <== in order == records with their scores
//! ```
//!
//! A text that was scored is remembered, and twins in flight wait for one answer. Everything is bounded: chunks, records
//! that wait for scores, texts that are remembered. It does not know the terminal, formats or exit codes.

mod client;
mod follow;
mod input;
mod memo;
mod run;
mod scorer;

pub use client::{Question, Remote};
pub use input::{Input, Progress, Source};
pub use run::{Judged, Next, Scan, Settings};
pub use scorer::{Scored, Scorer, Unscored};
