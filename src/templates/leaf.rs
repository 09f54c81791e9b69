//! Where the miner looks for a message's template.

use std::fmt::Write;

use super::{object::ends_key, status, template::WILDCARD};

/// Whether a leaf has this word as it is, wherever it stands: keys, and words with a status code. On a leaf these are equal and at the
/// same places, and stay so when a template becomes more general.
pub(super) fn keeps(word: &str) -> bool {
    ends_key(word) || status::tells(word)
}

/// Where messages with these words are looked for: words that vary lead the same way.
pub(super) fn write(words: &[&str], depth: usize, leaf: &mut String) {
    leaf.clear();
    let _ = write!(leaf, "{}", words.len()); // a String takes everything
    let mut left = depth;
    for (at, word) in words.iter().enumerate() {
        if keeps(word) {
            let _ = write!(leaf, " {at}:{word}");
        }
        if ends_key(word) {
            left = depth;
        } else if left > 0 {
            left -= 1;
            leaf.push(' ');
            leaf.push_str(if word.contains('<') { WILDCARD } else { word });
        }
    }
}
