//! What devices get: faster ones, slower ones, free ones, ill ones, in every order.

use proptest::prelude::*;

use super::*;
use crate::batching::{Aim, Class, Cost};

const LIMITS: Limits = Limits {
    max_tokens: 4096,
    max_bulk_tokens: 4096,
    max_rows: 256,
    max_padding: 0.25,
    max_padding_tokens: usize::MAX,
    bulk_share: 0.2,
    max_delay: Duration::ZERO,
    aim: None,
};
const FAST: Cost = Cost { fixed: 1e-3, per_token: 1e-6, per_pair: 1e-9 };

fn times(factor: f64) -> Cost {
    let Cost { fixed, per_token, per_pair } = FAST;
    Cost { fixed: factor * fixed, per_token: factor * per_token, per_pair: factor * per_pair }
}

fn asker(seat: usize, factor: f64) -> Asker {
    Asker { seat, gpu: None, limits: LIMITS, cost: Some(times(factor)), probe_after: None }
}

fn job(item: usize, class: Class, len: usize, at: Instant) -> Entry<usize> {
    let deadline = at + Duration::from_secs(600);
    Entry { item, class, rows: 2, tokens: 2 * len, len, enqueued_at: at, deadline }
}

fn push(desk: &mut Desk<usize>, items: std::ops::Range<usize>, now: Instant) {
    for item in items {
        desk.push(job(item, Class::Interactive, 64, now + Duration::from_nanos(item as u64)));
    }
}

