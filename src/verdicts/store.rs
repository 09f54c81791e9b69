//! Scores that were computed before, bounded in bytes. Time is an argument.
//!
//! [`quick_cache`] decides what is forgotten: what was asked for again stays longer than what came once. Its tables
//! are as large as they can get from the start, so that they never grow by doubling; the system gives memory to the
//! parts that are used.

use std::{
    hash::RandomState,
    sync::Arc,
    time::{Duration, Instant},
};

use quick_cache::{
    OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle},
};

use super::key::{Key, Probe};
use crate::memory;

/// What was computed about one log.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// One score a label, in the order of the labels.
    pub scores: Box<[f32]>,
    /// Whether the log was longer than the model reads.
    pub truncated: bool,
    /// When, in seconds from the store's start: under whatever key it is kept, it is as old as it is.
    since: u32,
}

/// Remembered [`Scored`]s.
pub struct Store {
    /// The hash is keyed at random: whoever writes logs cannot choose its collisions.
    cache: Cache<Key, Scored, Weigher, RandomState>,
    start: Instant,
    ttl: Duration,
}

#[derive(Clone)]
struct Weigher {
    /// Hypotheses of the configuration, which are in memory anyway.
    shared: Arc<[Vec<u32>]>,
}

/// Bytes of a place in the cache's table and of its index, used or not. A test holds it to the tables' real size.
const PLACE: usize = 96;
/// The least that an entry takes: its place, a short text, one score.
const LEAST: usize = PLACE + 16;
/// Bytes for each of which one forgotten entry's hash is kept, to know it when it comes again.
const BYTES_PER_GHOST: usize = 2048;
/// Bytes of a part with a lock of its own; the longest log has room in it.
const SHARD_BYTES: usize = 1 << 20;
/// Share of the room that logs seen again may hold against new ones, which would else be forgotten after a burst.
const KEPT_SHARE: f64 = 0.6;
/// Of the bytes given, those that entries may weigh, in 64ths. The rest is what the allocator loses between blocks of
/// many sizes that come and go, as measured (`loadtest/cache.py memory`).
const WEIGHED_64THS: usize = 54;

impl Store {
    /// Room for `max_bytes`, all included, in a process that allocates from mimalloc. What is older than `ttl` is not
    /// given any more. `shared` are the hypotheses that most entries have.
    pub fn new(max_bytes: usize, ttl: Duration, shared: Arc<[Vec<u32>]>, now: Instant) -> Self {
        let ghosts = max_bytes / BYTES_PER_GHOST;
        let weighed = (max_bytes / 64 * WEIGHED_64THS).saturating_sub(ghosts * PLACE);
        let most = weighed / LEAST;
        let options = OptionsBuilder::new()
            .shards((max_bytes / SHARD_BYTES).clamp(1, 64))
            .estimated_items_capacity(most)
            .hot_allocation(KEPT_SHARE)
            .ghost_allocation(ghosts as f64 / most as f64)
            .weight_capacity(weighed as u64)
            .build()
            .expect("both capacities are given");
        let cache = Cache::with_options(options, Weigher { shared }, RandomState::new(), DefaultLifecycle::default());
        cache.reserve(most);
        Self { cache, start: now, ttl }
    }

    /// What was computed at `now`, to be kept.
    pub fn scored(&self, scores: &[f32], truncated: bool, now: Instant) -> Scored {
        Scored { scores: scores.into(), truncated, since: self.seconds(now) }
    }

    /// What was kept for `probe`, unless it is too old by `now`.
    pub fn get(&self, probe: &Probe, now: Instant) -> Option<Scored> {
        self.cache.get(probe).filter(|scored| self.is_fresh(scored, now))
    }

    /// Whether [`get`](Self::get) would find something; it does not count as a use.
    pub fn has(&self, probe: &Probe, now: Instant) -> bool {
        self.cache.peek(probe).is_some_and(|scored| self.is_fresh(&scored, now))
    }

    /// Keeps what was computed for `key`. What is too large for it is not kept.
    pub fn put(&self, key: Key, scored: Scored) {
        self.cache.insert(key, scored);
    }

    /// Entries, and the bytes that they take.
    pub fn size(&self) -> (usize, u64) {
        (self.cache.len(), self.cache.weight())
    }

    fn is_fresh(&self, scored: &Scored, now: Instant) -> bool {
        let age = self.seconds(now).saturating_sub(scored.since);
        u64::from(age) < self.ttl.as_secs()
    }

