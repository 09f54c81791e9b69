//! Where the miner looks for a message's template.

use std::fmt::Write;

use super::{object::ends_key, status, template::WILDCARD};

/// Where messages with these words are looked for. Words that vary lead the same way, but keys and words with a status code do not: on
/// a leaf they are equal and at the same places, and stay so when a template becomes more general.
pub(super) fn write(words: &[&str], depth: usize, leaf: &mut String) {
    leaf.clear();
    let _ = write!(leaf, "{}", words.len()); // a String takes everything
    let mut left = depth;
    for (at, word) in words.iter().enumerate() {
        if status::tells(word) {
            let _ = write!(leaf, " {at}:{word}");
        }
        if ends_key(word) {
            let _ = write!(leaf, " {at}:{word}");
            left = depth;
        } else if left > 0 {
            left -= 1;
            leaf.push(' ');
            leaf.push_str(if word.contains('<') { WILDCARD } else { word });
        }
    }
}
