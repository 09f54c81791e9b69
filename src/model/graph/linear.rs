//! Linear layers in every precision, with what follows them.

use super::{
    Precision,
    emitter::{Emitter, MICROSOFT, ODDLOG, Value},
    error::GraphError,
    proto::{Attribute, Element},
    weights::Weights,
};
use crate::kernel::{pack_weight, packed_shape, quantise_weight};

/// Zero point of quantised activations: -127..=127 is stored as 1..=255.
const ZERO_POINT: u8 = 128;

/// A linear layer: `y = x weight^T + bias`.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[outputs, inputs]`, row-major.
    pub weight: Vec<f32>,
    /// One for each output.
    pub bias: Vec<f32>,
    /// Width of `x`.
    pub inputs: usize,
}

/// A LayerNorm's weights in the graph.
pub struct LayerNorm {
    /// One for each column.
    pub gain: Value,
    /// One for each column.
    pub shift: Value,
    /// Added to the variance.
    pub epsilon: f32,
}

/// What follows a linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// Gelu, by the error function.
    Gelu,
}

impl Linear {
    /// Reads `<prefix>.weight` `[outputs, inputs]` and `<prefix>.bias`.
    ///
    /// # Errors
    /// As [`Weights::values`].
    pub fn read(weights: &Weights, prefix: &str, outputs: usize, inputs: usize) -> Result<Self, GraphError> {
        let weight = weights.values(&format!("{prefix}.weight"), &[outputs, inputs])?;
        let bias = weights.values(&format!("{prefix}.bias"), &[outputs])?;
        Ok(Self { weight, bias, inputs })
    }

    /// Width of `y`.
    pub fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// The layer whose outputs are `factor` times as large.
    pub fn scaled(mut self, factor: f64) -> Self {
        for value in self.weight.iter_mut().chain(&mut self.bias) {
            *value = (f64::from(*value) * factor) as f32;
        }
        self
    }

    /// The layer that gives for `x` what this one gives for `x + shift`.
    pub fn after(mut self, shift: &[f32]) -> Self {
        for (bias, weight) in self.bias.iter_mut().zip(self.weight.chunks_exact(self.inputs)) {
            let added: f64 = weight.iter().zip(shift).map(|(w, s)| f64::from(*w) * f64::from(*s)).sum();
            *bias = (f64::from(*bias) + added) as f32;
        }
        self
    }

    /// One layer that gives the outputs of `layers`, which have inputs of the same width, side by side.
    pub fn side_by_side(layers: &[&Self]) -> Self {
        Self {
            weight: layers.iter().flat_map(|layer| &layer.weight).copied().collect(),
            bias: layers.iter().flat_map(|layer| &layer.bias).copied().collect(),
            inputs: layers[0].inputs,
        }
    }

    /// Appends the layer to `graph`, with initializers called `name`.
    ///
    /// # Errors
    /// [`GraphError::Write`].
    pub fn emit(
        &self,
        graph: &mut Emitter,
        precision: Precision,
        name: &str,
        x: &Value,
        activation: Activation,
    ) -> Result<Value, GraphError> {
        if precision == Precision::Int8 {
            return self.emit_fused(graph, name, x, activation);
        }
        let (y, bias) = self.emit_product(graph, precision, name, x)?;
        if precision == Precision::Fp32 && activation == Activation::Gelu {
            return Ok(graph.op_of(ODDLOG, "BiasGelu", &[&y, &bias], &[]));
        }
        let y = graph.op("Add", &[&y, &bias], &[]);
        Ok(match activation {
            Activation::None => y,
            Activation::Gelu => graph.op_of(MICROSOFT, "Gelu", &[&y], &[]),
        })
    }

