//! The exponential function for numbers that are not positive, in one sequence of operations that every path repeats.
//!
//! `e^x = 2^n e^r` with n the nearest integer of `x log2 e`, and the polynomial of Cephes' `expf` for `e^r`. Below
//! [`LEAST`] it gives `e^LEAST`, about 1e-38, which is nothing beside the 1 of the largest.

/// The least number that is told from those below it: its power of two is still a normal number.
pub const LEAST: f32 = -87.0;
pub const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// Added to a small number it rounds to the nearest integer, half to even, in the lowest bits.
pub const ROUND: f32 = 12_582_912.0;
/// Minus the natural logarithm of 2, in two parts: the first has few bits, so that its product with n is exact.
pub const MINUS_LN_2: [f32; 2] = [-355.0 / 512.0, 2.121_944_4e-4];
/// From the seventh power to the second.
pub const POLYNOMIAL: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];

/// e to the power of `x`, which is at most 0. NaN gives NaN.
pub fn exp(x: f32) -> f32 {
    // As the instruction `maxps`: x if it is NaN.
    let x = if LEAST > x { LEAST } else { x };
    let rounded = x.mul_add(LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = n.mul_add(MINUS_LN_2[1], n.mul_add(MINUS_LN_2[0], x));
    let [first, rest @ ..] = &POLYNOMIAL;
    let sum = rest.iter().fold(*first, |sum, factor| sum.mul_add(r, *factor));
    sum.mul_add(r * r, r + 1.0) * f32::from_bits((rounded.to_bits() << 23).wrapping_add(1.0f32.to_bits()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate() {
        let mut worst = 0f64;
        for i in 0..=870_000 {
            let x = i as f32 * -1e-4;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
        }
        println!("largest relative error {worst:e}");
        assert!(worst < 2e-7, "{worst:e}");
        assert_eq!((exp(0.0), exp(-0.0)), (1.0, 1.0));
        assert_eq!((exp(-1e9), exp(f32::NEG_INFINITY)), (exp(LEAST), exp(LEAST)));
        assert!(exp(LEAST) < 2e-38 && exp(f32::NAN).is_nan());
    }
}
