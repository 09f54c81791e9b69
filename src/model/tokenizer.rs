//! Text to token ids: the log once, hypotheses apart, joined by hand as the model's own pair template would.
//!
//! It does not know labels. The joined ids equal those of the library's pair encoding with truncation `only_first`.

use std::{borrow::Cow, collections::HashMap, ops::RangeInclusive, path::Path};

use serde::Deserialize;
use serde_json::value::RawValue;
use tokenizers::pipeline::{EncodeOptions, Override, PipelinePostProcessor, PipelineToken, PipelineTokenizer};

use super::{normalizer::AsciiNormalizer, unigram::Unigram};
use crate::error::StartError;

/// Bytes of a log that are tokenised at first; more only if they did not fill the model's length.
const FIRST_BYTES: usize = 8 << 10;
/// Bytes of a log that are tokenised at most. Megabytes that make hardly any tokens, such as white space or one endless
/// word, would hold up everyone else for seconds.
const MAX_BYTES: usize = 16 * FIRST_BYTES;

/// Token ids of one log, already cut to the room that the shortest hypothesis leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedLog {
    /// Ids without special tokens.
    pub ids: Vec<u32>,
    /// Whether the log was longer than the model can read.
    pub truncated: bool,
}

/// Where the two texts of a pair stand among the special tokens, and their token types.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct PairTemplate {
    prefix: Vec<u32>,
    middle: Vec<u32>,
    suffix: Vec<u32>,
    /// Token type of everything up to the first text, of the middle, and from the second text on.
    types: [i64; 3],
}

/// The quick way for ASCII texts: the normalizer here, then the same tokenizer without its own. The ids are the same.
struct AsciiPath {
    normalizer: AsciiNormalizer,
    rest: PipelineTokenizer,
}

/// What makes ids of a text. All of them give the library's ids.
enum Encoder {
    Library { tokenizer: PipelineTokenizer, ascii: Option<AsciiPath> },
    Unigram(Unigram),
}

/// Encodes premises and hypotheses for one model.
pub struct PairTokenizer {
    encoder: Encoder,
    template: PairTemplate,
    /// Special ids, sorted; they must never come out of a user's text.
    special: Vec<u32>,
    unknown: u32,
    max_length: usize,
}

impl PairTokenizer {
    /// Reads `tokenizer.json`; a joined pair has at most `max_length` tokens.
    ///
    /// # Errors
    /// [`StartError::Model`] if the file is unreadable, or makes no pairs.
    pub fn read(path: &Path, max_length: usize) -> Result<Self, StartError> {
        let fail = |reason: String| StartError::Model { path: path.to_owned(), reason };
        let unusable = |e: &dyn std::fmt::Display| fail(format!("it is no usable tokenizer: {e}"));
        let text = std::fs::read_to_string(path).map_err(|e| unusable(&e))?;
        let vocabulary: Vocabulary = serde_json::from_str(&text).map_err(|e| unusable(&e))?;
        let encoder = match Unigram::read(&text) {
            Some(unigram) => Encoder::Unigram(unigram),
            None => Encoder::of_the_library(&text, &vocabulary).map_err(|e| unusable(&e))?,
        };
        Self::new(encoder, &vocabulary, max_length).map_err(fail)
    }

    fn new(encoder: Encoder, vocabulary: &Vocabulary, max_length: usize) -> Result<Self, String> {
        let mut special: Vec<u32> = vocabulary.added_tokens.iter().filter(|t| t.special).map(|t| t.id).collect();
        let template = PairTemplate::read(encoder.template())?;
        special.extend(template.prefix.iter().chain(&template.middle).chain(&template.suffix));
        special.sort_unstable();
        let unknown = vocabulary.unknown();
        let tokenizer = Self { encoder, template, special, unknown, max_length };
        if tokenizer.room(0) == 0 {
            return Err(format!("model.max_length = {max_length} leaves no room for any text"));
        }
        Ok(tokenizer)
    }

    /// Ids of `text` without special tokens. An id that means a special token is replaced by "unknown", so that no
    /// text can end its part of the pair.
    fn encode(&self, text: &str) -> Vec<u32> {
        let Ok(mut ids) = self.encoder.encode(text) else { return vec![self.unknown] };
        for id in &mut ids {
            if self.special.binary_search(id).is_ok() {
                *id = self.unknown;
            }
        }
        ids
    }

