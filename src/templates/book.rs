//! What is known of each template beside its words: how often it came and when, what the verdicts on it were, and whether
//! they may be given to others of it.
//!
//! Times are milliseconds since the Unix epoch and come from outside. A clock that is set back makes no time negative. It
//! does not know how scores come about or where snapshots are kept.

mod listing;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

pub use self::listing::{Entry, Listing, Order, Page, SortBy};
use super::{
    miner::{Miner, Snapshot},
    template::{Settings, TemplateId},
    trust::Trust,
};

/// Time in seconds after which a rate that is not fed has fallen to a third (1/e).
const RATE_S: f64 = 600.0;

/// A message's template, and how new it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Sighting {
    /// Its name.
    pub id: TemplateId,
    /// Its words, after this message.
    pub template: Arc<str>,
    /// Whether no message before it was of this kind, as far as is remembered.
    pub first_seen: bool,
    /// Messages of the template, this one counted.
    pub count: u64,
    /// See [`novelty`].
    pub novelty: f64,
}

/// How surprising the next message is, 0 to 1, if `known` of the `seen` messages before it were of its template:
/// `1 - ln(1 + known) / ln(1 + seen)`.
///
/// 1 exactly for a template that was never seen, 0 if there was no other. It is the share of the logarithm of the whole
/// that a template lacks: one that came 1,000 times in a million messages has 0.5, and one that came ten times 0.83. It falls
/// with `known` and rises with `seen`, and no number of messages makes it jump.
pub fn novelty(known: u64, seen: u64) -> f64 {
    match (known, seen) {
        (0, _) => 1.0,
        (known, seen) if known >= seen => 0.0,
        (known, seen) => 1.0 - (known as f64).ln_1p() / (seen as f64).ln_1p(),
    }
}

/// What the verdicts on a template's messages were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Messages that were anomalies.
    pub anomalies: u64,
    /// Messages that were not.
    pub normals: u64,
    /// The score of the anomaly label that the last of them had.
    pub score: Option<f32>,
}

/// What is known of one template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    first_ms: u64,
    last_ms: u64,
    /// Messages a second at `last_ms`.
    rate: f64,
    tally: Tally,
    /// `None` if no member was scored for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trust: Option<Trust>,
}

impl Record {
    fn new(now_ms: u64) -> Self {
        Self { first_ms: now_ms, last_ms: now_ms, rate: 0.0, tally: Tally::default(), trust: None }
    }

    /// Messages a second, with a memory of [`RATE_S`].
    fn rate(&self, now_ms: u64) -> f64 {
        let elapsed_s = now_ms.saturating_sub(self.last_ms) as f64 / 1e3;
        self.rate * (-elapsed_s / RATE_S).exp()
    }

    fn came(&mut self, now_ms: u64) {
        self.rate = self.rate(now_ms) + 1.0 / RATE_S;
        self.last_ms = self.last_ms.max(now_ms);
    }
}

/// All that a book knows, to be kept and restored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BookSnapshot {
    miner: Snapshot,
    records: Vec<(TemplateId, Record)>,
    since_ms: u64,
    forgotten: u64,
    /// See [`Book::judged_by`].
    #[serde(default)]
    judge: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub struct Book {
    miner: Miner,
    /// One for each template of the miner.
    records: HashMap<TemplateId, Record>,
    since_ms: u64,
    forgotten: u64,
    judge: Option<String>,
    changes: u64,
}

/// A book that several parts of the program write in. Clones are the same one.
#[derive(Debug, Clone)]
pub struct SharedBook(Arc<Mutex<Book>>);

impl SharedBook {
    /// Shares a book.
    pub fn new(book: Book) -> Self {
        Self(Arc::new(Mutex::new(book)))
    }

    /// The book, until the guard is dropped.
    pub fn lock(&self) -> MutexGuard<'_, Book> {
        // Its worst state after a panic is a count that was not made.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// A book that begins now.
    pub fn new(settings: Settings, now_ms: u64) -> Self {
        let miner = Miner::new(settings);
        Self { miner, records: HashMap::new(), since_ms: now_ms, forgotten: 0, judge: None, changes: 0 }
    }

