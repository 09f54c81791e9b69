//! What waits, what leaves together, and within which limits: plain data.

use std::time::{Duration, Instant};

use super::Cost;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// A single request: answered at once, or refused at once.
    Interactive,
    /// Part of a call with many logs: waits for its turn.
    Bulk,
}

/// A waiting item with what the policy needs to know of it.
#[derive(Debug)]
pub struct Entry<T> {
    /// The item itself.
    pub item: T,
    /// Which of the two queues it waits in.
    pub class: Class,
    /// Rows it takes in a batch, at least 1.
    pub rows: usize,
    /// Tokens that it takes alone, padded ones where rows are padded: what it costs.
    pub tokens: usize,
    /// Length of its rows in tokens: the padded one, or the mean over their tokens where rows are not padded.
    pub len: usize,
    /// When it came.
    pub enqueued_at: Instant,
    /// When it is of no use any more.
    pub deadline: Instant,
}

impl<T> Entry<T> {
    /// Whether nobody waits for it any more.
    pub fn is_expired(&self, now: Instant) -> bool {
        self.deadline <= now
    }

    /// The same with another item, if `change` finds one.
    pub fn try_map<U>(self, change: impl FnOnce(T) -> Option<U>) -> Option<Entry<U>> {
        let Self { item, class, rows, tokens, len, enqueued_at, deadline } = self;
        Some(Entry { item: change(item)?, class, rows, tokens, len, enqueued_at, deadline })
    }
}

/// What items take together: the one rule of what a run costs.
///
/// Rows that are padded are as long as the longest of them. Rows that are packed stand one behind the other: each costs
/// its own tokens, and what counts as length is the mean over all tokens of the row that each is in, because attention
/// grows with the squares of the lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    packed: bool,
    rows: usize,
    /// Sum of what the items take alone.
    own: usize,
    /// Tokens x length of each, summed.
    pairs: usize,
    longest: usize,
}

impl Size {
    /// Of nothing; `packed` says whether rows will stand one behind the other.
    pub fn empty(packed: bool) -> Self {
        Self { packed, rows: 0, own: 0, pairs: 0, longest: 0 }
    }

    /// Of these items.
    pub fn of<T>(packed: bool, entries: &[Entry<T>]) -> Self {
        entries.iter().fold(Self::empty(packed), |size, entry| size.with(entry))
    }

    /// With one more item.
    pub fn with<T>(self, entry: &Entry<T>) -> Self {
        Self {
            packed: self.packed,
            rows: self.rows + entry.rows,
            own: self.own + entry.tokens,
            pairs: self.pairs + entry.tokens * entry.len,
            longest: self.longest.max(entry.len),
        }
    }

    /// Sum of the items' rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Tokens of the run, padded ones where rows are padded.
    pub fn tokens(&self) -> usize {
        if self.packed { self.own } else { self.rows * self.longest }
    }

    /// Length of the rows; where they are packed the mean over all tokens, rounded up.
    pub fn row_len(&self) -> usize {
        if self.packed { self.pairs.div_ceil(self.own.max(1)) } else { self.longest }
    }

    /// Tokens that the items cost in each other's company and not alone.
    pub fn padding(&self) -> usize {
        self.tokens().saturating_sub(self.own)
    }
}

/// What one batch may hold, and how the two classes share the devices.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most tokens of a batch; a single item may exceed it.
    pub max_tokens: usize,
    /// The same for a batch of bulk items, if less: single requests that come meanwhile wait for it.
    pub max_bulk_tokens: usize,
    /// Most rows; a single item may exceed it.
    pub max_rows: usize,
    /// Largest share of padding, 0 to 1, up to which items of other lengths join.
    pub max_padding: f32,
    /// Most padding tokens for which they join: more costs longer than it saves.
    pub max_padding_tokens: usize,
    /// Share of the tokens that bulk items get while both classes wait, more than 0 and less than 1.
    pub bulk_share: f64,
    /// How long the oldest item waits for company.
    pub max_delay: Duration,
    /// How long a run should take; a single item may take longer.
    pub aim: Option<Aim>,
}

/// A device's cost, and the time that its runs should take.
#[derive(Debug, Clone, Copy)]
pub struct Aim {
    /// What runs cost there.
    pub cost: Cost,
    /// Seconds that a run should take at most.
    pub seconds: f64,
}

impl Limits {
    /// Most tokens of a batch of `class` whose rows have `len` tokens.
    pub fn tokens_of(&self, class: Class, len: usize) -> usize {
        match class {
            Class::Interactive => self.tokens(len),
            Class::Bulk => self.tokens(len).min(self.max_bulk_tokens),
        }
    }

    /// Most tokens of any batch whose rows have `len` tokens.
    pub fn tokens(&self, len: usize) -> usize {
        let in_time = self.aim.map_or(usize::MAX, |aim| aim.cost.tokens_within(aim.seconds, len));
        self.max_tokens.min(in_time)
    }
}

/// Why a batch did not grow further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// Nothing else was waiting.
    Empty,
    /// The token budget was spent.
    Tokens,
    /// The row limit was reached.
    Rows,
    /// What was waiting would have cost too much padding.
    Padding,
    /// The rest was left to devices that are free as well, or soon.
    Share,
}

impl CloseReason {
    /// The metric label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Tokens => "tokens",
            Self::Rows => "rows",
            Self::Padding => "padding",
            Self::Share => "share",
        }
    }
}

/// Items of one class that run together.
#[derive(Debug)]
pub struct Batch<T> {
    /// Oldest first is not promised; lanes stand together.
    pub entries: Vec<Entry<T>>,
    /// What they take together.
    pub size: Size,
    /// Why it did not grow further.
    pub closed_by: CloseReason,
}

impl<T> Batch<T> {
    /// The batch of those items for which `change` finds another one; `None` if it finds none.
    pub fn try_map<U>(self, mut change: impl FnMut(T) -> Option<U>) -> Option<Batch<U>> {
        let entries: Vec<_> = self.entries.into_iter().filter_map(|entry| entry.try_map(&mut change)).collect();
        let size = Size::of(self.size.packed, &entries);
        (!entries.is_empty()).then_some(Batch { entries, size, closed_by: self.closed_by })
    }
}
