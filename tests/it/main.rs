//! The integration tests, one binary.

mod hub;
mod tidy;
