//! What a logger puts before the message: times, hosts, process ids, threads, a level, a source.
//!
//! A hand-written reader, because it sees every line: a time first, then fields for as long as they are sure to be no
//! message. A word or a number is only taken if a level or another sure field follows it.

mod opening;

use std::ops::Range;

use super::time::{digits, timestamp};

/// The beginning of a line that is no message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prefix {
    /// Its bytes; 0 if there is none. The message is all behind it.
    pub len: usize,
    /// Where the level stands in it.
    pub level: Option<Range<usize>>,
    /// Where the program or logger stands in it.
    pub source: Option<Range<usize>>,
}

/// Most fields that are looked at behind a time.
const MOST_FIELDS: usize = 10;

/// Longest bracket that counts as a thread, an id or the like, in bytes.
const LONGEST_BRACKET: usize = 120;

/// The prefix of `line`, which is everything before its message.
pub fn recognise(line: &str) -> Prefix {
    let mut reader = Reader { s: line.as_bytes(), at: 0, found: Prefix::default(), since_start: false };
    if !reader.glog() && !reader.access_log() && reader.opening() {
        reader.fields();
    }
    if reader.found.len > 0 {
        reader.at = reader.found.len;
        reader.separators();
        reader.commit();
    }
    let found = reader.found;
    // A line that is nothing but a prefix is a message.
    if found.len >= line.trim_end().len() { Prefix::default() } else { found }
}

