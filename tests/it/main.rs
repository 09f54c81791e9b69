//! Integration tests: one binary, everything in process, on port 0.

mod http_access;
mod http_batch;
mod http_docs;
mod http_errors;
mod http_limits;
mod http_ops;
mod http_v1;
mod support;
