//! What `config.json` says about a DeBERTa-v2/v3 encoder, and the refusal of what the rewritten graph does not cover.
//! It does not know weights.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;

use super::error::GraphError;

/// No dimension of a model is larger; it keeps sums and products of dimensions far from overflow.
const LARGEST: usize = 1 << 22;

/// The shape of a DeBERTa-v2/v3 sequence classifier. Every size is at least 1, unless its text says otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct DebertaConfig {
    /// Width of the encoder; a multiple of `heads`.
    pub hidden: usize,
    /// Attention heads.
    pub heads: usize,
    /// Encoder layers.
    pub layers: usize,
    /// Width between the two feed-forward layers.
    pub intermediate: usize,
    /// Rows of the word embeddings.
    pub vocabulary: usize,
    /// Rows of the token type embeddings; 0 where the model has none.
    pub token_types: usize,
    /// The epsilon of every LayerNorm.
    pub epsilon: f32,
    /// Longest sequence in tokens.
    pub max_length: usize,
    /// Half the number of rows of the relative embeddings.
    pub span: usize,
    /// Distance at which logarithmic buckets end; `None` where every distance has a row of its own.
    pub bucketed_to: Option<usize>,
    /// Logits in a row.
    pub classes: usize,
}

impl DebertaConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`GraphError::Source`] if it is no model configuration, [`GraphError::Unsupported`] if it describes a model that
    /// the rewrite does not cover.
    pub fn read(path: &Path) -> Result<Self, GraphError> {
        let text = std::fs::read(path).map_err(|e| GraphError::source_file(path, e))?;
        let raw: Raw = serde_json::from_slice(&text)
            .map_err(|e| GraphError::source_file(path, format!("it is not a Hugging Face model configuration: {e}")))?;
        Self::resolve(raw).map_err(GraphError::Unsupported)
    }

    /// Width of one attention head.
    pub fn head_size(&self) -> usize {
        self.hidden / self.heads
    }

    fn resolve(raw: Raw) -> Result<Self, String> {
        raw.check_architecture()?;
        raw.check_variant()?;
        let size = |name: &str, value: Option<usize>| match value {
            Some(value @ 1..=LARGEST) => Ok(value),
            Some(value) => Err(format!("{name} = {value} is not from 1 to {LARGEST}")),
            None => Err(format!("{name} is missing")),
        };
        let hidden = size("hidden_size", raw.hidden_size)?;
        let heads = size("num_attention_heads", raw.num_attention_heads)?;
        if hidden % heads != 0 {
            return Err(format!("hidden_size = {hidden} is not a multiple of num_attention_heads = {heads}"));
        }
        let only = |name: &str, value: Option<usize>, expected: usize| match value {
            Some(value) if value != expected => Err(format!("{name} = {value} is not supported, only {expected}")),
            _ => Ok(()),
        };
        only("pooler_hidden_size", raw.pooler_hidden_size, hidden)?;
        only("embedding_size", raw.embedding_size, hidden)?;
        only("attention_head_size", raw.attention_head_size, hidden / heads)?;

        let max_length = size("max_position_embeddings", raw.max_position_embeddings.or(Some(512)))?;
        let max_relative = match raw.max_relative_positions {
            Some(1..) => size("max_relative_positions", raw.max_relative_positions.and_then(|n| n.try_into().ok()))?,
            _ => max_length,
        };
        let (span, bucketed_to) = match raw.position_buckets {
            Some(1..) => {
                let span = size("position_buckets", raw.position_buckets.and_then(|n| n.try_into().ok()))?;
                // The logarithm of the buckets needs a middle, and distances beyond it.
                if span < 4 || max_relative <= span / 2 + 1 {
                    return Err(format!(
                        "position_buckets = {span} does not go with {max_relative} relative positions"
                    ));
                }
                (span, Some(max_relative))
            }
            _ => (max_relative, None),
        };
        let epsilon = raw.layer_norm_eps.unwrap_or(1e-7);
        if !(epsilon > 0.0 && epsilon < 1.0) {
            return Err(format!("layer_norm_eps = {epsilon} is not between 0 and 1"));
        }
        let labels = raw.id2label.len().max(raw.label2id.len());
        Ok(Self {
            hidden,
            heads,
            layers: size("num_hidden_layers", raw.num_hidden_layers)?,
            intermediate: size("intermediate_size", raw.intermediate_size)?,
            vocabulary: size("vocab_size", raw.vocab_size)?,
            token_types: raw
                .type_vocab_size
                .map_or(Ok(0), |n| if n == 0 { Ok(0) } else { size("type_vocab_size", Some(n)) })?,
            epsilon,
            max_length,
            span,
            bucketed_to,
            classes: size("the number of labels", Some(if labels == 0 { 2 } else { labels }))?,
        })
    }
}

