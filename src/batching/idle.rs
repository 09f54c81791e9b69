//! Where free devices wait. The last one to go idle is the first to be woken: its caches are warm.
//!
//! A lone stream of requests then stays on one device instead of going round all of them. Devices have ranks: one that is
//! slower than others is woken after them. It does not know what they wait for.
//!
//! ```text
//! device: wait(until, ready?)  -> on the stack, asks again for a moment, parks
//! sender: puts its job down, then wake_one() -> pops the stack, unparks
//! ```
//! A device is on the stack before it asks once more, and a sender looks at the stack after its job is down: one of the
//! two always sees the other.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// How long a device looks for work before it parks. A client that sends one request after another sends the next within
/// this time; waking up, and a processor that went to sleep meanwhile, would cost it more.
const LOOK: Duration = Duration::from_micros(300);

/// The stack of waiting threads.
#[derive(Debug, Default)]
pub struct Idle {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// With ranks, the last one to come at the end.
    waiting: Vec<(usize, Thread)>,
    closed: bool,
}

impl Idle {
    /// Wakes the thread that went idle last of those with the lowest rank, if any waits.
    pub fn wake_one(&self) {
        let woken = {
            let waiting = &mut self.lock().waiting;
            // The last of the lowest: the first one from the end that no other is below.
            let lowest = waiting.iter().enumerate().rev().min_by_key(|(_, (rank, _))| *rank).map(|(at, _)| at);
            lowest.map(|at| waiting.remove(at))
        };
        if let Some((_, thread)) = woken {
            thread.unpark();
        }
    }

    /// Wakes everyone, and nobody waits from now on.
    pub fn close(&self) {
        let woken = {
            let mut state = self.lock();
            state.closed = true;
            std::mem::take(&mut state.waiting)
        };
        woken.iter().for_each(|(_, thread)| thread.unpark());
    }

    /// Waits until woken, until the moment `until`, until `ready`, or not at all if closed. It may return too early; a
    /// change of `ready` is seen without a call of [`wake_one`](Self::wake_one) only at first, and by those of rank 0 for
    /// a while.
    pub fn wait(&self, rank: usize, until: Option<Instant>, ready: impl Fn() -> bool) {
        let me = thread::current();
        let id = me.id();
        {
            let mut state = self.lock();
            if state.closed {
                return;
            }
            state.waiting.push((rank, me));
        }
        let parks_at = Instant::now() + if rank == 0 { LOOK } else { Duration::ZERO };
        let parks_at = until.map_or(parks_at, |until| until.min(parks_at));
        let ready = loop {
            if ready() {
                break true;
            }
            if Instant::now() >= parks_at {
                break false;
            }
            thread::yield_now();
        };
        if !ready {
            match until {
                Some(until) => thread::park_timeout(until.saturating_duration_since(Instant::now())),
                None => thread::park(),
            }
        }
        self.lock().waiting.retain(|(_, thread)| thread.id() != id);
    }

    /// Waits until the moment `until`, and is not woken. It may return too early.
    pub fn pause(until: Instant) {
        thread::park_timeout(until.saturating_duration_since(Instant::now()));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use crossbeam_channel::{Receiver, Sender, bounded};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A thread that waits once for each token of `gate` and tells each return.
    fn waiter(idle: &Arc<Idle>, name: char, told: &Sender<char>) -> Sender<()> {
        let (idle, told, (gate, tokens)) = (idle.clone(), told.clone(), bounded::<()>(8));
        start(move || {
            for () in tokens {
                idle.wait(0, None, || false);
                told.send(name).unwrap();
            }
        });
        gate
    }

    fn start(work: impl FnOnce() + Send + 'static) {
        thread::Builder::new().spawn(work).unwrap();
    }

    fn wait_for(idle: &Idle, waiting: usize) {
        let until = Instant::now() + PATIENCE;
        while idle.lock().waiting.len() != waiting {
            assert!(Instant::now() < until, "nobody came");
            thread::yield_now();
        }
    }

    fn next(told: &Receiver<char>) -> char {
        told.recv_timeout(PATIENCE).expect("somebody wakes")
    }

    #[test]
    fn the_last_one_to_go_idle_is_woken_first() {
        let (idle, (tell, told)) = (Arc::new(Idle::default()), bounded(8));
        let (a, b) = (waiter(&idle, 'a', &tell), waiter(&idle, 'b', &tell));
        a.send(()).unwrap();
        wait_for(&idle, 1);
        for _ in 0..100 {
            b.send(()).unwrap();
            wait_for(&idle, 2);
            idle.wake_one();
            assert_eq!(next(&told), 'b');
        }
        idle.wake_one();
        assert_eq!(next(&told), 'a');
        idle.wake_one();
        wait_for(&idle, 0);
    }

    #[test]
    fn nobody_waits_after_the_close() {
        let (idle, (tell, told)) = (Arc::new(Idle::default()), bounded(8));
        let gates = ['a', 'b'].map(|name| waiter(&idle, name, &tell));
        gates.iter().for_each(|gate| gate.send(()).unwrap());
        wait_for(&idle, 2);
        idle.close();
        let mut woken = [next(&told), next(&told)];
        woken.sort_unstable();
        assert_eq!(woken, ['a', 'b']);
        idle.wait(0, None, || false);
    }

    #[test]
    fn a_moment_or_readiness_ends_the_wait() {
        let idle = Idle::default();
        idle.wait(0, Some(Instant::now()), || false);
        idle.wait(0, None, || true);
        assert_eq!(idle.lock().waiting.len(), 0);
    }

    #[test]
    fn no_job_is_left_lying() {
        let (idle, (jobs, inbox)) = (Arc::new(Idle::default()), crossbeam_channel::bounded::<u32>(64));
        let (done, results) = bounded(8);
        for _ in 0..3 {
            let (idle, inbox, done) = (idle.clone(), inbox.clone(), done.clone());
            start(move || {
                loop {
                    match inbox.try_recv() {
                        Ok(job) => done.send(job).unwrap(),
                        Err(crossbeam_channel::TryRecvError::Disconnected) => return,
                        Err(crossbeam_channel::TryRecvError::Empty) => idle.wait(0, None, || !inbox.is_empty()),
                    }
                }
            });
        }
        // One at a time: each is answered only if somebody wakes for it.
        for job in 0..20_000 {
            jobs.send(job).unwrap();
            idle.wake_one();
            assert_eq!(results.recv_timeout(PATIENCE), Ok(job));
        }
        drop(jobs);
        idle.close();
    }
}
