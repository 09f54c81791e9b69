//! Who scores: the engine of this process, or a running server.

use std::sync::Arc;

use super::client::Remote;
use crate::{
    classify::{Task, verdict},
    engine::{Class, Handle},
    error::RequestError,
};

/// Texts that the engine of this process has at once: for three runs of all its devices, if texts have so few tokens.
const FEW_TOKENS: usize = 48;
const LEAST_IN_FLIGHT: usize = 256;
const MOST_IN_FLIGHT: usize = 16_384;

/// The answer for one text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// The score of the anomaly label, 0 to 1.
    pub score: f32,
    /// Index of the returned label in [`Scorer::labels`].
    pub label: usize,
    /// The score of that label.
    pub confidence: f32,
    /// Whether it is an anomaly at the threshold.
    pub is_odd: bool,
    /// Whether the text was longer than the model reads.
    pub truncated: bool,
}

/// Why a text has no score.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unscored {
    /// This text; others may fare better.
    #[error("{0}")]
    Text(String),
    /// No text will get one.
    #[error("{0}")]
    All(String),
}

/// See the module.
pub enum Scorer {
    /// The engine of this process.
    Engine {
        /// A way to it.
        handle: Handle,
        /// What is asked of each text.
        task: Arc<Task>,
        /// Score from which a text is odd.
        threshold: f32,
    },
    /// A server.
    Remote(Arc<Remote>),
}

impl Scorer {
    /// The labels that [`Scored::label`] counts.
    pub fn labels(&self) -> &[String] {
        match self {
            Self::Engine { task, .. } => &task.labels,
            Self::Remote(remote) => remote.labels(),
        }
    }

    /// Score from which a text is odd.
    pub fn threshold(&self) -> f32 {
        match self {
            Self::Engine { threshold, .. } => *threshold,
            Self::Remote(remote) => remote.threshold(),
        }
    }

    /// Texts that are asked for together.
    pub(super) fn together(&self) -> usize {
        match self {
            Self::Engine { .. } => 1,
            Self::Remote(remote) => remote.together(),
        }
    }

    /// How many such groups may be under way.
    pub(super) fn in_flight(&self) -> usize {
        match self {
            // While every device runs a batch the next ones are ready.
            Self::Engine { handle, .. } => {
                (3 * handle.tokens_at_once() / FEW_TOKENS).clamp(LEAST_IN_FLIGHT, MOST_IN_FLIGHT)
            }
            Self::Remote(_) => 4,
        }
    }

    /// One answer a text, in order.
    pub(super) async fn score(&self, texts: Vec<String>) -> Vec<Result<Scored, Unscored>> {
        match self {
            Self::Engine { handle, task, threshold } => {
                let mut answers = Vec::with_capacity(texts.len());
                for text in texts {
                    answers.push(classify(handle, task, *threshold, &text).await);
                }
                answers
            }
            Self::Remote(remote) => Remote::score(remote.clone(), texts).await,
        }
    }
}

async fn classify(handle: &Handle, task: &Task, threshold: f32, text: &str) -> Result<Scored, Unscored> {
    let classified = handle.classify(text, task, Class::Bulk).await.map_err(|e| match e {
        RequestError::Draining | RequestError::Unavailable => Unscored::All(e.to_string()),
        other => Unscored::Text(other.to_string()),
    })?;
    let v = verdict(&classified.scores, task, threshold, handle.scoring().threshold_rule);
    Ok(Scored {
        score: classified.scores[task.anomaly],
        label: v.label,
        confidence: v.confidence,
        is_odd: v.is_anomaly,
        truncated: classified.truncated,
    })
}
