//! Who may come in: how much is in the engine at once, counted in padded tokens, and whether it can be answered in time.
//!
//! Single requests and batch calls have pools of their own, so a bulk load cannot shut out single requests. A single
//! request is refused at once if its pool is full, or if what is before it takes longer than it may wait. Of a batch
//! call every log waits for its turn; only a call that cannot even begin in time is refused.
//!
//! The prediction rests on a measured rate, which may be wrong: there may be none yet, or one of a bad time. Therefore a
//! request that finds nothing else is always let in, and one that finds little is if the rate is old. Then there is a
//! backlog again, and with it a new measurement.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    batching::{Class, Rate},
    config::Batching,
    error::RequestError,
    model::tensors::LENGTH_MULTIPLE,
};

/// Age from which a rate is not trusted to refuse what is little.
const OLD: Duration = Duration::from_secs(2);
/// Share of its time that a request's predicted wait may take: the prediction is an average.
const CERTAIN: f64 = 0.8;

/// The two pools, and how fast they empty.
pub struct Admission {
    interactive: Pool,
    bulk: Pool,
    /// Tokens of batch calls that wait for a place in their pool.
    line: AtomicUsize,
    max_wait: Duration,
    bulk_share: f64,
    /// Tokens with which every device has a batch to run and one after it.
    little: usize,
    rate: Arc<Rate>,
    /// Smoothed time of a model run, in microseconds.
    run_us: AtomicU64,
}

/// Places for padded tokens.
struct Pool {
    places: Arc<Semaphore>,
    size: usize,
}

impl Pool {
    fn new(size: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(size)), size }
    }

    /// Tokens that wait or run.
    fn used(&self) -> usize {
        self.size.saturating_sub(self.places.available_permits())
    }
}

impl Admission {
    pub fn new(config: &Batching, devices: usize) -> Self {
        Self {
            interactive: Pool::new(config.max_queue_tokens),
            bulk: Pool::new(config.max_bulk_tokens),
            line: AtomicUsize::new(0),
            max_wait: Duration::from_millis(config.max_queue_wait_ms),
            bulk_share: config.bulk_share,
            little: 2 * devices * config.max_batch_tokens,
            rate: Arc::new(Rate::new(Instant::now())),
            run_us: AtomicU64::new(0),
        }
    }

    /// Most jobs that can be admitted at once: each costs at least one row of the shortest length.
    pub fn max_jobs(&self) -> usize {
        (self.interactive.size + self.bulk.size) / LENGTH_MULTIPLE
    }

    /// Where the measured rate is to be put.
    pub fn rate(&self) -> &Arc<Rate> {
        &self.rate
    }

    /// Refuses early, before a log costs anything, what has no chance.
    ///
    /// # Errors
    /// [`RequestError::Overloaded`] if there is no room for any log, [`RequestError::TooLate`] if none would be answered
    /// by `deadline`.
    pub fn check(&self, class: Class, now: Instant, deadline: Instant) -> Result<(), RequestError> {
        match class {
            Class::Interactive if self.interactive.places.available_permits() < LENGTH_MULTIPLE => Err(self.full()),
            Class::Interactive => self.in_time(0, now, deadline),
            Class::Bulk => self.begins_in_time(now, deadline),
        }
    }

    /// Takes `tokens` from the pool of `class` until the permit is dropped.
    ///
    /// # Errors
    /// As [`check`](Self::check), at once, for a single request; [`RequestError::DeadlineExceeded`] for a part of a batch
    /// call that did not get its turn in time.
    pub async fn admit(
        &self,
        class: Class,
        tokens: usize,
        now: Instant,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, RequestError> {
        let places = u32::try_from(tokens).map_err(|_| self.full())?;
        if class == Class::Interactive {
            self.in_time(tokens, now, deadline)?;
            return self.interactive.places.clone().try_acquire_many_owned(places).map_err(|_| self.full());
        }
        let _in_line = InLine::new(&self.line, tokens);
        let turn = self.bulk.places.clone().acquire_many_owned(places);
        match tokio::time::timeout_at(deadline.into(), turn).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(RequestError::Draining),
            Err(_) => Err(RequestError::DeadlineExceeded),
        }
    }

