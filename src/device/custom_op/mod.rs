//! oddlog's operators for ONNX Runtime: their signatures, their checks, and the way to the kernel.
//!
//! [`crate::kernel`] says what they compute. They do not know which models use them.

mod attention;
mod bias;
mod feed_forward;
mod quant_linear;

use ort::{
    Error,
    operator::{ComputeContext, OperatorDomain},
    value::{ValueRef, ValueRefMut},
};

/// The domain of oddlog's operators.
pub const DOMAIN: &str = "oddlog";

/// oddlog's operators, for every session: a graph that uses none of them does not notice.
///
/// # Errors
/// What ONNX Runtime says.
pub fn operators() -> ort::Result<OperatorDomain> {
    OperatorDomain::new(DOMAIN)?
        .add(quant_linear::QuantLinear)?
        .add(feed_forward::QuantLinearNorm)?
        .add(feed_forward::QuantFeedForward)?
        .add(bias::BiasGelu)?
        .add(bias::BiasNorm)?
        .add(attention::Attention)?
        .add(attention::DisentangledAttention)
}

/// The inputs of a run, in the order of `names`.
fn inputs<'a>(ctx: &'a ComputeContext, names: &[&str], node: &Node) -> ort::Result<Vec<ValueRef<'a>>> {
    let input = |(i, name)| ctx.input(i)?.ok_or_else(|| node.refusal(&format!("the input {name:?} is missing")));
    names.iter().enumerate().map(input).collect()
}

/// An operator in a graph, for messages.
struct Node {
    operator: &'static str,
    name: String,
}

impl Node {
    fn output<'a>(&self, ctx: &'a ComputeContext, shape: &[i64]) -> ort::Result<ValueRefMut<'a>> {
        ctx.output(0, shape.to_vec())?.ok_or_else(|| self.refusal("the output is missing"))
    }

    fn refusal(&self, reason: &str) -> Error {
        Error::new(format!("{} {:?}: {reason}", self.operator, self.name))
    }
}
