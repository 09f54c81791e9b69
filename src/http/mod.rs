//! The HTTP front end: connections, routes, JSON. The only place that knows them.
//!
//! ```text
//! serve (accept, end) -> connection (TLS, limits) -> exchange (count, name, CORS, panics) -> router -> v1 | batch | ...
//!                        traffic <- watched                      body -> json -> fields -> Handle    auth
//! ```
//!
//! It does not know devices or batches.

#![allow(clippy::result_large_err, reason = "the error is an answer: made once, and sent")]

mod answer;
mod app;
mod auth;
mod batch;
mod body;
mod coding;
mod connection;
mod cors;
mod detail;
mod devices;
mod docs;
mod exchange;
mod fields;
mod flow;
mod json;
mod openapi;
mod ops;
mod patience;
mod patient;
mod problem;
mod query;
mod request_id;
mod router;
mod serve;
mod stream;
mod templates;
mod tls;
mod traffic;
mod v1;
mod watched;
mod window;

pub use app::App;
pub use serve::{Doors, serve};