    /// Tells that one device took `time` for `tokens`.
    pub fn observe_run(&self, tokens: usize, time: Duration) {
        if tokens == 0 {
            return;
        }
        let time = time.as_micros() as u64;
        let old = self.run_us.load(Ordering::Relaxed);
        // A lost update between two devices only delays the estimate.
        self.run_us.store(if old == 0 { time } else { (9 * old + time) / 10 }, Ordering::Relaxed);
    }

    /// Whether a single request of `tokens` would be answered by `deadline`, and within the longest wait.
    fn in_time(&self, tokens: usize, now: Instant, deadline: Instant) -> Result<(), RequestError> {
        let left = deadline.saturating_duration_since(now);
        if left.is_zero() {
            return Err(RequestError::DeadlineExceeded);
        }
        let before = self.interactive.used();
        let Some(rate) = self.rate.tokens_per_second().filter(|_| before > 0) else { return Ok(()) };
        if before + tokens <= self.little && self.rate.age(now) > OLD {
            return Ok(());
        }
        // What runs holds its places to the end of its run: the wait for a device and the own run are in this together.
        let mut predicted = (before + tokens) as f64 / rate;
        if self.bulk.used() > 0 {
            predicted = predicted / (1.0 - self.bulk_share) + self.run_us.load(Ordering::Relaxed) as f64 / 1e6;
        }
        let allowed = self.max_wait.as_secs_f64().min(left.as_secs_f64() * CERTAIN);
        if predicted <= allowed {
            Ok(())
        } else {
            Err(RequestError::TooLate { retry_after: whole(predicted - allowed) })
        }
    }

    /// Whether a batch call that comes now would get its turn by `deadline`, if all devices worked for batch calls.
    fn begins_in_time(&self, now: Instant, deadline: Instant) -> Result<(), RequestError> {
        let left = deadline.saturating_duration_since(now);
        if left.is_zero() {
            return Err(RequestError::DeadlineExceeded);
        }
        let line = self.line.load(Ordering::Relaxed);
        let Some(rate) = self.rate.tokens_per_second().filter(|_| line > 0 && self.rate.age(now) <= OLD) else {
            return Ok(());
        };
        let predicted = line as f64 / rate;
        if predicted <= left.as_secs_f64() {
            return Ok(());
        }
        Err(RequestError::TooLate { retry_after: whole(predicted - left.as_secs_f64()) })
    }

    /// With the time until the present backlog is worked off.
    fn full(&self) -> RequestError {
        let backlog = (self.interactive.used() + self.bulk.used()) as f64;
        let seconds = self.rate.tokens_per_second().map_or(0.0, |rate| backlog / rate);
        RequestError::Overloaded { retry_after: whole(seconds) }
    }
}

/// Whole seconds, as `Retry-After` has them: 1 to 60.
fn whole(seconds: f64) -> Duration {
    Duration::from_secs(seconds.ceil().clamp(1.0, 60.0) as u64)
}

/// Tokens that wait in the line as long as this lives.
struct InLine<'a> {
    line: &'a AtomicUsize,
    tokens: usize,
}

