//! The integration tests, one binary.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test that called it")]

mod hub;
mod tidy;
