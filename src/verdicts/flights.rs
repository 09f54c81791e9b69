//! Twins in flight: of the requests that want the same, one leads and the others wait for what it finds.
//!
//! ```text
//! join -> Seat -> turn -> Lead    : compute, then land        -> every other seat: Landed
//!                      `           or be dropped, for whatever reason -> the seat that has waited longest: Lead
//!                       -> Landed
//! ```
//!
//! No task runs on its own: a lead is held by the request that computes, and passes on when that ends without a
//! result. It does not know what is computed, nor how long anyone is willing to wait.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use tokio::sync::{Semaphore, SemaphorePermit};

/// What is being computed, by what it is asked for.
pub struct Flights<K, T> {
    table: Mutex<Table<K, T>>,
    max_seats: usize,
}

struct Table<K, T> {
    flights: HashMap<Arc<K>, Listed<T>>,
    /// Of all flights, landed ones too.
    seats: usize,
}

struct Listed<T> {
    flight: Arc<Flight<T>>,
    seats: usize,
}

struct Flight<T> {
    /// One permit: the lead. Closed once it has landed. It is handed on in the order of asking.
    lead: Semaphore,
    landed: OnceLock<T>,
}

/// A request's part in a flight. Dropping it at any time is fine.
pub struct Seat<'f, K: Hash + Eq, T> {
    flights: &'f Flights<K, T>,
    key: Arc<K>,
    flight: Arc<Flight<T>>,
}

/// What a seat was waiting for.
pub enum Turn<'s, K: Hash + Eq, T> {
    /// To compute it.
    Lead(Lead<'s, K, T>),
    /// Another one did.
    Landed(T),
}

/// The duty to compute. Dropped without landing it passes on.
pub struct Lead<'s, K: Hash + Eq, T> {
    seat: &'s Seat<'s, K, T>,
    _permit: SemaphorePermit<'s>,
}

impl<K: Hash + Eq, T: Clone> Flights<K, T> {
    /// For at most `max_seats` requests at once.
    pub fn new(max_seats: usize) -> Self {
        Self { table: Mutex::new(Table { flights: HashMap::new(), seats: 0 }), max_seats }
    }

    /// A seat in the flight for `key`, which begins with the first one. `None` if all seats are taken.
    pub fn join(&self, key: K) -> Option<Seat<'_, K, T>> {
        let mut table = self.table();
        if table.seats >= self.max_seats {
            return None;
        }
        table.seats += 1;
        // Who joins shares the key that is listed, and drops its own.
        let key = table.flights.get_key_value(&key).map_or_else(|| Arc::new(key), |(listed, _)| listed.clone());
        let new = || Listed { flight: Arc::new(Flight { lead: Semaphore::new(1), landed: OnceLock::new() }), seats: 0 };
        let listed = table.flights.entry(key.clone()).or_insert_with(new);
        listed.seats += 1;
        Some(Seat { flights: self, key, flight: listed.flight.clone() })
    }
}

impl<K, T> Flights<K, T> {
    fn table(&self) -> MutexGuard<'_, Table<K, T>> {
        // A poisoned lock guards a table that is still whole: nothing panics between two of its changes.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq, T: Clone> Seat<'_, K, T> {
    /// Waits for the lead, or for what its holder finds.
    pub async fn turn(&self) -> Turn<'_, K, T> {
        let permit = self.flight.lead.acquire().await;
        match (permit, self.flight.landed.get()) {
            (_, Some(found)) => Turn::Landed(found.clone()),
            (Ok(permit), None) => Turn::Lead(Lead { seat: self, _permit: permit }),
            (Err(_), None) => unreachable!("a lead closes after it has landed"),
        }
    }
}

