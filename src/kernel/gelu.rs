//! Gelu, `x Φ(x)` with the exact (erf) Φ, in one sequence of operations that every path repeats.
//!
//! `Φ(x) = 1/2 ± h(|x|)`. h is a polynomial of degree 4 around the nearest of 16 centres, [`STEP`] apart; the last one is
//! where Φ is 1 in f32, and beyond it h is exactly 1/2. A lookup of 16 values is one instruction of AVX-512. Each piece was
//! fitted to the least largest error (reweighted least squares), with h exact at the first and the last centre.
//! Largest errors for `|x| <= 6`: of Φ 1.0e-7, of Gelu 4.9e-7 (ONNX Runtime's: 4.5e-7), of which rounding is 2.4e-7.

use super::{Path, gemm::once_each, strided::Shared};

/// Rows of one task.
const ROWS: usize = 8;

/// From one centre to the next: 23/64, so that all centres are exact.
pub(super) const STEP: f32 = 0.359_375;
/// The last centre.
pub(super) const BOUND: f32 = 15.0 * STEP;
/// Added to a small number it rounds to the nearest integer, half to even, in the lowest bits.
pub(super) const ROUND: f32 = 12_582_912.0;
/// The coefficients of each power, from the fourth to the constant, for the 16 centres.
pub(super) static PIECES: [[f32; 16]; 5] = [
    [
        0.004_329_635_8,
        0.015_933_279,
        0.022_747_02,
        0.018_328_331,
        0.007_960_668,
        -0.001_283_401_9,
        -0.005_717_54,
        -0.005_852_715_6,
        -0.004_036_638,
        -0.002_156_924_2,
        -0.000_938_408_25,
        -0.000_340_543_05,
        -0.000_104_513_88,
        -0.000_027_365_477,
        -0.000_006_149_640_7,
        0.000_955_924_1,
    ],
    [
        -0.067_140_98,
        -0.054_001_264,
        -0.024_807_917,
        0.005_841_349,
        0.024_988_938,
        0.029_333_489,
        0.023_690_91,
        0.014_996_444,
        0.007_794_289_4,
        0.003_401_422_9,
        0.001_262_229_5,
        0.000_401_470_75,
        0.000_110_033,
        0.000_026_084_64,
        0.000_005_363_484,
        0.000_388_020_94,
    ],
    [
        0.000_038_590_064,
        -0.067_200_01,
        -0.110_731_18,
        -0.120_265_9,
        -0.102_041_04,
        -0.071_332_69,
        -0.042_070_9,
        -0.021_200_519,
        -0.009_197_285,
        -0.003_451_704_5,
        -0.001_124_369_7,
        -0.000_318_648_88,
        -0.000_078_704_51,
        -0.000_016_964_59,
        -0.000_003_194_384_1,
        0.000_051_652_234,
    ],
    [
        0.398_941_58,
        0.373_992_4,
        0.308_128_1,
        0.223_106_01,
        0.141_971_66,
        0.079_396_4,
        0.039_021_73,
        0.016_854_517,
        0.006_397_745,
        0.002_134_198_6,
        0.000_625_656_4,
        0.000_161_185_26,
        0.000_036_492_023,
        0.000_007_260_187_4,
        0.000_001_269_312_4,
        0.000_002_800_117_3,
    ],
    [
        0.0,
        0.140_342_71,
        0.263_852_5,
        0.359_511_02,
        0.424_712,
        0.463_822_28,
        0.484_467_92,
        0.494_058_94,
        0.497_979_85,
        0.499_390_45,
        0.499_837,
        0.499_961_44,
        0.499_991_92,
        0.499_998_5,
        0.499_999_76,
        0.5,
    ],
];

/// Gelu of one value.
pub(super) fn gelu(x: f32) -> f32 {
    // As the instruction `minps`: BOUND if x is NaN.
    let size = if x.abs() < BOUND { x.abs() } else { BOUND };
    let rounded = size.mul_add(1.0 / STEP, ROUND);
    let centre = (rounded.to_bits() & 15) as usize;
    let distance = (rounded - ROUND).mul_add(-STEP, size);
    let [first, rest @ ..] = &PIECES;
    let h = rest.iter().fold(first[centre], |h, piece| h.mul_add(distance, piece[centre]));
    x * (h.copysign(x) + 0.5)
}

/// Gelu of `x` + `bias`, as far as all three go: the definition, in plain Rust.
pub(super) fn gelu_of_row(x: &[f32], bias: &[f32], y: &mut [f32]) {
    y.iter_mut().zip(x).zip(bias).for_each(|((y, x), bias)| *y = gelu(x + bias));
}

/// Gelu of `x` + `bias` in tasks (see [`super::Linear::run_parallel`]): `x` and `y` are rows as long as `bias`.
///
/// # Errors
/// What `parallel` returns; `y` is then unfinished.
///
/// # Panics
/// If `x` and `y` are not of the same size, or no whole number of rows.
pub fn bias_gelu<E>(
    path: Path,
    (x, bias): (&[f32], &[f32]),
    y: &mut [f32],
    parallel: impl Fn(usize, &(dyn Fn(usize) + Sync)) -> Result<(), E>,
) -> Result<(), E> {
    if y.is_empty() && x.is_empty() {
        return Ok(());
    }
    let width = bias.len();
    assert!(width > 0 && x.len() == y.len() && x.len().is_multiple_of(width), "rows of {width}");
    let rows = y.len() / width;
    let y = Shared::new(y);
    once_each(&parallel, rows.div_ceil(ROWS), |task| {
        for row in task * ROWS..rows.min((task + 1) * ROWS) {
            // SAFETY: each row belongs to one task, and `once_each` runs a task once.
            let mut y = unsafe { y.strided(row * width, width, width, 1) };
            // SAFETY: `Path` is only made for a processor that has its features.
            unsafe { (path.0.gelu)(&x[row * width..][..width], bias, y.row(0)) }
        }
    })
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
        assert!(worst < 5e-7, "Gelu is off by {worst:e}");
        assert!(2.0 * worst_phi < 4e-7, "erf is off by {:e}", 2.0 * worst_phi);
    }

    #[test]
    fn gelu_is_exact_where_it_is_flat() {
        for x in [BOUND, 5.5, 6.0, 100.0, 1e30, f32::MAX, f32::INFINITY] {
            assert_eq!(gelu(x), x);
        }
        for x in [-BOUND, -5.5, -6.0, -100.0, -1e30, f32::MIN] {
            assert_eq!(gelu(x), 0.0);
        }
        assert_eq!(gelu(0.0).to_bits(), 0);
        assert!(gelu(f32::NAN).is_nan());
    }
}
