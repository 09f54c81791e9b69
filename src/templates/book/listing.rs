//! The templates of a book in some order, a page at a time.

use std::{ops::Deref, sync::Arc};

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
    /// The templates, in the order that they had at a first look; equal ones by id.
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

impl Listing {
    /// The page of `book`, which is held twice and briefly: for what every template is sorted by, and for those of the page.
    /// The choice between them is made without it, and what is forgotten meanwhile is left out.
    pub fn page<B: Deref<Target = Book>>(self, book: impl Fn() -> B, now_ms: u64) -> Page {
        let keys = book().keys(self.sort, now_ms);
        let ids = self.choose(keys);
        let book = book();
        Page {
            entries: ids.iter().filter_map(|id| book.entry(*id, now_ms)).collect(),
            total: book.len(),
            seen: book.seen(),
            since_ms: book.since_ms,
            forgotten: book.forgotten,
        }
    }

    /// The templates of the page, in order. Only those are sorted.
    fn choose(self, mut keys: Vec<(f64, TemplateId)>) -> Vec<TemplateId> {
        let compare = |(a, a_id): &(f64, TemplateId), (b, b_id): &(f64, TemplateId)| {
            let order = match self.order {
                Order::Ascending => a.total_cmp(b),
                Order::Descending => b.total_cmp(a),
            };
            order.then(a_id.cmp(b_id))
        };
        let end = self.offset.saturating_add(self.limit);
        if end < keys.len() {
            keys.select_nth_unstable_by(end, compare);
            keys.truncate(end);
        }
        if self.offset >= keys.len() {
            return Vec::new();
        }
        keys.select_nth_unstable_by(self.offset, compare);
        let page = &mut keys[self.offset..];
        page.sort_unstable_by(compare);
        page.iter().map(|(_, id)| *id).collect()
    }
}

impl Book {
    /// What each template is sorted by.
    fn keys(&self, sort: SortBy, now_ms: u64) -> Vec<(f64, TemplateId)> {
        let key = |template: &Template| {
            let record = self.records.get(&template.id)?;
            Some((key(sort, template, record, now_ms), template.id))
        };
        self.miner.templates().filter_map(key).collect()
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
