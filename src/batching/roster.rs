//! Who works, how fast, and when each is free again: whether a device should leave work to faster ones. Pure.
//!
//! Nobody reports that a device is gone: one that does not come back when it should counts as busy for as long again as it
//! is late, so that the others wait for it less and less.

use std::time::{Duration, Instant};

use super::{Cost, Limits};

/// A device is clearly faster if it takes at most this share of the other's time,
const FASTER: f64 = 0.5;
/// and if the difference is more than this: fake devices and tiny models differ by chance.
const LEAST_GAIN: f64 = 500e-6;

/// A device that asks for work.
#[derive(Debug, Clone)]
pub struct Asker {
    /// Its number.
    pub seat: usize,
    /// The GPU that it shares with whoever names the same: what both run takes as long as one after the other.
    pub gpu: Option<u32>,
    /// What its batches may hold.
    pub limits: Limits,
    /// What its runs cost, once that is known.
    pub cost: Option<Cost>,
    /// How long it may be left out before it gets a job to show what it can: for a device that was better once.
    pub probe_after: Option<Duration>,
}

impl Asker {
    /// `cost` is what its runs cost, as far as is known: that decides how much padding company is worth.
    pub fn learns(&mut self, cost: Option<Cost>) {
        self.cost = cost;
        self.limits.max_padding_tokens = cost.map_or(usize::MAX, |cost| cost.worth_padding());
    }
}

/// What waits, as seen from one end of the queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Tokens of all that waits.
    pub tokens: usize,
    /// Tokens of the job that would be taken.
    pub job: usize,
    /// The length of its rows.
    pub len: usize,
}

/// All devices.
#[derive(Debug)]
pub(super) struct Roster {
    seats: Vec<Seat>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seat {
    gpu: Option<u32>,
    cost: Option<Cost>,
    limits: Option<Limits>,
    run: Option<Run>,
    last_run: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    until: Instant,
}

impl Seat {
    /// Seconds until it asks again.
    fn free_in(&self, now: Instant) -> f64 {
        let Some(Run { until }) = self.run else { return 0.0 };
        until.saturating_duration_since(now).as_secs_f64().max(self.late(now))
    }

    /// Seconds by which its run takes longer than expected.
    fn late(&self, now: Instant) -> f64 {
        self.run.map_or(0.0, |run| now.saturating_duration_since(run.until).as_secs_f64())
    }
}

/// Seconds in which devices run `tokens` together, and their tokens a second then. Each works from some second on, at so many
/// tokens a second; together they are done when the sum of what they ran is all.
fn finish(tokens: f64, mut devices: Vec<(f64, f64)>) -> (f64, f64) {
    devices.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut rate, mut head_start, mut done) = (0.0, 0.0, f64::INFINITY);
    for (from, speed) in devices {
        if from >= done {
            break;
        }
        (rate, head_start) = (rate + speed, head_start + from * speed);
        done = (tokens + head_start) / rate;
    }
    (done, rate)
}

impl Roster {
    pub fn new(devices: usize) -> Self {
        Self { seats: vec![Seat::default(); devices] }
    }

    /// Whether there is one device only.
    pub fn is_alone(&self) -> bool {
        self.seats.len() < 2
    }

    /// `asker` is free.
    pub fn asks(&mut self, asker: &Asker) {
        let seat = &mut self.seats[asker.seat];
        (seat.gpu, seat.cost, seat.limits, seat.run) = (asker.gpu, asker.cost, Some(asker.limits), None);
    }

    /// `asker` runs `tokens` in rows of `len` from `now` on.
    pub fn takes(&mut self, asker: &Asker, now: Instant, tokens: usize, len: usize) {
        let time = asker.cost.map_or(Duration::ZERO, |cost| cost.time(tokens, len));
        let seat = &mut self.seats[asker.seat];
        (seat.run, seat.last_run) = (Some(Run { until: now + time }), Some(now));
    }

