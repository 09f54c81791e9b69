//! The templates of a book in some order, a page at a time.

use std::{cmp::Ordering, sync::Arc};

use super::{Book, Record, Tally};
use crate::templates::{Template, TemplateId};

/// By what templates are sorted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SortBy {
    /// How many messages they have taken.
    #[default]
    Count,
    /// How often messages come at present.
    Rate,
    /// When the first message came.
    FirstSeen,
    /// When the last message came.
    LastSeen,
    /// The score of the last verdict; templates without one have the least.
    Score,
    /// How many messages were anomalies.
    Anomalies,
}

/// Which end comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// The smallest.
    Ascending,
    /// The largest.
    #[default]
    Descending,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Listing {
    /// By what.
    pub sort: SortBy,
    /// Which end comes first.
    pub order: Order,
    /// Templates before the page.
    pub offset: usize,
    /// Most templates of the page.
    pub limit: usize,
}

/// One template of a page.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its name.
    pub id: TemplateId,
    /// Its words.
    pub template: Arc<str>,
    /// Messages of it.
    pub count: u64,
    /// Messages of it a second at present, with a memory of ten minutes.
    pub rate: f64,
    /// When the first one came, in ms since the Unix epoch.
    pub first_seen_ms: u64,
    /// When the last one came.
    pub last_seen_ms: u64,
    /// What the verdicts on them were.
    pub tally: Tally,
}

/// Part of a book.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The templates, in order; equal ones by id.
    pub entries: Vec<Entry>,
    /// Templates of the whole book.
    pub total: usize,
    /// Messages learned from.
    pub seen: u64,
    /// When the book began, in ms since the Unix epoch.
    pub since_ms: u64,
    /// Templates that were forgotten for others.
    pub forgotten: u64,
}

impl Book {
    /// The page that was asked for. It looks at every template once and sorts those before its end.
    pub fn page(&self, listing: Listing, now_ms: u64) -> Page {
        let Listing { sort, order, offset, limit } = listing;
        let mut keys: Vec<(f64, TemplateId)> = self
            .miner
            .templates()
            .filter_map(|template| Some((key(sort, template, self.records.get(&template.id)?, now_ms), template.id)))
            .collect();
        let compare = |(a, a_id): &(f64, TemplateId), (b, b_id): &(f64, TemplateId)| {
            let order = match order {
                Order::Ascending => a.total_cmp(b),
                Order::Descending => b.total_cmp(a),
            };
            if order == Ordering::Equal { a_id.cmp(b_id) } else { order }
        };
        let end = offset.saturating_add(limit);
        if end < keys.len() {
            keys.select_nth_unstable_by(end, compare);
            keys.truncate(end);
        }
        keys.sort_unstable_by(compare);
        let entries = keys.iter().skip(offset).filter_map(|(_, id)| self.entry(*id, now_ms));
        Page {
            entries: entries.collect(),
            total: self.len(),
            seen: self.seen(),
            since_ms: self.since_ms,
            forgotten: self.forgotten,
        }
    }

    fn entry(&self, id: TemplateId, now_ms: u64) -> Option<Entry> {
        let (template, record) = (self.miner.get(id)?, self.records.get(&id)?);
        Some(Entry {
            id,
            template: template.text.clone(),
            count: template.count,
            rate: record.rate(now_ms),
            first_seen_ms: record.first_ms,
            last_seen_ms: record.last_ms,
            tally: record.tally,
        })
    }
}

fn key(sort: SortBy, template: &Template, record: &Record, now_ms: u64) -> f64 {
    match sort {
        SortBy::Count => template.count as f64,
        SortBy::Rate => record.rate(now_ms),
        SortBy::FirstSeen => record.first_ms as f64,
        SortBy::LastSeen => record.last_ms as f64,
        SortBy::Score => record.tally.score.map_or(-1.0, f64::from),
        SortBy::Anomalies => record.tally.anomalies as f64,
    }
}
