//! The queue and its policy, pure: time is an argument, nothing blocks, nothing is sent.
//!
//! Jobs wait in one lane for each padded length, oldest first. A batch starts with the oldest job of all, so none
//! starves, and fills from the lanes nearest to it in length.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

/// A waiting item with what the policy needs to know of it.
#[derive(Debug)]
pub struct Entry<T> {
    /// The item itself.
    pub item: T,
    /// Rows it takes in a batch, at least 1.
    pub rows: usize,
    /// Its length in tokens, a multiple of the padding step.
    pub padded_len: usize,
    /// When it came.
    pub enqueued_at: Instant,
    /// When it is of no use any more.
    pub deadline: Instant,
}

impl<T> Entry<T> {
    /// Padded tokens that it takes alone: what it costs.
    pub fn tokens(&self) -> usize {
        self.rows * self.padded_len
    }
}

/// What one batch may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most rows x longest; a single item may exceed it.
    pub max_tokens: usize,
    /// Most rows; a single item may exceed it.
    pub max_rows: usize,
    /// Largest share of padding, 0 to 1, up to which items of other lengths join.
    pub max_padding: f32,
    /// How long the oldest item waits for company.
    pub max_delay: Duration,
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
}

impl CloseReason {
    /// The metric label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Tokens => "tokens",
            Self::Rows => "rows",
            Self::Padding => "padding",
        }
    }
}

/// Items that run together.
#[derive(Debug)]
pub struct Batch<T> {
    /// Oldest first is not promised; lanes stand together.
    pub entries: Vec<Entry<T>>,
    /// Sum of the entries' rows.
    pub rows: usize,
    /// Length of the longest.
    pub padded_len: usize,
    /// Why it did not grow further.
    pub closed_by: CloseReason,
}

/// Waiting items.
#[derive(Debug)]
pub struct Queue<T> {
    lanes: BTreeMap<usize, VecDeque<Entry<T>>>,
    len: usize,
    tokens: usize,
    /// No entry's deadline is earlier. May be earlier than all of them.
    next_deadline: Option<Instant>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { lanes: BTreeMap::new(), len: 0, tokens: 0, next_deadline: None }
    }
}

impl<T> Queue<T> {
    /// Number of waiting items.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sum of rows x padded length of the waiting items.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Adds an item, behind those of its lane.
    pub fn push(&mut self, entry: Entry<T>) {
        self.len += 1;
        self.tokens += entry.tokens();
        self.next_deadline = Some(self.next_deadline.map_or(entry.deadline, |d| d.min(entry.deadline)));
        self.lanes.entry(entry.padded_len).or_default().push_back(entry);
    }

    /// Removes and returns every item whose deadline is not after `now`.
    pub fn take_expired(&mut self, now: Instant) -> Vec<Entry<T>> {
        if self.next_deadline.is_none_or(|deadline| now < deadline) {
            return Vec::new();
        }
        let mut expired = Vec::new();
        for lane in self.lanes.values_mut() {
            let (late, waiting) = std::mem::take(lane).into_iter().partition::<VecDeque<_>, _>(|e| e.deadline <= now);
            *lane = waiting;
            expired.extend(late);
        }
        self.removed(&expired);
        self.next_deadline = self.lanes.values().flatten().map(|entry| entry.deadline).min();
        expired
    }

    /// When a batch should leave even if it is not full: the oldest item's arrival plus the delay. `None` if empty.
    pub fn due_at(&self, limits: &Limits) -> Option<Instant> {
        let oldest = self.oldest_lane().and_then(|lane| self.lanes[&lane].front())?;
        if self.tokens >= limits.max_tokens {
            return Some(oldest.enqueued_at);
        }
        Some(oldest.enqueued_at + limits.max_delay)
    }

    fn oldest_lane(&self) -> Option<usize> {
        let fronts = self.lanes.iter().filter_map(|(len, lane)| Some((lane.front()?.enqueued_at, *len)));
        fronts.min().map(|(_, len)| len)
    }

