//! Every threshold at once: how recall, precision and false alarms go with it.

/// One threshold's outcome: counts of lines with a score of at least `threshold`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The score from which a line counts as an anomaly.
    pub threshold: f64,
    /// Anomalous lines among those.
    pub true_positives: usize,
    /// Normal lines among those.
    pub false_positives: usize,
}

/// What each distinct score would do as a threshold, from the highest down.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    points: Vec<Point>,
    positives: usize,
    negatives: usize,
}

impl Curve {
    /// The curve of (score, anomalous) pairs. Equal scores are one point, so that their order does not matter.
    pub fn new(scored: &[(f64, bool)]) -> Self {
        let mut sorted = scored.to_vec();
        sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (mut points, mut seen): (Vec<Point>, [usize; 2]) = (Vec::new(), [0, 0]);
        for (i, (threshold, anomalous)) in sorted.iter().enumerate() {
            seen[usize::from(*anomalous)] += 1;
            if sorted.get(i + 1).is_none_or(|next| next.0 != *threshold) {
                let [false_positives, true_positives] = seen;
                points.push(Point { threshold: *threshold, true_positives, false_positives });
            }
        }
        let [negatives, positives] = seen;
        Self { points, positives, negatives }
    }

    /// One point for each distinct score, the highest first.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Area under the receiver operating characteristic: the chance that an anomalous line scores higher than a normal
    /// one, ties counting half. `None` without lines of both kinds.
    pub fn auroc(&self) -> Option<f64> {
        let (mut area, mut last) = (0.0, [0, 0]);
        for point in &self.points {
            let width = (point.false_positives - last[0]) as f64;
            area += width * (point.true_positives + last[1]) as f64 / 2.0;
            last = [point.false_positives, point.true_positives];
        }
        let cells = (self.positives * self.negatives) as f64;
        (cells > 0.0).then(|| area / cells)
    }

    /// Average precision as scikit-learn has it: precision at each threshold, weighted by what recall gains there.
    /// `None` without an anomalous line.
    pub fn average_precision(&self) -> Option<f64> {
        let (mut sum, mut last) = (0.0, 0);
        for point in &self.points {
            let gained = (point.true_positives - last) as f64;
            sum += gained * self.precision(point);
            last = point.true_positives;
        }
        (self.positives > 0).then(|| sum / self.positives as f64)
    }

    /// The threshold with the highest F1, and that F1; the higher threshold of two equal ones. `None` without an
    /// anomalous line.
    pub fn best_f1(&self) -> Option<(f64, f64)> {
        let mut best: Option<(f64, f64)> = None;
        for point in self.points.iter().filter(|_| self.positives > 0) {
            let flagged = point.true_positives + point.false_positives;
            let f1 = 2.0 * point.true_positives as f64 / (flagged + self.positives) as f64;
            if best.is_none_or(|(_, most)| f1 > most) {
                best = Some((point.threshold, f1));
            }
        }
        best
    }

    /// The share of the lines at or above the point's threshold that are anomalous.
    pub fn precision(&self, point: &Point) -> f64 {
        point.true_positives as f64 / (point.true_positives + point.false_positives) as f64
    }

    /// The share of the anomalous lines that are at or above the point's threshold; 0 if there are none.
    pub fn recall(&self, point: &Point) -> f64 {
        point.true_positives as f64 / self.positives.max(1) as f64
    }

    /// The share of the normal lines that are at or above the point's threshold; 0 if there are none.
    pub fn false_alarms(&self, point: &Point) -> f64 {
        point.false_positives as f64 / self.negatives.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_of_a_small_case_worked_out_by_hand() {
        // Anomalous .9 .7 .7, normal .7 .2: pairs won 3 + 1 / 2 + 1 / 2 ... of 6.
        let curve = Curve::new(&[(0.7, true), (0.2, false), (0.9, true), (0.7, false), (0.7, true)]);
        assert_eq!(curve.points().len(), 3);
        assert!((curve.auroc().unwrap() - 5.0 / 6.0).abs() < 1e-12);
        assert!((curve.average_precision().unwrap() - (1.0 / 3.0 + 2.0 / 3.0 * 0.75)).abs() < 1e-12);
        let (threshold, f1) = curve.best_f1().unwrap();
        assert!(threshold == 0.7 && (f1 - 6.0 / 7.0).abs() < 1e-12);
    }

    #[test]
    fn what_one_kind_of_line_cannot_tell_is_not_told() {
        let calm = Curve::new(&[(0.4, false), (0.1, false)]);
        assert_eq!((calm.auroc(), calm.average_precision(), calm.best_f1()), (None, None, None));
        let bad = Curve::new(&[(0.4, true)]);
        assert_eq!((bad.auroc(), bad.average_precision(), bad.best_f1()), (None, Some(1.0), Some((0.4, 1.0))));
        assert_eq!(Curve::new(&[]).points(), []);
    }
}
