//! A message with what varies masked: numbers, hex, addresses, ids, times, durations, sizes, paths, quoted texts. A list of
//! them counts as one, for its length varies, too.

use std::ops::Range;

use super::{atom, lists::Lists, object, status};

/// Longest quoted text that is taken for one, in bytes.
const LONGEST_QUOTE: usize = 512;

/// Fewest hex digits that tell an object from others after its class: seven that begin with zeros, which are left out.
const LEAST_OF_OBJECT: usize = 5;

/// What stands around atoms. `:` and `/` do not: they stand in addresses and paths.
fn is_between(b: u8) -> bool {
    b.is_ascii_whitespace() || b.is_ascii_control() || b"=,;()[]{}<>|\"'`".contains(&b)
}

/// Writes `message` into `masked`: blanks become single spaces, what varies becomes a mask in angle brackets, and masked
/// words that come again and again stand there once ([`Lists`]). No ASCII digit is left.
///
/// In a JSON object ([`object`]) quoted texts are no values that vary: keys and strings are written word by word, each key as the
/// end of a word of its own, and however blanks stand between them. So are quoted values of logfmt that have several words:
/// `msg="disk is full"`.
pub fn mask(message: &str, masked: &mut String) {
    masked.clear();
    let mut masker = Masker { masked, lists: Lists::default() };
    masker.text(message, 0);
    masker.end();
}

struct Masker<'a> {
    masked: &'a mut String,
    lists: Lists,
}

impl Masker<'_> {
    /// A text that stands in `level` strings of objects.
    fn text(&mut self, text: &str, level: u32) {
        let s = text.as_bytes();
        let mut at = 0;
        while at < s.len() {
            let b = s[at];
            let blank = blank(s, at, level);
            if blank > 0 {
                self.blank();
                at += blank;
            } else if object::begins(s, at, level) || self.begins_within(s, at, level) {
                at = self.object(text, at, level);
            } else if let Some(object::Text { content, next, .. }) = object::sentence(s, at, level) {
                self.masked.push('"');
                self.blank();
                self.text(trimmed(&text[content], 1), 1);
                self.masked.push('"');
                at = next;
            } else if let Some(len) = quoted(s, at, level) {
                self.masked.push_str("<str>");
                at += len;
            } else if is_between(b) {
                self.masked.push(char::from(b));
                at += 1;
            } else {
                let end = atom_end(s, at, level);
                self.atom(text, at..end);
                at = end;
            }
        }
    }

    /// Whether this is a line of an object that has several.
    fn begins_within(&self, s: &[u8], at: usize, level: u32) -> bool {
        level == 0 && self.masked.is_empty() && s[at] == b'"' && object::is_key(s, at, level)
    }

    /// The object that begins at `at`, or of which a part does; where it ends.
    fn object(&mut self, text: &str, mut at: usize, level: u32) -> usize {
        let s = text.as_bytes();
        // A part of an object has its brace on another line.
        let mut depth = usize::from(s[at] != b'{');
        while at < s.len() {
            let b = s[at];
            let blank = blank(s, at, level);
            if blank > 0 {
                self.blank();
                at += blank;
            } else if let Some(object::Text { content, is_key, next }) = object::text(s, at, level) {
                self.masked.push('"');
                self.text(trimmed(&text[content], level + 1), level + 1);
                self.masked.push_str(if is_key { "\":" } else { "\"" });
                if is_key {
                    self.blank();
                }
                at = next;
            } else if is_between(b) {
                let (opens, closes) = (matches!(b, b'{' | b'['), matches!(b, b'}' | b']'));
                depth += usize::from(opens);
                if b == b']' {
                    self.blank();
                }
                self.masked.push(char::from(b));
                if matches!(b, b'[' | b',') {
                    self.blank();
                }
                at += 1;
                if closes {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return at;
                    }
                }
            } else {
                let end = s[at..].iter().position(|b| is_between(*b)).map_or(s.len(), |len| at + len);
                self.atom(text, at..end);
                at = end;
            }
        }
        at
    }

    fn atom(&mut self, text: &str, place: Range<usize>) {
        let (atom, tail) = without_stops(&text[place.clone()]);
        let s = text.as_bytes();
        match status::class(s, place.start, place.start + atom.len()) {
            Some(class) => self.masked.extend([class, tail]),
            None if names_object(s, place.start) && atom::is_hex_word(atom.as_bytes(), LEAST_OF_OBJECT) => {
                self.masked.extend(["<hex>", tail]);
            }
            None => put_atom(&text[place], self.masked),
        }
    }

    fn blank(&mut self) {
        if !self.masked.is_empty() && !self.masked.ends_with(' ') {
            self.lists.end_word(self.masked);
            self.masked.push(' ');
        }
    }

    fn end(mut self) {
        self.masked.truncate(self.masked.trim_end().len());
        self.lists.end_word(self.masked);
    }
}

/// Bytes of the blank at `at`; 0 if there is none. In strings line breaks and tabs are written with a backslash.
fn blank(s: &[u8], at: usize, level: u32) -> usize {
    let b = s[at];
    let escaped = || level == 1 && b == b'\\' && (at == 0 || s[at - 1] != b'\\') && is_control_letter(s.get(at + 1));
    if b.is_ascii_whitespace() || b.is_ascii_control() {
        1
    } else if escaped() {
        2
    } else {
        0
    }
}

