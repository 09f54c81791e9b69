//! The waiting items of one class: a lane for each padded length, oldest first; one lane for all where padding is free.
//!
//! A batch starts with the oldest item of all, so none starves, and fills from the lanes nearest to it in length. From one lane
//! items are taken strictly by age.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use super::{Batch, Class, CloseReason, Entry, Limits, Size};

#[derive(Debug)]
pub(super) struct Lanes<T> {
    /// Whether rows stand one behind the other, without padding: then lengths do not matter.
    packed: bool,
    lanes: BTreeMap<usize, VecDeque<Entry<T>>>,
    len: usize,
    tokens: usize,
    /// No entry's deadline is earlier. May be earlier than all of them.
    next_deadline: Option<Instant>,
}

impl<T> Lanes<T> {
    pub fn new(packed: bool) -> Self {
        Self { packed, lanes: BTreeMap::new(), len: 0, tokens: 0, next_deadline: None }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Adds an item, behind those of its lane.
    pub fn push(&mut self, entry: Entry<T>) {
        self.len += 1;
        self.tokens += entry.tokens;
        self.next_deadline = Some(self.next_deadline.map_or(entry.deadline, |d| d.min(entry.deadline)));
        let lane = if self.packed { 0 } else { entry.len };
        self.lanes.entry(lane).or_default().push_back(entry);
    }

    /// Moves every item whose deadline is not after `now` to `expired`.
    pub fn take_expired(&mut self, now: Instant, expired: &mut Vec<Entry<T>>) {
        if self.next_deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        self.take_if(|entry| entry.is_expired(now), expired);
        self.next_deadline = self.lanes.values().flatten().map(|entry| entry.deadline).min();
    }

    /// Moves every item that is `unwanted` to `taken`.
    pub fn take_if(&mut self, unwanted: impl Fn(&Entry<T>) -> bool, taken: &mut Vec<Entry<T>>) {
        let before = taken.len();
        for lane in self.lanes.values_mut().filter(|lane| lane.iter().any(&unwanted)) {
            let (out, stay) = std::mem::take(lane).into_iter().partition::<VecDeque<_>, _>(&unwanted);
            *lane = stay;
            taken.extend(out);
        }
        self.lanes.retain(|_, lane| !lane.is_empty());
        self.removed(&taken[before..]);
    }

    /// The oldest item, of those that came at once the shortest.
    pub fn oldest(&self) -> Option<&Entry<T>> {
        self.lanes.values().filter_map(VecDeque::front).min_by_key(|entry| entry.enqueued_at)
    }

    /// The next batch, of at most `tokens` but for a first item that has more; `None` if nothing waits.
    pub fn take_within(&mut self, class: Class, limits: &Limits, tokens: usize) -> Option<Batch<T>> {
        let (anchor, packed) = (self.oldest()?.len, self.packed);
        let most = |size: &Size| {
            // Where any length may follow it is not the first that tells how long the run takes.
            let len = if packed { size.row_len() } else { anchor };
            limits.tokens_of(class, len).min(tokens)
        };
        Some(self.fill(anchor, limits, &most))
    }

    fn fill(&mut self, anchor: usize, limits: &Limits, most: &dyn Fn(&Size) -> usize) -> Batch<T> {
        let size = Size::empty(self.packed);
        let batch = Batch { entries: Vec::new(), size, closed_by: CloseReason::Empty };
        let mut filling = Filling { batch, most, limits };
        let mut order: Vec<usize> = self.lanes.keys().copied().collect();
        // At equal distance the shorter lane first: it costs padding of its own only.
        order.sort_by_key(|len| (len.abs_diff(anchor), *len));
        for len in order {
            let Some(lane) = self.lanes.get_mut(&len) else { continue };
            let Some(reason) = filling.fill_from(lane) else {
                self.lanes.remove(&len);
                continue;
            };
            let batch = &mut filling.batch;
            if batch.closed_by == CloseReason::Empty {
                batch.closed_by = reason;
            }
            // What is too long or too unlike does not rule out the lanes after it.
            if reason == CloseReason::Rows || (reason == CloseReason::Tokens && len <= batch.size.row_len()) {
                break;
            }
        }
        let batch = filling.batch;
        self.removed(&batch.entries);
        batch
    }

    fn removed(&mut self, entries: &[Entry<T>]) {
        self.len -= entries.len();
        self.tokens -= entries.iter().map(|entry| entry.tokens).sum::<usize>();
    }
}

/// A batch that grows.
struct Filling<'a, T> {
    batch: Batch<T>,
    /// Most tokens of a batch of this size.
    most: &'a dyn Fn(&Size) -> usize,
    limits: &'a Limits,
}

impl<T> Filling<'_, T> {
    /// Moves items of `lane` into the batch while they fit; says what stopped it, `None` if the lane ran dry.
    fn fill_from(&mut self, lane: &mut VecDeque<Entry<T>>) -> Option<CloseReason> {
        let Self { batch, most, limits } = self;
        while let Some(next) = lane.front() {
            let size = batch.size.with(next);
            if !batch.entries.is_empty() {
                if size.rows() > limits.max_rows {
                    return Some(CloseReason::Rows);
                }
                let (tokens, padding) = (size.tokens(), size.padding());
                if tokens > most(&size) {
                    return Some(CloseReason::Tokens);
                }
                if padding > limits.max_padding_tokens || padding as f32 > limits.max_padding * tokens as f32 {
                    return Some(CloseReason::Padding);
                }
            }
            batch.size = size;
            batch.entries.extend(lane.pop_front());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::batching::{Asker, Cost};

    /// Lengths of the items of a batch that begins with one of 64 tokens, of those that wait.
    fn batch(limits: &Limits, lens: &[usize]) -> Vec<usize> {
        let (mut lanes, now) = (Lanes::new(false), Instant::now());
        for (item, len) in lens.iter().enumerate() {
            let enqueued_at = now + Duration::from_micros(item as u64);
            let deadline = now + Duration::from_secs(1);
            let (class, len) = (Class::Interactive, *len);
            lanes.push(Entry { item, class, rows: 2, tokens: 2 * len, len, enqueued_at, deadline });
        }
        let batch = lanes.take_within(Class::Interactive, limits, usize::MAX).unwrap();
        batch.entries.iter().map(|entry| entry.len).collect()
    }

    #[test]
    fn company_is_worth_a_share_of_what_a_run_costs() {
        let limits = Limits {
            max_tokens: 4096,
            max_bulk_tokens: 4096,
            max_rows: 256,
            max_padding: 0.5,
            max_padding_tokens: usize::MAX,
            bulk_share: 0.2,
            max_delay: Duration::ZERO,
            aim: None,
        };
        let mut asker = Asker { seat: 0, gpu: None, limits, cost: None, probe_after: None };
        // As they lie nearest to the first: the fourth costs 32 tokens of padding, the last one 64.
        let waiting = [64, 64, 64, 48, 32];
        assert_eq!(batch(&asker.limits, &waiting).len(), 5);
        for (fixed, joined) in [(1e-3, 5), (200e-6, 4), (100e-6, 3), (0.0, 3)] {
            asker.learns(Some(Cost { fixed, per_token: 1e-6, per_pair: 0.0 }));
            assert_eq!(batch(&asker.limits, &waiting).len(), joined, "{fixed}");
        }
        asker.learns(None);
        assert_eq!(batch(&asker.limits, &waiting).len(), 5);
        // Where tokens cost nothing any number of them is worth it.
        let free = Cost { fixed: 1e-3, per_token: 0.0, per_pair: 0.0 };
        assert_eq!(free.worth_padding(), usize::MAX);
    }
}
