//! The HTTP front end: connections, routes, JSON. The only place that knows them.
//!
//! ```text
//! serve (accept, limits, end) -> connection -> exchange (count, name, CORS, panics) -> router -> v1 | batch | ops | docs
//!                                                                                      body -> json -> fields -> Handle
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
mod docs;
mod exchange;
mod fields;
mod flow;
mod json;
mod openapi;
mod ops;
mod problem;
mod request_id;
mod router;
mod serve;
mod stream;
mod v1;
mod window;

pub use app::App;
pub use serve::serve;