struct Reader<'a> {
    s: &'a [u8],
    at: usize,
    found: Prefix,
    /// Whether the last time was a kernel's, who names no host.
    since_start: bool,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.s[self.at..]
    }

    fn commit(&mut self) {
        self.found.len = self.at;
    }

    fn blanks(&mut self) -> usize {
        let n = self.rest().iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        self.at += n;
        n
    }

    /// Blanks, and what stands between fields: `|`, `,`, ` - `, ` : `, `---`.
    fn separators(&mut self) {
        self.blanks();
        loop {
            let len = match self.rest() {
                [b'|' | b',', ..] => 1,
                [b'-', b'-', b'-', b' ', ..] => 3,
                [b'-', b'-', b' ', ..] => 2,
                [b'-' | b':', b' ', ..] => 1,
                _ => return,
            };
            self.at += len;
            self.blanks();
        }
    }

    /// Up to the next blank.
    fn token(&self) -> &'a [u8] {
        let rest = self.rest();
        &rest[..rest.iter().position(|b| matches!(b, b' ' | b'\t')).unwrap_or(rest.len())]
    }

    /// A time, perhaps in brackets, also the seconds since start of a kernel's log.
    fn time(&mut self) -> bool {
        let rest = self.rest();
        let (open, inner) = match rest {
            [b'[', inner @ ..] => (1, inner),
            _ => (0, rest),
        };
        let blanks = if open == 1 { inner.iter().take_while(|b| **b == b' ').count() } else { 0 };
        let since_start = || {
            let inner = &inner[blanks..];
            let n = digits(inner);
            let fraction = digits(inner.get(n + 1..)?);
            (open == 1 && n > 0 && inner[n] == b'.' && fraction >= 3).then_some(n + 1 + fraction)
        };
        let Some(len) = timestamp(&inner[blanks..]).or_else(since_start) else { return false };
        let end = open + blanks + len;
        let closes = if open == 1 { rest.get(end) == Some(&b']') } else { true };
        // `[2024-05-02 06:00:00 INFO]`: the bracket holds more than the time.
        let goes_on = open == 1 && matches!(rest.get(end), Some(b' ' | b','));
        let ends = rest.get(end).is_none_or(|b| matches!(b, b' ' | b'\t' | b'|' | b',' | b':' | b']'));
        if !(closes || goes_on) || !ends {
            return false;
        }
        self.at += end + usize::from(open == 1 && closes);
        self.since_start = since_start().is_some();
        if self.rest().first() == Some(&b':') {
            self.at += 1;
        }
        self.commit();
        true
    }

    fn fields(&mut self) {
        let mut words = 0;
        let mut after_time = true;
        for _ in 0..MOST_FIELDS {
            self.separators();
            if self.rest().is_empty() {
                return;
            }
            if self.found.level.is_none() && self.time() {
                after_time = true;
                continue;
            }
            if std::mem::take(&mut after_time) && !self.since_start && self.host_and_program() {
                return;
            }
            if !self.level(words) && !self.bracket() && !self.source() && !self.number() && !self.word(&mut words) {
                return;
            }
        }
    }

    /// `HOST PROGRAM[PID]:` or `PROGRAM[PID]:`; `PID TID L TAG:` of Android.
    fn host_and_program(&mut self) -> bool {
        let start = self.at;
        if self.android() {
            return true;
        }
        for host in [false, true] {
            if host {
                let len = self.token().len();
                let wordlike = self.token().iter().all(|b| b.is_ascii_alphanumeric() || b"-._/@".contains(b));
                if !wordlike || is_level(self.token()) {
                    break;
                }
                self.at += len;
                self.blanks();
            }
            let token = self.token();
            let name = token.iter().take_while(|b| b.is_ascii_alphanumeric() || b"-._/()@".contains(b)).count();
            let pid = match &token[name..] {
                [b'[', inner @ ..] if digits(inner) > 0 => inner.strip_suffix(b"]:").map(|i| digits(i) == i.len()),
                [b':'] if host && !is_level(&token[..name]) => Some(true),
                _ => None,
            };
            if name > 0 && pid == Some(true) {
                self.found.source = Some(self.at..self.at + name);
                self.at += token.len();
                self.commit();
                self.blanks();
                if self.rest().first() == Some(&b'[') {
                    self.time();
                }
                return true;
            }
        }
        self.at = start;
        false
    }

    fn android(&mut self) -> bool {
        let mut at = self.at;
        for _ in 0..2 {
            let n = digits(&self.s[at..]);
            let blanks = self.s[at + n..].iter().take_while(|b| **b == b' ').count();
            if n == 0 || blanks == 0 {
                return false;
            }
            at += n + blanks;
        }
        let [b'V' | b'D' | b'I' | b'W' | b'E' | b'F', b' ', rest @ ..] = &self.s[at..] else { return false };
        let Some(end) = rest.windows(2).take(80).position(|w| w == b": ") else { return false };
        self.found.level = Some(at..at + 1);
        self.found.source = Some(at + 2..at + 2 + rest[..end].trim_ascii_end().len());
        self.at = at + 2 + end + 1;
        self.commit();
        true
    }

    /// A level, bare or in brackets. Behind a word it must be in capitals or brackets: that word may be a message's.
    fn level(&mut self, words: usize) -> bool {
        if self.found.level.is_some() {
            return false;
        }
        let rest = self.rest();
        let close = match rest.first() {
            Some(b'[') => Some(b']'),
            Some(b'<') => Some(b'>'),
            Some(b'(') => Some(b')'),
            _ => None,
        };
        let open = usize::from(close.is_some());
        let blanks = rest[open..].iter().take_while(|b| open == 1 && **b == b' ').count();
        let start = open + blanks;
        let len = rest[start..].iter().take_while(|b| b.is_ascii_alphabetic()).count();
        let sigil = words == 0 && matches!(rest, [b'#' | b'*', b' ', ..]);
        if sigil {
            self.found.level = (rest[0] == b'#').then_some(self.at..self.at + 1);
            self.at += 1;
            self.commit();
            return true;
        }
        let word = &rest[start..start + len];
        let mut end = start + len;
        if !is_level(word) || (words > 0 && open == 0 && !word.iter().all(u8::is_ascii_uppercase)) {
            return false;
        }
        match close {
            Some(close) => {
                end += rest[end..].iter().take_while(|b| **b == b' ').count();
                if rest.get(end) != Some(&close) {
                    return false;
                }
                end += 1;
            }
            // `[2024-05-02 06:00:00 INFO]` closes here, too.
            None if matches!(rest.get(end), Some(b']' | b':')) => end += 1,
            None if rest.get(end).is_none_or(|b| !matches!(b, b' ' | b'\t' | b'|' | b',')) => return false,
            None => {}
        }
        if rest.get(end) == Some(&b':') {
            end += 1;
        }
        self.found.level = Some(self.at + start..self.at + start + len);
        self.at += end;
        self.commit();
        true
    }

    /// A thread, a process or an id in brackets.
    fn bracket(&mut self) -> bool {
        let Some(len) = bracket(self.rest(), LONGEST_BRACKET) else { return false };
        if self.rest().get(len).is_none_or(|b| !matches!(b, b' ' | b'\t' | b':' | b'|' | b'[')) {
            return false;
        }
        self.at += len + usize::from(self.rest().get(len) == Some(&b':'));
        self.commit();
        true
    }

    /// A logger: a name with a colon, or before ` - `, ` : `, `|`, or a dotted one before a bracket.
    fn source(&mut self) -> bool {
        if self.found.source.is_some() {
            return false;
        }
        let rest = self.rest();
        let len = name(rest);
        let dotted = rest[..len].contains(&b'.');
        let behind = &rest[len..];
        let blanks = behind.iter().take_while(|b| **b == b' ').count();
        let end = match behind {
            [b':', b' ', ..] if self.found.level.is_some() => len + 1,
            [b'|', ..] => len,
            [b' ', ..] if matches!(&behind[blanks..], [b'-' | b':', b' ', ..] | [b'|', ..]) => len + blanks,
            [b' ', b'[', ..] if dotted => len,
            _ => return false,
        };
        if len == 0 || is_level(&rest[..len]) {
            return false;
        }
        self.found.source = Some(self.at..self.at + len);
        self.at += end;
        self.commit();
        true
    }

    /// A process or thread number, `2917#2917:`, `*884120`, `#77]`; sure only if a level or a separator follows.
    fn number(&mut self) -> bool {
        let rest = self.rest();
        let star = usize::from(matches!(rest.first(), Some(b'*' | b'#')));
        let mut len = star + digits(&rest[star..]);
        if len == star {
            return false;
        }
        let pair = rest.get(len) == Some(&b'#');
        if pair {
            len += 1 + digits(&rest[len + 1..]);
        }
        // Ruby closes the bracket of its time behind the process.
        len += usize::from(star == 1 && rest.get(len) == Some(&b']'));
        let sure = star == 1 || pair || rest[len..].starts_with(b"|") || rest[len..].starts_with(b" --- ");
        let colon = usize::from(pair && rest.get(len) == Some(&b':'));
        if !matches!(rest.get(len + colon), Some(b' ' | b'\t' | b'|')) || (!sure && self.found.level.is_some()) {
            return false;
        }
        self.at += len + colon;
        if sure {
            self.commit();
        }
        true
    }

    /// A word before the level: host, service, logger. At most two, and none behind the level.
    fn word(&mut self, words: &mut usize) -> bool {
        let len = name(self.rest());
        let ends = matches!(self.rest().get(len), Some(b' ' | b'\t' | b'|'));
        if len == 0 || !ends || *words == 2 || self.found.level.is_some() {
            return false;
        }
        *words += 1;
        self.at += len;
        true
    }
}

