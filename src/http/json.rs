//! A request body to the raw values of its known fields, the way the Python service before this one read JSON.
//!
//! Nothing is converted here: each known field is kept as the text that was sent, so an error can echo it exactly and
//! unknown fields cost nothing. Nesting is walked without recursion. It does not know what the fields mean.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The known fields of a JSON object, in the order of the names that were asked for; the last of equal names counts.
#[derive(Debug)]
pub struct Object<'a, const N: usize> {
    /// The whole body.
    pub text: &'a str,
    /// Each field as it was sent, `None` if it was not.
    pub values: [Option<&'a RawValue>; N],
}

/// Why a body is no JSON object.
#[derive(Debug, PartialEq, Eq)]
pub enum NotAnObject {
    /// Nothing, or `null`.
    Missing,
    /// Some other JSON value.
    Other,
    /// No JSON at all.
    Malformed {
        /// Characters (not bytes) before the error.
        offset: usize,
        /// What the parser expected.
        reason: String,
    },
}

impl<'a, const N: usize> Object<'a, N> {
    /// Reads `text`. `NaN` and `Infinity`, which Python's encoder writes, are read as numbers out of range; `spare`
    /// keeps the rewritten text in that case.
    ///
    /// # Errors
    /// [`NotAnObject`].
    pub fn read(text: &'a str, names: &[&str; N], spare: &'a mut Option<String>) -> Result<Self, NotAnObject> {
        match Self::parse(text, names) {
            Err(NotAnObject::Malformed { offset, reason }) => match without_python_numbers(text) {
                Some(rewritten) => Self::parse(spare.insert(rewritten), names)
                    .map_err(|e| if e == NotAnObject::Other { e } else { NotAnObject::Malformed { offset, reason } }),
                None => Err(NotAnObject::Malformed { offset, reason }),
            },
            result => result,
        }
    }

    fn parse(text: &'a str, names: &[&str; N]) -> Result<Self, NotAnObject> {
        let malformed = |e: serde_json::Error| {
            let reason = e.to_string();
            let end = reason.rfind(" at line ").unwrap_or(reason.len());
            NotAnObject::Malformed { offset: offset(text, &e), reason: reason[..end].to_owned() }
        };
        let trimmed = text.trim_matches([' ', '\t', '\n', '\r']);
        if trimmed.is_empty() {
            return Err(NotAnObject::Missing);
        }
        if !trimmed.starts_with('{') {
            serde_json::from_str::<IgnoredAny>(text).map_err(malformed)?;
            return Err(if trimmed == "null" { NotAnObject::Missing } else { NotAnObject::Other });
        }
        let mut parser = serde_json::Deserializer::from_str(text);
        let values = Fields(names).deserialize(&mut parser).map_err(malformed)?;
        parser.end().map_err(malformed)?;
        Ok(Self { text, values })
    }
}

/// A JSON string's text; `None` if it holds a lone surrogate, which is no text.
///
/// # Panics
/// If `raw` is not a string.
pub fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let quoted = raw.get();
    let inner = quoted.strip_prefix('"').and_then(|s| s.strip_suffix('"')).expect("the caller saw the quotes");
    if inner.contains('\\') {
        return serde_json::from_str(quoted).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// Characters of `text` before the error.
fn offset(text: &str, error: &serde_json::Error) -> usize {
    let bytes = if error.is_eof() {
        text.len()
    } else {
        let lines = text.split_inclusive('\n').take(error.line().saturating_sub(1));
        lines.map(str::len).sum::<usize>() + error.column().saturating_sub(1)
    };
    text.char_indices().take_while(|(at, _)| *at < bytes).count()
}

/// `text` with every `NaN`, `Infinity` and `-Infinity` outside of strings made a number that no float can hold;
/// `None` if there is none.
fn without_python_numbers(text: &str) -> Option<String> {
    let mut out = String::new();
    let (mut copied, mut at) = (0, 0);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        if bytes[at] == b'"' {
            at += 1;
            while at < bytes.len() && bytes[at] != b'"' {
                at += if bytes[at] == b'\\' { 2 } else { 1 };
            }
        } else if let Some(token) = ["NaN", "Infinity"].iter().find(|t| bytes[at..].starts_with(t.as_bytes())) {
            // A minus sign before it stays, and makes it a negative one.
            out.push_str(&text[copied..at]);
            out.push_str("1e999");
            at += token.len();
            copied = at;
            continue;
        }
        at += 1;
    }
    (copied > 0).then(|| out + &text[copied..])
}

