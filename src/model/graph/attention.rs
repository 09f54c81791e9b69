//! Disentangled attention without gathering: positions enter as matrix products with a contiguous table.
//!
//! For queries `Q` and keys `K` of a head, a score is `Q_i . K_j + Q_i . posK[i - j] + K_j . posQ[i - j]` plus the mask,
//! where `posK` and `posQ` are looked up by bucketed distance. With the 2T rows of a table that belong to the distances
//! `T - 1` down to `-T`, the product `M = Q table^T` has the wanted value for (i, j) in row i, column `T - 1 - i + j`, from
//! where `skew` takes it.
//!
//! Tensors are head-first, `[heads, batch, length, head size]`: the position products then have `batch * length` rows for
//! each head, and nothing is broadcast. The factor `1 / sqrt(3 head size)` is in the queries' weights already.
//!
//! In 16 bits, that is on GPUs, what counts is how often tensors go through memory: there queries, keys and values stay as their
//! products give them, `[batch, length, hidden]`, heads are read out of them by the matrix product itself, and one operator
//! makes scores, softmax and the mix of values, with both position terms and the mask as its bias.

use super::{
    config::DebertaConfig,
    emitter::{Emitter, MICROSOFT, Value},
    positions,
    proto::Attribute,
    skew::Skew,
};

/// Added to the scores of padding, whose share in a softmax is then zero.
const PADDING: f32 = -1e9;
/// The same in 16 bits: with scores up to 14,000 in magnitude, their sums do not overflow, and padding has no share.
const HALF_PADDING: f32 = -30_000.0;

/// What all layers share: the mask, the shapes of this run, and which table rows its distances belong to.
pub struct Geometry {
    /// 0 for tokens, a large negative number for padding: `[1, batch, 1, length]`.
    mask: Value,
    /// The same for each score, in 16 bits: `[heads, batch, length, length]`.
    mask_of_scores: Option<Value>,
    skew: Skew,
    heads: usize,
    /// `[heads, batch, -1]`
    flat: Value,
    /// `[heads, -1, head size]`, `[-1, heads, head size]`
    rows_of_heads: [Value; 2],
    /// `[batch, length, 3, heads, head size]`, `[batch, length, 2, heads, head size]`, `[batch, 1, heads, head size]`
    split: [Value; 3],
    /// `[batch, length, hidden]`, `[batch, 1, hidden]`
    merged: [Value; 2],
    /// `[heads, batch, 1, length]`
    first_row: Value,
    /// Table rows of the distances `-(length - 1)` to `length`.
    rows_up: Value,
    /// Table rows of the distances `length - 1` to `-length`.
    rows_down: Value,
    /// Table rows of the distances 0 to `-(length - 1)`: what the first token sees.
    rows_of_first: Value,
}

/// Keys and queries of the relative positions in one layer: `[heads, table rows, head size]`, as `packed` has them
/// `[heads, head size, columns]`.
pub struct PositionTables {
    /// For content to position.
    pub keys: Value,
    /// For position to content; scaled as queries are.
    pub queries: Value,
}

