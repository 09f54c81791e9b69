//! Entailment logits to scores to a verdict, as the zero-shot-classification pipeline of transformers does it.

use crate::{config::ThresholdRule, model::ModelSpec};

use super::Task;

/// The columns of an NLI head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Logits in a row.
    pub classes: usize,
    /// Column of the entailment logit.
    pub entailment: usize,
    /// Column of the contradiction logit.
    pub contradiction: usize,
}

impl From<&ModelSpec> for Head {
    fn from(spec: &ModelSpec) -> Self {
        Self { classes: spec.classes, entailment: spec.entailment, contradiction: spec.contradiction }
    }
}

/// The answer for one log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// Index of the returned label.
    pub label: usize,
    /// Score of the returned label.
    pub confidence: f32,
    /// Whether the log is an anomaly at the threshold.
    pub is_anomaly: bool,
}

/// One score a label, 0 to 1, from the logits `[labels, classes]` of one log.
///
/// Against each other: softmax over the labels' entailment logits. On its own (`multi_label`): for each label the
/// softmax of [contradiction, entailment]. The maximum is subtracted first, so no logit overflows.
pub fn label_scores(logits: &[f32], head: Head, multi_label: bool) -> Vec<f32> {
    let rows = logits.chunks_exact(head.classes);
    if multi_label {
        return rows.map(|row| softmax(&[row[head.contradiction], row[head.entailment]])[1]).collect();
    }
    softmax(&rows.map(|row| row[head.entailment]).collect::<Vec<_>>())
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp: Vec<f32> = logits.iter().map(|z| (z - max).exp()).collect();
    let sum: f32 = exp.iter().sum();
    exp.into_iter().map(|e| e / sum).collect()
}

/// The verdict for `scores` (one a label) at `threshold`.
///
/// [`ThresholdRule::Monotone`]: an anomaly when the anomaly label's score reaches the threshold; else the best of the
/// other labels. [`ThresholdRule::Upstream`]: the top label, unless its score is below the threshold, then the best of
/// the others.
pub fn verdict(scores: &[f32], task: &Task, threshold: f32, rule: ThresholdRule) -> Verdict {
    let best = |skip: Option<usize>| {
        let candidates = (0..scores.len()).filter(|i| Some(*i) != skip);
        candidates.reduce(|a, b| if scores[b] > scores[a] { b } else { a })
    };
    let (label, is_anomaly) = match rule {
        ThresholdRule::Monotone => {
            let is_anomaly = scores[task.anomaly] >= threshold;
            let other = || best(Some(task.anomaly)).unwrap_or(task.anomaly);
            (if is_anomaly { task.anomaly } else { other() }, is_anomaly)
        }
        ThresholdRule::Upstream => {
            let top = best(None).unwrap_or(task.anomaly);
            let label = if scores[top] < threshold { best(Some(top)).unwrap_or(top) } else { top };
            (label, label == task.anomaly)
        }
    };
    Verdict { label, confidence: scores[label], is_anomaly }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Head = Head { classes: 2, entailment: 0, contradiction: 1 };

    fn task(labels: usize) -> Task {
        let labels = (0..labels).map(|i| format!("l{i}")).collect();
        Task { labels, anomaly: 0, multi_label: false, hypotheses: [].into(), lengths: 0..=0 }
    }

    #[test]
    fn two_labels_are_a_sigmoid_of_the_difference() {
        let scores = label_scores(&[2.0, -7.0, 0.5, 3.0], HEAD, false);
        assert!((scores[0] - 1.0 / (1.0 + (-1.5f32).exp())).abs() < 1e-6);
        assert!((scores.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn large_logits_do_not_overflow() {
        assert_eq!(label_scores(&[3e38, 0.0, -3e38, 0.0], HEAD, false), [1.0, 0.0]);
        assert_eq!(label_scores(&[-5000.0, -4000.0], HEAD, true), [0.0]);
    }

    #[test]
    fn multi_label_reads_entailment_against_contradiction() {
        let head = Head { classes: 3, entailment: 2, contradiction: 0 };
        let scores = label_scores(&[0.0, 9.0, 0.0, 1.0, 9.0, 3.0], head, true);
        assert_eq!(scores[0], 0.5);
        assert!((scores[1] - 1.0 / (1.0 + (-2f32).exp())).abs() < 1e-6);
    }

    #[test]
    fn the_monotone_rule_follows_the_threshold() {
        for (p, threshold, anomaly) in [(0.9, 0.5, true), (0.3, 0.2, true), (0.7, 0.8, false), (0.5, 0.5, true)] {
            let v = verdict(&[p, 1.0 - p], &task(2), threshold, ThresholdRule::Monotone);
            assert_eq!((v.is_anomaly, v.label), (anomaly, usize::from(!anomaly)));
            assert_eq!(v.confidence, if anomaly { p } else { 1.0 - p });
        }
        let v = verdict(&[0.4, 0.1, 0.5], &task(3), 0.3, ThresholdRule::Monotone);
        assert_eq!((v.label, v.is_anomaly), (0, true));
        let v = verdict(&[0.2], &task(1), 0.3, ThresholdRule::Monotone);
        assert_eq!((v.label, v.is_anomaly), (0, false));
    }

    #[test]
    fn the_upstream_rule_returns_the_other_label_below_the_threshold() {
        let rule = ThresholdRule::Upstream;
        let v = verdict(&[0.4, 0.6], &task(2), 0.7, rule);
        assert_eq!((v.label, v.confidence, v.is_anomaly), (0, 0.4, true));
        let v = verdict(&[0.6, 0.4], &task(2), 0.3, rule);
        assert_eq!((v.label, v.is_anomaly), (0, true));
        let v = verdict(&[0.6, 0.4], &task(2), 0.7, rule);
        assert_eq!((v.label, v.is_anomaly), (1, false));
    }
}
