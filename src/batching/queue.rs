//! The queue and its policy, pure: time is an argument, nothing blocks, nothing is sent.
//!
//! ```text
//! push -> interactive: lanes -\
//!                              >- take: one class leads each batch
//! push -> bulk:        lanes -/
//! ```
//! Single requests go first. While both classes wait, bulk earns `share / (1 - share)` tokens for each token that single
//! requests run, and leads once it has earned a batch. So between two bulk batches single requests run at most about
//! `max_bulk_tokens x (1 - share) / share` tokens, and a single request waits for one bulk batch of those that lead
//! meanwhile. A batch holds one class only: a bulk log in company would make single requests wait for it.

use std::time::Instant;

use super::{Batch, Class, Entry, Limits, lanes::Lanes};

/// Waiting items of both classes.
#[derive(Debug)]
pub struct Queue<T> {
    interactive: Lanes<T>,
    bulk: Lanes<T>,
    /// Tokens that bulk has earned since both classes wait. Below 0 after a large bulk item.
    earned: f64,
}

impl<T> Queue<T> {
    /// An empty one. Where rows are `packed`, one behind the other without padding, items of a class are taken strictly by
    /// age; else those of like length join the oldest.
    pub fn new(packed: bool) -> Self {
        Self { interactive: Lanes::new(packed), bulk: Lanes::new(packed), earned: 0.0 }
    }

    /// Number of waiting items.
    pub fn len(&self) -> usize {
        self.interactive.len() + self.bulk.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.interactive.is_empty() && self.bulk.is_empty()
    }

    /// Sum of the waiting items' tokens.
    pub fn tokens(&self) -> usize {
        self.interactive.tokens() + self.bulk.tokens()
    }

    /// Adds an item, behind those of its class and length.
    pub fn push(&mut self, entry: Entry<T>) {
        match entry.class {
            Class::Interactive => self.interactive.push(entry),
            Class::Bulk => self.bulk.push(entry),
        }
    }

    /// Removes and returns every item whose deadline is not after `now`.
    pub fn take_expired(&mut self, now: Instant) -> Vec<Entry<T>> {
        let mut expired = Vec::new();
        self.interactive.take_expired(now, &mut expired);
        self.bulk.take_expired(now, &mut expired);
        expired
    }

    /// Removes and returns every item that is `unwanted`, so that it takes no place in a batch.
    pub fn take_if(&mut self, unwanted: impl Fn(&Entry<T>) -> bool) -> Vec<Entry<T>> {
        let mut taken = Vec::new();
        self.interactive.take_if(&unwanted, &mut taken);
        self.bulk.take_if(&unwanted, &mut taken);
        taken
    }

    /// When a batch should leave even if it is not full: the oldest item's arrival plus the delay. `None` if empty.
    pub fn due_at(&self, limits: &Limits) -> Option<Instant> {
        let first = |lanes: &Lanes<T>| lanes.oldest().map(|entry| (entry.enqueued_at, entry.len));
        let (oldest, len) = first(&self.interactive).into_iter().chain(first(&self.bulk)).min()?;
        let full = |lanes: &Lanes<T>, class| lanes.tokens() >= limits.tokens_of(class, len);
        let full = full(&self.interactive, Class::Interactive) || full(&self.bulk, Class::Bulk);
        Some(if full { oldest } else { oldest + limits.max_delay })
    }

    /// The next batch, or `None` if nothing waits. Call [`take_expired`](Self::take_expired) before it.
    pub fn take(&mut self, limits: &Limits) -> Option<Batch<T>> {
        self.take_within(limits, usize::MAX)
    }

    /// The same with at most `tokens`, but for a first item that has more.
    pub fn take_within(&mut self, limits: &Limits, tokens: usize) -> Option<Batch<T>> {
        let contested = !self.interactive.is_empty() && !self.bulk.is_empty();
        let bulk_leads = match contested {
            true => self.earned >= self.bulk_batch(limits) as f64,
            false => self.interactive.is_empty(),
        };
        if bulk_leads {
            let batch = self.bulk.take_within(Class::Bulk, limits, tokens)?;
            self.earned = if contested { self.earned - batch.size.tokens() as f64 } else { 0.0 };
            return Some(batch);
        }
        let batch = self.interactive.take_within(Class::Interactive, limits, tokens)?;
        let share = limits.bulk_share;
        self.earned = if contested { self.earned + batch.size.tokens() as f64 * share / (1.0 - share) } else { 0.0 };
        Some(batch)
    }

    /// Tokens of the bulk batch that would be next.
    fn bulk_batch(&self, limits: &Limits) -> usize {
        self.bulk.oldest().map_or(0, |first| limits.tokens_of(Class::Bulk, first.len))
    }

    /// The first item of [`take_last`](Self::take_last).
    pub fn first_of_last(&self) -> Option<&Entry<T>> {
        self.bulk.oldest().or_else(|| self.interactive.oldest())
    }

    /// A batch of at most `tokens`, but for a first item that has more, of the class that can wait: of bulk items as long as
    /// there are any. For a device that is to help the others and not to take what they would do first.
    pub fn take_last(&mut self, limits: &Limits, tokens: usize) -> Option<Batch<T>> {
        match self.bulk.is_empty() {
            true => self.interactive.take_within(Class::Interactive, limits, tokens),
            false => self.bulk.take_within(Class::Bulk, limits, tokens),
        }
    }
}

#[cfg(test)]
mod tests;