    /// `LayerNorm(layer(x) + residual)`: in 8 bits one operator.
    ///
    /// # Errors
    /// [`GraphError::Write`].
    pub fn emit_with_norm(
        &self,
        graph: &mut Emitter,
        precision: Precision,
        name: &str,
        (x, residual): (&Value, &Value),
        norm: &LayerNorm,
    ) -> Result<Value, GraphError> {
        let LayerNorm { gain, shift, epsilon } = norm;
        let epsilon = Attribute::Float("epsilon", *epsilon);
        if precision == Precision::Int8 {
            let [weight, scale, sums, bias] = self.arrays(graph, name)?;
            let inputs = [x, &weight, &scale, &sums, &bias, residual, gain, shift];
            return Ok(graph.op_of(ODDLOG, "QuantLinearNorm", &inputs, &[epsilon]));
        }
        if precision == Precision::Fp32 {
            let (y, bias) = self.emit_product(graph, precision, name, x)?;
            return Ok(graph.op_of(ODDLOG, "BiasNorm", &[&y, &bias, residual, gain, shift], &[epsilon]));
        }
        if graph.is_half() {
            let (y, bias) = self.emit_product(graph, precision, name, x)?;
            let inputs = [&y, residual, gain, shift, &bias];
            return Ok(graph.op_of(MICROSOFT, "SkipLayerNormalization", &inputs, &[epsilon]));
        }
        // On processors that operator made the whole graph 7 % slower.
        let y = self.emit(graph, precision, name, x, Activation::None)?;
        let sum = graph.op("Add", &[&y, residual], &[]);
        Ok(graph.op("LayerNormalization", &[&sum, gain, shift], &[Attribute::Int("axis", -1), epsilon]))
    }

    /// Two layers in 8 bits, and what follows them, in one operator: `LayerNorm(second(Gelu(self(x))) + x)`. Initializers
    /// are called after `names`.
    ///
    /// # Errors
    /// [`GraphError::Write`].
    pub fn emit_feed_forward(
        &self,
        graph: &mut Emitter,
        names: [&str; 2],
        second: &Self,
        x: &Value,
        norm: &LayerNorm,
    ) -> Result<Value, GraphError> {
        let (first, second) = (self.arrays(graph, names[0])?, second.arrays(graph, names[1])?);
        let inputs = [x].into_iter().chain(&first).chain(&second).chain([&norm.gain, &norm.shift]);
        let inputs: Vec<&Value> = inputs.collect();
        Ok(graph.op_of(ODDLOG, "QuantFeedForward", &inputs, &[Attribute::Float("epsilon", norm.epsilon)]))
    }

    /// The layer without its bias, and the bias, in operators that every ONNX Runtime has.
    fn emit_product(
        &self,
        graph: &mut Emitter,
        precision: Precision,
        name: &str,
        x: &Value,
    ) -> Result<(Value, Value), GraphError> {
        let y = match precision {
            Precision::Fp32 | Precision::Fp32Portable | Precision::Fp16 | Precision::Fp16Rounded => {
                self.emit_unbiased(graph, precision, name, x)?
            }
            Precision::Int8 | Precision::Int8Portable => self.emit_portable(graph, name, x)?,
        };
        Ok((y, numbers(graph, precision, &format!("{name}.bias"), &[self.outputs()], &self.bias)?))
    }

    /// The layer without its bias, in the numbers that a matrix product takes.
    ///
    /// # Errors
    /// [`GraphError::Write`].
    pub fn emit_unbiased(
        &self,
        graph: &mut Emitter,
        precision: Precision,
        name: &str,
        x: &Value,
    ) -> Result<Value, GraphError> {
        let dims = [self.inputs, self.outputs()];
        let weight = transposed(&self.weight, self.inputs);
        let weight = numbers(graph, precision, &format!("{name}.weight"), &dims, &weight)?;
        Ok(graph.op("MatMul", &[x, &weight], &[]))
    }

    /// One operator quantises the rows of `x`, multiplies, rescales, adds the bias and applies the activation.
    fn emit_fused(
        &self,
        graph: &mut Emitter,
        name: &str,
        x: &Value,
        activation: Activation,
    ) -> Result<Value, GraphError> {
        let [weight, scale, sums, bias] = self.arrays(graph, name)?;
        let activation = Attribute::Int("activation", i64::from(activation == Activation::Gelu));
        Ok(graph.op_of(ODDLOG, "QuantLinear", &[x, &weight, &scale, &sums, &bias], &[activation]))
    }

    /// Weight, scale, column sums and bias in 8 bits.
    fn arrays(&self, graph: &mut Emitter, name: &str) -> Result<[Value; 4], GraphError> {
        let (n, k) = (self.outputs(), self.inputs);
        let quantised = quantise_weight(&self.weight, n, k);
        let packed = bytes_of(&pack_weight(&quantised.values, n, k));
        let sums: Vec<u8> = quantised.column_sum.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        Ok([
            graph.initializer(&format!("{name}.weight"), Element::I8, &packed_shape(n, k), &packed)?,
            graph.floats(&format!("{name}.scale"), &[n], &quantised.scale)?,
            graph.initializer(&format!("{name}.column_sum"), Element::I32, &[n], &sums)?,
            graph.floats(&format!("{name}.bias"), &[n], &self.bias)?,
        ])
    }

