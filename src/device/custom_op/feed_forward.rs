//! The custom operators `oddlog.QuantLinearNorm` and `oddlog.QuantFeedForward`: linear layers in 8 bits with the residual and
//! the LayerNorm after them.
//!
//! ```text
//! QuantLinearNorm   x [..., K] | a layer's 4 arrays, K to N | residual [..., N] | gain [N] | shift [N]
//!   -> LayerNorm(layer(x) + residual) [..., N]
//! QuantFeedForward  x [..., K] | 4 arrays, K to M | 4 arrays, M to K | gain [K] | shift [K]
//!   -> LayerNorm(second(Gelu(first(x))) + x) [..., K]
//! ```
//!
//! A layer's arrays are those of `QuantLinear`: weight, scale, column_sum, bias. The attribute `epsilon` is LayerNorm's.

use ort::{
    operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput, ShapeInferenceContext},
    value::{TensorElementType, ValueRef},
};

use super::Node;
use crate::kernel::{Activation, FeedForward, Linear, Norm, Parameters, Path, run_with_norm};

const ARRAYS: [TensorElementType; 4] =
    [TensorElementType::Int8, TensorElementType::Float32, TensorElementType::Int32, TensorElementType::Float32];

pub struct QuantLinearNorm;

impl Operator for QuantLinearNorm {
    type Kernel<'attr> = LinearNormKernel;

    fn name(&self) -> &str {
        "QuantLinearNorm"
    }

    fn versions(&self) -> std::ops::RangeInclusive<u32> {
        1..=1
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let floats = |n| std::iter::repeat_n(TensorElementType::Float32, n);
        floats(1).chain(ARRAYS).chain(floats(3)).map(OperatorInput::required).collect::<Vec<_>>()
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn infer_shape(&self, ctx: &mut ShapeInferenceContext) -> ort::Result<()> {
        same_shape(ctx, 5)
    }

    fn create_kernel<'attr>(&self, ctx: &KernelContext<'attr>) -> ort::Result<LinearNormKernel> {
        Block::new("QuantLinearNorm", ctx).map(LinearNormKernel)
    }
}

pub struct QuantFeedForward;

impl Operator for QuantFeedForward {
    type Kernel<'attr> = FeedForwardKernel;

    fn name(&self) -> &str {
        "QuantFeedForward"
    }

    fn versions(&self) -> std::ops::RangeInclusive<u32> {
        1..=1
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let floats = |n| std::iter::repeat_n(TensorElementType::Float32, n);
        floats(1).chain(ARRAYS).chain(ARRAYS).chain(floats(2)).map(OperatorInput::required).collect::<Vec<_>>()
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn infer_shape(&self, ctx: &mut ShapeInferenceContext) -> ort::Result<()> {
        same_shape(ctx, 0)
    }

    fn create_kernel<'attr>(&self, ctx: &KernelContext<'attr>) -> ort::Result<FeedForwardKernel> {
        Block::new("QuantFeedForward", ctx).map(FeedForwardKernel)
    }
}

pub struct LinearNormKernel(Block);

impl Kernel for LinearNormKernel {
    fn compute(&mut self, ctx: &ComputeContext) -> ort::Result<()> {
        const NAMES: [&str; 8] = ["x", "weight", "scale", "column_sum", "bias", "residual", "gain", "shift"];
        let block = &self.0;
        let inputs = super::inputs(ctx, &NAMES, &block.node)?;
        let (shape, x) = inputs[0].try_extract_tensor::<f32>()?;
        let layer = block.layer(width(shape), Activation::None, &inputs[1..5])?;
        let (shape, residual) = inputs[5].try_extract_tensor::<f32>()?;
        let norm = block.norm(layer.outputs(), &inputs[6..])?;
        if width(shape) != layer.outputs() || residual.len() * layer.inputs() != x.len() * layer.outputs() {
            return Err(block.node.refusal(&format!("the residual is {shape:?}, which is not what the layer gives")));
        }
        let mut y = block.node.output(ctx, shape)?;
        let (_, y) = y.try_extract_tensor_mut::<f32>()?;
        let parallel = |tasks: usize, task: &(dyn Fn(usize) + Sync)| ctx.par_for(tasks, 0, task);
        run_with_norm((&layer, &norm), block.path, (x, residual), y, parallel)
    }
}

