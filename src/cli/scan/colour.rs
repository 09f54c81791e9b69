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
        assert_eq!((short("héé", 2), short("hé", 2)), ("hé…".into(), "hé".into()));
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