/// The keys as Hugging Face writes them; absent ones have the defaults of transformers' `DebertaV2Config`.
#[derive(Deserialize)]
struct Raw {
    model_type: Option<String>,
    #[serde(default)]
    architectures: Vec<String>,
    hidden_size: Option<usize>,
    num_attention_heads: Option<usize>,
    num_hidden_layers: Option<usize>,
    intermediate_size: Option<usize>,
    vocab_size: Option<usize>,
    type_vocab_size: Option<usize>,
    layer_norm_eps: Option<f32>,
    max_position_embeddings: Option<usize>,
    max_relative_positions: Option<i64>,
    position_buckets: Option<i64>,
    relative_attention: Option<bool>,
    position_biased_input: Option<bool>,
    share_att_key: Option<bool>,
    norm_rel_ebd: Option<String>,
    pos_att_type: Option<PosAttType>,
    conv_kernel_size: Option<usize>,
    hidden_act: Option<String>,
    pooler_hidden_act: Option<String>,
    pooler_hidden_size: Option<usize>,
    embedding_size: Option<usize>,
    attention_head_size: Option<usize>,
    #[serde(default)]
    id2label: BTreeMap<String, String>,
    #[serde(default)]
    label2id: BTreeMap<String, usize>,
}

/// `["p2c", "c2p"]`, or `"p2c|c2p"` in older files.
#[derive(Deserialize)]
#[serde(untagged)]
enum PosAttType {
    List(Vec<String>),
    Text(String),
}

impl Raw {
    fn check_architecture(&self) -> Result<(), String> {
        const HEAD: &str = "DebertaV2ForSequenceClassification";
        match self.model_type.as_deref() {
            Some("deberta-v2") => {}
            Some(other) => return Err(format!("model_type is {other:?}; only \"deberta-v2\" can be compiled")),
            None => return Err("model_type is missing; only \"deberta-v2\" can be compiled".into()),
        }
        if !self.architectures.is_empty() && !self.architectures.iter().any(|name| name == HEAD) {
            return Err(format!("the architecture is {}; only {HEAD} can be compiled", self.architectures.join(", ")));
        }
        Ok(())
    }

