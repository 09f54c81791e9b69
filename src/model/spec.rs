//! What `config.json` says about a model's head and limits. It does not know the graph.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;

use crate::error::StartError;

/// The parts of a Hugging Face `config.json` that scoring needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSpec {
    /// Number of logits in a row: 2 or 3 for NLI heads.
    pub classes: usize,
    /// Column of the entailment logit.
    pub entailment: usize,
    /// Column of the contradiction logit, by the rule of transformers' zero-shot pipeline: the last column if entailment
    /// is column 0, else column 0.
    pub contradiction: usize,
    /// Id that fills a row up to the padded length.
    pub pad_id: u32,
    /// Longest sequence in tokens, where the model has a fixed table of positions.
    pub max_length: Option<usize>,
    /// Number of rows of the embedding table, where given.
    pub vocab_size: Option<usize>,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    label2id: BTreeMap<String, usize>,
    #[serde(default)]
    id2label: BTreeMap<String, String>,
    #[serde(default)]
    pad_token_id: Option<u32>,
    #[serde(default)]
    max_position_embeddings: Option<usize>,
    #[serde(default)]
    model_type: Option<String>,
    #[serde(default)]
    vocab_size: Option<usize>,
}

impl ModelSpec {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`StartError::Model`] if it is not JSON, or if no label starts with "entail" (any case): such a model cannot
    /// score hypotheses.
    pub fn read(path: &Path) -> Result<Self, StartError> {
        let fail = |reason: String| StartError::Model { path: path.to_owned(), reason };
        let text = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
        let raw: Raw = serde_json::from_slice(&text)
            .map_err(|e| fail(format!("it is not a Hugging Face model configuration: {e}")))?;
        Self::resolve(raw).map_err(fail)
    }

    fn resolve(raw: Raw) -> Result<Self, String> {
        let mut labels = raw.label2id;
        if labels.is_empty() {
            for (id, label) in raw.id2label {
                let id = id.parse().map_err(|_| format!("id2label has the key {id:?}, which is no number"))?;
                labels.insert(label, id);
            }
        }
        let classes = labels.len();
        let names = labels.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let entailment =
            labels.iter().find(|(name, _)| name.to_lowercase().starts_with("entail")).map(|(_, id)| *id).ok_or_else(
                || {
                    format!(
                        "no label starts with \"entail\" (it has: {names}), so this is no NLI cross-encoder. \
                         Use one, for example MoritzLaurer/deberta-v3-base-zeroshot-v2.0"
                    )
                },
            )?;
        if !(2..=3).contains(&classes) || labels.values().any(|id| *id >= classes) {
            return Err(format!("an NLI head has 2 or 3 labels numbered from 0, this one has {classes}: {names}"));
        }
        // RoBERTa-like position tables start after the padding id, so two of their places cannot be used.
        let offset = match raw.model_type.as_deref() {
            Some("roberta" | "xlm-roberta" | "camembert" | "mpnet") => 2,
            _ => 0,
        };
        Ok(Self {
            classes,
            entailment,
            contradiction: if entailment == 0 { classes - 1 } else { 0 },
            pad_id: raw.pad_token_id.unwrap_or(0),
            max_length: raw.max_position_embeddings.map(|n| n.saturating_sub(offset)),
            vocab_size: raw.vocab_size,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: serde_json::Value) -> Result<ModelSpec, String> {
        ModelSpec::resolve(serde_json::from_value(json).unwrap())
    }

    #[test]
    fn two_and_three_class_heads() {
        let two = parse(serde_json::json!({
            "label2id": {"entailment": 0, "not_entailment": 1}, "max_position_embeddings": 512}))
        .unwrap();
        assert_eq!((two.classes, two.entailment, two.contradiction, two.max_length), (2, 0, 1, Some(512)));
        let three = parse(serde_json::json!({
            "id2label": {"0": "CONTRADICTION", "1": "NEUTRAL", "2": "ENTAILMENT"}, "pad_token_id": 1,
            "model_type": "roberta", "max_position_embeddings": 514}))
        .unwrap();
        assert_eq!((three.classes, three.entailment, three.contradiction), (3, 2, 0));
        assert_eq!((three.pad_id, three.max_length), (1, Some(512)));
    }

    #[test]
    fn a_model_without_entailment_is_refused() {
        let error = parse(serde_json::json!({"label2id": {"NEGATIVE": 0, "POSITIVE": 1}})).unwrap_err();
        assert!(error.contains("NEGATIVE, POSITIVE"), "{error}");
        assert!(parse(serde_json::json!({})).is_err());
        assert!(parse(serde_json::json!({"label2id": {"entailment": 7, "not": 1}})).is_err());
    }
}
