//! Order, limits and shares of the queue, by example and under any sequence of operations.

use std::{collections::HashSet, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::batching::{Aim, CloseReason, Cost};

const LIMITS: Limits = Limits {
    max_tokens: 256,
    max_bulk_tokens: 128,
    max_rows: 8,
    max_padding: 0.25,
    max_padding_tokens: usize::MAX,
    bulk_share: 0.2,
    max_delay: Duration::from_millis(5),
    aim: None,
};

fn entry(item: usize, rows: usize, len: usize, at: Instant, lives: u64) -> Entry<usize> {
    let deadline = at + Duration::from_millis(lives);
    Entry { item, class: Class::Interactive, rows, tokens: rows * len, len, enqueued_at: at, deadline }
}

fn items(batch: &Batch<usize>) -> Vec<usize> {
    batch.entries.iter().map(|e| e.item).collect()
}

fn queue_of(lens: &[usize], now: Instant) -> Queue<usize> {
    filled(Queue::new(false), lens, now)
}

fn filled(mut queue: Queue<usize>, lens: &[usize], now: Instant) -> Queue<usize> {
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
    assert_eq!((items(&first), first.size.row_len(), first.closed_by), (vec![0, 2, 3], 32, CloseReason::Tokens));
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
    let mut queue = Queue::new(false);
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
    assert_eq!(Queue::<usize>::new(false).due_at(&LIMITS), None);
}

#[test]
fn single_requests_lead_until_bulk_has_earned_its_batch() {
    let now = Instant::now();
    let mut queue = Queue::new(false);
    for i in 0..40 {
        queue.push(Entry { class: Class::Bulk, ..entry(100 + i, 2, 64, now, 1000) });
        queue.push(entry(i, 2, 64, now + Duration::from_micros(1), 1000));
    }
    let classes: String = std::iter::from_fn(|| queue.take(&LIMITS))
        .map(|batch| match (batch.entries[0].class, batch.size.tokens()) {
            (Class::Interactive, 256) => 's',
            (Class::Bulk, 128) => 'b',
            other => panic!("{other:?}"),
        })
        .collect();
    // A batch of 256 tokens earns a quarter of that: two of them earn a bulk batch of 128.
    assert_eq!(&classes[..15], "ssbssbssbssbssb", "{classes}");
    assert!(classes[30..].chars().all(|c| c == 'b'), "{classes}");
}

#[test]
fn a_claim_does_not_outlive_the_contest() {
    let now = Instant::now();
    let mut queue = Queue::new(false);
    let bulk = |i| Entry { class: Class::Bulk, ..entry(i, 2, 64, now, 1000) };
    queue.push(bulk(0));
    queue.push(entry(1, 2, 64, now, 1000));
    assert_eq!(items(&queue.take(&LIMITS).unwrap()), [1]);
    assert!(queue.earned > 0.0);
    // Nothing else waits: this one was no favour that anyone paid for.
    assert_eq!(items(&queue.take(&LIMITS).unwrap()), [0]);
    assert_eq!(queue.earned, 0.0);
}

#[test]
fn where_padding_is_free_the_next_one_joins_whatever_its_length() {
    let now = Instant::now();
    let mut queue = filled(Queue::new(true), &[20, 90, 7, 11, 60], now);
    let first = queue.take(&Limits { max_padding: 0.0, max_padding_tokens: 0, ..LIMITS }).unwrap();
    assert_eq!((items(&first), first.closed_by), (vec![0, 1, 2, 3], CloseReason::Rows));
    // The mean over all tokens: 2 x (400 + 8100 + 49 + 121) of 256.
    assert_eq!((first.size.tokens(), first.size.padding(), first.size.row_len()), (256, 0, 68));
    assert_eq!((queue.tokens(), items(&queue.take(&LIMITS).unwrap())), (120, vec![4]));
    // What does not fit is not overtaken by what would.
    let mut queue = filled(Queue::new(true), &[20, 110, 7], now);
    assert_eq!(queue.take(&LIMITS).map(|batch| (items(&batch), batch.closed_by)), Some((vec![0], CloseReason::Tokens)));
    assert_eq!(items(&queue.take(&LIMITS).unwrap()), [1, 2]);
}

#[test]
fn a_target_time_counts_the_lengths_of_all_that_join() {
    // A millisecond for a row of 64, a quarter for one of 32. Items have two rows; the mean length is rounded up.
    let cost = Cost { fixed: 0.0, per_token: 0.0, per_pair: 1e-3 / 4096.0 };
    let limits = Limits { max_tokens: 10_000, max_rows: 1000, aim: Some(Aim { cost, seconds: 4.1e-3 }), ..LIMITS };
    for (lens, taken) in [(&[64; 9][..], 2), (&[32; 20], 8), (&[64, 32, 32, 32, 32, 32, 32], 5), (&[32, 64, 64], 2)] {
        let batch = filled(Queue::new(true), lens, Instant::now()).take(&limits).unwrap();
        assert_eq!(batch.entries.len(), taken, "{lens:?}");
    }
}

#[derive(Debug, Clone)]
enum Op {
    Push { class: Class, rows: usize, lane: usize, lives: u64 },
    Pass { ms: u64 },
    Expire,
    Take,
    TakeLast { tokens: usize },
}

fn class() -> impl Strategy<Value = Class> {
    prop_oneof![Just(Class::Interactive), Just(Class::Bulk)]
}

fn push(lives: impl Strategy<Value = u64>) -> impl Strategy<Value = Op> {
    let push = |(class, rows, lane, lives)| Op::Push { class, rows, lane, lives };
    (class(), 1usize..5, 1usize..9, lives).prop_map(push)
}

fn op() -> impl Strategy<Value = Op> {
    let pass = (0u64..20).prop_map(|ms| Op::Pass { ms });
    let last = (0usize..512).prop_map(|tokens| Op::TakeLast { tokens });
    prop_oneof![5 => push(0u64..60), 2 => pass, 1 => Just(Op::Expire), 2 => Just(Op::Take), 1 => last]
}

/// What the test knows of a waiting entry.
#[derive(Debug, Clone, Copy)]
struct Known {
    id: usize,
    class: Class,
    tokens: usize,
    at: Instant,
    deadline: Instant,
    /// Older ones of its class when it came.
    older: usize,
    /// Batches of its class since.
    batches: usize,
    rows: usize,
}

/// Whether the batch has the oldest of its class that wait, in their order.
fn is_by_age(batch: &Batch<usize>, waiting: &[Known]) -> bool {
    let class = batch.entries[0].class;
    let oldest = waiting.iter().filter(|w| w.class == class).map(|w| w.id).take(batch.entries.len());
    oldest.eq(items(batch))
}

proptest! {
    #[test]
    fn whatever_happens_nothing_is_lost_or_doubled(ops in prop::collection::vec(op(), 1..200), packed in any::<bool>()) {
        let mut now = Instant::now();
        let mut queue = Queue::new(packed);
        let mut waiting = Vec::<Known>::new();
        let mut gone = HashSet::new();
        for (id, op) in ops.into_iter().enumerate() {
            match op {
                Op::Push { class, rows, lane, lives } => {
                    now += Duration::from_micros(1);
                    // Lengths that are no multiple of anything, where nothing pads them.
                    let len = if packed { lane * 16 - id % 16 } else { lane * 16 };
                    let e = Entry { class, ..entry(id, rows, len, now, lives) };
                    let older = waiting.iter().filter(|w| w.class == class).count();
                    let (tokens, deadline) = (e.tokens, e.deadline);
                    waiting.push(Known { id, class, tokens, at: now, deadline, older, batches: 0, rows });
                    queue.push(e);
                }
                Op::Pass { ms } => now += Duration::from_millis(ms),
                Op::Expire => {
                    let expired: HashSet<_> = queue.take_expired(now).into_iter().map(|e| e.item).collect();
                    let due: HashSet<_> = waiting.iter().filter(|w| w.deadline <= now).map(|w| w.id).collect();
                    prop_assert_eq!(&expired, &due);
                    waiting.retain(|w| !expired.contains(&w.id));
                    prop_assert!(expired.iter().all(|i| gone.insert(*i)));
                }
                Op::TakeLast { tokens } => {
                    let first = queue.first_of_last().map(|e| e.item);
                    let Some(batch) = queue.take_last(&LIMITS, tokens) else {
                        prop_assert!(waiting.is_empty() && first.is_none());
                        continue;
                    };
                    let class = batch.entries[0].class;
                    prop_assert!(class == Class::Bulk || waiting.iter().all(|w| w.class == Class::Interactive));
                    let oldest = waiting.iter().filter(|w| w.class == class).map(|w| w.at).min().unwrap();
                    prop_assert_eq!((batch.entries[0].enqueued_at, Some(batch.entries[0].item)), (oldest, first));
                    prop_assert!(batch.entries.iter().all(|e| e.class == class));
                    prop_assert!(batch.entries.len() == 1 || batch.size.tokens() <= tokens);
                    prop_assert!(!packed || is_by_age(&batch, &waiting));
                    for e in &batch.entries {
                        prop_assert!(gone.insert(e.item));
                    }
                    waiting.retain(|w| !gone.contains(&w.id));
                }
                Op::Take => {
                    let Some(batch) = queue.take(&LIMITS) else {
                        prop_assert!(waiting.is_empty());
                        continue;
                    };
                    let class = batch.entries[0].class;
                    prop_assert!(batch.entries.iter().all(|e| e.class == class));
                    let oldest = waiting.iter().filter(|w| w.class == class).map(|w| w.at).min().unwrap();
                    prop_assert!(batch.entries.iter().any(|e| e.enqueued_at == oldest));
                    let rows: usize = batch.entries.iter().map(|e| e.rows).sum();
                    let longest = batch.entries.iter().map(|e| e.len).max().unwrap();
                    let useful: usize = batch.entries.iter().map(|e| e.tokens).sum();
                    if packed {
                        let squares: usize = batch.entries.iter().map(|e| e.rows * e.len * e.len).sum();
                        let size = (batch.size.rows(), batch.size.tokens(), batch.size.row_len());
                        prop_assert_eq!(size, (rows, useful, squares.div_ceil(useful)));
                        prop_assert!(is_by_age(&batch, &waiting));
                        let fits = rows <= LIMITS.max_rows && useful <= LIMITS.tokens_of(class, longest);
                        prop_assert!(fits || batch.entries.len() == 1);
                        // No room is left for the next.
                        let next = waiting.iter().filter(|w| w.class == class).nth(batch.entries.len());
                        prop_assert!(next.is_none_or(|next| useful + next.tokens > LIMITS.tokens_of(class, longest)
                            || rows + next.rows > LIMITS.max_rows));
                    } else {
                        prop_assert_eq!((batch.size.rows(), batch.size.row_len()), (rows, longest));
                    }
                    if batch.entries.len() > 1 && !packed {
                        let cells = rows * longest;
                        prop_assert!(rows <= LIMITS.max_rows && cells <= LIMITS.tokens_of(class, longest));
                        prop_assert!((cells - useful) as f32 <= LIMITS.max_padding * cells as f32);
                    }
                    for e in &batch.entries {
                        prop_assert!(gone.insert(e.item));
                    }
                    waiting.retain(|w| !gone.contains(&w.id));
                    for w in waiting.iter_mut().filter(|w| w.class == class) {
                        w.batches += 1;
                        // Each batch of a class takes its oldest along.
                        prop_assert!(w.batches <= w.older, "{w:?} starves in its class");
                    }
                }
            }
            prop_assert_eq!(queue.len(), waiting.len());
            prop_assert_eq!(queue.tokens(), waiting.iter().map(|w| w.tokens).sum::<usize>());
        }
    }

    /// The share's promise as numbers, for any mix: how much of the other class runs while one waits.
    #[test]
    fn neither_class_starves(
        ops in prop::collection::vec(prop_oneof![2 => push(Just(60_000)), 1 => Just(Op::Take)], 1..400),
        share in 0.05f64..0.5,
        packed in any::<bool>(),
    ) {
        let limits = Limits { bulk_share: share, ..LIMITS };
        // The costliest job that is pushed has 4 rows of 128 tokens.
        let (single, bulk) = (512.0f64, 512.0f64);
        let earns = single * share / (1.0 - share);
        let most_singles = (limits.max_bulk_tokens as f64 + earns + bulk) * (1.0 - share) / share;
        let most_bulk = earns + bulk;
        let now = Instant::now();
        let mut queue = Queue::new(packed);
        let (mut singles_run, mut bulk_run) = (0.0, 0.0);
        for (id, op) in ops.into_iter().enumerate() {
            match op {
                Op::Push { class, rows, lane, lives } => {
                    queue.push(Entry { class, ..entry(id, rows, lane * 16, now, lives) });
                }
                _ => {
                    let (singles_wait, bulk_waits) = (!queue.interactive.is_empty(), !queue.bulk.is_empty());
                    let Some(batch) = queue.take(&limits) else { continue };
                    let tokens = batch.size.tokens() as f64;
                    // What ran of one class since the other waits and did not run.
                    (singles_run, bulk_run) = match batch.entries[0].class {
                        Class::Interactive => (if bulk_waits { singles_run + tokens } else { 0.0 }, 0.0),
                        Class::Bulk => (0.0, if singles_wait { bulk_run + tokens } else { 0.0 }),
                    };
                    prop_assert!(singles_run <= most_singles, "bulk waits for {singles_run} > {most_singles}");
                    prop_assert!(bulk_run <= most_bulk, "singles wait for {bulk_run} > {most_bulk}");
                }
            }
        }
    }
}