/// Length of a name of a host, a class, a module: letters, digits, and what joins them.
fn name(s: &[u8]) -> usize {
    match s.first() {
        Some(b) if b.is_ascii_alphabetic() || *b == b'_' => {
            s.iter().take_while(|b| b.is_ascii_alphanumeric() || b"_.-$/@".contains(b)).count()
        }
        _ => 0,
    }
}

/// Length of the bracket that `s` begins with, brackets inside counted.
fn bracket(s: &[u8], longest: usize) -> Option<usize> {
    if s.first() != Some(&b'[') {
        return None;
    }
    let mut depth = 0;
    for (i, b) in s.iter().enumerate().take(longest) {
        match b {
            b'[' => depth += 1,
            b']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(i + 1);
        }
    }
    None
}

/// Whether a logger would write this word as a level.
fn is_level(word: &[u8]) -> bool {
    const LEVELS: [&[u8]; 22] = [
        b"trace",
        b"debug",
        b"verbose",
        b"fine",
        b"finer",
        b"finest",
        b"info",
        b"information",
        b"notice",
        b"warn",
        b"warning",
        b"err",
        b"eror",
        b"error",
        b"severe",
        b"crit",
        b"critical",
        b"alert",
        b"fatal",
        b"emerg",
        b"panic",
        b"emergency",
    ];
    (3..=11).contains(&word.len()) && LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests;
