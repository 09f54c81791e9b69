//! Every path against the scalar one, bit for bit, and the scalar one against plain f64 arithmetic.

use proptest::prelude::*;

use super::{
    Activation, Linear, Norm, Parameters, Path, QuantisedWeight, ShapeError, bias_gelu, pack_weight, quantise_weight,
};

/// Numbers from -1 to 1, the same for the same seed.
pub(super) struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn take(&mut self, len: usize, scale: f32) -> Vec<f32> {
        (0..len).map(|_| self.next() * scale).collect()
    }
}

pub(super) struct Layer {
    n: usize,
    k: usize,
    activation: Activation,
    weight: Vec<f32>,
    packed: Vec<i8>,
    quantised: QuantisedWeight,
    bias: Vec<f32>,
}

impl Layer {
    pub fn new(n: usize, k: usize, activation: Activation, random: &mut Random) -> Self {
        let weight = random.take(n * k, 0.1);
        let quantised = quantise_weight(&weight, n, k);
        let packed = pack_weight(&quantised.values, n, k);
        Self { n, k, activation, weight, packed, quantised, bias: random.take(n, 1.0) }
    }

    pub fn linear(&self) -> Linear<'_> {
        let QuantisedWeight { scale, column_sum, .. } = &self.quantised;
        let parameters = Parameters { weight: &self.packed, scale, column_sum, bias: &self.bias };
        Linear::new(self.k, self.activation, parameters).expect("the sizes fit")
    }

    pub fn run(&self, path: Path, x: &[f32]) -> Vec<f32> {
        let rows = x.len() / self.k;
        let mut y = vec![-1e9; rows * self.n];
        self.linear().run(path, rows, x, &mut y);
        y
    }
}

pub(super) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

pub(super) fn inline(tasks: usize, task: &(dyn Fn(usize) + Sync)) -> Result<(), std::convert::Infallible> {
    (0..tasks).for_each(task);
    Ok(())
}

pub(super) fn scalar() -> Path {
    Path::available().pop().expect("there is always the scalar path")
}

#[derive(Debug, Clone, Copy)]
enum Row {
    Usual,
    Zero,
    Denormal,
    Huge,
    Tiny,
    Outlier,
    Nan,
    Infinite,
}

fn fill(row: &mut [f32], kind: Row, random: &mut Random) {
    let scale = match kind {
        Row::Zero => 0.0,
        Row::Denormal => 1e-40,
        Row::Huge => f32::MAX,
        Row::Tiny => 1e-11,
        _ => 3.0,
    };
    row.fill_with(|| random.next() * scale);
    let place = (random.next().abs() * (row.len() - 1) as f32) as usize;
    match kind {
        Row::Outlier => row[place] = 1e4,
        Row::Nan => row[place] = f32::NAN,
        Row::Infinite => row[place] = f32::NEG_INFINITY,
        _ => {}
    }
}

