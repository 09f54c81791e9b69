//! From products with all distances to scores: every query meets each distance `T - 1` to `-T`, and key `j` of query `i`
//! wants the one of `i - j`.
//!
//! In row `i` of the products that is column `T - 1 - i + j`: one step to the left for each row. Flattened, it is place
//! `i (2T - 1) + (T - 1) + j`.

use super::{
    emitter::{Emitter, Value},
    proto::Attribute,
};

/// How the wanted products get to their places. The products of all heads and rows are `[heads, batch, length x 2 length]`
/// once flattened.
pub enum Skew {
    /// The first `T - 1` places are dropped and what is left has rows of `2T - 1`, so that the wanted one stands in column `j`:
    /// two copies of whole rows, which is what processors do fast.
    Cut {
        /// `[1]`, as the next two.
        length: Value,
        length_less_1: Value,
        /// One more than the last place that is kept.
        end: Value,
        /// `[heads, batch, length, 2 length - 1]`
        rows: Value,
    },
    /// Each is looked up: one pass that reads no more than it writes, and transposes on its way. For GPUs.
    Pick {
        /// Places of (query, key): `[length, length]`.
        of_queries: Value,
        /// Places of (query, key) where a product's rows are keys.
        of_keys: Value,
    },
}

impl Skew {
    /// [`Self::Pick`] for a `length` without dimensions. Ranges take their ends from a processor and are made on a GPU, so
    /// that nothing is copied there.
    pub fn pick(graph: &mut Emitter, length: &Value) -> Self {
        let [zero, one, two, last] = [graph.int(0), graph.int(1), graph.int(2), graph.ints(&[1])];
        let twice = graph.op("Mul", &[length, &two], &[]);
        let [first, step] = [length, &twice].map(|n| graph.op("Sub", &[n, &one], &[]));
        let end = graph.op("Mul", &[length, &step], &[]);
        let columns = graph.op("Range", &[&first, &step, &one], &[]);
        let rows = graph.op("Range", &[&zero, &end, &step], &[]);
        let rows = graph.op("Unsqueeze", &[&rows, &last], &[]);
        let of_queries = graph.op("Add", &[&rows, &columns], &[]);
        let of_keys = graph.op("Transpose", &[&of_queries], &[Attribute::Ints("perm", &[1, 0])]);
        Self::Pick { of_queries, of_keys }
    }

    /// Products whose rows are queries, flattened, to `[heads, batch, queries, keys]`.
    pub fn of_queries(&self, graph: &mut Emitter, flat: &Value) -> Value {
        match self {
            Self::Cut { length, length_less_1, end, rows } => {
                let (zero, axis2, axis3) = (graph.ints(&[0]), graph.ints(&[2]), graph.ints(&[3]));
                let kept = graph.op("Slice", &[flat, length_less_1, end, &axis2], &[]);
                let skewed = graph.op("Reshape", &[&kept, rows], &[]);
                graph.op("Slice", &[&skewed, &zero, length, &axis3], &[])
            }
            Self::Pick { of_queries, .. } => graph.op("Gather", &[flat, of_queries], &[Attribute::Int("axis", 2)]),
        }
    }

    /// Products whose rows are keys, flattened, to `[heads, batch, queries, keys]`.
    pub fn of_keys(&self, graph: &mut Emitter, flat: &Value) -> Value {
        match self {
            Self::Cut { .. } => {
                let skewed = self.of_queries(graph, flat);
                graph.op("Transpose", &[&skewed], &[Attribute::Ints("perm", &[0, 1, 3, 2])])
            }
            Self::Pick { of_keys, .. } => graph.op("Gather", &[flat, of_keys], &[Attribute::Int("axis", 2)]),
        }
    }
}
