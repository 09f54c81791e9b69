//! Least squares of relative errors: the terms of a cost from the means of runs. Pure.

use super::Bucket;

/// Units of the terms, which bring the sums to like sizes.
pub(super) const SCALE: [f64; 3] = [1.0, 1024.0, 65536.0];

/// Weighted sums of the normal equations.
#[derive(Default)]
pub(super) struct Sums {
    xx: [[f64; 3]; 3],
    xy: [f64; 3],
    yy: f64,
}

impl Sums {
    /// Takes a bucket in.
    pub fn add(&mut self, bucket: &Bucket, weight: f64) {
        // Divided by the measured time, so that errors are relative: the target is 1.
        let relative = |value: f64, term: usize| value / SCALE[term] / bucket.seconds;
        let x = [relative(1.0, 0), relative(bucket.tokens, 1), relative(bucket.pairs, 2)];
        for i in 0..3 {
            for j in 0..3 {
                self.xx[i][j] += weight * x[i] * x[j];
            }
            self.xy[i] += weight * x[i];
        }
        self.yy += weight;
    }

    /// The least squares solution with these terms only, `None` if they cannot be told apart or one is negative.
    pub fn solve(&self, terms: &[usize]) -> Option<[f64; 3]> {
        let n = terms.len();
        let mut rows: Vec<Vec<f64>> =
            terms.iter().map(|&i| terms.iter().map(|&j| self.xx[i][j]).chain([self.xy[i]]).collect()).collect();
        for at in 0..n {
            if rows[at][at] <= 1e-6 * self.xx[terms[at]][terms[at]] {
                return None;
            }
            let pivot = rows[at].clone();
            for row in &mut rows[at + 1..] {
                let factor = row[at] / pivot[at];
                row.iter_mut().zip(&pivot).for_each(|(value, above)| *value -= factor * above);
            }
        }
        let mut found = [0.0; 3];
        for at in (0..n).rev() {
            let known: f64 = (at + 1..n).map(|j| rows[at][j] * found[terms[j]]).sum();
            let value = (rows[at][n] - known) / rows[at][at];
            if value.is_nan() || value < 0.0 {
                return None;
            }
            found[terms[at]] = value;
        }
        Some(found)
    }

    /// Sum of squared relative errors, with a little more so that two perfect solutions count as alike.
    pub fn error(&self, found: &[f64; 3]) -> f64 {
        let mut error = self.yy;
        for i in 0..3 {
            error -= 2.0 * found[i] * self.xy[i];
            error += (0..3).map(|j| found[i] * self.xx[i][j] * found[j]).sum::<f64>();
        }
        error.max(0.0) + 1e-6 * self.yy
    }
}
