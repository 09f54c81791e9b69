//! JSON objects in messages, and Python's, which look alike: where they begin, what their strings are, and how their keys
//! stand in a masked text. Pairs of logfmt whose value is a quoted sentence are like them.
//!
//! A string of an object may have an object in it, whose quotes then have a backslash each, as in the logs of containers, and
//! that one's strings another one, whose quotes have three. How many strings a text stands in is its *level*.

use std::ops::Range;

/// Texts of this level and deeper ones have no objects.
pub(super) const LEVELS: u32 = 3;

/// Longest first key by which an object is known, with its quotes and what stands before its colon, in bytes.
const LONGEST_KEY: usize = 128;

/// A string of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text {
    pub content: Range<usize>,
    pub is_key: bool,
    /// What comes behind it, and behind its colon if it is a key.
    pub next: usize,
}

/// Whether an object begins at `at`: a brace, and a key.
pub(super) fn begins(s: &[u8], at: usize, level: u32) -> bool {
    level < LEVELS && s.get(at) == Some(&b'{') && is_key(s, blanks(s, at + 1), level)
}

/// Whether a key begins at `at` that is not longer than keys are.
pub(super) fn is_key(s: &[u8], at: usize, level: u32) -> bool {
    let near = &s[..s.len().min(at.saturating_add(LONGEST_KEY))];
    text(near, at, level).is_some_and(|text| text.is_key && !text.content.is_empty())
}

/// The string that begins at `at`, if one does. One that is cut off ends with `s`.
pub(super) fn text(s: &[u8], at: usize, level: u32) -> Option<Text> {
    let escapes = if s.get(at) == Some(&b'\'') { 0 } else { escapes(level) };
    let quote = *s.get(at + escapes)?;
    let is_quote = quote == b'"' || (quote == b'\'' && escapes == 0);
    if !is_quote || !s[at..at + escapes].iter().all(|b| *b == b'\\') {
        return None;
    }
    let begin = at + escapes + 1;
    let Some(end) = closing(s, begin, quote, escapes, level) else {
        return Some(Text { content: begin..s.len(), is_key: false, next: s.len() });
    };
    let (next, colon) = (end + escapes + 1, blanks(s, end + escapes + 1));
    let is_key = s.get(colon) == Some(&b':');
    Some(Text { content: begin..end, is_key, next: if is_key { colon + 1 } else { next } })
}

/// The value of a logfmt pair that begins at `at`, if it is quoted and has several words. One word in quotes is more likely a name.
pub(super) fn sentence(s: &[u8], at: usize, level: u32) -> Option<Text> {
    let (key, quote) = (s.get(..at)?.last_chunk::<2>()?, s[at]);
    let is_value = level == 0 && quote == b'"' && key[1] == b'=' && (key[0].is_ascii_alphanumeric() || key[0] == b'_');
    let found = is_value.then(|| text(s, at, level))??;
    let words = s[found.content.clone()].trim_ascii();
    (!found.is_key && words.iter().any(u8::is_ascii_whitespace)).then_some(found)
}

/// Where the content ends that begins at `begin`. `escapes` backslashes are the quote's, whatever stands before them.
pub(super) fn closing(s: &[u8], begin: usize, quote: u8, escapes: usize, level: u32) -> Option<usize> {
    // A backslash of the content is written as so many.
    let backslash = 1 << (level + 1);
    memchr::memchr_iter(quote, s.get(begin..)?).find_map(|at| {
        let before = s[begin..begin + at].iter().rev().take_while(|b| **b == b'\\').count();
        (before % backslash == escapes).then(|| begin + at - escapes)
    })
}

/// Backslashes before a quote of this level.
pub(super) fn escapes(level: u32) -> usize {
    (1 << level) - 1
}

/// The first place from `at` on without a blank.
fn blanks(s: &[u8], at: usize) -> usize {
    let rest = s.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|b| b.is_ascii_whitespace()).count()
}

/// Whether a word of a masked text is the end of a key. What follows it, up to the next one, is its value.
pub(super) fn ends_key(word: &str) -> bool {
    word.ends_with("\":") || word.ends_with("=\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(s: &str, level: u32) -> Option<(&str, bool, &str)> {
        text(s.as_bytes(), 0, level).map(|text| (&s[text.content.clone()], text.is_key, &s[text.next..]))
    }

    #[test]
    fn strings_end_at_the_quote_of_their_level() {
        for (s, level, expected) in [
            (r#""a": 1"#, 0, Some(("a", true, " 1"))),
            (r#""a" , "b""#, 0, Some(("a", false, r#" , "b""#))),
            (r#""say \"hi\" now"}"#, 0, Some((r#"say \"hi\" now"#, false, "}"))),
            (r#""C:\\dir\\" :2"#, 0, Some((r"C:\\dir\\", true, "2"))),
            (r#""cut off"#, 0, Some(("cut off", false, ""))),
            (r#""cut off\"#, 0, Some((r"cut off\", false, ""))),
            (r#""""#, 0, Some(("", false, ""))),
            (r#"'a': "b""#, 0, Some(("a", true, r#" "b""#))),
            (r#"a"#, 0, None),
            (r#"\"a\": 1"#, 0, None),
            (r#"\"a\": 1"#, 1, Some(("a", true, " 1"))),
            (r#"\"a \\\"b\\\" c\","#, 1, Some((r#"a \\\"b\\\" c"#, false, ","))),
            (r#"\"dir\\\\\""#, 1, Some((r"dir\\\\", false, ""))),
            (r#""a""#, 1, None),
            (r"\'a\'", 1, None),
            ("", 1, None),
        ] {
            assert_eq!(content(s, level), expected, "{s}");
        }
    }

    #[test]
    fn sentences_are_quoted_values_of_several_words() {
        let found = |s: &str, at| sentence(s.as_bytes(), at, 0).map(|text| s[text.content].to_owned());
        assert_eq!(found(r#"msg="is \"so\" full" x"#, 4), Some(r#"is \"so\" full"#.to_owned()));
        assert_eq!(found(r#"msg="is cut"#, 4), Some("is cut".to_owned()));
        for (s, at) in [
            (r#"user="bob""#, 5),
            (r#"user=" bob ""#, 5),
            (r#"="a b""#, 1),
            (r#""a b""#, 0),
            (r#"x "a b""#, 2),
            (r#"x="a b":"#, 2),
        ] {
            assert_eq!(found(s, at), None, "{s}");
        }
        assert_eq!(sentence(br#"x="a b""#, 2, 1), None);
    }

    #[test]
    fn an_object_is_a_brace_and_a_key() {
        let is_one = |s: &str, level| begins(s.as_bytes(), 0, level);
        for s in [r#"{"a":1}"#, r#"{ "a b" : "#, r"{'a': 1}"] {
            assert!(is_one(s, 0) && !is_one(&s[1..], 0), "{s}");
        }
        assert!(is_one(r#"{\"a\":1}"#, 1) && !is_one(r#"{\"a\":1}"#, 0) && !is_one(r#"{"a":1}"#, LEVELS));
        for s in ["{", "{}", "{a: 1}", r#"{"a", 1}"#, r#"{"": 1}"#, r#"{"a"#, "{:a=>1}"] {
            assert!(!is_one(s, 0), "{s}");
        }
        let long = format!("{{\"{}\": 1}}", "k".repeat(LONGEST_KEY));
        assert!(!is_one(&long, 0));
    }
}