fn kinds() -> impl Strategy<Value = Row> {
    use Row::*;
    prop_oneof![
        6 => Just(Usual), 1 => Just(Zero), 1 => Just(Denormal), 1 => Just(Huge), 1 => Just(Tiny), 1 => Just(Outlier),
        1 => Just(Nan), 1 => Just(Infinite)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_paths_give_the_same_bits(
        n in 1..100usize, k in 1..300usize, gelu: bool, seed: u64, kinds in prop::collection::vec(kinds(), 1..71)
    ) {
        let mut random = Random(seed);
        let layer = Layer::new(n, k, if gelu { Activation::Gelu } else { Activation::None }, &mut random);
        let mut x = vec![0.0; kinds.len() * k];
        for (row, kind) in x.chunks_exact_mut(k).zip(&kinds) {
            fill(row, *kind, &mut random);
        }
        let expected = layer.run(scalar(), &x);
        for path in Path::available() {
            let y = layer.run(path, &x);
            prop_assert_eq!(bits(&y), bits(&expected), "{:?}", path);
        }
        for (y, kind) in expected.chunks_exact(n).zip(&kinds) {
            match kind {
                Row::Nan | Row::Infinite => prop_assert!(y.iter().all(|y| y.is_nan())),
                Row::Huge => {}
                _ => prop_assert!(y.iter().all(|y| y.is_finite())),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_follows_a_product_has_the_same_bits_on_all_paths(
        width in 1..200usize, seed: u64, kinds in prop::collection::vec(kinds(), 1..40)
    ) {
        let mut random = Random(seed);
        let mut x = vec![0.0; kinds.len() * width];
        for (row, kind) in x.chunks_exact_mut(width).zip(&kinds) {
            fill(row, *kind, &mut random);
        }
        let residual = random.take(x.len(), 2.0);
        let [bias, gain, shift] = [(); 3].map(|()| random.take(width, 1.0));
        let norm = Norm { gain: &gain, shift: &shift, epsilon: 1e-7 };
        let run = |path: Path| {
            let (mut y, mut z) = (vec![-1e9; x.len()], vec![-1e9; x.len()]);
            let Ok(()) = bias_gelu(path, (&x, &bias), &mut y, inline);
            let Ok(()) = norm.run_with_bias(path, (&x, &bias, &residual), &mut z, inline);
            // Which NaN it is depends on the order of an instruction's operands.
            y.iter().chain(&z).map(|y| if y.is_nan() { u32::MAX } else { y.to_bits() }).collect::<Vec<_>>()
        };
        let expected = run(scalar());
        for path in Path::available() {
            prop_assert_eq!(run(path), expected.clone(), "{:?}", path);
        }
        for (i, x) in x.iter().enumerate() {
            let y = f32::from_bits(expected[i]);
            let gelu = super::gelu::gelu(x + bias[i % width]);
            prop_assert!(y == gelu || (y.is_nan() && gelu.is_nan()));
        }
    }
}

#[test]
fn bias_residual_and_norm_are_what_plain_arithmetic_says() {
    let mut random = Random(12);
    let (rows, width) = (37, 53);
    let (x, residual) = (random.take(rows * width, 3.0), random.take(rows * width, 3.0));
    let [bias, gain, shift] = [(); 3].map(|()| random.take(width, 1.0));
    let norm = Norm { gain: &gain, shift: &shift, epsilon: 1e-7 };
    let mut y = vec![0.0; x.len()];
    let Ok(()) = norm.run_with_bias(Path::best(), (&x, &bias, &residual), &mut y, inline);
    for (row, y) in y.chunks(width).enumerate() {
        let at = |i: usize| f64::from(x[row * width + i]) + f64::from(bias[i]) + f64::from(residual[row * width + i]);
        let sum: Vec<f64> = (0..width).map(at).collect();
        let mean = sum.iter().sum::<f64>() / width as f64;
        let variance = sum.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
        for (i, y) in y.iter().enumerate() {
            let expected = (sum[i] - mean) / (variance + 1e-7).sqrt() * f64::from(gain[i]) + f64::from(shift[i]);
            assert!((f64::from(*y) - expected).abs() < 1e-5, "{y} instead of {expected}");
        }
    }
    let Ok(()) = norm.run_with_bias(Path::best(), (&[], &bias, &[]), &mut [], inline);
    let Ok(()) = bias_gelu(Path::best(), (&[], &bias), &mut [], inline);
}

#[test]
fn a_rows_bits_do_not_depend_on_its_company_nor_on_threads() {
    let mut random = Random(7);
    // More rows than one batch of quantised rows holds.
    let (rows, layer) = (600, Layer::new(70, 2500, Activation::Gelu, &mut random));
    let x = random.take(rows * layer.k, 2.0);
    for path in Path::available().into_iter().filter(|path| path.name() != "scalar") {
        let together = layer.run(path, &x);
        for row in [0, 1, rows / 3, rows - 1] {
            let alone = layer.run(path, &x[row * layer.k..][..layer.k]);
            assert_eq!(bits(&alone), bits(&together[row * layer.n..][..layer.n]), "row {row}, {path:?}");
        }
        let mut y = vec![0.0; together.len()];
        let threads = |tasks: usize, task: &(dyn Fn(usize) + Sync)| {
            std::thread::scope(|scope| {
                for first in 0..3 {
                    scope.spawn(move || (first..tasks).step_by(3).for_each(task));
                }
            });
            Ok::<(), ()>(())
        };
        assert_eq!(layer.linear().run_parallel(path, (rows, &x), &mut y, threads), Ok(()));
        assert_eq!(bits(&y), bits(&together), "{path:?}");
    }
}

#[test]
fn the_scalar_path_is_what_plain_arithmetic_says() {
    let mut random = Random(3);
    for (rows, n, k, gelu) in [(3, 17, 30, false), (9, 48, 64, true), (2, 5, 301, true)] {
        let layer = Layer::new(n, k, if gelu { Activation::Gelu } else { Activation::None }, &mut random);
        let x = random.take(rows * k, 4.0);
        let y = layer.run(scalar(), &x);
        for (row, y) in x.chunks_exact(k).zip(y.chunks_exact(n)) {
            let scale = row.iter().fold(0f32, |m, x| m.max(x.abs())) / 127.0;
            for (output, y) in y.iter().enumerate() {
                let step = layer.quantised.scale[output];
                let weights = &layer.weight[output * k..][..k];
                let sum: f64 = row
                    .iter()
                    .zip(weights)
                    .map(|(x, w)| {
                        f64::from((x * (1.0 / scale)).round_ties_even()) * f64::from((w / step).round_ties_even())
                    })
                    .sum();
                let linear = sum * f64::from(scale) * f64::from(step) + f64::from(layer.bias[output]);
                let expected = if gelu { f64::from(super::gelu::gelu(linear as f32)) } else { linear };
                assert!((f64::from(*y) - expected).abs() < 2e-6, "{y} instead of {expected}");
                let exact: f64 = row.iter().zip(weights).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                let loss = (linear - exact - f64::from(layer.bias[output])).abs();
                assert!(loss < 0.01 * (k as f64).sqrt(), "quantising costs {loss}");
            }
        }
    }
}

#[test]
fn sizes_that_do_not_fit_are_errors() {
    let layer = Layer::new(20, 10, Activation::None, &mut Random(1));
    let (packed, QuantisedWeight { scale, column_sum, .. }) = (&layer.packed, &layer.quantised);
    let whole = Parameters { weight: packed, scale, column_sum, bias: &layer.bias };
    let fails = |k, parameters| Linear::new(k, Activation::None, parameters).expect_err("it must not fit");
    assert!(Linear::new(10, Activation::None, whole).is_ok());
    assert_eq!(fails(0, whole), ShapeError::Inputs(0));
    assert_eq!(fails(65_537, whole), ShapeError::Inputs(65_537));
    for (k, parameters, name) in [
        (13, whole, "weight"),
        (10, Parameters { weight: &packed[1..], ..whole }, "weight"),
        (10, Parameters { scale: &scale[1..], ..whole }, "scale"),
        (10, Parameters { column_sum: &column_sum[1..], ..whole }, "column_sum"),
        (10, Parameters { bias: &layer.bias[1..], ..whole }, "scale"),
    ] {
        let error = fails(k, parameters);
        assert!(matches!(error, ShapeError::Length { name: found, .. } if found == name), "{error}");
    }
    let mut nothing = [];
    layer.linear().run(Path::best(), 0, &[], &mut nothing);
}
