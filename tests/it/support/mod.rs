//! What the integration tests share: a running server and a client that sends exactly what it is told to.

pub mod client;
#[cfg(not(fuzzing))] // they need the program, which fuzz targets are not built with
pub mod fake_cuda;
pub mod frames;
#[cfg(not(fuzzing))]
pub mod process;
pub mod server;

pub use client::{Answer, Connection};
pub use server::{PANIC, POISON, Running, Setup};

use std::time::{Duration, Instant};

/// How long a test waits for what must happen; never reached unless it fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` holds, without sleeping.
///
/// # Panics
/// If it does not hold in time; `what` says what was waited for.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "in vain: {what}");
        std::thread::yield_now();
    }
}
