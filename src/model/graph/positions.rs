//! Relative positions, computed once: which row of the relative embeddings belongs to a distance, and the rows' keys
//! and queries in each layer. Pure; it does not know graphs.

use super::{config::DebertaConfig, linear::Linear};

/// The row of the relative embeddings for a distance of query minus key.
///
/// As transformers' `make_log_bucket_position` and the clamping after it, in the same single-precision arithmetic, so
/// that a distance on the edge of two buckets falls into the same one.
pub fn row(config: &DebertaConfig, distance: i64) -> usize {
    let span = config.span as i64;
    let bucket = match config.bucketed_to {
        None => distance,
        Some(end) => {
            let middle = span / 2;
            if distance.abs() <= middle {
                distance
            } else {
                let far = (distance.abs() as f32 / middle as f32).ln() / ((end as i64 - 1) as f32 / middle as f32).ln();
                let bucket = (far * (middle - 1) as f32).ceil() as i64 + middle;
                bucket * distance.signum()
            }
        }
    };
    usize::try_from((bucket + span).clamp(0, 2 * span - 1)).expect("clamped from 0")
}

/// The rows for the distances from `-(P - 1)` to `P`, upwards and from the other end, where P is the longest sequence:
/// for a sequence of T tokens, the 2T rows from `P - T` on belong to the distances from `-(T - 1)` to `T` upwards, and
/// from `T - 1` to `-T` downwards.
pub fn rows_up_and_down(config: &DebertaConfig) -> (Vec<i64>, Vec<i64>) {
    let most = config.max_length as i64;
    let distances = 1 - most..=most;
    let rows = |sign: i64| distances.clone().map(|distance| row(config, sign * distance) as i64).collect();
    (rows(1), rows(-1))
}

/// `values` `[rows, width]` after LayerNorm.
pub fn layer_norm(values: &[f32], gain: &[f32], bias: &[f32], epsilon: f32) -> Vec<f32> {
    let width = gain.len();
    let mut result = Vec::with_capacity(values.len());
    for row in values.chunks_exact(width) {
        let row: Vec<f64> = row.iter().map(|value| f64::from(*value)).collect();
        let mean = row.iter().sum::<f64>() / width as f64;
        let variance = row.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / width as f64;
        let factor = 1.0 / (variance + f64::from(epsilon)).sqrt();
        let scaled = row.iter().zip(gain).zip(bias);
        result.extend(scaled.map(|((x, g), b)| ((x - mean) * factor * f64::from(*g) + f64::from(*b)) as f32));
    }
    result
}

/// `layer` applied to `x` `[rows, inputs]`, as `[heads, rows, outputs / heads]`.
pub fn project(x: &[f32], layer: &Linear, heads: usize) -> Vec<f32> {
    let rows = x.len() / layer.inputs;
    let size = layer.outputs() / heads;
    let mut result = vec![0.0; rows * layer.outputs()];
    // A block of rows stays in the cache while all weights pass by.
    const BLOCK: usize = 16;
    for (block, lines) in x.chunks(BLOCK * layer.inputs).enumerate() {
        for (output, (weight, bias)) in layer.weight.chunks_exact(layer.inputs).zip(&layer.bias).enumerate() {
            for (i, line) in lines.chunks_exact(layer.inputs).enumerate() {
                let at = (output / size * rows + block * BLOCK + i) * size + output % size;
                result[at] = dot(line, weight) + bias;
            }
        }
    }
    result
}

/// Many short sums at once: as fast as the compiler's vectors, and with less rounding than one long sum.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    let mut sums = [0f32; 16];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    (sums.iter().map(|sum| f64::from(*sum)).sum::<f64>() + rest) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(span: usize, bucketed_to: Option<usize>, max_length: usize) -> DebertaConfig {
        DebertaConfig {
            hidden: 4,
            heads: 2,
            layers: 1,
            intermediate: 4,
            vocabulary: 10,
            token_types: 0,
            epsilon: 1e-7,
            max_length,
            span,
            bucketed_to,
            classes: 2,
        }
    }

    /// Values printed by transformers 5.23's `make_log_bucket_position` (plus span, clamped).
    #[test]
    fn buckets_are_those_of_transformers() {
        let base = config(256, Some(512), 512);
        for (distance, expected) in BASE {
            assert_eq!(row(&base, distance), expected, "distance {distance}");
        }
        let small = config(32, Some(64), 64);
        for (distance, expected) in SMALL {
            assert_eq!(row(&small, distance), expected, "distance {distance}");
        }
        // As many rows as distances, without buckets; farther ones share the last row.
        let plain = config(8, None, 20);
        assert_eq!([-9, -8, -1, 0, 7, 8].map(|d| row(&plain, d)), [0, 0, 7, 8, 15, 15]);
    }

    const BASE: [(i64, usize); 24] = [
        (-511, 1),
        (-510, 1),
        (-300, 49),
        (-200, 87),
        (-130, 126),
        (-129, 127),
        (-128, 128),
        (-127, 129),
        (-1, 255),
        (0, 256),
        (1, 257),
        (127, 383),
        (128, 384),
        (129, 385),
        (131, 387),
        (150, 399),
        (255, 448),
        (256, 448),
        (257, 448),
        (400, 489),
        (509, 511),
        (510, 511),
        (511, 511),
        (512, 511),
    ];
    const SMALL: [(i64, usize); 17] = [
        (-64, 0),
        (-63, 1),
        (-40, 5),
        (-17, 15),
        (-16, 16),
        (0, 32),
        (15, 47),
        (16, 48),
        (17, 49),
        (18, 50),
        (19, 50),
        (20, 51),
        (30, 55),
        (50, 61),
        (62, 63),
        (63, 63),
        (64, 63),
    ];

    #[test]
    fn rows_run_both_ways() {
        let (up, down) = rows_up_and_down(&config(32, Some(64), 64));
        assert_eq!((up.len(), down.len()), (128, 128));
        // Distance 0 stands at P - 1; the neighbours are one bucket away.
        assert_eq!((up[62], up[63], up[64]), (31, 32, 33));
        assert_eq!((down[62], down[63], down[64]), (33, 32, 31));
        let mut reversed = down[..127].to_vec();
        reversed.reverse();
        assert_eq!(reversed, up[..127]);
    }

    #[test]
    fn a_projection_is_head_first() {
        let layer = Linear { weight: (0..12).map(|w| w as f32).collect(), bias: vec![0.5, 0.0, 0.0, 100.0], inputs: 3 };
        // Outputs of the row [1, 0, 0] are the first column, of [0, 1, 1] the sum of the others.
        let got = project(&[1.0, 0.0, 0.0, 0.0, 1.0, 1.0], &layer, 2);
        assert_eq!(got, [0.5, 3.0, 3.5, 9.0, 6.0, 109.0, 15.0, 121.0]);
        let long: Vec<f32> = (0..37).map(|i| i as f32 / 8.0).collect();
        let exact: f64 = long.iter().map(|x| f64::from(*x).powi(2)).sum();
        assert_eq!(f64::from(dot(&long, &long)), exact);
    }

    #[test]
    fn layer_norm_has_the_mean_and_deviation_it_is_told() {
        let got = layer_norm(&[1.0, 3.0, -2.0, -2.0], &[2.0, 2.0], &[0.0, 1.0], 1e-12);
        assert_eq!(got, [-2.0, 3.0, 0.0, 1.0]);
    }
}