fn taken(choice: Choice<usize>) -> Vec<usize> {
    match choice {
        Choice::Batch(batch) => batch.entries.into_iter().map(|entry| entry.item).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_fast_device_finishes_sooner_is_left_to_it() {
    let (now, mut desk) = (Instant::now(), Desk::new(2, false));
    let (fast, slow) = (asker(0, 1.0), asker(1, 10.0));
    assert!(matches!(desk.ask(&fast, now, false), Choice::Wait(None)));
    push(&mut desk, 0..4, now);
    let later = now + Duration::from_micros(1);
    assert!(matches!(desk.ask(&slow, later, false), Choice::Leave(at) if at > later));
    assert_eq!((desk.rank(&fast), desk.rank(&slow)), (0, 1));
    assert_eq!(taken(desk.ask(&fast, later, false)), [0, 1, 2, 3]);
    // It runs for 1.5 ms; a lone job waits for that, and would take 11 ms on the slow one.
    push(&mut desk, 4..5, later);
    assert!(matches!(desk.ask(&slow, now + Duration::from_micros(2), false), Choice::Leave(_)));
    // The fast one should have been back long ago.
    assert!(matches!(desk.ask(&slow, now + Duration::from_millis(5), false), Choice::Leave(_)));
    assert_eq!(taken(desk.ask(&slow, now + Duration::from_millis(30), false)), [4]);
}

#[test]
fn of_a_long_queue_a_slow_device_takes_what_it_can_run_until_the_rest_is_done() {
    let (now, mut desk) = (Instant::now(), Desk::new(2, false));
    let (fast, slow) = (asker(0, 1.0), asker(1, 10.0));
    desk.ask(&fast, now, false);
    push(&mut desk, 0..1000, now);
    let later = now + Duration::from_millis(1);
    let part = taken(desk.ask(&slow, later, false)).len();
    // The fast one takes full batches of 32, and runs all that is left in this time.
    let rest = |jobs: usize| FAST.seconds(4096, 64) * (1000 - jobs) as f64 / 32.0;
    let own = |jobs: usize| times(10.0).seconds(jobs * 128, 64);
    assert!(part > 1 && (part == 32 || own(part + 1) > rest(part + 1)) && own(part) <= rest(part), "{part} jobs");
    assert_eq!(taken(desk.ask(&fast, later, false)), (part..part + 32).collect::<Vec<_>>());
    // Of a shorter one it takes less.
    desk.queue.take_if(|entry| entry.item >= 150);
    let shorter = taken(desk.ask(&slow, later, false)).len();
    assert!((1..part).contains(&shorter), "{shorter} jobs instead of {part}");
}

#[test]
fn company_is_worth_less_where_others_are_about() {
    let lens_of_first = |others: &[f64], late: Duration| {
        let (now, mut desk) = (Instant::now(), Desk::new(1 + others.len(), false));
        for (at, factor) in others.iter().enumerate() {
            desk.push(job(1000, Class::Interactive, 64, now));
            desk.ask(&asker(1 + at, *factor), now, false);
        }
        for item in 0..16 {
            desk.push(job(item, Class::Interactive, 128 - 8 * item, now + late + Duration::from_nanos(item as u64)));
        }
        let mut asker = asker(0, 1.0);
        (asker.limits.max_padding, asker.limits.max_padding_tokens) = (1.0, 1000);
        taken(desk.ask(&asker, now + late + Duration::from_micros(1), false)).len()
    };
    let soon = Duration::from_micros(1);
    // Each of them costs 16 tokens of padding more than the one before: 16 x (1 + 2 + ...) is at most 1000, or 500.
    assert_eq!((lens_of_first(&[], soon), lens_of_first(&[1.0; 3], soon)), (11, 8));
    assert_eq!(lens_of_first(&[1000.0], soon), 11);
    // Nobody is about who should have been back long ago.
    assert_eq!(lens_of_first(&[1.0; 3], Duration::from_secs(1)), 11);
}

#[test]
fn devices_that_are_free_share_what_would_keep_one_of_them_longer_than_further_runs_cost() {
    let cpu = Cost { fixed: 10e-6, per_token: 20e-6, per_pair: 0.0 };
    let shared = |cost: Cost, jobs: usize, devices: usize| {
        let (now, mut desk) = (Instant::now(), Desk::new(devices, false));
        let asker = |seat| Asker { cost: Some(cost), ..asker(seat, 1.0) };
        (0..devices).for_each(|seat| drop(desk.ask(&asker(seat), now, false)));
        push(&mut desk, 0..jobs, now);
        let later = now + Duration::from_millis(1);
        let mut ask = |seat| match desk.ask(&asker(seat), later, false) {
            Choice::Batch(batch) => (batch.entries.len(), batch.closed_by),
            other => panic!("{other:?}"),
        };
        (ask(0), ask(1))
    };
    assert_eq!(shared(cpu, 8, 2), ((4, CloseReason::Share), (4, CloseReason::Empty)));
    assert_eq!(shared(cpu, 9, 3), ((3, CloseReason::Share), (3, CloseReason::Share)));
    assert_eq!(shared(cpu, 70, 2), ((32, CloseReason::Tokens), (32, CloseReason::Tokens)));
    // Another millisecond of fixed cost would spare half of one.
    let (now, mut desk) = (Instant::now(), Desk::new(2, false));
    (0..2).for_each(|seat| drop(desk.ask(&asker(seat, 1.0), now, false)));
    push(&mut desk, 0..8, now);
    assert_eq!(taken(desk.ask(&asker(0, 1.0), now + Duration::from_millis(1), false)).len(), 8);
}

#[test]
fn who_is_on_the_same_gpu_shares_nothing() {
    let cost = Cost { fixed: 10e-6, per_token: 20e-6, per_pair: 0.0 };
    for (gpus, first) in [([Some(0); 3], 8), ([Some(0), Some(0), Some(1)], 4), ([None; 3], 2)] {
        let (now, mut desk) = (Instant::now(), Desk::new(3, false));
        let asker = |seat: usize| Asker { gpu: gpus[seat], cost: Some(cost), ..asker(seat, 1.0) };
        (0..3).for_each(|seat| drop(desk.ask(&asker(seat), now, false)));
        push(&mut desk, 0..8, now);
        assert_eq!(taken(desk.ask(&asker(0), now + Duration::from_millis(1), false)).len(), first, "{gpus:?}");
    }
}

#[test]
fn who_is_free_soon_gets_less() {
    let cost = Cost { fixed: 0.0, per_token: 20e-6, per_pair: 0.0 };
    let asker = |seat| Asker { cost: Some(cost), ..asker(seat, 1.0) };
    let (now, mut desk) = (Instant::now(), Desk::new(2, false));
    desk.ask(&asker(1), now, false);
    push(&mut desk, 0..4, now);
    assert_eq!(taken(desk.ask(&asker(0), now + Duration::from_micros(1), false)).len(), 2);
    desk.queue.take_if(|_| true);
    // It runs for 5.12 ms; 8 jobs take 20.48 ms: 5 here, and 3 after that there.
    push(&mut desk, 4..12, now);
    assert_eq!(taken(desk.ask(&asker(1), now + Duration::from_micros(2), false)).len(), 5);
}

#[test]
fn batch_calls_are_what_a_slow_device_helps_with_first() {
    let (now, mut desk) = (Instant::now(), Desk::new(2, false));
    let (fast, slow) = (asker(0, 1.0), asker(1, 10.0));
    desk.ask(&fast, now, false);
    push(&mut desk, 0..1000, now);
    desk.push(job(5000, Class::Bulk, 64, now + Duration::from_micros(2)));
    assert_eq!(taken(desk.ask(&slow, now + Duration::from_millis(1), false)), [5000]);
}

#[test]
fn a_device_that_was_better_once_is_tried_again() {
    let (now, mut desk) = (Instant::now(), Desk::new(2, false));
    let (fast, mut ill) = (asker(0, 1.0), asker(1, 1.0));
    push(&mut desk, 0..1, now);
    assert_eq!(taken(desk.ask(&ill, now + Duration::from_millis(1), false)), [0]);
    ill.cost = Some(times(64.0));
    ill.probe_after = Some(Duration::from_secs(5));
    push(&mut desk, 1..9, now);
    desk.ask(&fast, now, true);
    push(&mut desk, 9..12, now);
    desk.ask(&fast, now + Duration::from_secs(4), false);
    push(&mut desk, 12..16, now + Duration::from_secs(4));
    assert!(matches!(desk.ask(&ill, now + Duration::from_millis(4001), false), Choice::Leave(_)));
    desk.ask(&fast, now + Duration::from_secs(6), false);
    push(&mut desk, 16..20, now + Duration::from_secs(6));
    assert_eq!(taken(desk.ask(&ill, now + Duration::from_millis(6001), false)).len(), 1);
}

#[test]
fn a_target_time_makes_batches_of_what_a_device_can_run_in_it() {
    let (now, mut desk) = (Instant::now(), Desk::new(2, false));
    for (seat, factor) in [(0, 1.0), (1, 1.9)] {
        push(&mut desk, 0..200, now);
        let mut asker = asker(seat, factor);
        let cost = times(factor);
        asker.limits.aim = Some(Aim { cost, seconds: 4e-3 });
        let batch = taken(desk.ask(&asker, now + Duration::from_millis(1), false));
        let seconds = |jobs: usize| cost.seconds(jobs * 128, 64);
        assert!(seconds(batch.len()) <= 4e-3 && seconds(batch.len() + 1) > 4e-3, "{} jobs", batch.len());
        // Less than a single job takes: it runs all the same.
        asker.limits.aim = Some(Aim { cost, seconds: 1e-6 });
        assert_eq!(taken(desk.ask(&asker, now + Duration::from_millis(1), false)).len(), 1);
        desk.queue.take_if(|_| true);
    }
}

/// Devices, what they run, and a clock of its own.
struct House {
    now: Instant,
    desk: Desk<usize>,
    askers: Vec<Asker>,
    /// When each is free again.
    busy: Vec<Option<Instant>>,
    taken: Vec<usize>,
}

impl House {
    fn new(factors: &[f64], max_delay: Duration) -> Self {
        let mut askers: Vec<Asker> = factors.iter().enumerate().map(|(at, factor)| asker(at, *factor)).collect();
        askers.iter_mut().for_each(|asker| asker.limits.max_delay = max_delay);
        let busy = vec![None; factors.len()];
        Self { now: Instant::now(), desk: Desk::new(factors.len(), false), askers, busy, taken: Vec::new() }
    }

    /// Every free device asks, as often as something changes.
    fn ask_all(&mut self) -> Result<(), TestCaseError> {
        let mut changed = true;
        while std::mem::take(&mut changed) {
            for seat in 0..self.askers.len() {
                if self.busy[seat].is_some() {
                    continue;
                }
                let asker = &self.askers[seat];
                match self.desk.ask(asker, self.now, false) {
                    Choice::Batch(batch) => {
                        let cost = asker.cost.unwrap();
                        self.busy[seat] = Some(self.now + cost.time(batch.size.tokens(), batch.size.row_len()));
                        self.taken.extend(batch.entries.iter().map(|entry| entry.item));
                        changed = true;
                    }
                    Choice::Wait(until) => {
                        let due = self.desk.queue.due_at(&asker.limits);
                        prop_assert!(until == due && due.is_none_or(|due| due > self.now), "idle with work");
                    }
                    Choice::Leave(again) => {
                        prop_assert!(self.desk.rank(asker) > 0, "left to nobody");
                        prop_assert!(again > self.now && again <= self.now + LATEST);
                    }
                }
            }
        }
        let due = self.desk.queue.due_at(&self.askers[0].limits).is_some_and(|due| due <= self.now);
        let fastest = self.askers.iter().filter(|asker| self.desk.rank(asker) == 0);
        let idle = fastest.filter(|asker| self.busy[asker.seat].is_none()).count();
        prop_assert!(!due || idle == 0, "{idle} fast devices are idle while work waits");
        Ok(())
    }

    fn pass(&mut self, time: Duration) -> Result<(), TestCaseError> {
        let until = self.now + time;
        loop {
            let next = self.busy.iter().flatten().copied().filter(|at| *at <= until).min();
            self.now = next.unwrap_or(until).max(self.now);
            for busy in &mut self.busy {
                *busy = busy.filter(|at| *at > self.now);
            }
            self.ask_all()?;
            if next.is_none() {
                return Ok(());
            }
        }
    }
}

fn fleet() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(prop_oneof![3 => Just(1.0), 1 => 0.7f64..3.0, 1 => 3.0f64..50.0], 1..5)
}

proptest! {
    #[test]
    fn no_device_is_idle_while_work_waits_that_no_faster_one_finishes_sooner(
        factors in fleet(),
        delay in prop_oneof![Just(0u64), Just(5)],
        ops in prop::collection::vec((1usize..20, 1usize..33, any::<bool>(), 0u64..20_000), 1..60),
    ) {
        let mut house = House::new(&factors, Duration::from_millis(delay));
        let mut pushed = 0;
        for (jobs, lane, bulk, micros) in ops {
            let class = if bulk { Class::Bulk } else { Class::Interactive };
            for _ in 0..jobs {
                house.desk.push(job(pushed, class, 16 * lane, house.now));
                pushed += 1;
            }
            house.ask_all()?;
            house.pass(Duration::from_micros(micros))?;
        }
        // Nothing is left lying: the last jobs take no longer than a device needs for all.
        for _ in 0..1000 {
            house.pass(Duration::from_millis(50))?;
        }
        house.taken.sort_unstable();
        prop_assert_eq!(house.taken, (0..pushed).collect::<Vec<_>>());
    }

    #[test]
    fn slower_devices_never_make_a_backlog_last_longer(
        slow in prop::collection::vec(2.0f64..50.0, 1..4),
        jobs in 1usize..2000,
    ) {
        let last = |factors: &[f64]| {
            let mut house = House::new(factors, Duration::ZERO);
            let start = house.now;
            // All are known before the work comes.
            house.ask_all()?;
            push(&mut house.desk, 0..jobs, start);
            house.now += Duration::from_millis(1);
            house.ask_all()?;
            while house.busy.iter().any(Option::is_some) || !house.desk.queue.is_empty() {
                house.pass(Duration::from_micros(100))?;
            }
            Ok::<_, TestCaseError>((house.now - start).as_secs_f64())
        };
        let alone = last(&[1.0])?;
        let factors: Vec<f64> = [1.0].into_iter().chain(slow).collect();
        let together = last(&factors)?;
        // But for the fast one's last batch, which is not cut finer.
        prop_assert!(together <= alone + FAST.seconds(4096, 64), "{together} after {alone} s alone");
    }
}
