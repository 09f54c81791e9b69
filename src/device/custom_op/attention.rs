//! The custom operators `oddlog.Attention` and `oddlog.DisentangledAttention`.
//!
//! ```text
//! Attention              q [rows, at least H] f32 | kv [tokens, at least 2 H] f32 | mask [sequences, length] int64
//! DisentangledAttention  the same, then
//!                        keys [heads, head size, columns] f32 | queries as keys | columns [2 P] int64
//!   -> [rows, H] f32          H = heads x head size
//! ```
//!
//! The first one has the attributes `heads` and `size`, a head's width; for the other its tables tell.
//! Rows of `kv` are the tokens of all sequences, one behind the other, as many of each as its row of `mask` has ones, at least
//! one, which must stand in front of the zeros. Queries are the first H columns of `q`, of all tokens, or else of each sequence's first
//! one; keys and values are the last 2 H of `kv`.

use ort::{
    operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput, ShapeInferenceContext},
    value::{Shape, SymbolicDimensions, TensorElementType, ValueType},
};

use super::Node;
use crate::kernel::{self, Columns, Path, Positions, Sequences};

const NAMES: [&str; 6] = ["q", "kv", "mask", "keys", "queries", "columns"];
/// Most heads, and their largest size: far more than any model has, and their product is a small number.
const MOST: i64 = 1 << 14;

pub struct DisentangledAttention;

impl Operator for DisentangledAttention {
    type Kernel<'attr> = AttentionKernel;

    fn name(&self) -> &str {
        "DisentangledAttention"
    }

    fn versions(&self) -> std::ops::RangeInclusive<u32> {
        1..=1
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        use TensorElementType::{Float32, Int64};
        [Float32, Float32, Int64, Float32, Float32, Int64].map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn infer_shape(&self, ctx: &mut ShapeInferenceContext) -> ort::Result<()> {
        let inputs = ctx.inputs();
        let shapes: Vec<&Shape> = inputs.iter().filter_map(ValueType::tensor_shape).collect();
        let [q, _, _, keys, ..] = shapes[..] else { return Ok(()) };
        // An unknown dimension must not be told (see QuantLinear).
        let (&[rows, _], &[heads, size, _]) = (&q[..], &keys[..]) else { return Ok(()) };
        if rows < 0 || heads < 0 || size < 0 {
            return Ok(());
        }
        // What a graph declares may be any number; a run has real tables.
        let Some(hidden) = heads.checked_mul(size) else { return Ok(()) };
        let shape = Shape::new([rows, hidden]);
        let dimension_symbols = SymbolicDimensions::empty(shape.len());
        ctx.set_output(0, &ValueType::Tensor { ty: TensorElementType::Float32, shape, dimension_symbols })
    }

    fn create_kernel<'attr>(&self, ctx: &KernelContext<'attr>) -> ort::Result<AttentionKernel> {
        let node = Node { operator: "DisentangledAttention", name: ctx.node_name()? };
        Ok(AttentionKernel { node, path: Path::best(), heads: None, lengths: Vec::new() })
    }
}

pub struct Attention;

impl Operator for Attention {
    type Kernel<'attr> = AttentionKernel;

    fn name(&self) -> &str {
        "Attention"
    }

    fn versions(&self) -> std::ops::RangeInclusive<u32> {
        1..=1
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        use TensorElementType::{Float32, Int64};
        [Float32, Float32, Int64].map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, ctx: &KernelContext<'attr>) -> ort::Result<AttentionKernel> {
        let node = Node { operator: "Attention", name: ctx.node_name()? };
        let number = |name| match ctx.get::<i64>(name) {
            Some(number @ 1..=MOST) => Ok(number as usize),
            other => Err(node.refusal(&format!("{name} must be 1 to {MOST}, not {other:?}"))),
        };
        let heads = Some((number("heads")?, number("size")?));
        Ok(AttentionKernel { node, path: Path::best(), heads, lengths: Vec::new() })
    }
}

pub struct AttentionKernel {
    node: Node,
    path: Path,
    /// Heads and their size, where no tables tell them.
    heads: Option<(usize, usize)>,
    /// Kept for its memory.
    lengths: Vec<usize>,
}

impl Kernel for AttentionKernel {
    fn compute(&mut self, ctx: &ComputeContext) -> ort::Result<()> {
        let names = if self.heads.is_some() { &NAMES[..3] } else { &NAMES };
        let inputs = super::inputs(ctx, names, &self.node)?;
        let refuse = |reason: String| self.node.refusal(&reason);
        let (mask_shape, mask) = inputs[2].try_extract_tensor::<i64>()?;
        count(mask_shape, mask, &mut self.lengths).map_err(refuse)?;
        let (heads, size, attention) = match self.heads {
            Some((heads, size)) => (heads, size, kernel::Attention::new(heads, size)),
            None => {
                let (shape, keys) = inputs[3].try_extract_tensor::<f32>()?;
                let (_, queries) = inputs[4].try_extract_tensor::<f32>()?;
                let (_, columns) = inputs[5].try_extract_tensor::<i64>()?;
                let &[heads, size, _] = &shape[..] else {
                    return Err(refuse(format!("keys must be [heads, head size, columns], not {shape:?}")));
                };
                let (heads, size) = (heads as usize, size as usize);
                let attention = kernel::Attention::disentangled(heads, size, Positions { keys, queries, columns });
                (heads, size, attention.map_err(|e| refuse(e.to_string()))?)
            }
        };

        let matrix = |at: usize| {
            let (shape, values) = inputs[at].try_extract_tensor::<f32>()?;
            let &[_, width] = &shape[..] else {
                return Err(refuse(format!("{} must be [rows, columns], not {shape:?}", NAMES[at])));
            };
            Ok(Columns { values, width: width as usize, first: 0 })
        };
        let (q, kv) = (matrix(0)?, matrix(1)?);
        let hidden = heads * size;
        let from_end = |n: usize| match kv.width.checked_sub(n * hidden) {
            Some(first) => Ok(Columns { first, ..kv }),
            None => Err(refuse(format!("kv must have at least {} columns, not {}", 2 * hidden, kv.width))),
        };
        let sequences = Sequences { q, k: from_end(2)?, v: from_end(1)?, lengths: &self.lengths };
        let rows = attention.rows(&sequences).map_err(|e| refuse(e.to_string()))?;
        let mut y = ctx.output(0, [rows, hidden])?.ok_or_else(|| refuse("the output is missing".into()))?;
        let (_, y) = y.try_extract_tensor_mut::<f32>()?;
        attention.run_parallel(self.path, &sequences, y, |tasks, task| ctx.par_for(tasks, 0, task))
    }
}

/// The number of ones in each row of `mask`.
fn count(shape: &[i64], mask: &[i64], lengths: &mut Vec<usize>) -> Result<(), String> {
    let &[sequences, length] = shape else { return Err(format!("mask must be [sequences, length], not {shape:?}")) };
    if sequences > 0 && length == 0 {
        return Err(format!("mask must be [sequences, length] with a length of at least 1, not {shape:?}"));
    }
    lengths.clear();
    for row in mask.chunks_exact((length as usize).max(1)) {
        let ones = row.iter().take_while(|m| **m == 1).count();
        if row[ones..].iter().any(|m| *m != 0) {
            return Err(format!("row {} of the mask is not ones followed by zeros", lengths.len()));
        }
        if ones == 0 {
            return Err(format!("row {} of the mask has no ones: it is a sequence of 0 tokens", lengths.len()));
        }
        lengths.push(ones);
    }
    Ok(())
}
