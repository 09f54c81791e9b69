//! Linear layers in the three precisions. The rest of the graph is the same in all of them.

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
        let y = match precision {
            Precision::Fp32 => self.emit_fp32(graph, name, x)?,
            Precision::Int8Portable => self.emit_portable(graph, name, x)?,
            Precision::Int8 => return self.emit_fused(graph, name, x, activation),
        };
        Ok(match activation {
            Activation::None => y,
            Activation::Gelu => graph.op_of(MICROSOFT, "Gelu", &[&y], &[]),
        })
    }

    fn emit_fp32(&self, graph: &mut Emitter, name: &str, x: &Value) -> Result<Value, GraphError> {
        let dims = [self.inputs, self.outputs()];
        let weight = graph.floats(&format!("{name}.weight"), &dims, &transposed(&self.weight, self.inputs))?;
        let bias = graph.floats(&format!("{name}.bias"), &[self.outputs()], &self.bias)?;
        let y = graph.op("MatMul", &[x, &weight], &[]);
        Ok(graph.op("Add", &[&y, &bias], &[]))
    }

    /// One operator quantises the rows of `x`, multiplies, rescales, adds the bias and applies the activation.
    fn emit_fused(
        &self,
        graph: &mut Emitter,
        name: &str,
        x: &Value,
        activation: Activation,
    ) -> Result<Value, GraphError> {
        let (n, k) = (self.outputs(), self.inputs);
        let quantised = quantise_weight(&self.weight, n, k);
        let packed = bytes_of(&pack_weight(&quantised.values, n, k));
        let sums: Vec<u8> = quantised.column_sum.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        let weight = graph.initializer(&format!("{name}.weight"), Element::I8, &packed_shape(n, k), &packed)?;
        let scale = graph.floats(&format!("{name}.scale"), &[n], &quantised.scale)?;
        let sums = graph.initializer(&format!("{name}.column_sum"), Element::I32, &[n], &sums)?;
        let bias = graph.floats(&format!("{name}.bias"), &[n], &self.bias)?;
        let activation = Attribute::Int("activation", i64::from(activation == Activation::Gelu));
        Ok(graph.op_of(ODDLOG, "QuantLinear", &[x, &weight, &scale, &sums, &bias], &[activation]))
    }

    /// The same arithmetic in operators of ONNX.
    fn emit_portable(&self, graph: &mut Emitter, name: &str, x: &Value) -> Result<Value, GraphError> {
        let (n, k) = (self.outputs(), self.inputs);
        let quantised = quantise_weight(&self.weight, n, k);
        let weight = bytes_of(&transposed(&quantised.values, k));
        let weight = graph.initializer(&format!("{name}.weight"), Element::I8, &[k, n], &weight)?;
        let scale = graph.floats(&format!("{name}.scale"), &[n], &quantised.scale)?;
        let bias = graph.floats(&format!("{name}.bias"), &[n], &self.bias)?;
        let (rows, row_scale) = quantised_rows(graph, x);
        let zero_point = graph.byte(ZERO_POINT);
        let y = graph.op("MatMulInteger", &[&rows, &weight, &zero_point], &[]);
        let y = graph.op("Cast", &[&y], &[Attribute::Int("to", Element::F32 as i64)]);
        let y = graph.op("Mul", &[&y, &row_scale], &[]);
        let y = graph.op("Mul", &[&y, &scale], &[]);
        Ok(graph.op("Add", &[&y, &bias], &[]))
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
    fn layers_side_by_side_keep_their_rows() {
        let layer = |from: f32| Linear { weight: vec![from, from + 1.0], bias: vec![-from], inputs: 2 };
        let both = Linear::side_by_side(&[&layer(1.0).scaled(2.0), &layer(5.0)]);
        assert_eq!((both.weight, both.bias, both.inputs), (vec![2.0, 4.0, 5.0, 6.0], vec![-2.0, -5.0], 2));
    }
}
