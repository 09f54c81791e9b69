//! Why a checkpoint cannot be compiled. Every text is one line and names the tensor, the key or the file.

use std::{
    io,
    path::{Path, PathBuf},
};

/// What stands in the way of a compiled graph.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// `config.json` or `model.safetensors` cannot be read at all.
    #[error("{}: {reason}", path.display())]
    Source {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The configuration describes a model that the rewritten graph does not cover.
    #[error("config.json: {0}")]
    Unsupported(String),
    /// A tensor is missing, or not what the configuration says.
    #[error("the tensor {name:?} {problem}")]
    Tensor {
        /// As `model.safetensors` names it.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The place for the result is taken, or cannot be one.
    #[error("{}: {reason}", path.display())]
    Place {
        /// The directory that was asked for.
        path: PathBuf,
        /// Why it cannot be used.
        reason: String,
    },
    /// The result cannot be written.
    #[error("writing {}: {source}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
}

impl GraphError {
    pub(super) fn source_file(path: &Path, reason: impl ToString) -> Self {
        Self::Source { path: path.to_owned(), reason: reason.to_string() }
    }

    pub(super) fn tensor(name: &str, problem: impl Into<String>) -> Self {
        Self::Tensor { name: name.to_owned(), problem: problem.into() }
    }

    pub(super) fn place(path: &Path, reason: impl Into<String>) -> Self {
        Self::Place { path: path.to_owned(), reason: reason.into() }
    }

    pub(super) fn write(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        |source| Self::Write { path: path.to_owned(), source }
    }
}
