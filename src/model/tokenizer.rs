//! Text to token ids: the log once, hypotheses apart, joined by hand as the model's own pair template would.
//!
//! It does not know labels. The joined ids equal those of the library's pair encoding with truncation `only_first`.

use std::{ops::RangeInclusive, path::Path};

use serde::Deserialize;
use tokenizers::pipeline::{EncodeOptions, Override, PipelineToken, PipelineTokenizer};

use super::normalizer::AsciiNormalizer;
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

/// Encodes premises and hypotheses for one model.
pub struct PairTokenizer {
    tokenizer: PipelineTokenizer,
    ascii: Option<AsciiPath>,
    options: EncodeOptions,
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
        let canonical = tokenizers::canonicalize_str(&text).map_err(|e| unusable(&e))?;
        let tokenizer = tokenizers::from_json(&canonical).map_err(|e| unusable(&e))?;
        let ascii = AsciiPath::read(&canonical, &vocabulary);
        Self::new(tokenizer, ascii, &vocabulary, max_length).map_err(fail)
    }

    fn new(
        tokenizer: PipelineTokenizer,
        ascii: Option<AsciiPath>,
        vocabulary: &Vocabulary,
        max_length: usize,
    ) -> Result<Self, String> {
        let mut special: Vec<u32> = vocabulary.added_tokens.iter().filter(|t| t.special).map(|t| t.id).collect();
        let template = PairTemplate::probe(&tokenizer)?;
        special.extend(template.prefix.iter().chain(&template.middle).chain(&template.suffix));
        special.sort_unstable();
        // With `encode_special_tokens` the library splits "[SEP]" in a text as any other word; vocabularies that hold
        // it as an ordinary piece still emit its id, which `encode` replaces. Files often carry the training set-up's
        // truncation and padding; both are ours to do.
        let options = EncodeOptions { encode_special_tokens: true, ..options(false) };
        let unknown = vocabulary.unknown();
        let tokenizer = Self { tokenizer, ascii, options, template, special, unknown, max_length };
        if tokenizer.room(0) == 0 {
            return Err(format!("model.max_length = {max_length} leaves no room for any text"));
        }
        Ok(tokenizer)
    }

    /// Ids of `text` without special tokens. An id that means a special token is replaced by "unknown", so that no
    /// text can end its part of the pair.
    fn encode(&self, text: &str) -> Vec<u32> {
        let mut tokens = Vec::with_capacity(text.len() / 3);
        let normal = self.ascii.as_ref().and_then(|ascii| Some((&ascii.rest, ascii.normalizer.normalize(text)?)));
        let (tokenizer, text) = match &normal {
            Some((rest, normal)) => (*rest, normal.as_str()),
            None => (&self.tokenizer, text),
        };
        if tokenizer.encode_into(text, &self.options, &mut tokens).is_err() {
            return vec![self.unknown];
        }
        let checked = |token: PipelineToken| match u32::from(token) {
            id if self.special.binary_search(&id).is_ok() => self.unknown,
            id => id,
        };
        tokens.into_iter().map(checked).collect()
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
struct Vocabulary {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    model: ModelPart,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct ModelPart {
    #[serde(default)]
    unk_id: Option<u32>,
    #[serde(default)]
    unk_token: Option<String>,
    /// A map from piece to id, or a list of [piece, score].
    #[serde(default)]
    vocab: serde_json::Value,
}

impl Vocabulary {
    fn unknown(&self) -> u32 {
        let token = self.model.unk_token.as_deref();
        let added = || self.added_tokens.iter().find(|t| token == Some(&t.content)).map(|t| t.id);
        let piece = || token.and_then(|t| self.model.vocab.get(t)?.as_u64()).and_then(|id| u32::try_from(id).ok());
        let usual = || self.added_tokens.iter().find(|t| matches!(&*t.content, "[UNK]" | "<unk>")).map(|t| t.id);
        self.model.unk_id.or_else(added).or_else(piece).or_else(usual).unwrap_or_default()
    }
}

fn options(add_special_tokens: bool) -> EncodeOptions {
    EncodeOptions {
        add_special_tokens,
        encode_special_tokens: false,
        padding: Override::Off,
        truncation: Override::Off,
    }
}

impl PairTemplate {
    fn tokens(&self) -> usize {
        self.prefix.len() + self.middle.len() + self.suffix.len()
    }

    /// Reads the template off a pair encoded by the library itself.
    fn probe(tokenizer: &PipelineTokenizer) -> Result<Self, String> {
        let (first, second) = ("error", "this example is normal");
        let plain = |text: &str| {
            let mut tokens = Vec::new();
            tokenizer.encode_into(text, &options(false), &mut tokens).map_err(|e| e.to_string())?;
            Ok::<_, String>(tokens)
        };
        let (a, b) = (plain(first)?, plain(second)?);
        let mut pairs = tokenizer.encode((first, second), &options(true)).wait().map_err(|e| e.to_string())?;
        let pair = pairs.pop().ok_or("it encodes no pair")?;
        let ids = pair.ids();
        let find = |part: &[PipelineToken], from: usize| {
            (from..=ids.len().saturating_sub(part.len())).find(|at| ids[*at..].starts_with(part) && !part.is_empty())
        };
        let at_a = find(&a, 0).ok_or("its pair template does not hold the first text")?;
        let end_a = at_a + a.len();
        let at_b = find(&b, end_a).ok_or("its pair template does not hold the second text")?;
        let end_b = at_b + b.len();
        let ids = |range: std::ops::Range<usize>| ids[range].iter().map(|id| u32::from(*id)).collect();
        let type_at = |at: usize| pair.type_ids().map_or(0, |types| i64::from(types[at]));
        Ok(Self {
            prefix: ids(0..at_a),
            middle: ids(end_a..at_b),
            suffix: ids(end_b..pair.len()),
            types: [type_at(at_a), type_at(at_b - 1), type_at(at_b)],
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
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_at_white_space() {
        assert_eq!(head("abc def ghi", 4), ("abc def", false));
        assert_eq!(head("abc def", 5), ("abc def", true));
        assert_eq!(head("abc", 3), ("abc", true));
        assert_eq!(head("", 3), ("", true));
        assert_eq!(head("äöü x", 4), ("äöü", false));
        assert_eq!(head("abcdefghi jkl", 4), ("abcd", false));
        assert_eq!(head("äöüäöüäöü", 3), ("ä", false));
    }

    /// The shipped tokenizer and the tests' cased or uncased BERT, each with and without the quick way.
    fn both() -> Vec<(PairTokenizer, PairTokenizer)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let read = |dir: &str| PairTokenizer::read(&root.join(dir).join("tokenizer.json"), 512).unwrap();
        let dirs = ["models/oddlog-minilm", "tests/data/tiny-bert3"];
        dirs.map(|dir| (read(dir), PairTokenizer { ascii: None, ..read(dir) })).into()
    }

    #[test]
    fn the_quick_way_gives_the_ids_of_the_library() {
        let lines = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/lines.txt")).unwrap();
        for (quick, library) in both() {
            assert!(quick.ascii.is_some());
            for line in lines.split('\n') {
                assert_eq!(quick.encode(line), library.encode(line), "{line:?}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn the_quick_way_gives_the_ids_of_the_library_for_any_text(
            text in "([ -~]|[0-9a-fA-F:.-]|[A-Z]{1,3}[a-z]{0,4}|[\\x00-\\x7f]|[a-f0-9]{8}|(\\[SEP\\])|2026-11-0[1-9]T12:34:5[0-9]|.){0,40}"
        ) {
            thread_local!(static BOTH: Vec<(PairTokenizer, PairTokenizer)> = both());
            BOTH.with(|both| {
                for (quick, library) in both {
                    assert_eq!(quick.encode(&text), library.encode(&text), "{text:?}");
                }
            });
        }
    }
}
