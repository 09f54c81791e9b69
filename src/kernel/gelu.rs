//! Gelu, `x Φ(x)` with the exact (erf) Φ, as a polynomial that every path evaluates in the same order.
//!
//! `Φ(x) = 1/2 + h`, where `h = x R(u)` and `u = x² · 2 / BOUND² - 1` is in [-1, 1] for `|x| <= BOUND`. R has degree 14
//! was fitted to the least largest error of h (reweighted least squares), its coefficients then moved by steps of f32 until
//! the error of Gelu itself stopped falling. Beyond BOUND, h
//! is exactly ±1/2. Largest error for `|x| <= 6`: 6.6e-7 (ONNX Runtime's own Gelu: 4.5e-7), of which rounding alone is 2.4e-7.

/// `|x|` from which Φ is exactly 0 or 1.
pub(super) const BOUND: f32 = 5.25;
/// `2 / BOUND²`.
pub(super) const FOLD: f32 = 0.072_562_36;
/// R's coefficients, of the highest power first.
pub(super) const R: [f32; 15] = [
    0.000_239_941_66,
    -0.000_656_559_25,
    0.000_664_785_56,
    -0.001_039_542_5,
    0.002_892_366_6,
    -0.005_448_59,
    0.008_417_9,
    -0.012_775_21,
    0.018_538_596,
    -0.025_041_984,
    0.032_031_43,
    -0.039_763_324,
    0.049_645_77,
    -0.067_126_83,
    0.134_659_35,
];

/// Gelu of one value; the sequence of operations that the vector paths repeat.
pub(super) fn gelu(x: f32) -> f32 {
    let bounded = max(min(x, BOUND), -BOUND);
    let u = (bounded * bounded).mul_add(FOLD, -1.0);
    let r = R[1..].iter().fold(R[0], |r, coefficient| r.mul_add(u, *coefficient));
    let h = max(min(bounded * r, 0.5), -0.5);
    x * (h + 0.5)
}

/// As the instruction `minps`: the second if either is NaN.
fn min(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// As the instruction `maxps`: the second if either is NaN.
fn max(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// erf by its series of positive terms, to about 1e-15.
    fn erf(x: f64) -> f64 {
        if x.abs() > 6.0 {
            return x.signum();
        }
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-18 * sum.abs() {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
        }
        2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
    }

    #[test]
    fn gelu_is_accurate() {
        assert!((erf(0.5) - 0.520_499_877_813_046_5).abs() < 1e-14);
        assert!((erf(3.0) - 0.999_977_909_503_001_4).abs() < 1e-14);
        let (mut worst, mut worst_phi) = (0f64, 0f64);
        for i in -600_000..=600_000 {
            let x = i as f32 * 1e-5;
            let phi = (1.0 + erf(f64::from(x) / 2f64.sqrt())) / 2.0;
            let error = (f64::from(gelu(x)) - f64::from(x) * phi).abs();
            worst = worst.max(error);
            if x.abs() > 0.01 {
                worst_phi = worst_phi.max(error / f64::from(x.abs()));
            }
        }
        println!("largest error of Gelu {worst:e}, of Φ {worst_phi:e}");
        assert!(worst < 7e-7, "Gelu is off by {worst:e}");
        assert!(2.0 * worst_phi < 4e-7, "erf is off by {:e}", 2.0 * worst_phi);
    }

    #[test]
    fn gelu_is_exact_where_it_is_flat() {
        for x in [5.25, 5.5, 6.0, 100.0, 1e30, f32::MAX, f32::INFINITY] {
            assert_eq!(gelu(x), x);
        }
        for x in [-5.25, -5.5, -6.0, -100.0, -1e30, f32::MIN] {
            assert_eq!(gelu(x), 0.0);
        }
        assert_eq!(gelu(0.0).to_bits(), 0);
        assert!(gelu(f32::NAN).is_nan());
    }
}