    /// Most tokens of a joined pair.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Tokens left for a log beside a hypothesis of `hypothesis` tokens.
    fn room(&self, hypothesis: usize) -> usize {
        self.max_length.saturating_sub(self.template.tokens() + hypothesis)
    }

    /// Ids of a hypothesis. It is never cut.
    ///
    /// # Errors
    /// A message for the user if it leaves no room for a log.
    pub fn encode_hypothesis(&self, text: &str) -> Result<Vec<u32>, String> {
        let ids = self.encode(text);
        if self.room(ids.len()) == 0 {
            return Err(format!(
                "The hypothesis has {} tokens, which leaves no room for a log: a pair has at most {} tokens. Shorten \
                 the label or the template.",
                ids.len(),
                self.max_length
            ));
        }
        Ok(ids)
    }

    /// Ids of a log, cut to the room that the shortest hypothesis leaves; `hypotheses` is the range of their lengths in
    /// tokens. It counts as truncated if it does not fit beside the longest.
    ///
    /// Long texts are read from the front only as far as needed, at white space, where every tokenizer of the family
    /// starts a new word: the ids are those of the whole text. Only endless words are cut elsewhere, and of texts that
    /// make hardly any tokens the first [`MAX_BYTES`] count.
    pub fn encode_log(&self, text: &str, hypotheses: RangeInclusive<usize>) -> EncodedLog {
        let (most, least) = (self.room(*hypotheses.start()), self.room(*hypotheses.end()));
        let mut bytes = FIRST_BYTES;
        loop {
            let (head, whole) = head(text, bytes);
            let mut ids = self.encode(head);
            if whole || ids.len() > most || bytes >= MAX_BYTES {
                let truncated = !whole || ids.len() > least;
                ids.truncate(most);
                return EncodedLog { ids, truncated };
            }
            bytes *= 4;
        }
    }

    /// Length in tokens of the joined pair; at most the model's.
    pub fn pair_len(&self, log: usize, hypothesis: usize) -> usize {
        self.template.tokens() + log.min(self.room(hypothesis)) + hypothesis
    }

    /// Lengths in tokens of the pairs that a log of `log` tokens makes with each of the hypotheses.
    pub fn pair_lens(&self, log: usize, hypotheses: &[Vec<u32>]) -> impl Iterator<Item = usize> {
        hypotheses.iter().map(move |hypothesis| self.pair_len(log, hypothesis.len()))
    }

    /// Writes the joined pair into the front of `ids` and its token types into `types`; returns its length. The log is
    /// cut to the room beside the hypothesis, the hypothesis never. The rest of both slices is left alone.
    ///
    /// # Panics
    /// If `ids` is shorter than [`pair_len`](Self::pair_len).
    pub fn join(&self, log: &[u32], hypothesis: &[u32], ids: &mut [i64], types: Option<&mut [i64]>) -> usize {
        let t = &self.template;
        let log = &log[..log.len().min(self.room(hypothesis.len()))];
        let parts: [&[u32]; 5] = [&t.prefix, log, &t.middle, hypothesis, &t.suffix];
        let mut at = 0;
        for part in parts {
            for (slot, id) in ids[at..at + part.len()].iter_mut().zip(part) {
                *slot = i64::from(*id);
            }
            at += part.len();
        }
        if let Some(types) = types {
            let first = t.prefix.len() + log.len();
            let second = first + t.middle.len();
            types[..first].fill(t.types[0]);
            types[first..second].fill(t.types[1]);
            types[second..at].fill(t.types[2]);
        }
        at
    }
}

impl Encoder {
    fn of_the_library(text: &str, vocabulary: &Vocabulary) -> tokenizers::Result<Self> {
        let canonical = tokenizers::canonicalize_str(text)?;
        let tokenizer = tokenizers::from_json(&canonical)?;
        Ok(Self::Library { tokenizer, ascii: AsciiPath::read(&canonical, vocabulary) })
    }

    fn template(&self) -> &PipelinePostProcessor {
        match self {
            Self::Library { tokenizer, .. } => tokenizer.get_post_processor(),
            Self::Unigram(unigram) => unigram.template(),
        }
    }