    /// Learns from a message, as [`super::mask_start`] masked it.
    pub fn observe(&mut self, masked: &str, now_ms: u64) -> Sighting {
        self.changes += 1;
        let seen = self.miner.seen();
        let matched = self.miner.add_masked(masked);
        for id in &matched.forgotten {
            self.records.remove(id);
        }
        self.forgotten += matched.forgotten.len() as u64;
        self.records.entry(matched.id).or_insert_with(|| Record::new(now_ms)).came(now_ms);
        let template = self.miner.get(matched.id).expect("it has just taken the message").text.clone();
        Sighting {
            id: matched.id,
            template,
            first_seen: matched.is_new,
            count: matched.count,
            novelty: novelty(matched.count - 1, seen),
        }
    }

    /// Notes the verdict on a message of the template, unless that was forgotten meanwhile.
    pub fn note_verdict(&mut self, id: TemplateId, is_anomaly: bool, score: f32) {
        if let Some(Record { tally, .. }) = self.records.get_mut(&id) {
            self.changes += 1;
            *if is_anomaly { &mut tally.anomalies } else { &mut tally.normals } += 1;
            tally.score = Some(score).filter(|score| score.is_finite());
        }
    }

    /// From now on trust rests on the verdicts of `judge`: a name for the model and for what it is asked about `labels` labels.
    /// What was learned of another one's is forgotten, and what is broken, too. Templates whose trust remains.
    pub fn judged_by(&mut self, judge: &str, labels: usize) -> usize {
        let same = self.judge.as_deref() == Some(judge);
        let mut kept = 0;
        for record in self.records.values_mut() {
            record.trust.take_if(|trust| !same || !trust.is_whole(labels));
            kept += usize::from(record.trust.is_some());
        }
        if !same {
            self.judge = Some(judge.to_owned());
            self.changes += 1;
        }
        kept
    }

    /// What is known of the verdicts on a template's messages; `None` if nothing is, or if it was forgotten.
    pub fn trust(&self, id: TemplateId) -> Option<&Trust> {
        self.records.get(&id)?.trust.as_ref()
    }

    /// All that is known of verdicts, in no order.
    pub fn trusts(&self) -> impl Iterator<Item = &Trust> {
        self.records.values().filter_map(|record| record.trust.as_ref())
    }

    /// Takes in the scores of a message of the template, one a label, unless that was forgotten meanwhile. `score` is the
    /// anomaly label's.
    pub fn learn(&mut self, id: TemplateId, scores: &[f32], score: f32, now_ms: u64) {
        if let Some(record) = self.records.get_mut(&id) {
            self.changes += 1;
            record.trust.get_or_insert_default().learn(scores, score, now_ms / 1000);
        }
    }

    /// Messages learned from.
    pub fn seen(&self) -> u64 {
        self.miner.seen()
    }

    /// Templates that are known.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether no template is known.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes that they take, about.
    pub fn bytes(&self) -> usize {
        self.miner.bytes()
    }

    /// Templates that were forgotten for others.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Rises with everything that a snapshot would have.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// All that is known. It is quick, because texts are shared: whoever keeps it does so without the book.
    pub fn snapshot(&self) -> BookSnapshot {
        BookSnapshot {
            miner: self.miner.snapshot(),
            records: self.records.iter().map(|(id, record)| (*id, record.clone())).collect(),
            since_ms: self.since_ms,
            forgotten: self.forgotten,
            judge: self.judge.clone(),
        }
    }

    /// A book that goes on where `snapshot` was taken; of too many templates those with most members are kept.
    ///
    /// # Errors
    /// As [`Miner::restore`], or if a record is missing or broken.
    pub fn restore(settings: Settings, snapshot: BookSnapshot) -> Result<Self, String> {
        let BookSnapshot { miner, records, since_ms, forgotten, judge } = snapshot;
        let miner = Miner::restore(settings, miner)?;
        let mut records: HashMap<TemplateId, Record> = records.into_iter().collect();
        records.retain(|id, _| miner.get(*id).is_some());
        if let Some(template) = miner.templates().find(|template| !records.contains_key(&template.id)) {
            return Err(format!("template {} has no record", template.id));
        }
        if let Some((id, _)) =
            records.iter().find(|(_, r)| !r.rate.is_finite() || r.rate < 0.0 || r.first_ms > r.last_ms)
        {
            return Err(format!("the record of template {id} is broken"));
        }
        Ok(Self { miner, records, since_ms, forgotten, judge, changes: 0 })
    }
}

#[cfg(test)]
mod tests;