    /// The rewrite covers what every DeBERTa-v3 is.
    fn check_variant(&self) -> Result<(), String> {
        let flag = |name: &str, value: Option<bool>, default: bool, needed: bool| {
            if value.unwrap_or(default) == needed { Ok(()) } else { Err(format!("{name} must be {needed}")) }
        };
        flag("relative_attention", self.relative_attention, false, true)?;
        flag("position_biased_input", self.position_biased_input, true, false)?;
        flag("share_att_key", self.share_att_key, false, true)?;
        let mut terms: Vec<&str> = match &self.pos_att_type {
            Some(PosAttType::List(list)) => list.iter().map(|s| s.trim()).collect(),
            Some(PosAttType::Text(text)) => text.split('|').map(str::trim).collect(),
            None => Vec::new(),
        };
        terms.sort_unstable();
        if terms != ["c2p", "p2c"] {
            return Err(format!("pos_att_type is {terms:?}; it must be both \"c2p\" and \"p2c\""));
        }
        if self.norm_rel_ebd.as_deref() != Some("layer_norm") {
            return Err("norm_rel_ebd must be \"layer_norm\"".into());
        }
        if self.conv_kernel_size.is_some_and(|size| size > 0) {
            return Err("conv_kernel_size: a convolution layer is not supported".into());
        }
        for (name, value) in [("hidden_act", &self.hidden_act), ("pooler_hidden_act", &self.pooler_hidden_act)] {
            if value.as_deref().is_some_and(|act| act != "gelu") {
                return Err(format!("{name} must be \"gelu\""));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn base() -> Value {
        json!({
            "model_type": "deberta-v2", "architectures": ["DebertaV2ForSequenceClassification"],
            "hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12, "intermediate_size": 3072,
            "vocab_size": 128100, "type_vocab_size": 0, "layer_norm_eps": 1e-7, "max_position_embeddings": 512,
            "max_relative_positions": -1, "position_buckets": 256, "relative_attention": true,
            "position_biased_input": false, "share_att_key": true, "norm_rel_ebd": "layer_norm",
            "pos_att_type": "p2c|c2p", "hidden_act": "gelu", "pooler_hidden_act": "gelu", "pooler_hidden_size": 768,
            "id2label": {"0": "entailment", "1": "not_entailment"}
        })
    }

    fn resolve(changes: &[(&str, Value)]) -> Result<DebertaConfig, String> {
        let mut json = base();
        for (key, value) in changes {
            json[*key] = value.clone();
        }
        DebertaConfig::resolve(serde_json::from_value(json).unwrap())
    }

    #[test]
    fn the_published_base_configuration() {
        let config = resolve(&[]).unwrap();
        assert_eq!((config.hidden, config.heads, config.head_size(), config.layers), (768, 12, 64, 12));
        assert_eq!((config.span, config.bucketed_to, config.max_length), (256, Some(512), 512));
        assert_eq!((config.classes, config.token_types), (2, 0));
        let plain = resolve(&[("position_buckets", json!(-1)), ("max_relative_positions", json!(100))]).unwrap();
        assert_eq!((plain.span, plain.bucketed_to), (100, None));
    }

    #[test]
    fn what_the_rewrite_does_not_cover_is_refused_by_name() {
        for (key, value, word) in [
            ("model_type", json!("bert"), "model_type"),
            ("architectures", json!(["DebertaV2ForMaskedLM"]), "DebertaV2ForMaskedLM"),
            ("relative_attention", json!(false), "relative_attention"),
            ("position_biased_input", json!(true), "position_biased_input"),
            ("share_att_key", json!(false), "share_att_key"),
            ("pos_att_type", json!(["c2p"]), "pos_att_type"),
            ("norm_rel_ebd", json!("none"), "norm_rel_ebd"),
            ("conv_kernel_size", json!(3), "conv_kernel_size"),
            ("hidden_act", json!("gelu_new"), "hidden_act"),
            ("pooler_hidden_size", json!(100), "pooler_hidden_size"),
            ("embedding_size", json!(128), "embedding_size"),
            ("attention_head_size", json!(32), "attention_head_size"),
            ("num_attention_heads", json!(7), "num_attention_heads"),
            ("hidden_size", json!(1_u64 << 60), "hidden_size"),
            ("num_hidden_layers", json!(0), "num_hidden_layers"),
            ("vocab_size", Value::Null, "vocab_size"),
            ("layer_norm_eps", json!(0.0), "layer_norm_eps"),
            ("position_buckets", json!(2), "position_buckets"),
            ("position_buckets", json!(i64::MAX), "position_buckets"),
            ("max_relative_positions", json!(128), "position_buckets"),
        ] {
            let error = resolve(&[(key, value.clone())]).unwrap_err();
            assert!(error.contains(word) && !error.contains('\n'), "{key} = {value}: {error}");
        }
    }
}
