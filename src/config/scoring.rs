//! `[scoring]`: what a score means.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{at_least_one, share};

/// Which rule turns a score into `is_anomaly`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThresholdRule {
    /// Anomalous when the anomaly label's score reaches the threshold.
    Monotone,
    /// The rule of the service this API comes from: the top label, or the other one when its score is below the threshold.
    Upstream,
}

/// `[scoring]`: what a score means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scoring {
    /// Candidate labels.
    pub labels: Vec<String>,
    /// The label that counts as the anomaly; one of `labels`.
    pub anomaly_label: String,
    /// The hypothesis; `{}` stands for the label.
    pub hypothesis_template: String,
    /// Score from which a log is an anomaly, 0 to 1.
    pub threshold: f32,
    /// Thresholds of sources that have one of their own, by the `source` that a request names, 0 to 1.
    pub thresholds: BTreeMap<String, f32>,
    /// How score and threshold make a verdict.
    pub threshold_rule: ThresholdRule,
    /// Score each label on its own instead of against the others.
    pub multi_label: bool,
    /// Most labels that a request may bring.
    pub max_labels: usize,
}

impl Default for Scoring {
    fn default() -> Self {
        Self {
            labels: vec!["anomaly".into(), "normal".into()],
            anomaly_label: "anomaly".into(),
            hypothesis_template: "This example is {}.".into(),
            threshold: 0.5,
            thresholds: BTreeMap::new(),
            threshold_rule: ThresholdRule::Monotone,
            multi_label: false,
            max_labels: 32,
        }
    }
}

impl Scoring {
    /// # Errors
    /// A text that names the first key that cannot be used.
    pub(super) fn check(&self) -> Result<(), String> {
        at_least_one(&[("scoring.max_labels", self.max_labels)])?;
        share("scoring.threshold", self.threshold)?;
        self.thresholds
            .iter()
            .try_for_each(|(source, threshold)| share(&format!("scoring.thresholds.{source}"), *threshold))
    }

    /// The threshold of requests that name `source`; the common one if it has none, or they name none.
    pub fn threshold_of(&self, source: Option<&str>) -> f32 {
        source.and_then(|source| self.thresholds.get(source)).copied().unwrap_or(self.threshold)
    }
}
