//! The DeBERTa-v2/v3 sequence classifier as a graph. Equal to transformers' up to rounding, and rearranged for speed:
//! what depends on weights alone is computed here, once.
//!
//! ```text
//! input_ids, attention_mask (, token_type_ids)
//!   -> embeddings -> LayerNorm -> x mask        (in oddlog's operators: without padding, see `packed`)
//!   -> layer: fused QKV -> attention -> output + residual -> LayerNorm -> Gelu feed-forward + residual -> LayerNorm
//!   -> last layer: the same for the first token only (keys and values of all tokens)
//!   -> pooler (Gelu) -> classifier -> logits
//! ```

use super::{
    Precision, Progress,
    attention::{Geometry, PositionTables},
    config::DebertaConfig,
    emitter::{Emitter, Value},
    error::GraphError,
    linear::{Activation, LayerNorm, Linear},
    packed::{self, Packed},
    positions,
    proto::Attribute,
    weights::Weights,
};

/// Where the tensors of a sequence classifier are.
const ENCODER: &str = "deberta.encoder";
const EMBEDDINGS: &str = "deberta.embeddings";

/// Appends the whole model; returns its logits, `[batch, classes]`.
///
/// # Errors
/// [`GraphError::Tensor`] for a tensor that is not what `config` says, [`GraphError::Write`].
pub fn emit(
    graph: &mut Emitter,
    weights: &Weights,
    config: &DebertaConfig,
    precision: Precision,
    progress: &mut dyn FnMut(Progress),
) -> Result<Value, GraphError> {
    let total = config.layers + 1;
    progress(Progress { done: 0, total });
    let mut builder = Builder { graph, weights, config, precision };
    // The head is small, and read first: what is no classifier is refused at once.
    let pooler = Linear::read(weights, "pooler.dense", config.hidden, config.hidden)?;
    let classifier = Linear::read(weights, "classifier", config.classes, config.hidden)?;
    let (mut x, layout) = builder.embeddings()?;
    let relative = builder.relative_embeddings()?;
    for layer in 0..config.layers {
        progress(Progress { done: layer + 1, total });
        x = builder.layer(layer, &x, &layout, &relative)?;
    }
    progress(Progress { done: total, total });
    x = builder.graph.single_of(&x);
    if !precision.is_packed() {
        let zero = builder.graph.int(0);
        x = builder.graph.op("Gather", &[&x, &zero], &[Attribute::Int("axis", 1)]);
    }
    let fp32 = Precision::Fp32Portable;
    let pooled = pooler.emit(builder.graph, fp32, "pooler.dense", &x, Activation::Gelu)?;
    classifier.emit(builder.graph, fp32, "classifier", &pooled, Activation::None)
}

struct Builder<'a> {
    graph: &'a mut Emitter,
    weights: &'a Weights,
    config: &'a DebertaConfig,
    precision: Precision,
}

/// How the rows of a batch lie in memory.
enum Layout {
    /// `[batch, length, hidden]`, in operators of ONNX.
    Padded(Box<Geometry>),
    /// The same with attention in one operator, for GPUs.
    Fused(Box<Geometry>),
    /// `[tokens, hidden]`, in oddlog's operators.
    Packed(Packed),
}