    /// The next batch, or `None` if nothing waits.
    pub fn take(&mut self, limits: &Limits) -> Option<Batch<T>> {
        let anchor = self.oldest_lane()?;
        let mut batch = Batch { entries: Vec::new(), rows: 0, padded_len: anchor, closed_by: CloseReason::Empty };
        let mut order: Vec<usize> = self.lanes.keys().copied().collect();
        // At equal distance the shorter lane first: it costs padding of its own only.
        order.sort_by_key(|len| (len.abs_diff(anchor), *len));
        let mut useful = 0;
        for len in order {
            let Some(reason) = self.fill(&mut batch, &mut useful, len, limits) else { continue };
            if batch.closed_by == CloseReason::Empty {
                batch.closed_by = reason;
            }
            // What is too long or too unlike does not rule out the lanes after it.
            if reason == CloseReason::Rows || (reason == CloseReason::Tokens && len <= batch.padded_len) {
                break;
            }
        }
        self.removed(&batch.entries);
        Some(batch)
    }

    /// Moves items of lane `len` into `batch` while they fit; says what stopped it, `None` if the lane ran dry.
    fn fill(&mut self, batch: &mut Batch<T>, useful: &mut usize, len: usize, limits: &Limits) -> Option<CloseReason> {
        let lane = self.lanes.get_mut(&len)?;
        while let Some(next) = lane.front() {
            let rows = batch.rows + next.rows;
            let padded_len = batch.padded_len.max(len);
            let tokens = rows * padded_len;
            let needed = *useful + next.rows * len;
            if !batch.entries.is_empty() {
                if rows > limits.max_rows {
                    return Some(CloseReason::Rows);
                }
                if tokens > limits.max_tokens {
                    return Some(CloseReason::Tokens);
                }
                if (tokens - needed) as f32 > limits.max_padding * tokens as f32 {
                    return Some(CloseReason::Padding);
                }
            }
            (batch.rows, batch.padded_len, *useful) = (rows, padded_len, needed);
            batch.entries.extend(lane.pop_front());
        }
        self.lanes.remove(&len);
        None
    }

    fn removed(&mut self, entries: &[Entry<T>]) {
        self.len -= entries.len();
        self.tokens -= entries.iter().map(Entry::tokens).sum::<usize>();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits =
        Limits { max_tokens: 256, max_rows: 8, max_padding: 0.25, max_delay: Duration::from_millis(5) };

    fn entry(item: usize, rows: usize, padded_len: usize, at: Instant, lives: u64) -> Entry<usize> {
        Entry { item, rows, padded_len, enqueued_at: at, deadline: at + Duration::from_millis(lives) }
    }

    fn items(batch: &Batch<usize>) -> Vec<usize> {
        batch.entries.iter().map(|e| e.item).collect()
    }

    fn queue_of(lens: &[usize], now: Instant) -> Queue<usize> {
        let mut queue = Queue::default();
        for (i, len) in lens.iter().enumerate() {
            queue.push(entry(i, 2, *len, now + Duration::from_micros(i as u64), 1000));
        }
        queue
    }

    #[test]
    fn the_oldest_leads_and_near_lengths_join() {
        let now = Instant::now();
        let mut queue = queue_of(&[32, 96, 32, 32, 96], now);
        let first = queue.take(&LIMITS).unwrap();
        assert_eq!((items(&first), first.padded_len, first.closed_by), (vec![0, 2, 3], 32, CloseReason::Tokens));
        let second = queue.take(&LIMITS).unwrap();
        assert_eq!((items(&second), second.closed_by), (vec![1], CloseReason::Tokens));
        assert_eq!(items(&queue.take(&LIMITS).unwrap()), [4]);
        assert!(queue.take(&LIMITS).is_none() && queue.is_empty() && queue.tokens() == 0);
    }

    #[test]
    fn a_batch_says_why_it_closed() {
        let now = Instant::now();
        assert_eq!(queue_of(&[16], now).take(&LIMITS).unwrap().closed_by, CloseReason::Empty);
        assert_eq!(queue_of(&[16; 9], now).take(&LIMITS).unwrap().closed_by, CloseReason::Rows);
        assert_eq!(queue_of(&[64; 9], now).take(&LIMITS).unwrap().closed_by, CloseReason::Tokens);
        assert_eq!(queue_of(&[16, 64], now).take(&LIMITS).unwrap().closed_by, CloseReason::Padding);
    }

    #[test]
    fn a_shorter_lane_joins_where_a_longer_one_is_too_much() {
        let mut queue = queue_of(&[64, 80, 48], Instant::now());
        assert_eq!(items(&queue.take(&LIMITS).unwrap()), [0, 2]);
    }

    #[test]
    fn a_job_above_every_limit_runs_alone() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.push(entry(0, 32, 512, now, 10));
        queue.push(entry(1, 2, 512, now + Duration::from_micros(1), 10));
        assert_eq!(items(&queue.take(&LIMITS).unwrap()), [0]);
    }

