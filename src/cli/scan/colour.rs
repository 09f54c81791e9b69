//! Colours of a terminal, and texts made safe for one.

use std::{borrow::Cow, io::IsTerminal};

use super::args::When;

/// Marks by meaning; all empty where there is no colour.
#[derive(Debug, Clone, Copy)]
pub struct Colours {
    pub odd: &'static str,
    pub dim: &'static str,
    pub bold: &'static str,
    pub off: &'static str,
}

impl Colours {
    /// For standard output.
    pub fn choose(when: When) -> Self {
        let on = match when {
            When::Always => true,
            When::Never => false,
            When::Auto => {
                let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
                std::io::stdout().is_terminal() && !refused
            }
        };
        match on {
            true => Self { odd: "\x1b[1;31m", dim: "\x1b[2m", bold: "\x1b[1m", off: "\x1b[0m" },
            false => Self { odd: "", dim: "", bold: "", off: "" },
        }
    }
}

/// `line` without what could steer a terminal.
pub fn safe(line: &str) -> Cow<'_, str> {
    if line.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return line.into();
    }
    match line.chars().any(char::is_control) {
        true => line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
        false => line.into(),
    }
}

/// At most `most` characters of `line`, with a mark if there were more.
pub fn short(line: &str, most: usize) -> Cow<'_, str> {
    match line.char_indices().nth(most) {
        None => line.into(),
        Some((end, _)) => format!("{}…", &line[..end]).into(),
    }
}

/// A score from 0 to 1 with three digits, as `{:.3}` writes it, in a fraction of the time.
pub fn three_digits(score: f32) -> [u8; 5] {
    // The product is exact, so that ties are ties.
    let thousandths = (f64::from(score.clamp(0.0, 1.0)) * 1000.0).round_ties_even() as u32;
    let digit = |place: u32| b'0' + (thousandths / place % 10) as u8;
    [digit(1000), b'.', digit(100), digit(10), digit(1)]
}

/// `1234567` as `1,234,567`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        assert_eq!(safe("a\x1b[31m\tb"), "a [31m b");
        for line in ["é\u{7f}", "é\u{85}", "a\u{7f}"] {
            assert!(safe(line).ends_with(' '), "{line:?}");
        }
        assert!(matches!(safe("a ~ é"), Cow::Borrowed(_)));
        assert_eq!((short("héé", 2), short("hé", 2)), ("hé…".into(), "hé".into()));
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn scores_are_written_as_the_library_writes_them() {
        let ties = [0.0625, 0.1875, 0.5625, 0.0, 1.0, 0.9995, 0.9994999, 1e-9, f32::MIN_POSITIVE];
        for score in (0..=70_000).map(|i| i as f32 / 70_000.0).chain(ties) {
            assert_eq!(three_digits(score), format!("{score:.3}").as_bytes(), "{score:e}");
        }
        assert_eq!((three_digits(f32::NAN), three_digits(7.0)), (*b"0.000", *b"1.000"));
    }
}
