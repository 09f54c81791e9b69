//! Admission, queue and measurement put together, under any sequence of events.

use std::collections::{HashMap, HashSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::{
    batching::{Answer, Batch, Entry, Job, Limits, Load, Pace, Queue, Ticket},
    model::EncodedLog,
};

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
    /// Its client left before a device had it.
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
    queue: Queue<(usize, Ticket)>,
    pace: Pace,
    limits: Limits,
    running: VecDeque<Batch<(usize, Job)>>,
    /// Devices that found nothing when they last looked.
    resting: usize,
    owed: HashMap<usize, Owed>,
    /// Whoever waits still.
    clients: HashMap<usize, Answer>,
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
            max_padding_tokens: usize::MAX,
            bulk_share: 0.2,
            max_delay: Duration::ZERO,
            aim: None,
        };
        Self {
            now,
            admission: small(),
            queue: Queue::new(false),
            pace: Pace::default(),
            limits,
            running: VecDeque::new(),
            resting: Self::DEVICES,
            owed: HashMap::new(),
            clients: HashMap::new(),
            answered: HashSet::new(),
        }
    }

    fn settle(&mut self, id: usize, end: End) {
        let owed = self.owed.remove(&id).expect("it was accepted, and not answered before");
        assert!(end != End::Answered || !owed.abandoned, "{id} is run for nobody");
        assert!(self.answered.insert(id), "{id} is answered twice");
        self.clients.remove(&id);
    }

    fn unanswered(&self, class: Class) -> usize {
        let counts = |owed: &&Owed| owed.class == class && !owed.abandoned;
        self.owed.values().filter(counts).map(|owed| owed.tokens).sum()
    }

    fn arrive(&mut self, id: usize, class: Class, rows: usize, len: usize, patience: Duration) {
        let (now, tokens, deadline) = (self.now, rows * len, self.now + patience);
        let before = self.unanswered(class);
        // A bulk log that has to wait for its turn gives up at once here.
        let Some(outcome) = self.admission.admit(class, tokens, now, deadline).now_or_never() else {
            assert!(class == Class::Bulk && before + tokens > self.admission.bulk.size);
            return;
        };
        match outcome {
            Ok(permit) => {
                self.owed.insert(id, Owed { tokens, class, abandoned: false });
                let log = EncodedLog { ids: Vec::new(), truncated: false };
                let (ticket, answer) = Load { log, hypotheses: Vec::new().into(), permit }.wait();
                self.clients.insert(id, answer);
                let entry = Entry { item: (id, ticket), class, rows, tokens, len, enqueued_at: now, deadline };
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
        let mut clients: Vec<usize> = self.clients.keys().copied().collect();
        clients.sort_unstable();
        if let Some(id) = clients.get(which % clients.len().max(1)) {
            self.clients.remove(id);
            self.owed.get_mut(id).expect("it is one of them").abandoned = !running.contains(id);
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
        for entry in self.queue.take_if(|entry| entry.item.1.is_abandoned()) {
            assert!(self.owed[&entry.item.0].abandoned);
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
        if let Some(rate) = self.pace.taken(self.now, batch.size.tokens(), !self.queue.is_empty(), rested) {
            self.admission.rate().set(rate, self.now);
        }
        let begin = |(id, ticket): (usize, Ticket)| Some((id, ticket.begin()?));
        self.running.extend(batch.try_map(begin));
    }

    fn finish(&mut self) {
        for entry in self.running.pop_front().into_iter().flat_map(|batch| batch.entries) {
            self.settle(entry.item.0, End::Answered);
        }
    }

    fn check(&self) {
        for (class, pool) in [(Class::Interactive, &self.admission.interactive), (Class::Bulk, &self.admission.bulk)] {
            assert_eq!(pool.used(), self.unanswered(class), "{class:?}");
            assert!(pool.used() <= pool.size);
        }
        let waiting = self.owed.values().filter(|owed| !owed.abandoned).count();
        assert!(waiting <= self.admission.max_jobs());
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
