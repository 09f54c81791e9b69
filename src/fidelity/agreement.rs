//! How far two lists of scores for the same logs lie apart.

use serde::{Deserialize, Serialize};

/// Share of equal verdicts below which a lower precision is not served unasked.
pub const LEAST_AGREEMENT: f64 = 0.99;

/// A candidate's scores beside a reference's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Logs that were compared.
    pub logs: usize,
    /// Logs with the same verdict.
    pub same_verdicts: usize,
    /// Largest difference of two scores, 0 to 1.
    pub max_difference: f32,
    /// Mean difference of two scores, 0 to 1.
    pub mean_difference: f32,
}

impl Agreement {
    /// Compares anomaly scores log by log; an anomaly is what reaches `threshold`. A score that is not a number agrees
    /// with nothing.
    ///
    /// # Panics
    /// If the lists are of different lengths.
    pub fn between(reference: &[f32], candidate: &[f32], threshold: f32) -> Self {
        assert_eq!(reference.len(), candidate.len(), "scores of the same logs");
        let (mut same_verdicts, mut max, mut sum) = (0, 0.0f32, 0.0f64);
        for (a, b) in reference.iter().zip(candidate) {
            let difference = if a.is_nan() || b.is_nan() { 1.0 } else { (a - b).abs() };
            same_verdicts += usize::from(!a.is_nan() && !b.is_nan() && (*a >= threshold) == (*b >= threshold));
            max = max.max(difference);
            sum += f64::from(difference);
        }
        let logs = reference.len();
        Self { logs, same_verdicts, max_difference: max, mean_difference: (sum / logs.max(1) as f64) as f32 }
    }

    /// Share of equal verdicts, 0 to 1; 0 if nothing was compared.
    pub fn share(&self) -> f64 {
        if self.logs == 0 { 0.0 } else { self.same_verdicts as f64 / self.logs as f64 }
    }
}

impl std::fmt::Display for Agreement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { logs, same_verdicts, max_difference, mean_difference } = self;
        write!(
            f,
            "{same_verdicts} of {logs} verdicts equal ({:.2} %), scores differ by {mean_difference:.4} on average and \
             {max_difference:.4} at most",
            self.share() * 100.0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_as_agreement() {
        let a = Agreement::between(&[0.9, 0.1, 0.5, 0.4], &[0.8, 0.2, 0.49, 0.41], 0.5);
        assert_eq!((a.logs, a.same_verdicts, a.share()), (4, 3, 0.75));
        assert!((a.max_difference - 0.1).abs() < 1e-6 && (a.mean_difference - 0.055).abs() < 1e-6);
        let nan = Agreement::between(&[f32::NAN, 0.9], &[f32::NAN, 0.9], 0.5);
        assert_eq!((nan.same_verdicts, nan.max_difference), (1, 1.0));
        assert_eq!(Agreement::between(&[], &[], 0.5).share(), 0.0);
    }
}
