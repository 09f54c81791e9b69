//! The integration tests, one binary.

mod cli;
mod engine;
mod hub;
mod parity;
mod tidy;
