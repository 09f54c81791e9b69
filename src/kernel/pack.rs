//! The layout of the weights, and quantising them. Used when a model is compiled, never while it runs.
//!
//! A block holds 16 outputs; within it 4 inputs of one output lie together, then those of the next output:
//! `packed[block][step][output][input] = W[16 block + output][4 step + input]`, so that one 64-byte vector is what one
//! dot-product instruction wants. Outputs and inputs that fill up the last block and step are 0.

/// Outputs in a block.
pub(super) const BLOCK: usize = 16;
/// Inputs that one instruction multiplies and adds.
pub(super) const STEP: usize = 4;

/// The shape of the packed weight of `n` outputs and `k` inputs.
pub fn packed_shape(n: usize, k: usize) -> [usize; 4] {
    [n.div_ceil(BLOCK), k.div_ceil(STEP), BLOCK, STEP]
}

/// Packs `weight` [n, k], row-major.
///
/// # Panics
/// If `weight` does not hold `n * k` values.
pub fn pack_weight(weight: &[i8], n: usize, k: usize) -> Vec<i8> {
    assert_eq!(weight.len(), n * k, "a weight of {n} x {k}");
    let steps = k.div_ceil(STEP);
    let mut packed = vec![0; packed_shape(n, k).iter().product()];
    for (output, row) in weight.chunks_exact(k.max(1)).enumerate() {
        let block = output / BLOCK * steps;
        for (step, values) in row.chunks(STEP).enumerate() {
            let start = ((block + step) * BLOCK + output % BLOCK) * STEP;
            packed[start..start + values.len()].copy_from_slice(values);
        }
    }
    packed
}

/// A weight in 8 bits: an output's weights are its `values` times its `scale`.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantisedWeight {
    /// int8 [n, k], row-major, from -127 to 127: -128 is not used, so that a weight and its negative are treated alike.
    pub values: Vec<i8>,
    /// What one step of an output's int8 values is worth; [n].
    pub scale: Vec<f32>,
    /// Sums of an output's int8 values; [n].
    pub column_sum: Vec<i32>,
}

/// Quantises `weight` [n, k], row-major: symmetric for each output, to [-127, 127], half to even. An output of zeros has
/// the scale 0. Weights must be finite: others give values without meaning, but no panic.
///
/// # Panics
/// If `weight` does not hold `n * k` values.
pub fn quantise_weight(weight: &[f32], n: usize, k: usize) -> QuantisedWeight {
    assert_eq!(weight.len(), n * k, "a weight of {n} x {k}");
    let mut values = vec![0i8; n * k];
    let (mut scale, mut column_sum) = (vec![0f32; n], vec![0i32; n]);
    for output in 0..n {
        let row = &weight[output * k..][..k];
        let largest = row.iter().fold(0f32, |largest, w| largest.max(w.abs()));
        scale[output] = largest / 127.0;
        if scale[output] == 0.0 {
            continue;
        }
        for (value, w) in values[output * k..][..k].iter_mut().zip(row) {
            *value = (w / scale[output]).round_ties_even().clamp(-127.0, 127.0) as i8;
            column_sum[output] += i32::from(*value);
        }
    }
    QuantisedWeight { values, scale, column_sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_weight_has_its_place_and_the_rest_is_zero() {
        let (n, k) = (37, 10);
        let weight: Vec<i8> = (0..n * k).map(|i| (i % 251) as u8 as i8).collect();
        let packed = pack_weight(&weight, n, k);
        assert_eq!(packed_shape(n, k), [3, 3, 16, 4]);
        assert_eq!(packed.len(), 3 * 3 * 64);
        for (i, value) in packed.iter().enumerate() {
            let (block, step, output, input) = (i / 192, i / 64 % 3, i / 4 % 16, i % 4);
            let (output, input) = (block * 16 + output, step * 4 + input);
            let expected = if output < n && input < k { weight[output * k + input] } else { 0 };
            assert_eq!(*value, expected, "output {output}, input {input}");
        }
        assert!(pack_weight(&[], 0, 0).is_empty());
        assert_eq!(pack_weight(&[], 3, 0).len(), 0);
    }

    #[test]
    fn weights_are_rounded_half_to_even_within_127_steps() {
        let weight = [127.0, 0.5, 1.5, -2.5, -127.0, 63.4, 0.0, 0.0, 0.0, 1e-30, -1e-30, 0.0];
        let quantised = quantise_weight(&weight, 4, 3);
        assert_eq!(quantised.scale[0], 1.0);
        assert_eq!(quantised.values, [127, 0, 2, -2, -127, 63, 0, 0, 0, 127, -127, 0]);
        assert_eq!(quantised.column_sum, [129, -66, 0, 0]);
        assert_eq!(quantised.scale[2], 0.0);
        quantise_weight(&[f32::NAN, f32::INFINITY, 1e-45, -0.0], 2, 2);
    }
}
