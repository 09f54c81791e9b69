//! Text to token ids: the log once, hypotheses apart, joined by hand as the model's own pair template would.
//!
//! It does not know labels. The joined ids equal those of the library's pair encoding with truncation `only_first`.

use std::path::Path;

use tokenizers::{Encoding, Tokenizer};

use crate::error::StartError;

/// Bytes of a log that are tokenised at first; more only if they did not fill the model's length.
const FIRST_BYTES: usize = 8 << 10;

/// Token ids of one log, already cut to the room that the longest hypothesis leaves.
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
    types: [u32; 3],
}

/// Encodes premises and hypotheses for one model.
pub struct PairTokenizer {
    tokenizer: Tokenizer,
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
        let tokenizer = Tokenizer::from_file(path).map_err(|e| fail(format!("it is no usable tokenizer: {e}")))?;
        Self::new(tokenizer, max_length).map_err(fail)
    }

    fn new(mut tokenizer: Tokenizer, max_length: usize) -> Result<Self, String> {
        // Files often carry the training set-up's truncation and padding; both are ours to do.
        tokenizer.with_truncation(None).map_err(|e| e.to_string())?;
        tokenizer.with_padding(None);
        let mut special: Vec<u32> =
            tokenizer.get_added_tokens_decoder().into_iter().filter(|(_, t)| t.special).map(|(id, _)| id).collect();
        special.sort_unstable();
        let template = PairTemplate::probe(&tokenizer)?;
        let unknown = ["[UNK]", "<unk>", "<|unk|>"].iter().find_map(|t| tokenizer.token_to_id(t)).unwrap_or_default();
        // With this the library splits "[SEP]" in a text as any other word; vocabularies that hold it as an ordinary
        // piece still emit its id, which `encode` replaces.
        tokenizer.set_encode_special_tokens(true);
        let tokenizer = Self { tokenizer, template, special, unknown, max_length };
        if tokenizer.room(0) == 0 {
            return Err(format!("model.max_length = {max_length} leaves no room for any text"));
        }
        Ok(tokenizer)
    }

    /// Ids of `text` without special tokens. An id that means a special token is replaced by "unknown", so that no
    /// text can end its part of the pair.
    fn encode(&self, text: &str) -> Vec<u32> {
        let encoding = self.tokenizer.encode_fast(text, false);
        let mut ids = encoding.map(|e| e.get_ids().to_vec()).unwrap_or_else(|_| vec![self.unknown]);
        for id in &mut ids {
            if self.special.binary_search(id).is_ok() {
                *id = self.unknown;
            }
        }
        ids
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

    /// Ids of a log, cut to the room beside a hypothesis of `longest_hypothesis` tokens.
    ///
    /// Long texts are read from the front only as far as needed, at white space, where every tokenizer of the family
    /// starts a new word: the ids are those of the whole text.
    pub fn encode_log(&self, text: &str, longest_hypothesis: usize) -> EncodedLog {
        let room = self.room(longest_hypothesis);
        let mut bytes = FIRST_BYTES;
        loop {
            let (head, whole) = head(text, bytes);
            let mut ids = self.encode(head);
            if whole || ids.len() > room {
                let truncated = ids.len() > room;
                ids.truncate(room);
                return EncodedLog { ids, truncated };
            }
            bytes *= 4;
        }
    }

    /// Length in tokens of the joined pair.
    pub fn pair_len(&self, log: usize, hypothesis: usize) -> usize {
        self.template.tokens() + log + hypothesis
    }

    /// Writes the joined pair into the front of `ids` and, where the model has them, its token types into `types`;
    /// returns its length. The rest of both slices is left alone.
    ///
    /// # Panics
    /// If `ids` is shorter than [`pair_len`](Self::pair_len).
    pub fn join(&self, log: &[u32], hypothesis: &[u32], ids: &mut [i64], types: Option<&mut [i64]>) -> usize {
        let t = &self.template;
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
            types[..first].fill(i64::from(t.types[0]));
            types[first..second].fill(i64::from(t.types[1]));
            types[second..at].fill(i64::from(t.types[2]));
        }
        at
    }
}

impl PairTemplate {
    fn tokens(&self) -> usize {
        self.prefix.len() + self.middle.len() + self.suffix.len()
    }

    /// Reads the template off a pair encoded by the library itself.
    fn probe(tokenizer: &Tokenizer) -> Result<Self, String> {
        let (first, second) = ("error", "this example is normal");
        let plain = |text| tokenizer.encode(text, false).map_err(|e| e.to_string());
        let (a, b) = (plain(first)?, plain(second)?);
        let pair: Encoding = tokenizer.encode((first, second), true).map_err(|e| e.to_string())?;
        let ids = pair.get_ids();
        let find = |part: &[u32], from: usize| {
            (from..=ids.len().saturating_sub(part.len())).find(|at| ids[*at..].starts_with(part) && !part.is_empty())
        };
        let at_a = find(a.get_ids(), 0).ok_or("its pair template does not hold the first text")?;
        let end_a = at_a + a.len();
        let at_b = find(b.get_ids(), end_a).ok_or("its pair template does not hold the second text")?;
        let end_b = at_b + b.len();
        let types = pair.get_type_ids();
        Ok(Self {
            prefix: ids[..at_a].to_vec(),
            middle: ids[end_a..at_b].to_vec(),
            suffix: ids[end_b..].to_vec(),
            types: [types[at_a], types[at_b - 1], types[at_b]],
        })
    }
}

/// The front of `text`, about `bytes` long and ending before white space, and whether it is all of it.
fn head(text: &str, bytes: usize) -> (&str, bool) {
    let Some(rest) = text.as_bytes().get(bytes..) else { return (text, true) };
    match rest.iter().position(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')) {
        Some(at) => (&text[..bytes + at], false),
        None => (text, true),
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
        assert_eq!(head("äöü x", 1), ("äöü", false));
    }
}
