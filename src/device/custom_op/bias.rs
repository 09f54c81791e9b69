//! The custom operators `oddlog.BiasGelu` and `oddlog.BiasNorm`: what follows a matrix product in single precision.
//!
//! ```text
//! BiasGelu   x [..., N] f32 | bias [N] f32                                           -> Gelu(x + bias) [..., N]
//! BiasNorm   x [..., N] | bias [N] | residual [..., N] | gain [N] | shift [N], f32   -> LayerNorm(x + bias + residual)
//! ```
//!
//! The attribute `epsilon` is LayerNorm's.

use ort::{
    operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput, ShapeInferenceContext},
    value::TensorElementType,
};

use super::{
    Node,
    feed_forward::{Block, same_shape, width},
};
use crate::kernel::{Path, bias_gelu};

pub struct BiasGelu;

impl Operator for BiasGelu {
    type Kernel<'attr> = GeluKernel;

    fn name(&self) -> &str {
        "BiasGelu"
    }

    fn versions(&self) -> std::ops::RangeInclusive<u32> {
        1..=1
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [TensorElementType::Float32; 2].map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn infer_shape(&self, ctx: &mut ShapeInferenceContext) -> ort::Result<()> {
        same_shape(ctx, 0)
    }

    fn create_kernel<'attr>(&self, ctx: &KernelContext<'attr>) -> ort::Result<GeluKernel> {
        Ok(GeluKernel { node: Node { operator: "BiasGelu", name: ctx.node_name()? }, path: Path::best() })
    }
}

pub struct GeluKernel {
    node: Node,
    path: Path,
}

impl Kernel for GeluKernel {
    fn compute(&mut self, ctx: &ComputeContext) -> ort::Result<()> {
        let inputs = super::inputs(ctx, &["x", "bias"], &self.node)?;
        let (shape, x) = inputs[0].try_extract_tensor::<f32>()?;
        let (_, bias) = inputs[1].try_extract_tensor::<f32>()?;
        if bias.is_empty() || width(shape) != bias.len() {
            return Err(self.node.refusal(&format!("x must be [..., {}] as bias is, not {shape:?}", bias.len())));
        }
        let mut y = self.node.output(ctx, shape)?;
        let (_, y) = y.try_extract_tensor_mut::<f32>()?;
        bias_gelu(self.path, (x, bias), y, |tasks, task| ctx.par_for(tasks, 0, task))
    }
}

pub struct BiasNorm;

impl Operator for BiasNorm {
    type Kernel<'attr> = NormKernel;

    fn name(&self) -> &str {
        "BiasNorm"
    }

    fn versions(&self) -> std::ops::RangeInclusive<u32> {
        1..=1
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [TensorElementType::Float32; 5].map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn infer_shape(&self, ctx: &mut ShapeInferenceContext) -> ort::Result<()> {
        same_shape(ctx, 2)
    }

    fn create_kernel<'attr>(&self, ctx: &KernelContext<'attr>) -> ort::Result<NormKernel> {
        Block::new("BiasNorm", ctx).map(NormKernel)
    }
}

pub struct NormKernel(Block);

impl Kernel for NormKernel {
    fn compute(&mut self, ctx: &ComputeContext) -> ort::Result<()> {
        let block = &self.0;
        let inputs = super::inputs(ctx, &["x", "bias", "residual", "gain", "shift"], &block.node)?;
        let (shape, x) = inputs[0].try_extract_tensor::<f32>()?;
        let (_, bias) = inputs[1].try_extract_tensor::<f32>()?;
        let (of_residual, residual) = inputs[2].try_extract_tensor::<f32>()?;
        let norm = block.norm(width(shape), &inputs[3..])?;
        if of_residual != shape || bias.len() != width(shape) {
            let n = bias.len();
            return Err(block
                .node
                .refusal(&format!("x {shape:?}, bias [{n}] and residual {of_residual:?} do not fit")));
        }
        let mut y = block.node.output(ctx, shape)?;
        let (_, y) = y.try_extract_tensor_mut::<f32>()?;
        norm.run_with_bias(block.path, (x, bias, residual), y, |tasks, task| ctx.par_for(tasks, 0, task))
    }
}