impl Geometry {
    /// Appends what depends on the shape of the input alone. `mask` is the attention mask in f32, `[batch, length]`.
    pub fn emit(graph: &mut Emitter, config: &DebertaConfig, input_ids: &Value, mask: &Value) -> Self {
        let [one, two, three, less] = [1, 2, 3, -1].map(|n| graph.ints(&[n]));
        let [heads, size, hidden] = [config.heads, config.head_size(), config.hidden].map(|n| graph.ints(&[n as i64]));
        let most = config.max_length as i64;

        let shape = graph.op("Shape", &[input_ids], &[]);
        let [batch, length] = [0, 1].map(|axis| {
            let axis = graph.ints(&[axis]);
            graph.op("Gather", &[&shape, &axis], &[])
        });
        let skew = if graph.is_half() {
            let axis = graph.int(1);
            let length = graph.op("Gather", &[&shape, &axis], &[]);
            Skew::pick(graph, &length)
        } else {
            let twice = graph.op("Mul", &[&length, &two], &[]);
            let length_less_1 = graph.op("Sub", &[&length, &one], &[]);
            let twice_less_1 = graph.op("Sub", &[&twice, &one], &[]);
            let kept = graph.op("Mul", &[&length, &twice_less_1], &[]);
            let end = graph.op("Add", &[&length_less_1, &kept], &[]);
            let rows = [&heads, &batch, &length, &twice_less_1];
            let rows = graph.op("Concat", &rows, &[Attribute::Int("axis", 0)]);
            Skew::Cut { length: length.clone(), length_less_1, end, rows }
        };

        let mut dims = |parts: &[&Value]| graph.op("Concat", parts, &[Attribute::Int("axis", 0)]);
        let flat = dims(&[&heads, &batch, &less]);
        let rows_of_heads = [dims(&[&heads, &less, &size]), dims(&[&less, &heads, &size])];
        let split = [
            dims(&[&batch, &length, &three, &heads, &size]),
            dims(&[&batch, &length, &two, &heads, &size]),
            dims(&[&batch, &one, &heads, &size]),
        ];
        let merged = [dims(&[&batch, &length, &hidden]), dims(&[&batch, &one, &hidden])];
        let first_row = dims(&[&heads, &batch, &one, &length]);

        let (up, down) = positions::rows_up_and_down(config);
        let (up, down) = (graph.ints(&up), graph.ints(&down));
        let (longest, middle) = (graph.ints(&[most]), graph.ints(&[most - 1]));
        let from = graph.op("Sub", &[&longest, &length], &[]);
        let to = graph.op("Add", &[&longest, &length], &[]);
        let to_first = graph.op("Add", &[&middle, &length], &[]);
        let rows_up = graph.op("Slice", &[&up, &from, &to], &[]);
        let rows_down = graph.op("Slice", &[&down, &from, &to], &[]);
        let rows_of_first = graph.op("Slice", &[&down, &middle, &to_first], &[]);

        let (full, large) = (graph.number(1.0), graph.number(if graph.is_half() { HALF_PADDING } else { PADDING }));
        let (axes, padding) = (graph.ints(&[0, 2]), graph.op("Sub", &[&full, mask], &[]));
        let mask = graph.op("Mul", &[&padding, &large], &[]);
        let mask = graph.op("Unsqueeze", &[&mask, &axes], &[]);
        // As large as what it is added to, so that a GPU adds all at once.
        let mask_of_scores = graph.is_half().then(|| {
            let scores = [&heads, &batch, &length, &length];
            let scores = graph.op("Concat", &scores, &[Attribute::Int("axis", 0)]);
            graph.op("Expand", &[&mask, &scores], &[])
        });
        Self {
            mask,
            mask_of_scores,
            skew,
            heads: config.heads,
            flat,
            rows_of_heads,
            split,
            merged,
            first_row,
            rows_up,
            rows_down,
            rows_of_first,
        }
    }

    /// Attention of every token. `qkv` is `[batch, length, 3 hidden]`; gives `[batch, length, hidden]`.
    pub fn attend(&self, graph: &mut Emitter, qkv: &Value, tables: &PositionTables) -> Value {
        let qkv = graph.op("Reshape", &[qkv, &self.split[0]], &[]);
        let qkv = graph.op("Transpose", &[&qkv], &[Attribute::Ints("perm", &[2, 3, 0, 1, 4])]);
        let [q, k, v] = unstacked(graph, &qkv);

        let content = times_transposed(graph, &q, &k);
        let to_position = self.products(graph, &q, &tables.keys, &self.rows_down);
        let to_position = self.skew.of_queries(graph, &to_position);
        let to_content = self.products(graph, &k, &tables.queries, &self.rows_up);
        let to_content = self.skew.of_keys(graph, &to_content);
        self.mixed(graph, [&content, &to_position, &to_content], &v, &self.merged[0])
    }

    /// The same by one operator, from queries, keys and values `[batch, length, hidden]`.
    pub fn attend_fused(&self, graph: &mut Emitter, [q, k, v]: [&Value; 3], tables: &PositionTables) -> Value {
        let to_position = self.products_of_tokens(graph, q, &tables.keys, &self.rows_down);
        let to_position = self.skew.of_queries(graph, &to_position);
        let to_content = self.products_of_tokens(graph, k, &tables.queries, &self.rows_up);
        let to_content = self.skew.of_keys(graph, &to_content);
        let mask = self.mask_of_scores.as_ref().unwrap_or(&self.mask);
        let bias = graph.op("Sum", &[&to_position, &to_content, mask], &[]);
        let bias = graph.op("Transpose", &[&bias], &[Attribute::Ints("perm", &[1, 0, 2, 3])]);
        let none = Value::none();
        let attributes = [Attribute::Int("num_heads", self.heads as i64), Attribute::Float("scale", 1.0)];
        graph.op_of(MICROSOFT, "MultiHeadAttention", &[q, k, v, &none, &none, &bias], &attributes)
    }

    /// The first tokens: `[batch, length, hidden]` to `[batch, 1, hidden]`.
    pub fn first(&self, graph: &mut Emitter, x: &Value) -> Value {
        let [zero, one] = [0, 1].map(|n| graph.ints(&[n]));
        graph.op("Slice", &[x, &zero, &one, &one], &[])
    }