    /// Whether `asker` has been left out so long that it should show what it can.
    pub fn is_to_probe(&self, asker: &Asker, now: Instant) -> bool {
        let last = self.seats[asker.seat].last_run;
        asker.probe_after.zip(last).is_some_and(|(after, last)| now.saturating_duration_since(last) >= after)
    }

    /// How many devices are clearly faster than `asker` at small runs: those that are to be woken before it.
    pub fn rank(&self, asker: &Asker) -> usize {
        self.faster(asker, 128, 64).count()
    }

    /// How often any device is free for each time that `asker` is: 1 for the only one, 4 for one of four that are alike.
    pub fn turnout(&self, asker: &Asker, now: Instant) -> f64 {
        let Some(own) = asker.cost.map(|cost| cost.usual()) else { return 1.0 };
        let others = self.seats.iter().enumerate().filter(|(number, _)| *number != asker.seat);
        let turns = others.filter_map(|(_, seat)| Some(own / (seat.cost?.usual() + seat.late(now)).max(1e-9)));
        1.0 + turns.sum::<f64>()
    }

    /// Seconds in which the devices that are clearly faster than `asker` will have run all that waits, and their
    /// tokens a second; `None` if none is.
    pub fn others_finish(&self, asker: &Asker, load: Load, now: Instant) -> Option<(f64, f64)> {
        let Load { tokens, job, len } = load;
        let own = tokens.min(asker.limits.tokens(len)).max(job);
        let mut others: Vec<(f64, f64)> = Vec::new();
        let mut soonest = f64::INFINITY;
        for (seat, cost) in self.faster(asker, own, len) {
            let free = seat.free_in(now);
            let run = tokens.min(seat.limits.map_or(0, |limits| limits.tokens(len))).max(job);
            let seconds = cost.seconds(run, len).max(1e-9);
            soonest = soonest.min(free + seconds);
            others.push((free, run as f64 / seconds));
        }
        if others.is_empty() {
            return None;
        }
        let (done, rate) = finish(tokens as f64, others);
        Some((done.max(soonest), rate))
    }

    /// Tokens that `asker` should run of all that waits, so that it is done when those are that are not clearly slower, free
    /// now or soon, and on no GPU of its own. `None` where that spares less time than the further runs cost.
    pub fn share(&self, asker: &Asker, load: Load, now: Instant) -> Option<usize> {
        let Load { tokens, len, .. } = load;
        let cost = asker.cost.filter(|_| !self.is_alone())?;
        let whole = tokens.min(asker.limits.tokens(len)) as f64;
        let begin = |cost: &Cost, free: f64| (free + cost.fixed, 1.0 / cost.slope(len).max(1e-12));
        let own = begin(&cost, 0.0);
        let others = self.seats.iter().enumerate().filter(|(number, _)| *number != asker.seat);
        let elsewhere = others.filter(|(_, seat)| asker.gpu.is_none() || seat.gpu != asker.gpu);
        let alike = elsewhere.filter_map(|(_, seat)| {
            let theirs = seat.cost.filter(|theirs| FASTER * theirs.seconds(tokens, len) < cost.seconds(tokens, len))?;
            Some(begin(&theirs, seat.free_in(now)))
        });
        let (done, _) = finish(tokens as f64, [own].into_iter().chain(alike).collect());
        let share = (done - own.0).max(0.0) * own.1;
        ((whole - share) * cost.slope(len) > cost.fixed).then_some(share.round() as usize)
    }

    fn faster(&self, asker: &Asker, tokens: usize, len: usize) -> impl Iterator<Item = (&Seat, Cost)> {
        let own = asker.cost.map_or(0.0, |cost| cost.seconds(tokens, len));
        let others = self.seats.iter().enumerate().filter(move |(number, _)| *number != asker.seat);
        others.filter_map(move |(_, seat)| {
            // Its own limits may cut this run into several.
            let theirs = seat.cost?.seconds(tokens, len);
            (theirs <= FASTER * own && own - theirs > LEAST_GAIN).then_some((seat, seat.cost?))
        })
    }
}
