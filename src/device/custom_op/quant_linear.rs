//! The custom operator `oddlog.QuantLinear`.
//!
//! ```text
//! x [..., K] f32 | weight [ceil(N/16), ceil(K/4), 16, 4] int8 | scale [N] f32 | column_sum [N] int32 | bias [N] f32
//!   -> [..., N] f32          attribute `activation`: 0 none (the default), 1 Gelu
//! ```

use ort::{
    operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput, ShapeInferenceContext},
    value::{Shape, SymbolicDimensions, TensorElementType, ValueRef, ValueType},
};

use super::Node;
use crate::kernel::{Activation, Linear, Parameters, Path, packed_shape};

const NAMES: [&str; 5] = ["x", "weight", "scale", "column_sum", "bias"];

pub struct QuantLinear;

impl Operator for QuantLinear {
    type Kernel<'attr> = QuantLinearKernel;

    fn name(&self) -> &str {
        "QuantLinear"
    }

    fn versions(&self) -> std::ops::RangeInclusive<u32> {
        1..=1
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        use TensorElementType::{Float32, Int8, Int32};
        [Float32, Int8, Float32, Int32, Float32].map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn infer_shape(&self, ctx: &mut ShapeInferenceContext) -> ort::Result<()> {
        let inputs = ctx.inputs();
        let shapes: Vec<&Shape> = inputs.iter().filter_map(ValueType::tensor_shape).collect();
        let [x, .., bias] = shapes[..] else { return Ok(()) };
        // An unknown rank is told as no dimensions.
        let (Some(_), &[n]) = (x.last(), &bias[..]) else { return Ok(()) };
        // A dimension that is not known yet would be told as -1, which ONNX Runtime's optimisers take for a length:
        // slicing it ends the process.
        if n < 0 || x[..x.len() - 1].iter().any(|dimension| *dimension < 0) {
            return Ok(());
        }
        let mut y = x.to_vec();
        *y.last_mut().expect("x has a last dimension") = n;
        let symbols = SymbolicDimensions::empty(y.len());
        let y = ValueType::Tensor { ty: TensorElementType::Float32, shape: y.into(), dimension_symbols: symbols };
        ctx.set_output(0, &y)
    }

    fn create_kernel<'attr>(&self, ctx: &KernelContext<'attr>) -> ort::Result<QuantLinearKernel> {
        let node = Node { operator: "QuantLinear", name: ctx.node_name()? };
        let activation = match ctx.get::<i64>("activation") {
            None | Some(0) => Activation::None,
            Some(1) => Activation::Gelu,
            Some(other) => return Err(node.refusal(&format!("activation {other} is unknown; 0 is none, 1 Gelu"))),
        };
        let inputs = ctx.inputs()?;
        let shapes: Vec<&[i64]> = inputs.iter().map(|i| i.dtype().tensor_shape().map_or(&[][..], |s| s)).collect();
        check_shapes(&shapes, false).map_err(|reason| node.refusal(&reason))?;
        Ok(QuantLinearKernel { node, activation, path: Path::best() })
    }
}

pub struct QuantLinearKernel {
    node: Node,
    activation: Activation,
    path: Path,
}

impl Kernel for QuantLinearKernel {
    fn compute(&mut self, ctx: &ComputeContext) -> ort::Result<()> {
        let inputs = super::inputs(ctx, &NAMES, &self.node)?;
        self.run(ctx, &inputs)
    }
}

impl QuantLinearKernel {
    fn run(&self, ctx: &ComputeContext, inputs: &[ValueRef<'_>]) -> ort::Result<()> {
        let (shape, x) = inputs[0].try_extract_tensor::<f32>()?;
        let (weight_shape, weight) = inputs[1].try_extract_tensor::<i8>()?;
        let (scale_shape, scale) = inputs[2].try_extract_tensor::<f32>()?;
        let (sum_shape, column_sum) = inputs[3].try_extract_tensor::<i32>()?;
        let (bias_shape, bias) = inputs[4].try_extract_tensor::<f32>()?;
        let shapes: [&[i64]; 5] = [shape, weight_shape, scale_shape, sum_shape, bias_shape];
        let refuse = |reason: String| self.node.refusal(&reason);
        check_shapes(&shapes, true).map_err(refuse)?;
        let k = *shape.last().expect("the check found a last dimension") as usize;
        let parameters = Parameters { weight, scale, column_sum, bias };
        let layer = Linear::new(k, self.activation, parameters).map_err(|e| refuse(e.to_string()))?;
        let mut y_shape = shape.to_vec();
        *y_shape.last_mut().expect("the check found a last dimension") = bias.len() as i64;
        let mut y = ctx.output(0, y_shape)?.ok_or_else(|| refuse("the output is missing".into()))?;
        let (_, y) = y.try_extract_tensor_mut::<f32>()?;
        layer.run_parallel(self.path, (x.len() / k, x), y, |tasks, task| ctx.par_for(tasks, 0, task))
    }
}

/// Whether the shapes of the five inputs fit together. A dimension of -1 is not known yet, nor is a rank of 0 unless
/// the shapes are `real`, those of a run.
fn check_shapes(shapes: &[&[i64]], real: bool) -> Result<(), String> {
    let [x, weight, scale, column_sum, bias] = shapes[..] else {
        return Err(format!("{} inputs; there must be {}: {NAMES:?}", shapes.len(), NAMES.len()));
    };
    let unknown = |shape: &[i64]| !real && shape.is_empty();
    if unknown(x) || unknown(bias) {
        return Ok(());
    }
    let (Some(k), &[n]) = (x.last(), bias) else {
        return Err(format!("x must be [..., K] and bias [N], not {x:?} and {bias:?}"));
    };
    let fits = |shape: &[i64], wanted: &[Option<i64>]| {
        let same = |(dim, wanted): (&i64, &Option<i64>)| *dim == -1 || wanted.is_none_or(|w| w == *dim);
        unknown(shape) || (shape.len() == wanted.len() && shape.iter().zip(wanted).all(same))
    };
    let known = |dim: i64| usize::try_from(dim).ok();
    for (name, shape) in [("scale", scale), ("column_sum", column_sum)] {
        if !fits(shape, &[known(n).map(|_| n)]) {
            return Err(format!("{name} must be [N] as bias is, [{n}], not {shape:?}"));
        }
    }
    let [blocks, steps, block, step] = packed_shape(known(n).unwrap_or(1), known(*k).unwrap_or(1)).map(|d| d as i64);
    let packed = [known(n).map(|_| blocks), known(*k).map(|_| steps), Some(block), Some(step)];
    if !fits(weight, &packed) {
        return Err(format!(
            "weight must be [{blocks}, {steps}, {block}, {step}] for K = {k} and N = {n}, not {weight:?}"
        ));
    }
    Ok(())
}
