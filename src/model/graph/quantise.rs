//! Weights as int8, symmetric for each output channel, and the layout that `QuantLinear` reads in place.
//! Pure; it does not know graphs.

/// Output channels of one block of packed weights.
const BLOCK_N: usize = 16;
/// Inputs of one block of packed weights: what one int8 dot product instruction sums.
const BLOCK_K: usize = 4;
/// Largest quantised magnitude; -128 is not used, so that a weight and its negative are treated alike.
const LEVELS: f32 = 127.0;

/// A quantised matrix `[n outputs, k inputs]`: weight = value * scale of its output.
#[derive(Debug, PartialEq)]
pub struct QuantisedMatrix {
    /// In the order `[n, k]`, from -127 to 127.
    pub values: Vec<i8>,
    /// One for each output.
    pub scales: Vec<f32>,
    /// Sum of the values of each output.
    pub sums: Vec<i32>,
}

/// Quantises `weights` `[n, k]`, of finite values: scale = absmax / 127, halves to even. A channel of zeros has the
/// scale 0.
pub fn quantise(weights: &[f32], k: usize) -> QuantisedMatrix {
    let mut values = Vec::with_capacity(weights.len());
    let mut scales = Vec::with_capacity(weights.len() / k);
    let mut sums = Vec::with_capacity(weights.len() / k);
    for row in weights.chunks_exact(k) {
        let scale = row.iter().fold(0f32, |most, w| most.max(w.abs())) / LEVELS;
        let mut sum = 0;
        for weight in row {
            let level = (weight / scale).round_ties_even().clamp(-LEVELS, LEVELS);
            // 0 / 0 of a channel of zeros becomes 0 here.
            let level = level as i8;
            sum += i32::from(level);
            values.push(level);
        }
        scales.push(scale);
        sums.push(sum);
    }
    QuantisedMatrix { values, scales, sums }
}

/// The dimensions of what [`pack_weight`] returns for a matrix `[n, k]`.
pub fn packed_dims(n: usize, k: usize) -> [usize; 4] {
    [n.div_ceil(BLOCK_N), k.div_ceil(BLOCK_K), BLOCK_N, BLOCK_K]
}

/// Packs `values` `[n, k]` as `[ceil(n / 16), ceil(k / 4), 16, 4]`: element `[a][b][c][d]` is the one at
/// `[16 a + c, 4 b + d]`, or 0 outside of the matrix.
pub fn pack_weight(values: &[i8], n: usize, k: usize) -> Vec<i8> {
    let [blocks_n, blocks_k, ..] = packed_dims(n, k);
    let mut packed = vec![0; blocks_n * blocks_k * BLOCK_N * BLOCK_K];
    for (row, line) in values.chunks_exact(k).enumerate() {
        for (b, group) in line.chunks(BLOCK_K).enumerate() {
            let at = ((row / BLOCK_N * blocks_k + b) * BLOCK_N + row % BLOCK_N) * BLOCK_K;
            packed[at..at + group.len()].copy_from_slice(group);
        }
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_channel_uses_the_whole_range_and_halves_go_to_even() {
        // The scales are 2 and 1/127.
        let got = quantise(&[254.0, -254.0, 1.0, 3.0, 5.0, 0.0, 1.0, -0.25, 0.5, 0.0, 0.0, 0.0], 4);
        assert_eq!(got.values, [127, -127, 0, 2, 127, 0, 25, -6, 127, 0, 0, 0]);
        assert_eq!(got.scales, [2.0, 5.0 / 127.0, 0.5 / 127.0]);
        assert_eq!(got.sums, [2, 146, 127]);
    }

    #[test]
    fn a_channel_of_zeros_stays_zero() {
        let got = quantise(&[0.0, -0.0, 1e-40, -1e-40], 2);
        assert_eq!((&got.values[..2], got.scales[0], got.sums[0]), (&[0, 0][..], 0.0, 0));
        assert!(got.values[2] == -got.values[3]);
    }

    #[test]
    fn every_weight_is_where_the_formula_says() {
        for (n, k) in [(16, 4), (1, 1), (17, 5), (40, 12), (33, 31)] {
            let values: Vec<i8> = (0..n * k).map(|i| (i * 37 % 253) as i8).collect();
            let packed = pack_weight(&values, n, k);
            let [blocks_n, blocks_k, block_n, block_k] = packed_dims(n, k);
            assert_eq!(packed.len(), blocks_n * blocks_k * block_n * block_k);
            for a in 0..blocks_n {
                for b in 0..blocks_k {
                    for c in 0..block_n {
                        for d in 0..block_k {
                            let (row, column) = (a * 16 + c, b * 4 + d);
                            let expected = if row < n && column < k { values[row * k + column] } else { 0 };
                            let at = ((a * blocks_k + b) * block_n + c) * block_k + d;
                            assert_eq!(packed[at], expected, "[{a}][{b}][{c}][{d}] of {n} x {k}");
                        }
                    }
                }
            }
        }
    }
}
