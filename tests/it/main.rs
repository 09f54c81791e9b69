//! The integration tests, one binary.

mod cli;
mod engine;
mod parity;
mod tidy;
