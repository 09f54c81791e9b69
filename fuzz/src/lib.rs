//! What the fuzz targets run: the server of the integration tests, and the checks of `targets`.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails the input that called it")]
#![allow(dead_code, reason = "the integration tests use more of the support than the targets do")]

#[path = "../../tests/it/support/mod.rs"]
pub mod support;
pub mod targets;
