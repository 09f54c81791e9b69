//! What is asked of each log: labels, the hypotheses they become, and how their scores are read.

use std::{ops::RangeInclusive, sync::Arc};

use crate::{
    config::Scoring,
    error::{RequestError, StartError},
    model::PairTokenizer,
};

/// Longest hypothesis in bytes that is tokenised at all: a short template may name a long label very often.
const MAX_HYPOTHESIS_BYTES: usize = 8192;

/// Candidate labels and how they become hypotheses, as configured or as a request brings them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// Candidate labels, at least one, all different, none blank.
    pub labels: Vec<String>,
    /// The one that counts as the anomaly.
    pub anomaly_label: String,
    /// `{}` stands for the label.
    pub hypothesis_template: String,
    /// Each label on its own instead of against the others.
    pub multi_label: bool,
}

/// [`Labels`] made ready for a model: every hypothesis tokenised once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Candidate labels.
    pub labels: Vec<String>,
    /// Index of the anomaly label.
    pub anomaly: usize,
    /// Each label on its own instead of against the others. One label is always on its own.
    pub multi_label: bool,
    /// Token ids of the hypotheses, in the order of the labels.
    pub hypotheses: Arc<[Vec<u32>]>,
    /// Tokens of the shortest and of the longest hypothesis.
    pub lengths: RangeInclusive<usize>,
}

impl Task {
    /// Checks the labels and tokenises their hypotheses; at most `max_labels` labels.
    ///
    /// # Errors
    /// [`RequestError::Invalid`] says which part cannot be used and what is expected.
    pub fn new(labels: Labels, tokenizer: &PairTokenizer, max_labels: usize) -> Result<Self, RequestError> {
        let invalid = |field, reason: String| Err(RequestError::Invalid { field, reason });
        let Labels { labels, anomaly_label, hypothesis_template, multi_label } = labels;
        if labels.is_empty() {
            return invalid("labels", "labels needs at least one label".into());
        }
        if labels.len() > max_labels {
            let reason = format!("labels has {} labels; at most {max_labels} are allowed", labels.len());
            return invalid("labels", reason);
        }
        if labels.iter().any(|label| label.trim().is_empty()) {
            return invalid("labels", "labels must not contain a blank label".into());
        }
        if let Some(twice) = labels.iter().enumerate().find(|(i, label)| labels[..*i].contains(label)) {
            return invalid("labels", format!("labels contains {:?} twice", twice.1));
        }
        if !hypothesis_template.contains("{}") {
            let reason = "hypothesis_template must contain {} where the label goes".into();
            return invalid("hypothesis_template", reason);
        }
        let Some(anomaly) = labels.iter().position(|label| *label == anomaly_label) else {
            let reason = format!("anomaly_label {anomaly_label:?} must be one of the labels: {labels:?}");
            return invalid("anomaly_label", reason);
        };
        let places = hypothesis_template.matches("{}").count();
        let bytes = |label: &String| hypothesis_template.len() + places * label.len();
        if labels.iter().map(bytes).max() > Some(MAX_HYPOTHESIS_BYTES) {
            let reason =
                format!("a label in the template makes more than {MAX_HYPOTHESIS_BYTES} bytes; shorten either");
            return invalid("hypothesis_template", reason);
        }
        let hypotheses = labels
            .iter()
            .map(|label| tokenizer.encode_hypothesis(&hypothesis_template.replace("{}", label)))
            .collect::<Result<Arc<[_]>, _>>()
            .map_err(|reason| RequestError::Invalid { field: "hypothesis_template", reason })?;
        let lengths = hypotheses.iter().map(Vec::len);
        let lengths = lengths.clone().min().unwrap_or_default()..=lengths.max().unwrap_or_default();
        Ok(Self { multi_label: multi_label || labels.len() == 1, labels, anomaly, hypotheses, lengths })
    }

    /// The configured labels, for the model of `tokenizer`.
    ///
    /// # Errors
    /// [`StartError::Config`] if they cannot be used with it.
    pub fn configured(scoring: &Scoring, tokenizer: &PairTokenizer) -> Result<Self, StartError> {
        let labels = Labels {
            labels: scoring.labels.clone(),
            anomaly_label: scoring.anomaly_label.clone(),
            hypothesis_template: scoring.hypothesis_template.clone(),
            multi_label: scoring.multi_label,
        };
        Self::new(labels, tokenizer, scoring.max_labels).map_err(|e| StartError::Config(format!("scoring: {e}")))
    }

    /// Length in tokens of the longest pair that a log of `log` tokens makes.
    pub fn longest_pair(&self, tokenizer: &PairTokenizer, log: usize) -> usize {
        tokenizer.pair_len(log, *self.lengths.end())
    }

    /// Rows that one log takes.
    pub fn rows(&self) -> usize {
        self.hypotheses.len()
    }
}