fn is_control_letter(b: Option<&u8>) -> bool {
    matches!(b, Some(b'n' | b't' | b'r'))
}

/// Without blanks at either end.
fn trimmed(mut text: &str, level: u32) -> &str {
    let s = text.as_bytes();
    let mut begin = 0;
    while begin < s.len() && blank(s, begin, level) > 0 {
        begin += blank(s, begin, level);
    }
    text = &text[begin..];
    loop {
        let s = text.as_bytes();
        let len = [1, 2].into_iter().find(|len| s.len() >= *len && blank(s, s.len() - len, level) == *len);
        let Some(len) = len else { return text };
        text = &text[..text.len() - len];
    }
}

/// Where the atom at `at` ends. Commas join the groups of a number.
fn atom_end(s: &[u8], at: usize, level: u32) -> usize {
    let mut end = at;
    while end < s.len() {
        let digit = |i: usize| s.get(i).is_some_and(u8::is_ascii_digit);
        let joins = s[end] == b',' && end > at && digit(end - 1) && digit(end + 1) && digit(end + 2) && digit(end + 3);
        if (is_between(s[end]) && !joins) || (level > 0 && end > at && blank(s, end, level) > 0) {
            break;
        }
        end += 1;
    }
    end
}

/// Length of the quoted text at `at`, both quotes counted. A quote inside a word is an apostrophe.
fn quoted(s: &[u8], at: usize, level: u32) -> Option<usize> {
    let quote = s[at];
    if at > 0 && s[at - 1].is_ascii_alphanumeric() {
        return None;
    }
    if level > 0 && quote == b'\\' {
        return quoted_in_string(s, at, level);
    }
    if !matches!(quote, b'"' | b'\'' | b'`') {
        return None;
    }
    let inside = &s[at + 1..s.len().min(at + LONGEST_QUOTE)];
    let ends = |i: &usize| inside.get(i + 1).is_none_or(|b| !b.is_ascii_alphanumeric());
    memchr::memchr_iter(quote, inside).find(|i| *i > 0 && ends(i)).map(|i| i + 2)
}

/// As `quoted`, for quotes that have backslashes, as in `"user \"bob\" is gone"`.
fn quoted_in_string(s: &[u8], at: usize, level: u32) -> Option<usize> {
    let escapes = object::escapes(level);
    let begin = at + escapes + 1;
    if s.get(begin - 1) != Some(&b'"') || !s[at..begin - 1].iter().all(|b| *b == b'\\') {
        return None;
    }
    let end = object::closing(&s[..s.len().min(at + LONGEST_QUOTE)], begin, b'"', escapes, level)?;
    let next = end + escapes + 1;
    (end > begin && s.get(next).is_none_or(|b| !b.is_ascii_alphanumeric())).then_some(next - at)
}

/// Punctuation at the end is the sentence's.
fn without_stops(whole: &str) -> (&str, &str) {
    whole.split_at(whole.trim_end_matches(['.', ':', '!', '?', '*']).len())
}

/// Whether a word that begins at `at` tells an object from others of its class, as in Android's `Window{ca98d5 u0 x}`.
fn names_object(s: &[u8], at: usize) -> bool {
    at >= 2 && s[at - 1] == b'{' && s[at - 2].is_ascii_alphanumeric()
}

fn put_atom(whole: &str, masked: &mut String) {
    let (atom, tail) = without_stops(whole);
    match atom::kind(atom) {
        Some(mask) => masked.push_str(mask),
        None if atom.bytes().any(|b| b.is_ascii_digit()) => put_mixed(atom, masked),
        None => masked.push_str(atom),
    }
    masked.push_str(tail);
}

/// A word with digits in it: `host:port` and `a:b` part by part, a tangle of letters and digits as an id, else digit run
/// by digit run, but for addresses of objects, which are masked as a whole.
fn put_mixed(atom: &str, masked: &mut String) {
    if let Some((head, tail)) = atom.split_once(':') {
        for (i, part) in [head, tail].into_iter().enumerate() {
            if i == 1 {
                masked.push(':');
            }
            if !part.is_empty() {
                put_atom(part, masked);
            }
        }
        return;
    }
    let s = atom.as_bytes();
    let turns = s.windows(2).filter(|w| w[0].is_ascii_digit() && w[1].is_ascii_alphabetic()).count();
    if turns >= 3 && s.iter().all(u8::is_ascii_alphanumeric) {
        masked.push_str("<id>");
        return;
    }
    let may_have_address = memchr::memchr3(b'@', b'x', b'X', s).is_some();
    let (mut in_digits, mut done) = (false, 0);
    for (at, c) in atom.char_indices() {
        if at < done {
            continue;
        }
        if may_have_address && let Some(len) = atom::address(s, at) {
            masked.push_str("<hex>");
            (in_digits, done) = (false, at + len);
            continue;
        }
        let digit = c.is_ascii_digit();
        if !digit {
            masked.push(c);
        } else if !in_digits {
            // As in blk_-388: a sign, which varies like the digits.
            masked.truncate(masked.len() - usize::from(masked.ends_with("_-")));
            masked.push_str("<num>");
        }
        in_digits = digit;
    }
}

#[cfg(test)]
mod tests;
