//! Masked words that repeat themselves: `<num> <num> <num>` is a list, whose length says nothing of the message's kind.

use super::template::WILDCARD;

/// Words of the longest entry of a list: `node-<num> <hex> <ok>` has three.
const LONGEST: usize = 4;

/// Where the words begin of a text that is written word by word.
#[derive(Debug, Default)]
pub(super) struct Lists {
    starts: Vec<usize>,
    /// Where the word begins that is being written.
    next: usize,
}

impl Lists {
    /// To be called at the end of each word, before the blank: takes the last words off again if they are those before them
    /// once more and something in them is masked.
    pub fn end_word(&mut self, text: &mut String) {
        if text.len() <= self.next {
            return;
        }
        self.starts.push(self.next);
        let words = self.starts.len();
        let repeats = |len: &usize| {
            let (first, second) = (self.starts[words - 2 * len], self.starts[words - len]);
            let last = &text[second..];
            last == &text[first..second - 1] && is_masked(last)
        };
        if let Some(len) = (1..=LONGEST.min(words / 2)).find(repeats) {
            // With the blank before it, which is written again.
            text.truncate(self.starts[words - len] - 1);
            self.starts.truncate(words - len);
        }
        self.next = text.len() + 1;
    }
}

/// Words that differ among a template's members are no list.
fn is_masked(words: &str) -> bool {
    words.contains('<') && !words.contains(WILDCARD)
}

/// The text of a template that was made before lists and signs were masked, as it would be now.
pub(super) fn renewed(text: &str) -> String {
    without_lists(&text.replace("_-<num>", "_<num>"))
}

/// Whether a template was made of an object before objects' keys and strings were kept: what it was is not known any more.
pub(super) fn has_masked_keys(text: &str) -> bool {
    text.match_indices('{').any(|(at, _)| {
        let key = text[at + 1..].trim_start().strip_prefix("<str>");
        key.is_some_and(|rest| rest.trim_start().starts_with(':'))
    })
}

fn without_lists(text: &str) -> String {
    let (mut lists, mut out) = (Lists::default(), String::with_capacity(text.len()));
    for word in text.split(' ') {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
        lists.end_word(&mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists() {
        for (text, expected) in [
            ("a <num> <num> <num> b", "a <num> b"),
            ("<num> x <num> x <num>", "<num> x <num>"),
            ("<num>", "<num>"),
            ("no no no", "no no no"),
            ("<*> <*> <*>", "<*> <*> <*>"),
            ("a <num> b <str> a <num> b <str> a <num> b <str> c", "a <num> b <str> c"),
            ("a b c d <num> a b c d <num>", "a b c d <num> a b c d <num>"),
            ("( <str>, <str>, <str> )", "( <str>, <str> )"),
        ] {
            assert_eq!(without_lists(text), expected, "{text}");
        }
        for text in ["{<str>:<str>}", "app: { <str> : <num>", "x {<*> {<str>: y"] {
            assert!(has_masked_keys(text), "{text}");
        }
        for text in ["<str>: {<str>}", "{", "{<str>", "{<num>: <str>: }", r#"{"a": <num>}"#] {
            assert!(!has_masked_keys(text), "{text}");
        }
        assert_eq!(renewed("delete blk_-<num> blk_<num> blk_-<num>"), "delete blk_<num>");
    }

    proptest! {
        #[test]
        fn what_is_left_has_no_list(words in prop::collection::vec(prop_oneof!["a|b", Just("<num>".to_owned()), Just("<*>".to_owned())], 1..40)) {
            let once = without_lists(&words.join(" "));
            prop_assert_eq!(without_lists(&once), once.clone());
            let left: Vec<&str> = once.split(' ').collect();
            for len in 1..=LONGEST {
                for pair in left.windows(2 * len) {
                    prop_assert!(pair[..len] != pair[len..] || !is_masked(&pair[..len].join(" ")), "{}", once);
                }
            }
        }
    }
}
