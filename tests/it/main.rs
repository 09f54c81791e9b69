//! The integration tests, one binary.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test that called it")]
#![allow(clippy::disallowed_methods, reason = "clients of a test are plain threads")]

mod admission;
mod attention_op;
mod cli;
mod compile;
mod crowds;
mod cuda;
mod cuda_runs;
mod custom_op;
mod engine;
mod eval;
mod eval_effects;
mod faults;
mod fuzz;
mod graph;
mod http_access;
mod http_batch;
mod http_cache;
mod http_devices;
mod http_docs;
mod http_errors;
mod http_limits;
mod http_ops;
mod http_shippers;
mod http_stream;
mod http_tls;
mod http_v1;
mod hub;
mod load;
mod log;
mod metrics_docs;
mod novelty;
mod novelty_restarts;
mod packing;
mod parity;
mod quality;
mod readiness;
mod readme;
mod restarts;
mod scan;
mod scheduling;
mod shapes;
mod support;
mod tidy;
mod traces;
mod tune;
mod verdicts;
mod verdicts_templates;