/// Takes the named fields out of a map.
struct Fields<'n, const N: usize>(&'n [&'n str; N]);

impl<'de, const N: usize> DeserializeSeed<'de> for Fields<'_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<Self::Value, D::Error> {
        parser.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Fields<'_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = [None; N];
        while let Some(known) = map.next_key_seed(Name(self.0))? {
            match known {
                Some(index) => values[index] = Some(map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(values)
    }
}

/// The index of a key among the names.
struct Name<'n>(&'n [&'n str]);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<Self::Value, D::Error> {
        parser.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|name| *name == key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<[Option<String>; 2], NotAnObject> {
        let mut spare = None;
        let object = Object::read(text, &["a", "b"], &mut spare)?;
        Ok(object.values.map(|raw| raw.map(|raw| raw.get().to_owned())))
    }

    #[test]
    fn fields_are_kept_as_sent_and_the_last_of_equal_names_counts() {
        let values = read(r#" {"x": [{}], "a": 1, "b" : {"a": 2.50}, "a": "\u0041"} "#).unwrap();
        assert_eq!(values, [Some(r#""\u0041""#.into()), Some(r#"{"a": 2.50}"#.into())]);
        assert_eq!(read("{}").unwrap(), [None, None]);
    }

    #[test]
    fn what_is_no_object() {
        assert_eq!(read("").unwrap_err(), NotAnObject::Missing);
        assert_eq!(read(" null\n").unwrap_err(), NotAnObject::Missing);
        for text in ["[1]", "\"x\"", "3", "true", "NaN", "[-Infinity]"] {
            assert_eq!(read(text).unwrap_err(), NotAnObject::Other, "{text}");
        }
    }

    #[test]
    fn errors_are_placed_in_characters() {
        for (text, at) in [
            (r#"{"a": }"#, 6),
            ("{\"ä\": 1,\n \"a\": x}", 15),
            (r#"{"a": 1"#, 7),
            (r#"{"a": 1} x"#, 9),
            (r#"{"a": NaN, }"#, 6),
            ("{'a': 1}", 1),
            ("nul", 3),
        ] {
            let Err(NotAnObject::Malformed { offset, reason }) = read(text) else { panic!("{text}") };
            assert_eq!(offset, at, "{text}");
            assert!(!reason.is_empty() && !reason.contains("line"), "{reason}");
        }
    }

    #[test]
    fn python_numbers_are_numbers_out_of_range_but_not_in_strings() {
        let values = read(r#"{"a": NaN, "b": [-Infinity, "NaN \" Infinity"]}"#).unwrap();
        assert_eq!(values, [Some("1e999".into()), Some(r#"[-1e999, "NaN \" Infinity"]"#.into())]);
        assert_eq!(without_python_numbers(r#"{"a": "NaN"}"#), None);
        assert_eq!(without_python_numbers("\"ä\\"), None);
    }

    #[test]
    fn nesting_is_no_recursion() {
        let deep = "[".repeat(1 << 20) + &"]".repeat(1 << 20);
        let values = read(&format!(r#"{{"a": {deep}, "x": {deep}}}"#)).unwrap();
        assert_eq!(values[0].as_ref().unwrap().len(), deep.len());
        assert_eq!(read(&deep).unwrap_err(), NotAnObject::Other);
    }

    #[test]
    fn strings() {
        let text = |raw: &str| string(&RawValue::from_string(raw.into()).unwrap()).map(Cow::into_owned);
        assert_eq!(text(r#""plain""#).unwrap(), "plain");
        assert_eq!(text(r#""a\n\ud83d\ude00""#).unwrap(), "a\n😀");
        assert_eq!(text(r#""\ud800""#), None);
        assert_eq!(text(r#""x\udc00y""#), None);
    }
}
