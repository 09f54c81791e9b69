//! What is in the way of others when clients leave: nothing.

use std::time::Duration;

use tokio::sync::Semaphore;

use super::*;
use crate::{
    batching::{Answer, Class, Limits, Load},
    model::EncodedLog,
};

const ROOM: usize = 4;

const ASKER: Asker = Asker {
    seat: 0,
    gpu: None,
    limits: Limits {
        max_tokens: 4096,
        max_bulk_tokens: 4096,
        max_rows: 256,
        max_padding: 0.25,
        max_padding_tokens: usize::MAX,
        bulk_share: 0.2,
        max_delay: Duration::ZERO,
        aim: None,
    },
    cost: None,
    probe_after: None,
};

/// An inbox with room for four jobs, and places for as many to wait or run.
struct House {
    inbox: Inbox,
    batcher: Arc<Batcher>,
    places: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl House {
    fn new() -> Self {
        let metrics = Metrics::new().unwrap();
        let (inbox, batcher) =
            Batcher::new(ROOM, Desk::new(1, false), Arc::new(Rate::new(Instant::now())), metrics.clone());
        Self { inbox, batcher, places: Arc::new(Semaphore::new(ROOM)), metrics }
    }

    fn send(&self) -> Result<Answer, NotTaken> {
        let permit = self.places.clone().try_acquire_owned().expect("whoever left gave it back");
        let log = EncodedLog { ids: vec![1; 8], truncated: false };
        let (item, answer) = Load { log, hypotheses: vec![vec![1], vec![2]].into(), permit }.wait();
        let (enqueued_at, deadline) = (Instant::now(), Instant::now() + Duration::from_secs(600));
        let entry = Entry { item, class: Class::Interactive, rows: 2, tokens: 32, len: 16, enqueued_at, deadline };
        self.metrics.queue_jobs.increment(1.0);
        self.metrics.queue_tokens.increment(entry.tokens as f64);
        self.inbox.try_send(entry).map(|()| answer)
    }

    /// What the gauges tell of jobs and tokens that wait.
    fn waiting(&self) -> (f64, f64) {
        let text = self.metrics.render();
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap();
        (value("oddlog_queue_jobs "), value("oddlog_queue_tokens "))
    }

    fn held(&self) -> usize {
        self.batcher.arrivals.len() + self.batcher.lock().desk.queue.len()
    }
}

#[test]
fn what_was_given_up_makes_room_while_no_device_asks() {
    let house = House::new();
    let stays = [house.send().unwrap(), house.send().unwrap()];
    for _ in 0..1000 {
        let pair = [house.send().unwrap(), house.send().unwrap()];
        drop(pair);
        assert!(house.held() <= 2 * ROOM, "{}", house.held());
    }
    let last = house.send().unwrap();
    house.batcher.sweep();
    assert_eq!((house.held(), house.waiting()), (3, (3.0, 96.0)));
    let batch = house.batcher.next_batch(&ASKER, || {}).unwrap();
    assert_eq!((batch.entries.len(), batch.size.rows(), batch.size.row_len()), (3, 6, 16));
    assert_eq!((house.held(), house.waiting()), (0, (0.0, 0.0)));
    // They run: who leaves now is counted to the end.
    drop((stays, last));
    assert_eq!(house.places.available_permits(), 1);
    drop(batch);
    assert_eq!(house.places.available_permits(), ROOM);
}

#[test]
fn a_device_that_is_about_to_wait_sees_what_a_sweep_took_in() {
    let house = House::new();
    let _answer = house.send().unwrap();
    house.batcher.sweep();
    assert!(house.batcher.arrivals.is_empty() && house.batcher.left.load(Ordering::Acquire));
    assert_eq!(house.batcher.next_batch(&ASKER, || {}).unwrap().entries.len(), 1);
    assert!(!house.batcher.left.load(Ordering::Acquire));
}

#[test]
fn without_a_batcher_the_inbox_is_closed() {
    let mut house = House::new();
    house.batcher = House::new().batcher;
    assert_eq!(house.send().unwrap_err(), NotTaken::Closed);
    assert_eq!(house.places.available_permits(), ROOM);
}
