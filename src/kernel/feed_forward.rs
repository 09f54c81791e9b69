//! Linear layers together with what follows them, over a few rows at a time: what lies between two layers stays in the
//! second-level cache.

use std::cell::Cell;

use super::{Linear, Norm, Path, path::TILE_ROWS};

/// Bytes of the widest matrix in single precision that are worked on at a time: less than half of a usual second-level
/// cache.
const PART_BYTES: usize = 7 << 17;

thread_local! {
    /// What lies between the two layers.
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// `LayerNorm(narrow(wide(x)) + x)`.
#[derive(Debug, Clone, Copy)]
pub struct FeedForward<'a> {
    /// From the width of x to another one, usually larger, with its activation.
    pub wide: Linear<'a>,
    /// Back again.
    pub narrow: Linear<'a>,
    /// After the residual.
    pub norm: Norm<'a>,
}

impl FeedForward<'_> {
    /// Whether the layers fit each other.
    pub fn fits(&self) -> bool {
        let Self { wide, narrow, norm } = self;
        wide.n == narrow.k && wide.k == narrow.n && norm.gain.len() == narrow.n && norm.shift.len() == narrow.n
    }

    /// Runs it in tasks, as [`Linear::run_parallel`] does: `x` and `y` are [rows, width].
    ///
    /// # Errors
    /// What `parallel` returns; `y` is then unfinished.
    ///
    /// # Panics
    /// If the layers do not [fit](Self::fits), or `x` and `y` are not of their size.
    pub fn run_parallel<E>(
        &self,
        path: Path,
        x: &[f32],
        y: &mut [f32],
        parallel: impl Fn(usize, &(dyn Fn(usize) + Sync)) -> Result<(), E>,
    ) -> Result<(), E> {
        let Self { wide, narrow, norm } = self;
        assert!(self.fits() && x.len() == y.len() && x.len().is_multiple_of(wide.k), "rows of {}", wide.k);
        let most = rows_of(wide.n.max(wide.k));
        let mut between = SCRATCH.take();
        between.resize(between.len().max(most.min(x.len() / wide.k) * wide.n), 0.0);
        let mut run = |x: &[f32], y: &mut [f32]| {
            let rows = x.len() / wide.k;
            let between = &mut between[..rows * wide.n];
            wide.run_parallel(path, (rows, x), between, &parallel)?;
            narrow.run_parallel(path, (rows, between), y, &parallel)?;
            norm.run(path, x, y, &parallel)
        };
        let done = x.chunks(most * wide.k).zip(y.chunks_mut(most * wide.k)).try_for_each(|(x, y)| run(x, y));
        SCRATCH.set(between);
        done
    }
}

/// `LayerNorm(layer(x) + residual)` in tasks, as [`Linear::run_parallel`] does: `x` [rows, k], `residual` and `y`
/// [rows, n].
///
/// # Errors
/// What `parallel` returns; `y` is then unfinished.
///
/// # Panics
/// If the matrices or the norm are not of the layer's size.
pub fn run_with_norm<E>(
    (layer, norm): (&Linear, &Norm),
    path: Path,
    (x, residual): (&[f32], &[f32]),
    y: &mut [f32],
    parallel: impl Fn(usize, &(dyn Fn(usize) + Sync)) -> Result<(), E>,
) -> Result<(), E> {
    let (k, n) = (layer.k, layer.n);
    assert!(norm.gain.len() == n && y.len() == residual.len() && y.len() * k == x.len() * n, "rows of {n}");
    let most = rows_of(n.max(k));
    let parts = x.chunks(most * k).zip(residual.chunks(most * n)).zip(y.chunks_mut(most * n));
    for ((x, residual), y) in parts {
        layer.run_parallel(path, (x.len() / k, x), y, &parallel)?;
        norm.run(path, residual, y, &parallel)?;
    }
    Ok(())
}

/// Rows of `width` that are worked on at a time: whole tiles.
fn rows_of(width: usize) -> usize {
    (PART_BYTES / (width * size_of::<f32>()) / TILE_ROWS).max(1) * TILE_ROWS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{Activation, tests::*},
        *,
    };

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn all_paths_give_the_same_bits(width in 1..150usize, between in 1..150usize, rows in 1..40usize, seed: u64) {
            let mut random = Random(seed);
            let wide = Layer::new(between, width, Activation::Gelu, &mut random);
            let narrow = Layer::new(width, between, Activation::None, &mut random);
            let (gain, shift) = (random.take(width, 1.0), random.take(width, 1.0));
            let norm = Norm { gain: &gain, shift: &shift, epsilon: 1e-7 };
            let block = FeedForward { wide: wide.linear(), narrow: narrow.linear(), norm };
            let x = random.take(rows * width, 2.0);
            let residual = random.take(rows * between, 2.0);
            let (gain, shift) = (random.take(between, 1.0), random.take(between, 1.0));
            let norm = Norm { gain: &gain, shift: &shift, epsilon: 1e-5 };
            let run = |path: Path| {
                let (mut y, mut z) = (vec![0.0; x.len()], vec![0.0; residual.len()]);
                let Ok(()) = block.run_parallel(path, &x, &mut y, inline);
                let Ok(()) = run_with_norm((&block.wide, &norm), path, (&x, &residual), &mut z, inline);
                (bits(&y), bits(&z))
            };
            let expected = run(scalar());
            for path in Path::available() {
                prop_assert_eq!(run(path), expected.clone(), "{:?}", path);
            }
        }
    }

    #[test]
    fn it_is_the_layers_one_after_the_other_in_parts_or_not() {
        let mut random = Random(4);
        let (width, between) = (40, 50_000);
        let (rows, part) = (31, rows_of(between));
        assert!(part < rows && part.is_multiple_of(TILE_ROWS));
        let wide = Layer::new(between, width, Activation::Gelu, &mut random);
        let narrow = Layer::new(width, between, Activation::None, &mut random);
        let (gain, shift) = (random.take(width, 1.0), random.take(width, 1.0));
        let norm = Norm { gain: &gain, shift: &shift, epsilon: 1e-7 };
        let block = FeedForward { wide: wide.linear(), narrow: narrow.linear(), norm };
        assert!(block.fits() && !FeedForward { wide: narrow.linear(), ..block }.fits());
        let x = random.take(rows * width, 2.0);
        let mut y = vec![0.0; x.len()];
        let Ok(()) = block.run_parallel(Path::best(), &x, &mut y, inline);
        let linear = narrow.run(Path::best(), &wide.run(Path::best(), &x));
        for (row, y) in y.chunks(width).enumerate() {
            let at = row * width..(row + 1) * width;
            let sum: Vec<f64> = linear[at.clone()].iter().zip(&x[at]).map(|(y, x)| f64::from(y + x)).collect();
            let mean = sum.iter().sum::<f64>() / width as f64;
            let variance = sum.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
            for (i, y) in y.iter().enumerate() {
                let expected = (sum[i] - mean) / (variance + 1e-7).sqrt() * f64::from(gain[i]) + f64::from(shift[i]);
                assert!((f64::from(*y) - expected).abs() < 1e-5, "{y} instead of {expected}");
            }
        }
    }
}
