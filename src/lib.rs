//! oddlog finds the odd lines in logs: a batching zero-shot inference server on ONNX Runtime.
//!
//! Rooms, from the street to the cellar; a room may only use those below it:
//!
//! ```text
//! 9  cli       commands, each thin
//! 8  http      the only place that knows HTTP, JSON and routes
//! 7  verdicts  scores from memory instead of the engine; twins that come at once are scored once
//! 7  tuning    which settings serve most on this machine, by measuring
//! 7  scan      log files to records with scores, in order
//! 7  telemetry spans of requests to a collector
//! 6  engine    the only place that starts device threads: admission, workers, shutdown
//! 6  compiled  models made from a checkpoint, compared with single precision, kept in a cache
//! 5  fidelity  whether a model keeps its word: precisions compared, known scores, same bits in any company
//! 4  batching | device   blind to each other
//! 3  classify  logs x hypotheses -> pairs; logits -> scores -> verdict (pure)
//! 2  model     files, hub, tokenizer, tensors, graph (DeBERTa weights -> ONNX)
//! 1  kernel | eval | config, error, memory, metrics | records (files to records), templates (messages to templates)
//! ```
//!
//! Invariants stated as absences (`tests/it/tidy.rs` holds the ones that a text search can see):
//! - no HTTP or JSON type outside `http` (model files and the hub speak JSON too, but never the API's);
//! - no `ort` outside `device::onnx` and `device::custom_op`;
//! - no `unsafe` outside `kernel` (and what `main`, `memory` and the memory maps of `model::graph` and `device::onnx` need);
//! - no thread or task started outside `engine` and `http` (and the reader of `scan`, whose reads may block, its calls to
//!   a server, and the signal wait of `cli::signals`);
//! - no clock read in the pure queue, no lock held while a model runs, no unbounded channel anywhere.

pub mod batching;
pub mod classify;
pub mod cli;
pub mod compiled;
pub mod config;
pub mod device;
pub mod engine;
pub mod error;
pub mod eval;
pub mod fidelity;
pub mod http;
pub mod kernel;
pub mod memory;
pub mod metrics;
pub mod model;
pub mod records;
pub mod scan;
pub mod telemetry;
pub mod templates;
pub mod tuning;
pub mod verdicts;
