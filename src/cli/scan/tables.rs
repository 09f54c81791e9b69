//! What is printed at the end: the oddest messages, and the kinds of messages.

use std::{
    collections::{BTreeSet, HashMap},
    io::{self, Write},
};

use serde::Serialize;

use super::{
    colour::{Colours, grouped, safe, short},
    lines::Shared,
    rows::{Row, Rows},
};
use crate::{
    records::Record,
    scan::{Judged, Scored},
    templates::{self, Miner, TemplateId},
};

/// Longest example of a template, in characters.
const EXAMPLE_CHARS: usize = 400;

/// The N oddest messages, each once.
///
/// Their counts are exact: a message that is not among them now was never odd enough, and none gets less odd.
pub struct Top {
    rows: Rows,
    most: usize,
    found: HashMap<Box<str>, Found>,
    /// Score's bits, which sort as scores from 0 to 1 do, and order of arrival from the latest.
    order: BTreeSet<(u32, std::cmp::Reverse<u64>, Box<str>)>,
    arrivals: u64,
}

struct Found {
    source: usize,
    record: Record,
    scored: Scored,
    count: u64,
}

impl Top {
    pub fn new(rows: Rows, most: usize) -> Self {
        Self { rows, most, found: HashMap::new(), order: BTreeSet::new(), arrivals: 0 }
    }

    pub fn take(&mut self, judged: &Judged, scored: Scored) {
        if let Some(found) = self.found.get_mut(judged.text) {
            found.count += 1;
            return;
        }
        let bits = scored.score.max(0.0).to_bits();
        if self.found.len() == self.most {
            match self.order.first() {
                Some((least, ..)) if *least >= bits => return,
                _ => {}
            }
            if let Some((_, _, text)) = self.order.pop_first() {
                self.found.remove(&text);
            }
        }
        self.arrivals += 1;
        self.order.insert((bits, std::cmp::Reverse(self.arrivals), judged.text.into()));
        let found = Found { source: judged.source, record: judged.record.clone(), scored, count: 1 };
        self.found.insert(judged.text.into(), found);
    }

    pub fn print(&mut self, out: &mut impl Write, shared: &Shared) -> io::Result<()> {
        for (_, _, text) in self.order.iter().rev() {
            let Found { source, record, scored, count } = &self.found[text];
            if shared.text {
                let Colours { bold, off, .. } = shared.colours;
                write!(out, "{bold}{:>8}x{off} ", grouped(*count))?;
                shared.print(out, *source, record, *scored)?;
            } else {
                let row = Row { count: Some(*count), ..shared.row(*source, record, text, *scored) };
                self.rows.write(out, &row)?;
            }
        }
        Ok(())
    }
}

/// Every kind of message: how often, how odd, and an example.
pub struct ByTemplate {
    rows: Rows,
    most: Option<usize>,
    miner: Miner,
    kinds: HashMap<TemplateId, Kind>,
    forgotten: u64,
}

struct Kind {
    count: u64,
    odd: u64,
    /// The highest score of its members, and where that one stands.
    highest: f32,
    source: usize,
    line: u64,
    example: String,
}

#[derive(Serialize)]
struct KindRow<'a> {
    template_id: String,
    count: u64,
    odd: u64,
    verdict: &'a str,
    score: f32,
    template: &'a str,
    source: &'a str,
    line: u64,
    example: &'a str,
}

impl ByTemplate {
    pub fn new(rows: Rows, most: Option<usize>) -> Self {
        let miner = Miner::new(templates::Settings::default());
        Self { rows, most, miner, kinds: HashMap::new(), forgotten: 0 }
    }

    pub fn take(&mut self, judged: &Judged, scored: Scored) {
        let matched = self.miner.add(judged.text);
        for kind in matched.forgotten.iter().filter_map(|id| self.kinds.remove(id)) {
            self.forgotten += kind.count;
        }
        let kind = self.kinds.entry(matched.id).or_insert_with(|| Kind {
            count: 0,
            odd: 0,
            highest: -1.0,
            source: 0,
            line: 0,
            example: String::new(),
        });
        kind.count += 1;
        kind.odd += u64::from(scored.is_odd);
        if scored.score > kind.highest {
            (kind.highest, kind.source, kind.line) = (scored.score, judged.source, judged.record.number);
            kind.example = short(judged.record.text.lines().next().unwrap_or_default(), EXAMPLE_CHARS).into_owned();
        }
    }

    pub fn print(&mut self, out: &mut impl Write, shared: &Shared) -> io::Result<()> {
        let mut kinds: Vec<(&TemplateId, &Kind)> = self.kinds.iter().collect();
        kinds.sort_by(|(a_id, a), (b_id, b)| {
            b.highest.total_cmp(&a.highest).then(b.count.cmp(&a.count)).then(a_id.cmp(b_id))
        });
        let Colours { odd, dim, bold, off } = shared.colours;
        if shared.text {
            writeln!(out, "{bold}{:>9}  {:<15}  score  template{off}", "count", "verdict")?;
        }
        for (id, kind) in kinds.iter().take(self.most.unwrap_or(usize::MAX)) {
            let template = self.miner.get(**id).map(|template| &*template.text).unwrap_or_default();
            let verdict = match kind.odd {
                0 => "normal",
                n if n == kind.count => "odd",
                _ => "mixed",
            };
            if !shared.text {
                let row = KindRow {
                    template_id: id.to_string(),
                    count: kind.count,
                    odd: kind.odd,
                    verdict,
                    score: kind.highest,
                    template,
                    source: &shared.names[kind.source],
                    line: kind.line,
                    example: &kind.example,
                };
                self.rows.write(out, &row)?;
                continue;
            }
            let verdict = if verdict == "mixed" { format!("{} odd", grouped(kind.odd)) } else { verdict.to_owned() };
            let on = if kind.odd > 0 { odd } else { "" };
            writeln!(
                out,
                "{:>9}  {on}{verdict:<15}  {:.3}{off}  {}",
                grouped(kind.count),
                kind.highest,
                short(&safe(template), EXAMPLE_CHARS)
            )?;
            let name = if shared.names.len() > 1 { format!("{}:", shared.names[kind.source]) } else { String::new() };
            writeln!(out, "{dim}{:>35}{}{}: {}{off}", "", safe(&name), kind.line, safe(&kind.example))?;
        }
        if self.forgotten > 0 {
            eprintln!("oddlog: too many kinds; {} records of rare ones are left out", grouped(self.forgotten));
        }
        Ok(())
    }
}
