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
    max_places: usize,
    max_bytes: usize,
    lost: fn() -> T,
}

struct Place<T> {
    /// The caller's number.
    number: u64,
    bytes: usize,
    task: Option<Id>,
    done: Option<T>,
}

impl<T: Send + 'static> Window<T> {
    /// `lost` stands for the outcome of a future that panics.
    pub fn new(max_places: usize, max_bytes: usize, lost: fn() -> T) -> Self {
        Self { running: JoinSet::new(), places: VecDeque::new(), gone: 0, bytes: 0, max_places, max_bytes, lost }
    }

    /// Whether nothing should go in before something comes out.
    pub fn is_full(&self) -> bool {
        self.places.len() >= self.max_places || self.bytes >= self.max_bytes
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

    /// The next one in order; `None` if there is none. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<(u64, T)> {
        loop {
            if let Some(next) = self.take_first() {
                return Some(next);
            }
            let joined = self.running.join_next_with_id().await?;
            self.settle(joined);
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
        assert!(window.is_full(), "by count and by bytes");
        tokio::task::yield_now().await;
        assert_eq!(window.ready(), None);
        send.send("first").unwrap();
        assert_eq!(window.next().await, Some((10, "first")));
        assert!(!window.is_full());
        assert_eq!(window.next().await, Some((12, "lost")));
        assert_eq!(window.next().await, Some((13, "here")));
        assert_eq!(window.next().await, Some((14, "last")));
        assert_eq!((window.next().await, window.is_empty()), (None, true));
        window.run(15, 200, async { "large" });
        assert!(window.is_full());
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
