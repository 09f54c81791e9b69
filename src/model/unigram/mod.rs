//! SentencePiece's Unigram tokenizers, as DeBERTa-v3 has one, in a thirtieth of the memory that the library takes.
//!
//! The library's model is a tree of hash maps: 236 MB for 128,000 pieces. Here the pieces are flat tables of a few
//! megabytes; normalizing and cutting into words are left to the library, which gets the same file with a vocabulary of
//! one piece. The ids are the same, and tests hold them so. Whatever has a feature that is not known here is the
//! library's to encode. It does not know pairs or special tokens.

mod pieces;
mod trie;

use serde::Deserialize;
use serde_json::{json, value::RawValue};
use tokenizers::pipeline::{
    PipelinePostProcessor, PipelineTokenizer, PreTokenizer, PreTokenizerScratch, normalize_all,
};

use pieces::{Pieces, Word};

/// A Unigram tokenizer.
pub struct Unigram {
    /// Normalizers, pre-tokenizer and template; its vocabulary means nothing.
    frame: PipelineTokenizer,
    pieces: Pieces,
}

/// The parts of `tokenizer.json` that matter here.
#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    normalizer: Option<&'a RawValue>,
    #[serde(borrow)]
    pre_tokenizer: Option<&'a RawValue>,
    #[serde(borrow)]
    post_processor: Option<&'a RawValue>,
    #[serde(borrow)]
    model: Model<'a>,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct Model<'a> {
    #[serde(rename = "type")]
    kind: String,
    unk_id: u32,
    #[serde(default)]
    byte_fallback: Option<bool>,
    #[serde(borrow)]
    vocab: &'a RawValue,
}

#[derive(Deserialize)]
struct AddedToken {
    #[serde(default)]
    special: bool,
}

impl Unigram {
    /// For the text of a `tokenizer.json`. `None` if it is another kind of tokenizer, or one with a feature that only the
    /// library knows; and if it is broken, which the library's reader can say better.
    pub fn read(text: &str) -> Option<Self> {
        let document: Document = serde_json::from_str(text).ok()?;
        let Model { kind, unk_id, byte_fallback, vocab } = document.model;
        // Texts are searched for added tokens, but for special ones only if these are not to be read as plain text.
        let plain = document.added_tokens.iter().all(|token| token.special);
        if kind != "Unigram" || byte_fallback == Some(true) || !plain {
            return None;
        }
        let frame = json!({
            "version": "1.0",
            "normalizer": document.normalizer,
            "pre_tokenizer": document.pre_tokenizer,
            "post_processor": document.post_processor,
            "model": { "type": kind, "unk_id": 0, "vocab": [["?", 0.0]], "byte_fallback": false },
        });
        let frame = tokenizers::from_json(&tokenizers::canonicalize_str(&frame.to_string()).ok()?).ok()?;
        Some(Self { frame, pieces: Pieces::read(vocab, unk_id)? })
    }

    /// What is put around the texts of a pair.
    pub fn template(&self) -> &PipelinePostProcessor {
        self.frame.get_post_processor()
    }

    /// Appends the ids of `text`, in which special tokens are plain text.
    ///
    /// # Errors
    /// What the library says.
    pub fn encode_into(&self, text: &str, ids: &mut Vec<u32>) -> tokenizers::Result<()> {
        let text = normalize_all(self.frame.get_normalizers(), text, 0)?;
        if text.is_empty() {
            return Ok(());
        }
        let (mut scratch, mut words) = (PreTokenizerScratch::default(), Vec::new());
        self.frame.get_pre_tokenizer().pre_tokenize(&text, &mut scratch, &mut words)?;
        let mut word = Word::default();
        for range in words {
            self.pieces.encode_into(&text[range.range()], &mut word, ids);
        }
        Ok(())
    }
}