impl<K: Hash + Eq, T> Lead<'_, K, T> {
    /// What the flight is for.
    pub fn key(&self) -> &K {
        &self.seat.key
    }

    /// Gives every seat of the flight what was found. Whoever joins from now on begins another flight.
    pub fn land(self, found: T) {
        let Seat { flights, key, flight } = self.seat;
        let first = flight.landed.set(found).is_ok();
        debug_assert!(first, "there is one lead at a time, and none after it has landed");
        let mut table = flights.table();
        if table.flights.get(key).is_some_and(|listed| Arc::ptr_eq(&listed.flight, flight)) {
            table.flights.remove(key);
        }
        drop(table);
        flight.lead.close();
    }
}

impl<K: Hash + Eq, T> Drop for Seat<'_, K, T> {
    fn drop(&mut self) {
        let mut table = self.flights.table();
        table.seats -= 1;
        // A flight that has landed is not listed any more; the one that is may be a later one.
        if let Some(listed) = table.flights.get_mut(&self.key)
            && Arc::ptr_eq(&listed.flight, &self.flight)
        {
            listed.seats -= 1;
            if listed.seats == 0 {
                table.flights.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        collections::BTreeMap,
        future::poll_fn,
        pin::Pin,
        sync::atomic::{AtomicBool, Ordering},
        task::{Context, Poll, Wake, Waker},
    };

    use proptest::prelude::*;

    use super::*;

    /// What a computation ends with: a value, or nothing.
    type Found = Option<u32>;

    /// What requests and the test tell each other.
    #[derive(Default)]
    struct World {
        /// Leading requests by key.
        leading: RefCell<BTreeMap<u8, usize>>,
        /// Computations that are to end, by request.
        ends: RefCell<BTreeMap<usize, Found>>,
        runs: Cell<usize>,
    }

    /// Takes the lead off the list, whatever ends it.
    struct Leading<'w>(&'w World, u8);

    impl Drop for Leading<'_> {
        fn drop(&mut self) {
            self.0.leading.borrow_mut().remove(&self.1);
        }
    }

    async fn request(flights: &Flights<u8, u32>, world: &World, key: u8, me: usize) -> Found {
        let seat = flights.join(key).expect("there are seats for all");
        match seat.turn().await {
            Turn::Landed(found) => Some(found),
            Turn::Lead(lead) => {
                assert_eq!(world.leading.borrow_mut().insert(key, me), None, "two lead at once");
                let leading = Leading(world, key);
                world.runs.set(world.runs.get() + 1);
                let found = poll_fn(|_| match world.ends.borrow_mut().remove(&me) {
                    Some(found) => Poll::Ready(found),
                    None => Poll::Pending,
                });
                let found = found.await;
                drop(leading);
                lead.land(found?);
                found
            }
        }
    }

    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    struct Running<'w> {
        key: u8,
        future: Pin<Box<dyn Future<Output = Found> + 'w>>,
        woken: Arc<Woken>,
        joined: bool,
        /// What it must end with, once that is certain.
        expected: Option<Found>,
    }

    #[derive(Debug, Clone)]
    enum Step {
        Arrive(u8),
        Poll(prop::sample::Index),
        HangUp(prop::sample::Index),
        End(prop::sample::Index, bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0u8..3).prop_map(Step::Arrive),
            6 => any::<prop::sample::Index>().prop_map(Step::Poll),
            2 => any::<prop::sample::Index>().prop_map(Step::HangUp),
            3 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(who, fine)| Step::End(who, fine)),
        ]
    }

    struct Game<'w> {
        flights: &'w Flights<u8, u32>,
        world: &'w World,
        running: BTreeMap<usize, Running<'w>>,
        arrived: usize,
    }

    impl Game<'_> {
        fn one(&self, who: prop::sample::Index) -> Option<usize> {
            let all: Vec<usize> = self.running.keys().copied().collect();
            (!all.is_empty()).then(|| *who.get(&all))
        }

        /// Polls as an executor does: only what was woken.
        fn poll(&mut self, me: usize) {
            let one = self.running.get_mut(&me).unwrap();
            if !one.woken.0.swap(false, Ordering::Relaxed) {
                return;
            }
            one.joined = true;
            let waker = Waker::from(one.woken.clone());
            if let Poll::Ready(found) = one.future.as_mut().poll(&mut Context::from_waker(&waker)) {
                assert_eq!(Some(found), one.expected, "request {me}");
                self.running.remove(&me);
            }
        }

        fn arrive(&mut self, key: u8) {
            let me = self.arrived;
            self.arrived += 1;
            let future = Box::pin(request(self.flights, self.world, key, me));
            let woken = Arc::new(Woken(AtomicBool::new(true)));
            self.running.insert(me, Running { key, future, woken, joined: false, expected: None });
        }

        /// Ends the computation of the request that leads on the key of `of`.
        fn end(&mut self, of: usize, fine: bool) {
            let key = self.running[&of].key;
            let Some(&leader) = self.world.leading.borrow().get(&key) else { return };
            let found = fine.then_some(1000 * u32::from(key) + leader as u32);
            self.world.ends.borrow_mut().insert(leader, found);
            for (me, one) in &mut self.running {
                // What lands is for everyone who has a seat by now; a failure is for the leader alone.
                if one.key == key && one.joined && one.expected.is_none() && (fine || *me == leader) {
                    one.expected = Some(found);
                }
            }
            self.running[&leader].woken.0.store(true, Ordering::Relaxed);
            self.poll(leader);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn everyone_is_answered_by_one_lead_at_a_time(steps in prop::collection::vec(step(), 0..80)) {
            let (flights, world) = (Flights::new(1000), World::default());
            let mut game = Game { flights: &flights, world: &world, running: BTreeMap::new(), arrived: 0 };
            let (mut hung_up, mut failed) = (0, 0);
            for step in steps {
                match step {
                    Step::Arrive(key) => game.arrive(key),
                    Step::Poll(who) => if let Some(me) = game.one(who) { game.poll(me) },
                    Step::HangUp(who) => if let Some(me) = game.one(who) {
                        game.running.remove(&me);
                        hung_up += 1;
                    },
                    Step::End(who, fine) => if let Some(me) = game.one(who) {
                        failed += usize::from(!fine);
                        game.end(me, fine);
                    },
                }
            }
            while !game.running.is_empty() {
                let all: Vec<usize> = game.running.keys().copied().collect();
                for &me in &all {
                    game.poll(me);
                }
                let leaders: Vec<usize> = world.leading.borrow().values().copied().collect();
                leaders.iter().for_each(|&leader| if game.running.contains_key(&leader) { game.end(leader, true) });
                let awake = |one: &Running| one.woken.0.load(Ordering::Relaxed);
                prop_assert!(
                    game.running.is_empty() || !leaders.is_empty() || game.running.values().any(awake),
                    "someone waits for nobody"
                );
            }
            prop_assert!(world.runs.get() <= game.arrived);
            prop_assert!(hung_up + failed > 0 || world.runs.get() <= game.arrived);
            let table = flights.table();
            prop_assert_eq!((table.flights.len(), table.seats), (0, 0));
        }
    }

    #[tokio::test]
    async fn seats_are_bounded_and_come_back() {
        let flights = Flights::<u8, u32>::new(2);
        let (one, two) = (flights.join(1).unwrap(), flights.join(1).unwrap());
        assert!(flights.join(1).is_none() && flights.join(2).is_none());
        let Turn::Lead(lead) = one.turn().await else { panic!("the first one leads") };
        assert_eq!(lead.key(), &1);
        lead.land(7);
        assert!(flights.join(2).is_none(), "those who have landed sit until they have read it");
        assert!(matches!(two.turn().await, Turn::Landed(7)));
        drop((one, two));
        let later = flights.join(1).unwrap();
        assert!(matches!(later.turn().await, Turn::Lead(_)), "what has landed is not kept here");
    }
}
