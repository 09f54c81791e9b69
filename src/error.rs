//! The two error audiences: whoever starts the process, and whoever sends a request.
//!
//! It does not know HTTP: `http` maps [`RequestError`] to a status, `cli` maps [`StartError`] to an exit code.

use std::{path::PathBuf, time::Duration};

/// Why the process cannot start. Every text says what to change.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A configuration value is missing, misspelt or out of range.
    #[error("configuration: {0}")]
    Config(String),
    /// The model directory does not hold a usable NLI cross-encoder.
    #[error("model {}: {reason}", path.display())]
    Model {
        /// The directory or file that was read.
        path: PathBuf,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// ONNX Runtime's shared library cannot be loaded.
    #[error("ONNX Runtime: {0}")]
    Runtime(String),
    /// A device that was asked for cannot be used.
    #[error("device {name}: {reason}")]
    Device {
        /// The device as written in `devices.devices`.
        name: String,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// A model cannot be had from the hub.
    #[error("{0}")]
    Download(String),
    /// The listener cannot be opened, or another file operation at start failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
}

/// Why a request gets no verdict. Texts are safe to show to the client: no paths, no internals.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The queue is full.
    #[error("The server is overloaded. Retry after {} s.", retry_after.as_secs())]
    Overloaded {
        /// When a retry has a fair chance.
        retry_after: Duration,
    },
    /// What waits before it would take longer than it may wait.
    #[error("The server cannot answer in time. Retry after {} s, or allow more time.", retry_after.as_secs())]
    TooLate {
        /// When a retry has a fair chance.
        retry_after: Duration,
    },
    /// The server is shutting down.
    #[error("The server is shutting down. Send the request to another instance.")]
    Draining,
    /// No device can answer.
    #[error("Model not loaded. Please load the model first.")]
    Unavailable,
    /// The deadline passed before the answer was there.
    #[error("The deadline passed before the answer was there. Send fewer requests at once or allow more time.")]
    DeadlineExceeded,
    /// The model failed on this log.
    #[error("The model could not score this log message.")]
    Inference,
    /// The labels, template or hypothesis of the request cannot be used.
    #[error("{reason}")]
    Invalid {
        /// Which of them, as requests name it.
        field: &'static str,
        /// What is wrong with it and what to do.
        reason: String,
    },
}