    fn encode(&self, text: &str) -> tokenizers::Result<Vec<u32>> {
        let (tokenizer, ascii) = match self {
            Self::Library { tokenizer, ascii } => (tokenizer, ascii),
            Self::Unigram(unigram) => {
                let mut ids = Vec::with_capacity(text.len() / 3);
                unigram.encode_into(text, &mut ids)?;
                return Ok(ids);
            }
        };
        let normal = ascii.as_ref().and_then(|ascii| Some((&ascii.rest, ascii.normalizer.normalize(text)?)));
        let (tokenizer, text) = match &normal {
            Some((rest, normal)) => (*rest, normal.as_str()),
            None => (tokenizer, text),
        };
        // With `encode_special_tokens` the library splits "[SEP]" in a text as any other word; vocabularies that hold
        // it as an ordinary piece still emit its id. Files often carry the training set-up's truncation and padding;
        // both are ours to do.
        let options = EncodeOptions {
            add_special_tokens: false,
            encode_special_tokens: true,
            padding: Override::Off,
            truncation: Override::Off,
        };
        let mut tokens = Vec::with_capacity(text.len() / 3);
        tokenizer.encode_into(text, &options, &mut tokens)?;
        Ok(tokens.into_iter().map(u32::from).collect())
    }
}

impl AsciiPath {
    /// `None` if the tokenizer's normalizer is another one, or if texts are searched for added tokens before it.
    fn read(canonical: &str, vocabulary: &Vocabulary) -> Option<Self> {
        if !vocabulary.added_tokens.iter().all(|token| token.special) {
            return None;
        }
        let mut json: serde_json::Value = serde_json::from_str(canonical).ok()?;
        let normalizer = AsciiNormalizer::read(json.get("normalizer")?)?;
        json["normalizer"] = serde_json::Value::Null;
        let rest = tokenizers::from_json(&json.to_string()).ok()?;
        Some(Self { normalizer, rest })
    }
}

/// The parts of `tokenizer.json` that name special and unknown tokens.
#[derive(Deserialize)]
struct Vocabulary<'a> {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(borrow)]
    model: ModelPart<'a>,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct ModelPart<'a> {
    #[serde(default)]
    unk_id: Option<u32>,
    #[serde(default)]
    unk_token: Option<String>,
    /// A map from piece to id, or a list of [piece, score].
    #[serde(borrow)]
    vocab: Option<&'a RawValue>,
}

impl Vocabulary<'_> {
    fn unknown(&self) -> u32 {
        let token = self.model.unk_token.as_deref();
        let added = || self.added_tokens.iter().find(|t| token == Some(&t.content)).map(|t| t.id);
        let piece = || {
            let ids: HashMap<Cow<str>, u32> = serde_json::from_str(self.model.vocab?.get()).ok()?;
            ids.get(token?).copied()
        };
        let usual = || self.added_tokens.iter().find(|t| matches!(&*t.content, "[UNK]" | "<unk>")).map(|t| t.id);
        self.model.unk_id.or_else(added).or_else(piece).or_else(usual).unwrap_or_default()
    }
}

impl PairTemplate {
    fn tokens(&self) -> usize {
        self.prefix.len() + self.middle.len() + self.suffix.len()
    }

    fn read(processor: &PipelinePostProcessor) -> Result<Self, String> {
        let pair = &processor.pair;
        let second = pair.b_type_id.ok_or("its pair template does not hold the second text")?;
        let ids = |run: &[(PipelineToken, u8)]| run.iter().map(|(id, _)| u32::from(*id)).collect();
        let middle = pair.infix.last().map_or(pair.a_type_id, |(_, kind)| *kind);
        Ok(Self {
            prefix: ids(&pair.prefix),
            middle: ids(&pair.infix),
            suffix: ids(&pair.suffix),
            types: [pair.a_type_id, middle, second].map(i64::from),
        })
    }
}

/// The front of `text`, and whether it is all of it: `bytes` to twice as long and ending before white space, or `bytes`
/// long where there is none.
fn head(text: &str, bytes: usize) -> (&str, bool) {
    let Some(rest) = text.as_bytes().get(bytes..) else { return (text, true) };
    let near = &rest[..rest.len().min(bytes)];
    match near.iter().position(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')) {
        Some(at) => (&text[..bytes + at], false),
        None if near.len() == rest.len() => (text, true),
        None => (&text[..text.floor_char_boundary(bytes)], false),
    }
}

#[cfg(test)]
mod tests;
