//! The graph with oddlog's own attention: tokens of all sequences stand one behind the other, `[tokens, hidden]`, so that
//! padding costs nothing anywhere. The operator `oddlog.DisentangledAttention` finds the sequences by the mask.

use super::{
    attention::PositionTables,
    config::DebertaConfig,
    emitter::{Emitter, ODDLOG, Value},
    positions,
    proto::{Attribute, Element},
};

/// What all layers share.
pub struct Packed {
    /// `[batch, length]`, int64
    mask: Value,
    /// Which tokens of a flattened input are kept.
    tokens: Value,
    /// Rows of the first tokens: `[batch]`.
    firsts: Value,
    /// Columns of the position tables for the distances `P - 1` down to `-P`.
    columns: Value,
}

impl Packed {
    /// Appends what depends on the shape of the input alone. `mask` is `attention_mask` as it is given.
    pub fn emit(graph: &mut Emitter, config: &DebertaConfig, mask: &Value) -> Self {
        let (zero, one, all) = (graph.int(0), graph.ints(&[1]), graph.ints(&[-1]));
        let tokens = graph.op("Reshape", &[mask, &all], &[]);
        let tokens = graph.op("Cast", &[&tokens], &[Attribute::Int("to", Element::Bool as i64)]);
        let lengths = graph.op("ReduceSum", &[mask, &one], &[Attribute::Int("keepdims", 0)]);
        let firsts = graph.op("CumSum", &[&lengths, &zero], &[Attribute::Int("exclusive", 1)]);
        // Tables are written from their last row on, so that neighbouring columns belong to falling distances.
        let last = 2 * config.span as i64 - 1;
        let (_, down) = positions::rows_up_and_down(config);
        let columns = graph.ints(&down.iter().map(|row| last - row).collect::<Vec<_>>());
        Self { mask: mask.clone(), tokens, firsts, columns }
    }

    /// The tokens of an input `[batch, length]`: `[tokens]`.
    pub fn tokens(&self, graph: &mut Emitter, input: &Value) -> Value {
        graph.op("Compress", &[input, &self.tokens], &[])
    }

    /// The rows of the first tokens: `[tokens, hidden]` to `[batch, hidden]`.
    pub fn first(&self, graph: &mut Emitter, x: &Value) -> Value {
        graph.op("Gather", &[x, &self.firsts], &[])
    }

    /// Attention of the tokens of `q`, all or the first ones; keys and values are the last two thirds, or halves, of `kv`.
    pub fn attend(&self, graph: &mut Emitter, q: &Value, kv: &Value, tables: &PositionTables) -> Value {
        let inputs = [q, kv, &self.mask, &tables.keys, &tables.queries, &self.columns];
        graph.op_of(ODDLOG, "DisentangledAttention", &inputs, &[])
    }
}

/// A table `[heads, rows, size]` as `[heads, size, rows]` with the rows in reverse.
pub fn columns_of(table: &[f32], rows: usize, size: usize) -> Vec<f32> {
    let mut result = Vec::with_capacity(table.len());
    for head in table.chunks_exact(rows * size) {
        for d in 0..size {
            result.extend(head.chunks_exact(size).rev().map(|row| row[d]));
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_transposed_and_reversed() {
        let table = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -1.0, -2.0, -3.0, -4.0, -5.0, -6.0];
        let expected = [5.0, 3.0, 1.0, 6.0, 4.0, 2.0, -5.0, -3.0, -1.0, -6.0, -4.0, -2.0];
        assert_eq!(columns_of(&table, 3, 2), expected);
    }
}