impl<'a> InLine<'a> {
    fn new(line: &'a AtomicUsize, tokens: usize) -> Self {
        line.fetch_add(tokens, Ordering::Relaxed);
        Self { line, tokens }
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.line.fetch_sub(self.tokens, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet, VecDeque};

    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;
    use crate::batching::{Batch, Entry, Limits, Pace, Queue};

    const FAR: Duration = Duration::from_secs(60);

    fn small() -> Admission {
        Admission::new(
            &Batching {
                max_queue_tokens: 640,
                max_bulk_tokens: 128,
                max_batch_tokens: 64,
                bulk_share: 0.2,
                ..Batching::default()
            },
            2,
        )
    }

    async fn single(
        admission: &Admission,
        tokens: usize,
        now: Instant,
        ms: u64,
    ) -> Result<OwnedSemaphorePermit, String> {
        let permit = admission.admit(Class::Interactive, tokens, now, now + Duration::from_millis(ms)).await;
        permit.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_full_pool_refuses_singles_with_a_computed_retry() {
        let (pool, now) = (small(), Instant::now());
        let held = pool.admit(Class::Interactive, 640, now, now + FAR).await.unwrap();
        let unknown = RequestError::Overloaded { retry_after: Duration::from_secs(1) };
        assert_eq!(pool.check(Class::Interactive, now, now + FAR), Err(unknown));
        pool.rate().set(160.0, now);
        let four_seconds = RequestError::Overloaded { retry_after: Duration::from_secs(4) };
        assert_eq!(pool.check(Class::Interactive, now, now + FAR), Err(four_seconds));
        let bulk = pool.admit(Class::Bulk, 128, now, now + FAR).await.unwrap();
        let late = pool.admit(Class::Bulk, 16, now, now).await.unwrap_err();
        assert_eq!(late, RequestError::DeadlineExceeded);
        drop((held, bulk));
        assert!(pool.admit(Class::Interactive, 640, now, now + FAR).await.is_ok());
    }

    #[tokio::test]
    async fn what_would_be_late_is_refused_at_once() {
        let (pool, now) = (small(), Instant::now());
        let _first = single(&pool, 160, now, 1).await.expect("nothing else is there");
        let _second = single(&pool, 160, now, 1).await.expect("no rate is known");
        pool.rate().set(320.0, now);
        // 320 tokens and its own 32 take 1.1 s, and .8 of the time must do.
        assert!(single(&pool, 32, now, 1380).await.is_ok());
        let refused = single(&pool, 32, now, 1370).await.unwrap_err();
        assert_eq!(refused, "The server cannot answer in time. Retry after 1 s, or allow more time.");
        // Beyond 1.5 s it is too late for anyone; with four fifths of the devices even sooner.
        let third = single(&pool, 128, now, 60_000).await.unwrap();
        assert!(single(&pool, 48, now, 60_000).await.is_err());
        drop(third);
        assert!(single(&pool, 128, now, 60_000).await.is_ok());
        let _bulk = pool.admit(Class::Bulk, 16, now, now + FAR).await.unwrap();
        assert!(single(&pool, 128, now, 60_000).await.is_err());
        let passed = pool.admit(Class::Interactive, 16, now, now).await.unwrap_err();
        assert_eq!(passed, RequestError::DeadlineExceeded);
    }

    #[tokio::test]
    async fn an_old_rate_does_not_refuse_what_is_little() {
        let (pool, now) = (small(), Instant::now());
        pool.rate().set(1.0, now);
        let _first = single(&pool, 64, now, 1000).await.expect("nothing else is there");
        assert!(single(&pool, 16, now, 1000).await.is_err());
        let later = now + OLD + Duration::from_millis(1);
        // Two devices with a batch of 64 and one after it.
        let _second = single(&pool, 192, later, 1000).await.unwrap();
        assert!(single(&pool, 16, later, 1000).await.is_err());
    }

    #[tokio::test]
    async fn a_batch_call_that_cannot_begin_in_time_is_refused() {
        let (pool, now) = (small(), Instant::now());
        pool.rate().set(32.0, now);
        let held = pool.admit(Class::Bulk, 128, now, now + FAR).await.unwrap();
        let mut waits = Box::pin(pool.admit(Class::Bulk, 64, now, now + FAR));
        assert!(waits.as_mut().now_or_never().is_none());
        let check = |ms| pool.check(Class::Bulk, now, now + Duration::from_millis(ms));
        assert_eq!(check(2000), Ok(()));
        assert_eq!(check(1999), Err(RequestError::TooLate { retry_after: Duration::from_secs(1) }));
        drop(held);
        assert!(waits.await.is_ok());
        assert_eq!(check(1), Ok(()));
    }

    #[derive(Debug, Clone)]
    enum Op {
        Arrive { class: Class, rows: usize, lane: usize, patience: u64 },
        GiveUp { which: usize },
        Pass { ms: u64 },
        Take,
        Finish,
    }

    fn op() -> impl Strategy<Value = Op> {
        let class = prop_oneof![2 => Just(Class::Interactive), 1 => Just(Class::Bulk)];
        let arrive = (class, 1usize..5, 1usize..5, 1u64..3000);
        prop_oneof![
            6 => arrive.prop_map(|(class, rows, lane, patience)| Op::Arrive { class, rows, lane, patience }),
            1 => (0usize..100).prop_map(|which| Op::GiveUp { which }),
            2 => (0u64..200).prop_map(|ms| Op::Pass { ms }),
            2 => Just(Op::Take),
            2 => Just(Op::Finish),
        ]
    }

    /// An accepted request that is owed an answer.
    #[derive(Debug, Clone, Copy)]
    struct Owed {
        tokens: usize,
        class: Class,
        abandoned: bool,
    }

    /// How it ended.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum End {
        Abandoned,
        Expired,
        Answered,
    }

    /// Admission, queue and measurement as the engine puts them together, with two devices and a clock of its own.
    struct House {
        now: Instant,
        admission: Admission,
        queue: Queue<(usize, OwnedSemaphorePermit)>,
        pace: Pace,
        limits: Limits,
        running: VecDeque<Batch<(usize, OwnedSemaphorePermit)>>,
        /// Devices that found nothing when they last looked.
        resting: usize,
        owed: HashMap<usize, Owed>,
        answered: HashSet<usize>,
    }

    impl House {
        const DEVICES: usize = 2;

        fn new(now: Instant) -> Self {
            let limits = Limits {
                max_tokens: 64,
                max_bulk_tokens: 64,
                max_rows: 8,
                max_padding: 0.25,
                bulk_share: 0.2,
                max_delay: Duration::ZERO,
                aim: None,
            };
            Self {
                now,
                admission: small(),
                queue: Queue::default(),
                pace: Pace::default(),
                limits,
                running: VecDeque::new(),
                resting: Self::DEVICES,
                owed: HashMap::new(),
                answered: HashSet::new(),
            }
        }

        fn settle(&mut self, id: usize, end: End) {
            let owed = self.owed.remove(&id).expect("it was accepted, and not answered before");
            assert!(end != End::Answered || !owed.abandoned, "{id} is run for nobody");
            assert!(self.answered.insert(id), "{id} is answered twice");
        }

        fn unanswered(&self, class: Class) -> usize {
            self.owed.values().filter(|owed| owed.class == class).map(|owed| owed.tokens).sum()
        }

        fn arrive(&mut self, id: usize, class: Class, rows: usize, padded_len: usize, patience: Duration) {
            let (now, tokens, deadline) = (self.now, rows * padded_len, self.now + patience);
            let before = self.unanswered(class);
            // A bulk log that has to wait for its turn gives up at once here.
            let Some(outcome) = self.admission.admit(class, tokens, now, deadline).now_or_never() else {
                assert!(class == Class::Bulk && before + tokens > self.admission.bulk.size);
                return;
            };
            match outcome {
                Ok(permit) => {
                    self.owed.insert(id, Owed { tokens, class, abandoned: false });
                    let entry = Entry { item: (id, permit), class, rows, padded_len, enqueued_at: now, deadline };
                    self.queue.push(entry);
                }
                Err(RequestError::Overloaded { .. }) => assert!(before + tokens > self.admission.interactive.size),
                Err(RequestError::TooLate { .. }) => assert!(class == Class::Interactive && before > 0),
                Err(other) => panic!("{other}"),
            }
        }

        fn give_up(&mut self, which: usize) {
            let running = self.running.iter().flat_map(|batch| &batch.entries).map(|entry| entry.item.0);
            let running: HashSet<usize> = running.collect();
            let mut waiting: Vec<usize> = self.owed.keys().copied().filter(|id| !running.contains(id)).collect();
            waiting.sort_unstable();
            if let Some(id) = waiting.get(which % waiting.len().max(1)) {
                self.owed.get_mut(id).expect("it is one of them").abandoned = true;
            }
        }

        /// As `Batcher::ask`.
        fn take(&mut self) {
            if self.running.len() == Self::DEVICES {
                return;
            }
            for entry in self.queue.take_expired(self.now) {
                self.settle(entry.item.0, End::Expired);
            }
            let owed = &self.owed;
            for entry in self.queue.take_if(|entry| owed[&entry.item.0].abandoned) {
                self.settle(entry.item.0, End::Abandoned);
            }
            let rested = self.resting > 0;
            let Some(batch) = self.queue.take(&self.limits) else {
                self.pace.idle();
                self.resting = Self::DEVICES - self.running.len();
                return;
            };
            self.resting = self.resting.saturating_sub(1);
            assert!(batch.entries.iter().all(|entry| !entry.is_expired(self.now)), "an expired entry is run");
            if let Some(rate) = self.pace.taken(self.now, batch.tokens(), !self.queue.is_empty(), rested) {
                self.admission.rate().set(rate, self.now);
            }
            self.running.push_back(batch);
        }

        fn finish(&mut self) {
            for entry in self.running.pop_front().into_iter().flat_map(|batch| batch.entries) {
                self.settle(entry.item.0, End::Answered);
            }
        }

        fn check(&self) {
            for (class, pool) in
                [(Class::Interactive, &self.admission.interactive), (Class::Bulk, &self.admission.bulk)]
            {
                assert_eq!(pool.used(), self.unanswered(class), "{class:?}");
                assert!(pool.used() <= pool.size);
            }
            assert!(self.queue.len() <= self.admission.max_jobs());
            assert_eq!(self.admission.line.load(Ordering::Relaxed), 0);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn what_is_accepted_is_answered_once_within_the_bounds(ops in prop::collection::vec(op(), 1..300)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            // Real time has not come there: no timer fires by itself.
            let mut house = House::new(Instant::now() + 100 * FAR);
            runtime.block_on(async {
                for (id, op) in ops.into_iter().enumerate() {
                    match op {
                        Op::Arrive { class, rows, lane, patience } => {
                            house.arrive(id, class, rows, lane * 16, Duration::from_millis(patience));
                        }
                        Op::GiveUp { which } => house.give_up(which),
                        Op::Pass { ms } => house.now += Duration::from_millis(ms),
                        Op::Take => house.take(),
                        Op::Finish => house.finish(),
                    }
                    house.check();
                }
                while !house.queue.is_empty() || !house.running.is_empty() {
                    house.finish();
                    house.take();
                    house.check();
                }
            });
            prop_assert!(house.owed.is_empty());
            prop_assert_eq!((house.admission.interactive.used(), house.admission.bulk.used()), (0, 0));
            // Whatever was measured, an empty house lets the next one in.
            let deadline = house.now + Duration::from_millis(1);
            prop_assert_eq!(house.admission.check(Class::Interactive, house.now, deadline), Ok(()));
        }

        /// However wrong the rate is that it starts with, under a steady overload the house ends up working at full speed,
        /// and with waits that its rate allows.
        #[test]
        fn a_wrong_rate_is_corrected(wrong in 1.0f64..1e7, run_ms in 20u64..50) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let mut house = House::new(Instant::now() + 100 * FAR);
            house.admission.rate().set(wrong, house.now);
            let truth = (House::DEVICES * 64 * 1000) as f64 / run_ms as f64;
            runtime.block_on(async {
                // Long enough for the rate to become old.
                for tick in 0..8000 / run_ms as usize {
                    for n in 0..8 {
                        house.arrive(8 * tick + n, Class::Interactive, 2, 16, Duration::from_secs(1));
                    }
                    // A device finishes at every half run.
                    house.now += Duration::from_micros(run_ms * 500);
                    house.finish();
                    house.take();
                    house.take();
                }
            });
            let measured = house.admission.rate().tokens_per_second().unwrap();
            prop_assert!((0.9..1.1).contains(&(measured / truth)), "{measured} instead of {truth}");
        }
    }
}
