//! Work that runs at the same time and comes out in the order in which it went in, within a bound of count and bytes.

use std::{collections::VecDeque, future::Future};

use tokio::task::{Id, JoinSet};

/// Runs futures on all threads of the runtime. Dropping it aborts them.
pub struct Window<T> {
    running: JoinSet<(u64, T)>,
    places: VecDeque<Place<T>>,
    /// How many came out before the first place.
    gone: u64,
    bytes: usize,
    max_running: usize,
    max_bytes: usize,
    lost: fn() -> T,
}

/// Places for each one that may run: what is done waits in them for what went in before it, and is little.
const PLACES: usize = 8;

struct Place<T> {
    /// The caller's number.
    number: u64,
    bytes: usize,
    task: Option<Id>,
    done: Option<T>,
}

impl<T: Send + 'static> Window<T> {
    /// For at most `max_running` futures at once, and outcomes of so many times [`PLACES`]. `lost` stands for the outcome of
    /// a future that panics.
    pub fn new(max_running: usize, max_bytes: usize, lost: fn() -> T) -> Self {
        Self { running: JoinSet::new(), places: VecDeque::new(), gone: 0, bytes: 0, max_running, max_bytes, lost }
    }

    /// Whether nothing should go in before something is done or comes out.
    pub fn is_full(&self) -> bool {
        let places = self.max_running.saturating_mul(PLACES);
        self.running.len() >= self.max_running || self.places.len() >= places || self.bytes >= self.max_bytes
    }

    /// Whether nothing is to come out.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Runs `work`, which keeps `bytes` in memory; its outcome comes out with `number`.
    pub fn run(&mut self, number: u64, bytes: usize, work: impl Future<Output = T> + Send + 'static) {
        let at = self.gone + self.places.len() as u64;
        let task = self.running.spawn(async move { (at, work.await) }).id();
        self.bytes += bytes;
        self.places.push_back(Place { number, bytes, task: Some(task), done: None });
    }

    /// Puts in what is done already.
    pub fn put(&mut self, number: u64, done: T) {
        self.places.push_back(Place { number, bytes: 0, task: None, done: Some(done) });
    }

    /// Waits until one of those that run is done; for ever if none runs. Nothing is lost if the future is dropped.
    pub async fn settled(&mut self) {
        match self.running.join_next_with_id().await {
            Some(joined) => self.settle(joined),
            None => std::future::pending().await,
        }
    }

    /// The next one in order, if it is done.
    pub fn ready(&mut self) -> Option<(u64, T)> {
        while let Some(joined) = self.running.try_join_next_with_id() {
            self.settle(joined);
        }
        self.take_first()
    }

    fn take_first(&mut self) -> Option<(u64, T)> {
        self.places.front()?.done.as_ref()?;
        let place = self.places.pop_front()?;
        self.gone += 1;
        self.bytes -= place.bytes;
        Some((place.number, place.done?))
    }

    fn settle(&mut self, joined: Result<(Id, (u64, T)), tokio::task::JoinError>) {
        match joined {
            Ok((_, (at, outcome))) => {
                if let Some(place) = self.places.get_mut((at - self.gone) as usize) {
                    place.done = Some(outcome);
                }
            }
            Err(error) => {
                let id = Some(error.id());
                if let Some(place) = self.places.iter_mut().find(|place| place.task == id) {
                    place.done = Some((self.lost)());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_goes_in_comes_out_in_order_even_if_it_panics() {
        let mut window = Window::new(4, 100, || "lost");
        let (send, receive) = oneshot::channel();
        window.run(10, 60, async { receive.await.unwrap() });
        window.run(12, 10, async { panic!("this test panics on purpose") });
        window.put(13, "here");
        assert!(!window.is_full());
        window.run(14, 30, async { "last" });
        assert!(window.is_full(), "by bytes");
        // Those that are done let others in, but none comes out before the first.
        window.settled().await;
        window.settled().await;
        assert_eq!(window.ready(), None);
        send.send("first").unwrap();
        window.settled().await;
        let all: Vec<_> = std::iter::from_fn(|| window.ready()).collect();
        assert_eq!(all, [(10, "first"), (12, "lost"), (13, "here"), (14, "last")]);
        assert!(window.is_empty() && !window.is_full());
        window.run(15, 200, async { "large" });
        assert!(window.is_full());
    }

    #[tokio::test]
    async fn it_is_full_by_what_runs_or_by_what_waits_to_come_out() {
        let mut window = Window::new(2, 100, || 0);
        let first = oneshot::channel::<u64>();
        window.run(0, 1, async { first.1.await.unwrap() });
        window.run(1, 1, async { 1 });
        assert!(window.is_full(), "two run");
        window.settled().await;
        assert!(!window.is_full());
        for number in 2..16 {
            assert!(!window.is_full(), "{number}");
            window.put(number, number);
        }
        assert!(window.is_full(), "what is done waits for the first one");
        first.0.send(0).unwrap();
        window.settled().await;
        assert_eq!(
            std::iter::from_fn(|| window.ready()).map(|(number, _)| number).collect::<Vec<_>>(),
            Vec::from_iter(0..16)
        );
    }

    #[tokio::test]
    async fn dropping_it_ends_what_runs() {
        let (send, receive) = oneshot::channel::<()>();
        let mut window = Window::new(4, 100, || ());
        window.run(1, 1, async move {
            let _kept = send;
            std::future::pending::<()>().await;
        });
        tokio::task::yield_now().await;
        drop(window);
        assert!(receive.await.is_err());
    }
}