    /// The same arithmetic in operators of ONNX.
    fn emit_portable(&self, graph: &mut Emitter, name: &str, x: &Value) -> Result<Value, GraphError> {
        let (n, k) = (self.outputs(), self.inputs);
        let quantised = quantise_weight(&self.weight, n, k);
        let weight = bytes_of(&transposed(&quantised.values, k));
        let weight = graph.initializer(&format!("{name}.weight"), Element::I8, &[k, n], &weight)?;
        let scale = graph.floats(&format!("{name}.scale"), &[n], &quantised.scale)?;
        let (rows, row_scale) = quantised_rows(graph, x);
        let zero_point = graph.byte(ZERO_POINT);
        let y = graph.op("MatMulInteger", &[&rows, &weight, &zero_point], &[]);
        let y = graph.op("Cast", &[&y], &[Attribute::Int("to", Element::F32 as i64)]);
        let y = graph.op("Mul", &[&y, &row_scale], &[]);
        Ok(graph.op("Mul", &[&y, &scale], &[]))
    }
}

/// An initializer in what activations have in this precision: a layer of another one may stand in the same graph.
fn numbers(
    graph: &mut Emitter,
    precision: Precision,
    name: &str,
    dims: &[usize],
    values: &[f32],
) -> Result<Value, GraphError> {
    match precision {
        Precision::Fp16 | Precision::Fp16Rounded => graph.numbers(name, dims, values),
        Precision::Fp32 | Precision::Fp32Portable | Precision::Int8 | Precision::Int8Portable => {
            graph.floats(name, dims, values)
        }
    }
}

/// Each row of `x` as uint8 around [`ZERO_POINT`], and the rows' scales `[..., 1]`.
fn quantised_rows(graph: &mut Emitter, x: &Value) -> (Value, Value) {
    let (last, step, least, one) = (graph.ints(&[-1]), graph.float(1.0 / 127.0), graph.float(1e-12), graph.float(1.0));
    let zero_point = graph.byte(ZERO_POINT);
    let magnitude = graph.op("Abs", &[x], &[]);
    let most = graph.op("ReduceMax", &[&magnitude, &last], &[Attribute::Int("keepdims", 1)]);
    let scale = graph.op("Mul", &[&most, &step], &[]);
    let scale = graph.op("Max", &[&scale, &least], &[]);
    // QuantizeLinear takes one scale for all rows, so the rows are scaled before it.
    let inverse = graph.op("Reciprocal", &[&scale], &[]);
    let scaled = graph.op("Mul", &[x, &inverse], &[]);
    (graph.op("QuantizeLinear", &[&scaled, &one, &zero_point], &[]), scale)
}

fn bytes_of(values: &[i8]) -> Vec<u8> {
    values.iter().map(|value| value.cast_unsigned()).collect()
}

/// `[rows, columns]` to `[columns, rows]`.
fn transposed<T: Copy + Default>(values: &[T], columns: usize) -> Vec<T> {
    let rows = values.len() / columns;
    let mut result = vec![T::default(); values.len()];
    for (row, line) in values.chunks_exact(columns).enumerate() {
        for (column, value) in line.iter().enumerate() {
            result[column * rows + row] = *value;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_is_transposed() {
        assert_eq!(transposed(&[1, 2, 3, 4, 5, 6], 3), [1, 4, 2, 5, 3, 6]);
    }

    #[test]
    fn a_layer_after_a_shift_gives_what_it_gives_for_shifted_inputs() {
        let layer = Linear { weight: vec![1.0, 2.0, 3.0, 4.0], bias: vec![0.5, -1.0], inputs: 2 };
        assert_eq!(layer.after(&[10.0, 100.0]).bias, [210.5, 429.0]);
    }

    #[test]
    fn layers_side_by_side_keep_their_rows() {
        let layer = |from: f32| Linear { weight: vec![from, from + 1.0], bias: vec![-from], inputs: 2 };
        let both = Linear::side_by_side(&[&layer(1.0).scaled(2.0), &layer(5.0)]);
        assert_eq!((both.weight, both.bias, both.inputs), (vec![2.0, 4.0, 5.0, 6.0], vec![-2.0, -5.0], 2));
    }
}