    #[test]
    fn it_is_due_when_full_or_when_the_oldest_waited_long_enough() {
        let now = Instant::now();
        let mut queue = queue_of(&[32], now);
        assert_eq!(queue.due_at(&LIMITS), Some(now + LIMITS.max_delay));
        for i in 1..4 {
            queue.push(entry(i, 2, 32, now, 10));
        }
        assert_eq!(queue.due_at(&LIMITS), Some(now));
        assert_eq!(Queue::<usize>::default().due_at(&LIMITS), None);
    }

    #[derive(Debug, Clone)]
    enum Op {
        Push { rows: usize, lane: usize, lives: u64 },
        Pass { ms: u64 },
        Expire,
        Take,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            5 => (1usize..5, 1usize..9, 0u64..60).prop_map(|(rows, lane, lives)| Op::Push { rows, lane, lives }),
            2 => (0u64..20).prop_map(|ms| Op::Pass { ms }),
            1 => Just(Op::Expire),
            2 => Just(Op::Take),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_nothing_is_lost_or_doubled(ops in prop::collection::vec(op(), 1..200)) {
            let mut now = Instant::now();
            let mut queue = Queue::default();
            let mut waiting = Vec::<(usize, usize, Instant, Instant)>::new();
            let mut gone = HashSet::new();
            for (id, op) in ops.into_iter().enumerate() {
                match op {
                    Op::Push { rows, lane, lives } => {
                        let e = entry(id, rows, lane * 16, now, lives);
                        waiting.push((id, e.tokens(), e.enqueued_at, e.deadline));
                        queue.push(e);
                    }
                    Op::Pass { ms } => now += Duration::from_millis(ms),
                    Op::Expire => {
                        let expired: HashSet<_> = queue.take_expired(now).into_iter().map(|e| e.item).collect();
                        let due: HashSet<_> = waiting.iter().filter(|w| w.3 <= now).map(|w| w.0).collect();
                        prop_assert_eq!(&expired, &due);
                        waiting.retain(|w| !expired.contains(&w.0));
                        prop_assert!(expired.iter().all(|i| gone.insert(*i)));
                    }
                    Op::Take => {
                        let Some(batch) = queue.take(&LIMITS) else {
                            prop_assert!(waiting.is_empty());
                            continue;
                        };
                        let oldest = waiting.iter().map(|w| w.2).min().unwrap();
                        prop_assert!(batch.entries.iter().any(|e| e.enqueued_at == oldest));
                        let rows: usize = batch.entries.iter().map(|e| e.rows).sum();
                        let longest = batch.entries.iter().map(|e| e.padded_len).max().unwrap();
                        prop_assert_eq!((batch.rows, batch.padded_len), (rows, longest));
                        if batch.entries.len() > 1 {
                            let cells = rows * longest;
                            let useful: usize = batch.entries.iter().map(Entry::tokens).sum();
                            prop_assert!(rows <= LIMITS.max_rows && cells <= LIMITS.max_tokens);
                            prop_assert!((cells - useful) as f32 <= LIMITS.max_padding * cells as f32);
                        }
                        for e in &batch.entries {
                            prop_assert!(gone.insert(e.item));
                        }
                        waiting.retain(|w| !gone.contains(&w.0));
                    }
                }
                prop_assert_eq!(queue.len(), waiting.len());
                prop_assert_eq!(queue.tokens(), waiting.iter().map(|w| w.1).sum::<usize>());
            }
        }
    }
}
