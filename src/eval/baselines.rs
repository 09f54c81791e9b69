//! What people have before they have a model: a regular expression for alarm words, and the level that a line prints.

use std::sync::LazyLock;

use regex::Regex;

/// The stems of an alarm line, as operators grep for them.
const STEMS: &str = r"(?i)error|fail|exception|fatal|panic|critical|denied|timeout|refused|abort|corrupt";

/// Words of a level and what a line with that level scores. The first that a line holds counts, in this order.
const LEVELS: [(&str, f64); 6] = [
    (r"(?i)\b(fatal|emerg|emergency|panic|critical|crit|alert|severe)\b", 1.0),
    (r"(?i)\b(error|err|failure)\b|^E\d{4} |\bE/", 0.8),
    (r"(?i)\b(warning|warn)\b|^W\d{4} |\bW/", 0.6),
    (r"(?i)\bnotice\b", 0.4),
    (r"(?i)\binfo\b|^I\d{4} |\bI/", 0.2),
    (r"(?i)\b(debug|trace|verbose)\b", 0.1),
];

/// A line without a level word.
const NO_LEVEL: f64 = 0.3;

/// 1 for a line with an alarm word in it, else 0.
pub fn pattern_score(line: &str) -> f64 {
    static PATTERN: LazyLock<Regex> = LazyLock::new(|| Regex::new(STEMS).expect("a constant that a test compiles"));
    f64::from(u8::from(PATTERN.is_match(line)))
}

/// How grave the level is that a line prints, 0 to 1: errors and worse lie above 0.5, and warnings just so.
pub fn level_score(line: &str) -> f64 {
    static PATTERNS: LazyLock<Vec<(Regex, f64)>> = LazyLock::new(|| {
        LEVELS.map(|(words, score)| (Regex::new(words).expect("a constant that a test compiles"), score)).into()
    });
    PATTERNS.iter().find(|(words, _)| words.is_match(line)).map_or(NO_LEVEL, |(_, score)| *score)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_score_by_their_words() {
        for (line, pattern, level) in [
            ("2024-01-01 ERROR db: connection refused", 1.0, 0.8),
            ("kernel: Out of memory", 0.0, 0.3),
            ("[FATAL] cannot start", 1.0, 1.0),
            ("W0412 10:00:00 slow", 0.0, 0.6),
            ("info: the word terror is no level", 1.0, 0.2),
            ("DEBUG tick", 0.0, 0.1),
        ] {
            assert_eq!((pattern_score(line), level_score(line)), (pattern, level), "{line}");
        }
    }
}
