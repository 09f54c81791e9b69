//! What a BERT-like tokenizer does to an ASCII text before it cuts it into words, in two or three passes over its bytes.
//!
//! The library's own way is exact for all of Unicode and pays for it: look-around in a backtracking engine and three
//! table look-ups a character are most of the cost of a log line, and log lines are ASCII nearly always. For a text that
//! is not, and for a tokenizer with any other normalizer, there is no [`AsciiNormalizer`] and the library does the work.
//! It does not know words or ids.

use std::{borrow::Cow, ops::Range};

use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;

/// The one expression with look-around that is known here: a space between the words of a camel-case name.
const CAMEL_CASE: &str = "(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])";

/// Replacements, then the cleaning and lower-casing of `BertNormalizer`.
#[derive(Debug)]
pub struct AsciiNormalizer {
    replacements: Vec<Replacement>,
    splits_camel_case: bool,
    cleans: bool,
    lowercases: bool,
}

#[derive(Debug)]
struct Replacement {
    pattern: Regex,
    content: String,
}

/// The part of `tokenizer.json` that matters here, as the library writes it.
#[derive(Deserialize)]
#[serde(tag = "type")]
enum Step {
    Sequence {
        normalizers: Vec<Step>,
    },
    Replace {
        pattern: Pattern,
        content: String,
    },
    BertNormalizer {
        clean_text: bool,
        lowercase: bool,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
enum Pattern {
    Regex(String),
    String(String),
}

impl AsciiNormalizer {
    /// For the `normalizer` of a `tokenizer.json`: replacements, perhaps the splitting of camel case, and
    /// `BertNormalizer`, in this order. `None` for every other one.
    pub fn read(normalizer: &serde_json::Value) -> Option<Self> {
        let mut steps = match Step::deserialize(normalizer).ok()? {
            Step::Sequence { normalizers } => normalizers,
            single => vec![single],
        };
        let Step::BertNormalizer { clean_text, lowercase } = steps.pop()? else { return None };
        let camel_case = |step: &Step| match step {
            Step::Replace { pattern: Pattern::Regex(regex), content } => regex == CAMEL_CASE && content == " ",
            _ => false,
        };
        let splits_camel_case = steps.pop_if(|last| camel_case(last)).is_some();
        let replacements = steps.into_iter().map(Replacement::read).collect::<Option<_>>()?;
        Some(Self { replacements, splits_camel_case, cleans: clean_text, lowercases: lowercase })
    }

    /// The normalized text; `None` if `text` is not ASCII.
    pub fn normalize(&self, text: &str) -> Option<String> {
        if !text.is_ascii() {
            return None;
        }
        let mut bytes = Cow::Borrowed(text.as_bytes());
        for replacement in &self.replacements {
            if let Some(replaced) = replacement.apply(&bytes) {
                bytes = Cow::Owned(replaced);
            }
        }
        String::from_utf8(self.clean(&bytes)).ok()
    }

    fn clean(&self, bytes: &[u8]) -> Vec<u8> {
        let mut clean = Vec::with_capacity(bytes.len() + bytes.len() / 4);
        let mut before = 0u8;
        for (at, &byte) in bytes.iter().enumerate() {
            if self.splits_camel_case && byte.is_ascii_uppercase() {
                let begins_word = bytes.get(at + 1).is_some_and(u8::is_ascii_lowercase);
                if before.is_ascii_lowercase() || (before.is_ascii_uppercase() && begins_word) {
                    clean.push(b' ');
                }
            }
            before = byte;
            match byte {
                b'\t' | b'\n' | b'\r' if self.cleans => clean.push(b' '),
                _ if self.cleans && byte.is_ascii_control() => {}
                _ if self.lowercases => clean.push(byte.to_ascii_lowercase()),
                _ => clean.push(byte),
            }
        }
        clean
    }
}

impl Replacement {
    fn read(step: Step) -> Option<Self> {
        let Step::Replace { pattern, content } = step else { return None };
        let expression = match &pattern {
            Pattern::Regex(regex) => regex.clone(),
            Pattern::String(text) => regex::escape(text),
        };
        // The texts are ASCII, so `\d` and its like need no Unicode tables.
        let pattern = RegexBuilder::new(&expression).unicode(false).build().ok()?;
        content.is_ascii().then_some(Self { pattern, content })
    }

    /// The text with every match replaced; `None` if there is none.
    fn apply(&self, text: &[u8]) -> Option<Vec<u8>> {
        let mut matches = self.pattern.find_iter(text).map(|found| found.range()).peekable();
        matches.peek()?;
        let mut replaced = Vec::with_capacity(text.len());
        let mut copied = 0;
        for Range { start, end } in matches {
            replaced.extend_from_slice(&text[copied..start]);
            replaced.extend_from_slice(self.content.as_bytes());
            copied = end;
        }
        replaced.extend_from_slice(&text[copied..]);
        Some(replaced)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_it_reads() {
        let bert = json!({ "type": "BertNormalizer", "clean_text": true, "lowercase": true, "strip_accents": null });
        let replace = |pattern: &str| json!({ "type": "Replace", "pattern": { "Regex": pattern }, "content": " " });
        let sequence = |steps: &[&serde_json::Value]| json!({ "type": "Sequence", "normalizers": steps });
        let (digits, camel) = (replace(r"\d{4,}"), replace(CAMEL_CASE));
        for known in [bert.clone(), sequence(&[&bert]), sequence(&[&digits, &digits, &camel, &bert])] {
            assert!(AsciiNormalizer::read(&known).is_some(), "{known}");
        }
        let look_around = replace("a(?=b)");
        for unknown in [
            json!(null),
            json!({ "type": "Lowercase" }),
            sequence(&[]),
            sequence(&[&digits]),
            sequence(&[&bert, &digits]),
            sequence(&[&look_around, &bert]),
            sequence(&[&camel, &digits, &bert]),
        ] {
            assert!(AsciiNormalizer::read(&unknown).is_none(), "{unknown}");
        }
    }

    #[test]
    fn what_it_does() {
        let bert = json!({ "type": "BertNormalizer", "clean_text": true, "lowercase": true });
        let replace = |pattern: &str, content: &str| json!({ "type": "Replace", "pattern": { "Regex": pattern }, "content": content });
        let steps = [replace(r"\d{4,}", "number"), replace(CAMEL_CASE, " "), bert];
        let normalizer = AsciiNormalizer::read(&json!({ "type": "Sequence", "normalizers": steps })).unwrap();
        for (text, normal) in [
            ("", ""),
            ("NullPointerException at 12345:123", "null pointer exception at number:123"),
            ("HTTPServer ABc aB\tX\r\n\0Y\u{7f}", "http server a bc a b x  y"),
            ("0001", "number"),
        ] {
            assert_eq!(normalizer.normalize(text).as_deref(), Some(normal), "{text:?}");
        }
        assert_eq!(normalizer.normalize("größer"), None);
    }
}
