//! Odd records in their order, as grep prints matches, with records around them if asked for.

use std::{
    collections::VecDeque,
    io::{self, Write},
};

use super::{
    colour::{Colours, safe, three_digits},
    rows::{Row, Rows},
};
use crate::{
    records::Record,
    scan::{Judged, Scored},
};

/// What all printers know.
pub struct Shared {
    pub names: Vec<String>,
    pub labels: Vec<String>,
    pub threshold: f32,
    pub colours: Colours,
    /// Text for people, without rows.
    pub text: bool,
}

impl Shared {
    /// The row of a record.
    pub fn row<'a>(&'a self, source: usize, record: &'a Record, message: &'a str, scored: Scored) -> Row<'a> {
        Row {
            source: &self.names[source],
            line: record.number,
            lines: record.lines,
            count: None,
            score: scored.score,
            label: self.labels.get(scored.label).map_or("", String::as_str),
            confidence: scored.confidence,
            is_anomaly: scored.is_odd,
            threshold: self.threshold,
            text: &record.text,
            message,
        }
    }

    /// `0.969 app.log:12:the record`, further lines below; `before` replaces the score.
    pub fn print(&self, out: &mut impl Write, source: usize, record: &Record, scored: Scored) -> io::Result<()> {
        let Colours { odd, dim, off, .. } = self.colours;
        let (on, mark) = if scored.is_odd { (odd, ':') } else { (dim, '-') };
        let mut lines = record.text.split('\n');
        let first = lines.next().unwrap_or_default();
        let (prefix, message) = first.split_at(record.prefix.len);
        for part in [on.as_bytes(), &three_digits(scored.score), off.as_bytes(), b" ", dim.as_bytes()] {
            out.write_all(part)?;
        }
        if self.names.len() > 1 {
            write!(out, "{}{mark}", safe(&self.names[source]))?;
        }
        write!(out, "{}{mark}{}{off}", record.number, safe(prefix))?;
        let (on, off) = if scored.is_odd { ("", "") } else { (dim, off) };
        for part in [on, &safe(message), off, "\n"] {
            out.write_all(part.as_bytes())?;
        }
        for line in lines {
            writeln!(out, "      {on}{}{off}", safe(line))?;
        }
        if record.cut > 0 {
            writeln!(out, "      {dim}[{} bytes of a long line left out]{off}", record.cut)?;
        }
        Ok(())
    }
}

/// A record that may still be wanted as context.
struct Kept {
    source: usize,
    record: Record,
    message: String,
    scored: Scored,
}

/// See the module.
pub struct Lines {
    rows: Rows,
    context: usize,
    before: VecDeque<Kept>,
    /// Records that are still printed behind the last odd one.
    after: usize,
    /// Records that went by unprinted since.
    gap: bool,
    printed: bool,
}

impl Lines {
    pub fn new(rows: Rows, context: usize) -> Self {
        Self { rows, context, before: VecDeque::new(), after: 0, gap: false, printed: false }
    }

    /// Takes the next record; whether something was written.
    pub fn take(&mut self, out: &mut impl Write, shared: &Shared, judged: &Judged, scored: Scored) -> io::Result<bool> {
        let Judged { source, record, text, .. } = judged;
        if !scored.is_odd && self.after == 0 {
            if self.context == 0 {
                return Ok(false);
            }
            if self.before.len() == self.context {
                self.before.pop_front();
                self.gap = true;
            }
            self.before.push_back(Kept {
                source: *source,
                record: (*record).clone(),
                message: (*text).to_owned(),
                scored,
            });
            return Ok(false);
        }
        self.after = if scored.is_odd { self.context } else { self.after - 1 };
        if scored.is_odd {
            if shared.text && self.context > 0 && self.printed && std::mem::take(&mut self.gap) {
                writeln!(out, "--")?;
            }
            for kept in std::mem::take(&mut self.before) {
                self.print(out, shared, (kept.source, &kept.record, &kept.message), kept.scored)?;
            }
            self.gap = false;
        }
        self.print(out, shared, (*source, record, text), scored)?;
        Ok(true)
    }

    fn print(
        &mut self,
        out: &mut impl Write,
        shared: &Shared,
        (source, record, message): (usize, &Record, &str),
        scored: Scored,
    ) -> io::Result<()> {
        self.printed = true;
        match shared.text {
            true => shared.print(out, source, record, scored),
            false => self.rows.write(out, &shared.row(source, record, message, scored)),
        }
    }
}
