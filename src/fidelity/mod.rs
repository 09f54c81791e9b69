//! Whether a model keeps its word: the verdicts of two precisions of it, known scores of a known model, and the same
//! bits for a log in any company.
//!
//! ```text
//! samples -> score each with a device -> Agreement between two | golden scores | bits alone and in company
//! ```
//!
//! It does not know where models come from, nor the engine, nor HTTP.

mod agreement;
mod golden;
mod samples;
mod scoring;

pub use agreement::{Agreement, LEAST_AGREEMENT};
pub use golden::{Golden, golden_of};
pub use samples::{read_samples, shipped_samples};
pub use scoring::{Company, Scorer};
