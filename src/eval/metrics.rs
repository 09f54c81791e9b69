//! Figures of scored lines at one threshold. Definitions are scikit-learn's; a share of nothing is 0.

use serde::Serialize;

use super::curve::Curve;

/// How many lines were called what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Confusion {
    /// Anomalous, and called so.
    pub true_positives: usize,
    /// Normal, but called anomalous.
    pub false_positives: usize,
    /// Anomalous, but called normal.
    pub false_negatives: usize,
    /// Normal, and called so.
    pub true_negatives: usize,
}

impl Confusion {
    /// The verdicts at `threshold`: a score that reaches it is an anomaly.
    pub fn at(threshold: f64, scored: &[(f64, bool)]) -> Self {
        let mut counts = Self::default();
        for (score, anomalous) in scored {
            *match (*score >= threshold, anomalous) {
                (true, true) => &mut counts.true_positives,
                (true, false) => &mut counts.false_positives,
                (false, true) => &mut counts.false_negatives,
                (false, false) => &mut counts.true_negatives,
            } += 1;
        }
        counts
    }

    /// Share of the alarms that are right.
    pub fn precision(&self) -> f64 {
        share(self.true_positives, self.true_positives + self.false_positives)
    }

    /// Share of the anomalous lines that are found.
    pub fn recall(&self) -> f64 {
        share(self.true_positives, self.true_positives + self.false_negatives)
    }

    /// Harmonic mean of precision and recall.
    pub fn f1(&self) -> f64 {
        share(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)
    }

    /// Share of all lines that are called what they are.
    pub fn accuracy(&self) -> f64 {
        share(self.true_positives + self.true_negatives, self.lines())
    }

    /// Share of the normal lines that are called anomalous.
    pub fn false_alarms(&self) -> f64 {
        share(self.false_positives, self.false_positives + self.true_negatives)
    }

    /// All lines.
    pub fn lines(&self) -> usize {
        self.true_positives + self.false_positives + self.false_negatives + self.true_negatives
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// All figures of one set of scored lines.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Lines scored.
    pub lines: usize,
    /// Lines that are anomalous.
    pub anomalous: usize,
    /// The threshold of the next figures.
    pub threshold: f64,
    /// Counts at the threshold.
    pub confusion: Confusion,
    /// Share of the alarms that are right, at the threshold.
    pub precision: f64,
    /// Share of the anomalous lines that are found, at the threshold.
    pub recall: f64,
    /// Harmonic mean of the two, at the threshold.
    pub f1: f64,
    /// Share of all lines that are called what they are, at the threshold.
    pub accuracy: f64,
    /// Share of the normal lines that are called anomalous, at the threshold.
    pub false_alarms: f64,
    /// Area under the receiver operating characteristic, at no threshold; none without lines of both kinds.
    pub auroc: Option<f64>,
    /// Average precision, at no threshold; none without an anomalous line.
    pub average_precision: Option<f64>,
    /// The threshold with the highest F1; none without an anomalous line.
    pub best_threshold: Option<f64>,
    /// F1 at that threshold.
    pub best_f1: Option<f64>,
}

/// The figures of (score, anomalous) pairs at `threshold`.
pub fn summarise(scored: &[(f64, bool)], threshold: f64) -> Summary {
    let (confusion, curve) = (Confusion::at(threshold, scored), Curve::new(scored));
    let best = curve.best_f1();
    Summary {
        lines: scored.len(),
        anomalous: scored.iter().filter(|(_, anomalous)| *anomalous).count(),
        threshold,
        confusion,
        precision: confusion.precision(),
        recall: confusion.recall(),
        f1: confusion.f1(),
        accuracy: confusion.accuracy(),
        false_alarms: confusion.false_alarms(),
        auroc: curve.auroc(),
        average_precision: curve.average_precision(),
        best_threshold: best.map(|(threshold, _)| threshold),
        best_f1: best.map(|(_, f1)| f1),
    }
}