impl Builder<'_> {
    /// Embeddings after LayerNorm, and what all layers share. Padding is zero, if there is any.
    fn embeddings(&mut self) -> Result<(Value, Layout), GraphError> {
        let DebertaConfig { hidden, vocabulary, token_types, .. } = *self.config;
        let ids = self.graph.input("input_ids");
        let mask = self.graph.input("attention_mask");
        let packed = self.precision.is_packed().then(|| Packed::emit(self.graph, self.config, &mask));
        let tokens = |graph: &mut Emitter, input: Value| match &packed {
            Some(packed) => packed.tokens(graph, &input),
            None => input,
        };
        let kept = tokens(self.graph, ids.clone());
        let mut x = self.lookup("word_embeddings", vocabulary, &kept)?;
        if token_types > 0 {
            let types = self.graph.input("token_type_ids");
            let types = tokens(self.graph, types);
            let embedded = self.lookup("token_type_embeddings", token_types, &types)?;
            x = self.graph.op("Add", &[&x, &embedded], &[]);
        }
        let x = self.layer_norm(&x, &format!("{EMBEDDINGS}.LayerNorm"), hidden)?;
        if let Some(packed) = packed {
            return Ok((x, Layout::Packed(packed)));
        }
        let mask = self.graph.body_of(&mask);
        let last = self.graph.ints(&[2]);
        let column = self.graph.op("Unsqueeze", &[&mask, &last], &[]);
        let x = self.graph.op("Mul", &[&x, &column], &[]);
        let geometry = Geometry::emit(self.graph, self.config, &ids, &mask);
        let layout = if self.graph.is_half() { Layout::Fused } else { Layout::Padded };
        Ok((x, layout(Box::new(geometry))))
    }

    fn lookup(&mut self, table: &str, rows: usize, ids: &Value) -> Result<Value, GraphError> {
        let name = format!("{EMBEDDINGS}.{table}.weight");
        let dims = [rows, self.config.hidden];
        let table = self.graph.copied(&name, &dims, &self.weights.tensor(&name, &dims)?)?;
        Ok(self.graph.op("Gather", &[&table, ids], &[]))
    }

    /// The embeddings of relative positions after LayerNorm: `[2 span, hidden]`.
    fn relative_embeddings(&self) -> Result<Vec<f32>, GraphError> {
        let DebertaConfig { hidden, span, epsilon, .. } = *self.config;
        let table = self.weights.values(&format!("{ENCODER}.rel_embeddings.weight"), &[2 * span, hidden])?;
        let gain = self.weights.values(&format!("{ENCODER}.LayerNorm.weight"), &[hidden])?;
        let bias = self.weights.values(&format!("{ENCODER}.LayerNorm.bias"), &[hidden])?;
        Ok(positions::layer_norm(&table, &gain, &bias, epsilon))
    }

    fn layer(&mut self, layer: usize, x: &Value, layout: &Layout, relative: &[f32]) -> Result<Value, GraphError> {
        let DebertaConfig { hidden, intermediate, .. } = *self.config;
        let name = format!("{ENCODER}.layer.{layer}");
        let [query, key, value] = ["query", "key", "value"]
            .map(|part| Linear::read(self.weights, &format!("{name}.attention.self.{part}_proj"), hidden, hidden));
        let (key, value) = (key?, value?);
        // Content and both position terms are each divided by the square root of 3 x the head size.
        let query = query?.scaled(1.0 / (3.0 * self.config.head_size() as f64).sqrt());
        let tables = PositionTables {
            keys: self.position_table(&format!("{name}.position_keys"), relative, &key)?,
            queries: self.position_table(&format!("{name}.position_queries"), relative, &query)?,
        };

        let output = format!("{name}.attention.output");
        let mut dense = Linear::read(self.weights, &format!("{output}.dense"), hidden, hidden)?;
        let (prefix, parts) = (format!("{name}.attention"), [&query, &key, &value]);
        let (residual, attended) = match layout {
            _ if layer + 1 == self.config.layers => self.attend_first(&prefix, x, layout, parts, &tables)?,
            Layout::Fused(geometry) => {
                // What values have in common goes through the softmax unchanged.
                dense = dense.after(&value.bias);
                let q = self.linear(&query, &format!("{prefix}.query"), x, Activation::None)?;
                let k = self.linear(&key, &format!("{prefix}.key"), x, Activation::None)?;
                let v = value.emit_unbiased(self.graph, self.precision, &format!("{prefix}.value"), x)?;
                (x.clone(), geometry.attend_fused(self.graph, [&q, &k, &v], &tables))
            }
            Layout::Padded(geometry) => {
                let qkv = self.linear(&Linear::side_by_side(&parts), &format!("{prefix}.qkv"), x, Activation::None)?;
                (x.clone(), geometry.attend(self.graph, &qkv, &tables))
            }
            Layout::Packed(packed) => {
                let qkv = self.linear(&Linear::side_by_side(&parts), &format!("{prefix}.qkv"), x, Activation::None)?;
                (x.clone(), packed.attend(self.graph, &qkv, &qkv, &tables))
            }
        };
        let x = self.residual(&dense, &attended, &residual, &output)?;
        let prefix = format!("{name}.intermediate.dense");
        let wide = Linear::read(self.weights, &prefix, intermediate, hidden)?;
        let output = format!("{name}.output");
        let narrow = Linear::read(self.weights, &format!("{output}.dense"), hidden, intermediate)?;
        if self.precision == Precision::Int8 {
            let norm = self.norm_weights(&format!("{output}.LayerNorm"), hidden)?;
            return wide.emit_feed_forward(self.graph, [&prefix, &format!("{output}.dense")], &narrow, &x, &norm);
        }
        let wide = self.linear(&wide, &prefix, &x, Activation::Gelu)?;
        self.residual(&narrow, &wide, &x, &output)
    }

    /// The first tokens of `x`, and what they attend to, by the `parts` for queries, keys and values.
    fn attend_first(
        &mut self,
        prefix: &str,
        x: &Value,
        layout: &Layout,
        [query, key, value]: [&Linear; 3],
        tables: &PositionTables,
    ) -> Result<(Value, Value), GraphError> {
        let kv = self.linear(&Linear::side_by_side(&[key, value]), &format!("{prefix}.kv"), x, Activation::None)?;
        let first = match layout {
            Layout::Padded(geometry) | Layout::Fused(geometry) => geometry.first(self.graph, x),
            Layout::Packed(packed) => packed.first(self.graph, x),
        };
        let q = self.linear(query, &format!("{prefix}.q"), &first, Activation::None)?;
        let attended = match layout {
            Layout::Padded(geometry) | Layout::Fused(geometry) => geometry.attend_first(self.graph, &q, &kv, tables),
            Layout::Packed(packed) => packed.attend(self.graph, &q, &kv, tables),
        };
        Ok((first, attended))
    }

    /// `LayerNorm(layer(x) + residual)`.
    fn residual(&mut self, layer: &Linear, x: &Value, residual: &Value, prefix: &str) -> Result<Value, GraphError> {
        let norm = self.norm_weights(&format!("{prefix}.LayerNorm"), self.config.hidden)?;
        layer.emit_with_norm(self.graph, self.precision, &format!("{prefix}.dense"), (x, residual), &norm)
    }

    fn linear(&mut self, layer: &Linear, name: &str, x: &Value, activation: Activation) -> Result<Value, GraphError> {
        layer.emit(self.graph, self.precision, name, x, activation)
    }

    fn layer_norm(&mut self, x: &Value, prefix: &str, width: usize) -> Result<Value, GraphError> {
        let LayerNorm { gain, shift, epsilon } = self.norm_weights(prefix, width)?;
        let attributes = [Attribute::Int("axis", -1), Attribute::Float("epsilon", epsilon)];
        Ok(self.graph.op("LayerNormalization", &[x, &gain, &shift], &attributes))
    }

    fn norm_weights(&mut self, prefix: &str, width: usize) -> Result<LayerNorm, GraphError> {
        let [gain, shift] = ["weight", "bias"].map(|part| {
            let name = format!("{prefix}.{part}");
            let values = self.weights.values(&name, &[width])?;
            self.graph.numbers(&name, &[width], &values)
        });
        Ok(LayerNorm { gain: gain?, shift: shift?, epsilon: self.config.epsilon })
    }

    fn position_table(&mut self, name: &str, relative: &[f32], layer: &Linear) -> Result<Value, GraphError> {
        let DebertaConfig { heads, span, .. } = *self.config;
        let (rows, size) = (2 * span, self.config.head_size());
        let table = positions::project(relative, layer, heads);
        match self.precision.is_packed() {
            true => self.graph.floats(name, &[heads, size, rows], &packed::columns_of(&table, rows, size)),
            false => self.graph.numbers(name, &[heads, rows, size], &table),
        }
    }
}
