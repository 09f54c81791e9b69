//! Compiled models: made from a checkpoint, compared with single precision before they may serve, kept in a cache.
//!
//! ```text
//! checkpoint -> graph::compile -> 8, 16 bits? compare with single precision on sample logs -> note -> directory
//!                                                             cache: the same under a key, prepared for this machine
//! ```
//!
//! It does not know the engine, requests or HTTP.

mod build;
mod cache;
mod checksum;
mod gate;
mod note;

pub use build::{Build, Step, build};
pub use cache::{Cache, Wanted, cached};
pub use checksum::of_model;
pub use gate::{Gate, all_cores, check, compare_with_fp32, least_agreement, made_as};
pub use note::Note;