pub struct FeedForwardKernel(Block);

impl Kernel for FeedForwardKernel {
    fn compute(&mut self, ctx: &ComputeContext) -> ort::Result<()> {
        const NAMES: [&str; 11] = [
            "x",
            "weight_1",
            "scale_1",
            "column_sum_1",
            "bias_1",
            "weight_2",
            "scale_2",
            "column_sum_2",
            "bias_2",
            "gain",
            "shift",
        ];
        let block = &self.0;
        let inputs = super::inputs(ctx, &NAMES, &block.node)?;
        let (shape, x) = inputs[0].try_extract_tensor::<f32>()?;
        let wide = block.layer(width(shape), Activation::Gelu, &inputs[1..5])?;
        let narrow = block.layer(wide.outputs(), Activation::None, &inputs[5..9])?;
        let norm = block.norm(width(shape), &inputs[9..])?;
        let layers = FeedForward { wide, narrow, norm };
        if !layers.fits() {
            return Err(block.node.refusal(&format!("the second layer gives {}, not {shape:?}", narrow.outputs())));
        }
        let mut y = block.node.output(ctx, shape)?;
        let (_, y) = y.try_extract_tensor_mut::<f32>()?;
        layers.run_parallel(block.path, x, y, |tasks, task| ctx.par_for(tasks, 0, task))
    }
}

/// What kernels with a LayerNorm keep.
pub(super) struct Block {
    pub node: Node,
    epsilon: f32,
    pub path: Path,
}

impl Block {
    pub fn new(operator: &'static str, ctx: &KernelContext) -> ort::Result<Self> {
        let node = Node { operator, name: ctx.node_name()? };
        match ctx.get::<f32>("epsilon") {
            Some(epsilon) if epsilon > 0.0 => Ok(Self { node, epsilon, path: Path::best() }),
            other => Err(node.refusal(&format!("epsilon must be greater than 0, not {other:?}"))),
        }
    }

    fn layer<'a>(&self, inputs: usize, activation: Activation, arrays: &'a [ValueRef<'_>]) -> ort::Result<Linear<'a>> {
        let parameters = Parameters {
            weight: arrays[0].try_extract_tensor::<i8>()?.1,
            scale: arrays[1].try_extract_tensor::<f32>()?.1,
            column_sum: arrays[2].try_extract_tensor::<i32>()?.1,
            bias: arrays[3].try_extract_tensor::<f32>()?.1,
        };
        Linear::new(inputs, activation, parameters).map_err(|e| self.node.refusal(&e.to_string()))
    }

    pub fn norm<'a>(&self, width: usize, arrays: &'a [ValueRef<'_>]) -> ort::Result<Norm<'a>> {
        let (gain, shift) = (arrays[0].try_extract_tensor::<f32>()?.1, arrays[1].try_extract_tensor::<f32>()?.1);
        if width == 0 || gain.len() != width || shift.len() != width {
            return Err(self.node.refusal(&format!("gain and shift must be [{width}], at least 1")));
        }
        Ok(Norm { gain, shift, epsilon: self.epsilon })
    }
}

pub(super) fn width(shape: &[i64]) -> usize {
    shape.last().map_or(0, |width| *width as usize)
}

/// The output has the shape of the given input.
pub(super) fn same_shape(ctx: &mut ShapeInferenceContext, input: usize) -> ort::Result<()> {
    let inputs = ctx.inputs();
    let Some(value) = inputs.get(input) else { return Ok(()) };
    // An unknown dimension must not be told (see QuantLinear).
    match value.tensor_shape() {
        Some(shape) if !shape.is_empty() && shape.iter().all(|dimension| *dimension >= 0) => {
            let value = value.clone();
            ctx.set_output(0, &value)
        }
        _ => Ok(()),
    }
}
