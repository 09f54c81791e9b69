//! Lines to records: a stack trace, and whatever is indented, stays with the line that it belongs to.

use super::{
    lines::Lines,
    prefix::{Prefix, recognise},
    trace::{self, State},
};

/// How large a record may become. Lines beyond begin a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest line in bytes; the rest of it is left out.
    pub line_bytes: usize,
    /// Most lines of a record.
    pub lines: u32,
    /// Most bytes of a record, though a single line may always be as long as a line may be.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { line_bytes: 64 << 10, lines: 1000, bytes: 128 << 10 }
    }
}

/// One record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Its lines, LF between them.
    pub text: String,
    /// The prefix of its first line.
    pub prefix: Prefix,
    /// The number of its first line, from 1.
    pub number: u64,
    /// How many lines it has.
    pub lines: u32,
    /// Bytes that were left out because a line was too long.
    pub cut: u64,
}

impl Record {
    fn clear(&mut self) {
        self.text.clear();
        (self.prefix, self.lines, self.cut) = (Prefix::default(), 0, 0);
    }

    fn begin(&mut self, text: &str, prefix: Prefix, number: u64, cut: u64) {
        self.text.push_str(text);
        (self.prefix, self.number, self.lines, self.cut) = (prefix, number, 1, cut);
    }

    fn add(&mut self, text: &str, cut: u64) {
        self.text.push('\n');
        self.text.push_str(text);
        self.lines += 1;
        self.cut += cut;
    }
}

/// Puts the lines of one input together. It holds one record back, because the next line may belong to it.
#[derive(Debug)]
pub struct Grouper {
    limits: Limits,
    /// Each line a record of its own, prefixes not looked for.
    raw: bool,
    lines: Lines,
    number: u64,
    /// The record that lines are added to; none if it has no line.
    open: Record,
    state: State,
    /// Blank lines behind it that may turn out to be inside it.
    blanks: u32,
    /// The record that was given out last; its memory is used again.
    given: Record,
}

impl Grouper {
    /// Records within `limits`; with `raw` each line is one, and no prefix is looked for.
    pub fn new(limits: Limits, raw: bool) -> Self {
        let (open, given) = (Record::default(), Record::default());
        Self {
            limits,
            raw,
            lines: Lines::new(limits.line_bytes),
            number: 0,
            open,
            state: State::Plain,
            blanks: 0,
            given,
        }
    }

    /// The next bytes. Take every record before you push again.
    pub fn push(&mut self, chunk: Vec<u8>) {
        self.lines.push(chunk);
    }

    /// The next record that is known to be whole.
    pub fn next_record(&mut self) -> Option<&Record> {
        loop {
            let line = self.lines.next_line()?;
            self.number += 1;
            let (text, cut) = (line.text(), line.cut);
            let at = self.number;
            if take(self.raw, self.limits, (&mut self.open, &mut self.state, &mut self.blanks), &text, cut) {
                continue;
            }
            let whole = self.open.lines > 0;
            if whole {
                std::mem::swap(&mut self.open, &mut self.given);
            }
            self.open.clear();
            self.blanks = 0;
            if !text.trim().is_empty() {
                let prefix = if self.raw { Prefix::default() } else { recognise(&text) };
                self.state = if self.raw { State::Plain } else { trace::begin(&text[prefix.len..]) };
                self.open.begin(&text, prefix, at, cut);
            }
            if whole {
                return Some(&self.given);
            }
        }
    }

    /// The record that is held back, if the input has paused between lines: what comes later is not added to it.
    pub fn flush(&mut self) -> Option<&Record> {
        if self.open.lines == 0 || self.lines.is_in_a_line() {
            return None;
        }
        std::mem::swap(&mut self.open, &mut self.given);
        self.open.clear();
        Some(&self.given)
    }

    /// At the end of the input: the records that are left, at most two; call it until there is none.
    pub fn finish(&mut self) -> Option<&Record> {
        if let Some(line) = self.lines.last_line() {
            let mut bytes = line.bytes.to_vec();
            let cut = line.cut;
            bytes.push(b'\n');
            // The end that it lacks makes it a line like any other; what was cut of it is told all the same.
            self.lines = Lines::new(self.limits.line_bytes);
            self.lines.push(bytes);
            let is_new = self.next_record().is_some();
            self.open.cut += cut;
            if is_new {
                return Some(&self.given);
            }
        }
        self.flush()
    }
}

/// Adds the line to the open record if it belongs to it; whether it did.
fn take(raw: bool, limits: Limits, open: (&mut Record, &mut State, &mut u32), text: &str, cut: u64) -> bool {
    let (record, state, blanks) = open;
    let blank = text.trim().is_empty();
    if record.lines == 0 {
        // Blank lines between records are nothing.
        return blank;
    }
    if raw {
        return false;
    }
    if blank && *blanks < 2 {
        *blanks += 1;
        return true;
    }
    let room = record.lines + *blanks < limits.lines && record.text.len() + text.len() < limits.bytes;
    let after_blank = *blanks > 0;
    let next = match after_blank {
        true if *state == State::Go || trace::resumes(text) => trace::goes_on(*state, text, record.prefix.len > 0),
        true => None,
        false => trace::goes_on(*state, text, record.prefix.len > 0),
    };
    let Some(next) = next.filter(|_| room && !blank) else { return false };
    // An indented line with a time of its own is no continuation.
    if recognise(text).len > 0 {
        return false;
    }
    for _ in 0..std::mem::take(blanks) {
        record.add("", 0);
    }
    record.add(text, cut);
    *state = next;
    true
}

#[cfg(test)]
mod tests;
