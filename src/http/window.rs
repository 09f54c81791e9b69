//! Work that runs at the same time and comes out in the order in which it went in, within a bound of count and bytes.

use std::{collections::VecDeque, future::Future, pin::Pin};

use tokio::task::{Id, JoinSet};

/// Runs futures on all threads of the runtime. Dropping it aborts them.
pub struct Window<T> {
    running: JoinSet<Found<T>>,
    places: VecDeque<Place<T>>,
    /// How many came out before the first place.
    gone: u64,
    /// Places of what is not done.
    open: usize,
    bytes: usize,
    max_open: usize,
    max_bytes: usize,
    lost: fn() -> T,
}

/// Places for each one that may be open: what is done waits in them for what went in before it, and is little.
const PLACES: usize = 8;

/// A place that was taken for something that is not done yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat(u64);

/// How it goes on with what has a seat.
pub enum Next<T> {
    /// It is done.
    Done(T),
    /// This has to run.
    Run(Pin<Box<dyn Future<Output = T> + Send>>),
}

/// How it goes on with each of some seats.
pub type Found<T> = Vec<(Seat, Next<T>)>;

struct Place<T> {
    /// The caller's number.
    number: u64,
    bytes: usize,
    task: Option<Id>,
    done: Option<T>,
}

impl<T: Send + 'static> Window<T> {
    /// For at most `max_open` at once that are not done, and outcomes of so many times [`PLACES`]. `lost` stands for the
    /// outcome of work that panics.
    pub fn new(max_open: usize, max_bytes: usize, lost: fn() -> T) -> Self {
        Self { running: JoinSet::new(), places: VecDeque::new(), gone: 0, open: 0, bytes: 0, max_open, max_bytes, lost }
    }

    /// Whether nothing should go in before something is done or comes out.
    pub fn is_full(&self) -> bool {
        let places = self.max_open.saturating_mul(PLACES);
        self.open >= self.max_open || self.places.len() >= places || self.bytes >= self.max_bytes
    }

    /// Whether nothing is to come out.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Takes the next place for something that keeps `bytes` in memory; its outcome comes out with `number`. Give it to
    /// [`go_on`](Self::go_on) or [`run`](Self::run): whatever comes after it waits for it.
    pub fn reserve(&mut self, number: u64, bytes: usize) -> Seat {
        let seat = Seat(self.gone + self.places.len() as u64);
        self.open += 1;
        self.bytes += bytes;
        self.places.push_back(Place { number, bytes, task: None, done: None });
        seat
    }

    /// Runs `work`, which finds out how it goes on with each of `seats`.
    pub fn run(&mut self, seats: &[Seat], work: impl Future<Output = Found<T>> + Send + 'static) {
        let task = self.running.spawn(work).id();
        for seat in seats {
            self.hold(*seat, task);
        }
    }

    /// Goes on with what has a seat.
    pub fn go_on(&mut self, seat: Seat, next: Next<T>) {
        match next {
            Next::Done(done) => self.fill(seat, done),
            Next::Run(work) => self.run(&[seat], async move { vec![(seat, Next::Done(work.await))] }),
        }
    }

    /// Puts in what is done already.
    pub fn put(&mut self, number: u64, done: T) {
        self.places.push_back(Place { number, bytes: 0, task: None, done: Some(done) });
    }

    /// Waits until some of what runs is done; for ever if nothing runs. Nothing is lost if the future is dropped.
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

    fn settle(&mut self, joined: Result<(Id, Found<T>), tokio::task::JoinError>) {
        match joined {
            Ok((_, found)) => found.into_iter().for_each(|(seat, next)| self.go_on(seat, next)),
            Err(error) => {
                let id = Some(error.id());
                let lost = self.places.iter_mut().filter(|place| place.task == id && place.done.is_none());
                for place in lost {
                    place.done = Some((self.lost)());
                    self.open -= 1;
                }
            }
        }
    }

    fn place(&mut self, Seat(at): Seat) -> Option<&mut Place<T>> {
        self.places.get_mut((at - self.gone) as usize)
    }

    fn hold(&mut self, seat: Seat, task: Id) {
        if let Some(place) = self.place(seat) {
            place.task = Some(task);
        }
    }

    fn fill(&mut self, seat: Seat, done: T) {
        if let Some(place) = self.place(seat) {
            place.done = Some(done);
            self.open -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    impl<T: Send + 'static> Window<T> {
        fn start(&mut self, number: u64, bytes: usize, work: impl Future<Output = T> + Send + 'static) {
            let seat = self.reserve(number, bytes);
            self.go_on(seat, Next::Run(Box::pin(work)));
        }
    }

    #[tokio::test]
    async fn what_goes_in_comes_out_in_order_even_if_it_panics() {
        let mut window = Window::new(4, 100, || "lost");
        let (send, receive) = oneshot::channel();
        window.start(10, 60, async { receive.await.unwrap() });
        window.start(12, 10, async { panic!("this test panics on purpose") });
        window.put(13, "here");
        assert!(!window.is_full());
        window.start(14, 30, async { "last" });
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
        window.start(15, 200, async { "large" });
        assert!(window.is_full());
    }

    #[tokio::test]
    async fn work_may_tell_of_many_how_it_goes_on() {
        let mut window = Window::new(4, 100, || "lost");
        let seats = [window.reserve(1, 1), window.reserve(3, 1)];
        window.put(4, "known");
        let other = window.reserve(5, 1);
        let (send, receive) = oneshot::channel();
        window.run(&seats, async move {
            let late: Next<_> = Next::Run(Box::pin(async { receive.await.unwrap() }));
            vec![(seats[1], Next::Done("third")), (seats[0], late)]
        });
        window.go_on(other, Next::Done("fifth"));
        window.settled().await;
        assert_eq!((window.ready(), window.open), (None, 1));
        send.send("first").unwrap();
        window.settled().await;
        let all: Vec<_> = std::iter::from_fn(|| window.ready()).collect();
        assert_eq!(all, [(1, "first"), (3, "third"), (4, "known"), (5, "fifth")]);

        // One that panics takes all of its own with it, and nothing else.
        let seats = [6, 7, 8].map(|number| window.reserve(number, 1));
        window.run(&seats[..2], async { panic!("this test panics on purpose") });
        window.go_on(seats[2], Next::Done("eighth"));
        window.settled().await;
        let all: Vec<_> = std::iter::from_fn(|| window.ready()).collect();
        assert_eq!(all, [(6, "lost"), (7, "lost"), (8, "eighth")]);
        assert_eq!((window.open, window.bytes, window.is_empty()), (0, 0, true));
    }

    #[tokio::test]
    async fn it_is_full_by_what_is_open_or_by_what_waits_to_come_out() {
        let mut window = Window::new(2, 100, || 0);
        let first = oneshot::channel::<u64>();
        window.start(0, 1, async { first.1.await.unwrap() });
        let second = window.reserve(1, 1);
        assert!(window.is_full(), "two are open");
        window.go_on(second, Next::Done(1));
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
        window.start(1, 1, async move {
            let _kept = send;
            std::future::pending::<()>().await;
        });
        tokio::task::yield_now().await;
        drop(window);
        assert!(receive.await.is_err());
    }
}