    fn seconds(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.start).as_secs()).unwrap_or(u32::MAX)
    }
}

impl Weighter<Key, Scored> for Weigher {
    fn weight(&self, key: &Key, scored: &Scored) -> u64 {
        let scores = memory::allocated(size_of_val(&*scored.scores));
        (PLACE + key.bytes(&self.shared) + scores) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{classify::Task, model::EncodedLog};

    fn task() -> Task {
        let labels = vec!["odd".into(), "usual".into()];
        let hypotheses = [vec![1, 2], vec![3]].into();
        Task { labels, anomaly: 0, multi_label: false, hypotheses, lengths: 1..=2 }
    }

    fn scored(store: &Store, score: f32, now: Instant) -> Scored {
        store.scored(&[score, 1.0 - score], false, now)
    }

    #[test]
    fn what_is_too_old_is_not_given_and_can_be_put_again() {
        let (task, start) = (task(), Instant::now());
        let store = Store::new(1 << 20, Duration::from_secs(60), task.hypotheses.clone(), start);
        let probe = Probe::text("disk full", &task);
        let at = |s| start + Duration::from_secs(s);
        let score = |s| store.get(&probe, at(s)).map(|scored| scored.scores[0]);
        assert!(score(0).is_none() && !store.has(&probe, at(0)));
        store.put(Key::text("disk full", &task), scored(&store, 0.25, at(100)));
        assert!(score(159) == Some(0.25) && store.has(&probe, at(159)));
        assert!(score(160).is_none() && !store.has(&probe, at(160)));
        store.put(Key::text("disk full", &task), scored(&store, 0.5, at(160)));
        assert_eq!(score(219), Some(0.5));
        assert_eq!(store.size().0, 1);
    }

    #[test]
    fn what_was_found_is_as_old_under_its_second_key() {
        let (task, start) = (task(), Instant::now());
        let store = Store::new(1 << 20, Duration::from_secs(60), task.hypotheses.clone(), start);
        let at = |s| start + Duration::from_secs(s);
        let log = EncodedLog { ids: vec![5, 6], truncated: false };
        store.put(Key::input(&log, &task), scored(&store, 0.25, at(100)));
        let found = store.get(&Probe::input(&log, &task), at(150)).unwrap();
        store.put(Key::text("disk full", &task), found);
        let probe = Probe::text("disk full", &task);
        assert!(store.has(&probe, at(159)) && !store.has(&probe, at(160)));
    }

    #[test]
    fn it_holds_what_fits_and_no_more() {
        let (task, now) = (task(), Instant::now());
        let bound = 4 << 20;
        let text = |i: u32| format!("request {i} took {} ms", i * 7);
        // As a tokenizer might write it: 12 ids.
        let input = |i: u32| EncodedLog { ids: vec![i; 12], truncated: false };
        for both in [false, true] {
            let store = Store::new(bound, Duration::from_secs(60), task.hypotheses.clone(), now);
            for i in 0..100_000 {
                store.put(Key::input(&input(i), &task), scored(&store, 0.5, now));
                if both {
                    store.put(Key::text(&text(i), &task), scored(&store, 0.5, now));
                }
            }
            let tables = store.cache.memory_used();
            let (entries, bytes) = store.size();
            let blocks = bytes as usize - entries * PLACE;
            assert!(tables.entries + tables.map + blocks <= bound, "{tables:?} and {blocks} bytes of {bound}");
            assert!(entries > bound / 64 * WEIGHED_64THS / 208, "{entries} entries");
            let recent = (99_000..100_000).filter(|i| {
                store.has(&Probe::input(&input(*i), &task), now)
                    && (!both || store.has(&Probe::text(&text(*i), &task), now))
            });
            assert!(recent.count() > 900, "the latest ones are there");
            store.put(Key::text(&"x".repeat(bound), &task), scored(&store, 0.5, now));
            assert!(store.get(&Probe::text(&"x".repeat(bound), &task), now).is_none());
        }
    }

    #[test]
    fn a_place_is_counted_as_large_as_it_is() {
        let store = Store::new(64 << 20, Duration::from_secs(60), task().hypotheses, Instant::now());
        let tables = store.cache.memory_used();
        let places = ((64 << 20) / 64 * WEIGHED_64THS) / LEAST;
        assert!(tables.entries + tables.map <= places * PLACE, "{tables:?} for at most {places} places");
    }
}