    /// Attention of each first token alone. `q` is `[batch, 1, hidden]` and `kv` `[batch, length, 2 hidden]`; gives
    /// `[batch, 1, hidden]`.
    pub fn attend_first(&self, graph: &mut Emitter, q: &Value, kv: &Value, tables: &PositionTables) -> Value {
        let kv = graph.op("Reshape", &[kv, &self.split[1]], &[]);
        let kv = graph.op("Transpose", &[&kv], &[Attribute::Ints("perm", &[2, 3, 0, 1, 4])]);
        let [k, v] = unstacked(graph, &kv);
        let q = graph.op("Reshape", &[q, &self.split[2]], &[]);
        let q = graph.op("Transpose", &[&q], &[Attribute::Ints("perm", &[2, 0, 1, 3])]);

        let content = times_transposed(graph, &q, &k);
        // The first token's distances are 0, -1, ...: row j of the table belongs to key j, and there is nothing to skew.
        let to_position = self.products(graph, &q, &tables.keys, &self.rows_of_first);
        let to_position = graph.op("Reshape", &[&to_position, &self.first_row], &[]);
        let table = graph.op("Gather", &[&tables.queries, &self.rows_of_first], &[Attribute::Int("axis", 1)]);
        let (axis, last) = (graph.ints(&[1]), graph.ints(&[-1]));
        let table = graph.op("Unsqueeze", &[&table, &axis], &[]);
        let to_content = graph.op("Mul", &[&k, &table], &[]);
        // Products are summed in single precision.
        let to_content = graph.single_of(&to_content);
        let to_content = graph.op("ReduceSum", &[&to_content, &last], &[Attribute::Int("keepdims", 0)]);
        let to_content = if graph.is_half() { graph.body_of(&to_content) } else { to_content };
        let to_content = graph.op("Reshape", &[&to_content, &self.first_row], &[]);
        self.mixed(graph, [&content, &to_position, &to_content], &v, &self.merged[1])
    }

    /// The products of `x` `[heads, batch, any, head size]` with the `rows` of `table`, `[heads, batch, any x rows]`.
    fn products(&self, graph: &mut Emitter, x: &Value, table: &Value, rows: &Value) -> Value {
        let x = graph.op("Reshape", &[x, &self.rows_of_heads[0]], &[]);
        let table = graph.op("Gather", &[table, rows], &[Attribute::Int("axis", 1)]);
        let products = times_transposed(graph, &x, &table);
        graph.op("Reshape", &[&products, &self.flat], &[])
    }

    /// The same of `x` `[batch, length, hidden]`.
    fn products_of_tokens(&self, graph: &mut Emitter, x: &Value, table: &Value, rows: &Value) -> Value {
        let x = graph.op("Reshape", &[x, &self.rows_of_heads[1]], &[]);
        let table = graph.op("Gather", &[table, rows], &[Attribute::Int("axis", 1)]);
        let attributes = [Attribute::Int("transBatchA", 1), Attribute::Int("transB", 1)];
        let products = graph.op_of(MICROSOFT, "FusedMatMul", &[&x, &table], &attributes);
        graph.op("Reshape", &[&products, &self.flat], &[])
    }

    /// The values mixed by the softmax of the scores, heads side by side in the shape `merged`.
    fn mixed(&self, graph: &mut Emitter, scores: [&Value; 3], v: &Value, merged: &Value) -> Value {
        let sum = graph.op("Add", &[scores[0], scores[1]], &[]);
        let sum = graph.op("Add", &[&sum, scores[2]], &[]);
        let sum = graph.op("Add", &[&sum, &self.mask], &[]);
        let weights = graph.op("Softmax", &[&sum], &[Attribute::Int("axis", -1)]);
        let mixed = graph.op("MatMul", &[&weights, v], &[]);
        let mixed = graph.op("Transpose", &[&mixed], &[Attribute::Ints("perm", &[1, 2, 0, 3])]);
        graph.op("Reshape", &[&mixed, merged], &[])
    }
}

fn times_transposed(graph: &mut Emitter, a: &Value, b: &Value) -> Value {
    graph.op_of(MICROSOFT, "FusedMatMul", &[a, b], &[Attribute::Int("transB", 1)])
}

/// The `N` parts that are stacked along the first axis.
fn unstacked<const N: usize>(graph: &mut Emitter, stack: &Value) -> [Value; N] {
    let axis = graph.ints(&[0]);
    let split = [Attribute::Int("axis", 0), Attribute::Int("num_outputs", N as i64)];
    let parts: [Value; N] = graph.op_with("", "Split", &[stack], &split);
    parts.map(|part| graph.op("Squeeze", &[&part, &axis], &[]))
}
