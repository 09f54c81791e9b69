//! Devices, arrivals and a clock of its own: one simulated run of a server. The policy is the server's own.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::{Duration, Instant},
};

use oddlog::{
    batching::{Asker, Choice, Class, Cost, Costs, Desk, Entry, Limits},
    model::{Padding, tensors::GPU_LENGTH_MULTIPLE},
};

/// Rows of a log: two labels.
const ROWS: usize = 2;
/// Tokens of a pair besides the log's: the hypothesis and the special ones.
const BESIDES: usize = 9;

/// On GPUs, and on processors with AVX2.
const PADDING: Padding = Padding::Multiple(GPU_LENGTH_MULTIPLE);

/// Who decides what a free device runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// oddlog's queue, with what it learns about costs.
    Ours,
    /// The same, without the rule for slower devices.
    Blind,
    /// In order of arrival, within the same token budget.
    Fifo,
}

/// A device: what runs cost there, and how a run begins.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    pub cost: Cost,
    /// Workers that take turns on it.
    pub instances: usize,
    /// Seconds to make a batch's tensors: of any batch and of each token. Another worker's run goes on meanwhile.
    pub assembly: (f64, f64),
    /// From and to when runs take how many times as long.
    pub ill: Option<(f64, f64, f64)>,
}

/// One run of the simulation.
#[derive(Clone)]
pub struct World<'a> {
    pub policy: Policy,
    pub specs: &'a [Spec],
    pub limits: Limits,
    /// Lines by number of tokens.
    pub lengths: &'a [usize],
    /// Logs a second; infinite: all wait from the beginning.
    pub rate: f64,
    pub logs: usize,
    /// An answer is good if it comes within this many seconds.
    pub in_time: f64,
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Outcome {
    pub logs_per_s: f64,
    pub good_per_s: f64,
    /// While logs came.
    pub utilisation: f64,
    /// Share of cells that are no tokens.
    pub padding: f64,
    /// The same without what rounding each log up to 8 tokens costs, which every policy pays.
    pub padding_by_company: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub tokens_per_run: f64,
    /// Share of the logs that each device ran.
    pub shares: Vec<f64>,
    pub left_to_faster: usize,
}

#[derive(Debug, Clone, Copy)]
struct Log {
    at: f64,
    tokens: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive,
    Free(usize),
    /// If it still waits for this.
    Look(usize, u64),
}

/// What a worker does next: a batch with its padded length, or as [`Choice`].
enum Next {
    Batch((Vec<Log>, usize)),
    Wait(Option<Instant>),
    Leave(Instant),
}

struct Worker {
    device: usize,
    costs: Costs,
    asker: Asker,
    run: Option<(usize, usize, f64)>,
    looks: u64,
}

/// Nanoseconds, so that events can be ordered.
fn ns(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

impl World<'_> {
    /// Runs until all logs are answered.
    pub fn run(&self) -> Outcome {
        State::new(self).run()
    }
}

struct State<'a> {
    world: &'a World<'a>,
    base: Instant,
    now: f64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    count: u64,
    random: fastrand::Rng,
    workers: Vec<Worker>,
    device_free: Vec<f64>,
    idle: Vec<(usize, usize)>,
    desk: Desk<Log>,
    line: VecDeque<Log>,
    arrived: usize,
    last_arrival: f64,
    total_weight: usize,
    // Sums for the outcome.
    spans: Vec<(f64, f64)>,
    tokens: usize,
    rounded: usize,
    cells: usize,
    runs: usize,
    done: Vec<(f64, f64, usize)>,
    left: usize,
}

impl<'a> State<'a> {
    fn new(world: &'a World<'a>) -> Self {
        let places = world.specs.iter().enumerate().flat_map(|(device, spec)| vec![device; spec.instances]);
        let worker = |(seat, device)| Worker {
            device,
            costs: Costs::default(),
            asker: Asker { seat, gpu: Some(device as u32), limits: world.limits, cost: None, probe_after: None },
            run: None,
            looks: 0,
        };
        let workers: Vec<Worker> = places.enumerate().map(worker).collect();
        Self {
            world,
            base: Instant::now(),
            now: 0.0,
            events: BinaryHeap::new(),
            count: 0,
            random: fastrand::Rng::with_seed(world.seed),
            idle: Vec::new(),
            desk: Desk::new(workers.len(), false),
            workers,
            device_free: vec![0.0; world.specs.len()],
            line: VecDeque::new(),
            arrived: 0,
            last_arrival: 0.0,
            total_weight: world.lengths.iter().sum(),
            spans: Vec::new(),
            tokens: 0,
            rounded: 0,
            cells: 0,
            runs: 0,
            done: Vec::with_capacity(world.logs),
            left: 0,
        }
    }

    fn at(&mut self, when: f64, event: Event) {
        self.count += 1;
        self.events.push(Reverse((ns(when), self.count, event)));
    }

    fn instant(&self, seconds: f64) -> Instant {
        self.base + Duration::from_nanos(ns(seconds))
    }

    fn run(mut self) -> Outcome {
        (0..self.workers.len()).for_each(|worker| self.ask(worker));
        self.at(0.0, Event::Arrive);
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            self.now = self.now.max(at as f64 / 1e9);
            match event {
                Event::Arrive => self.arrive(),
                Event::Free(worker) => {
                    self.finish(worker);
                    self.ask(worker);
                }
                Event::Look(worker, look) if self.workers[worker].looks == look => {
                    self.idle.retain(|(_, w)| *w != worker);
                    self.ask(worker);
                }
                Event::Look(..) => {}
            }
        }
        self.outcome()
    }

    fn arrive(&mut self) {
        let all_at_once = self.world.rate.is_infinite();
        loop {
            let log = Log { at: self.now, tokens: BESIDES + self.length() };
            let padded_len = PADDING.padded_len(log.tokens);
            let now = self.instant(self.now);
            match self.world.policy {
                Policy::Fifo => self.line.push_back(log),
                _ => self.desk.push(Entry {
                    item: log,
                    class: Class::Interactive,
                    rows: ROWS,
                    tokens: ROWS * padded_len,
                    len: padded_len,
                    enqueued_at: now,
                    deadline: now + Duration::from_secs(86_400),
                }),
            }
            self.arrived += 1;
            self.last_arrival = self.now;
            self.wake();
            if !all_at_once || self.arrived == self.world.logs {
                break;
            }
        }
        if self.arrived < self.world.logs {
            let wait = -(1.0 - self.random.f64()).ln() / self.world.rate;
            self.at(self.now + wait, Event::Arrive);
        }
    }

    fn length(&mut self) -> usize {
        let mut at = self.random.usize(..self.total_weight);
        let found = self.world.lengths.iter().position(|count| match at.checked_sub(*count) {
            Some(rest) => {
                at = rest;
                false
            }
            None => true,
        });
        found.expect("it is less than the sum")
    }

    /// As the server's stack of idle devices: the last of the lowest rank.
    fn wake(&mut self) {
        let lowest = self.idle.iter().enumerate().rev().min_by_key(|(_, (rank, _))| *rank);
        let Some((at, worker)) = lowest.map(|(at, (_, worker))| (at, *worker)) else { return };
        self.idle.remove(at);
        self.workers[worker].looks += 1;
        self.at(self.now, Event::Look(worker, self.workers[worker].looks));
    }

    fn ask(&mut self, worker: usize) {
        let now = self.instant(self.now);
        let choice = match self.world.policy {
            Policy::Fifo => self.fifo(),
            policy => {
                let asker = &mut self.workers[worker].asker;
                if policy == Policy::Blind {
                    asker.cost = None;
                }
                match self.desk.ask(asker, now, false) {
                    Choice::Batch(batch) => {
                        let padded_len = batch.size.row_len();
                        Next::Batch((batch.entries.into_iter().map(|entry| entry.item).collect(), padded_len))
                    }
                    Choice::Wait(until) => Next::Wait(until),
                    Choice::Leave(until) => Next::Leave(until),
                }
            }
        };
        match choice {
            Next::Batch((logs, len)) => {
                let more = !self.desk.queue.is_empty() || !self.line.is_empty();
                self.start(worker, &logs, len);
                if more {
                    self.wake();
                }
            }
            Next::Wait(until) => {
                let rank = self.desk.rank(&self.workers[worker].asker);
                self.idle.push((rank, worker));
                self.look_at(worker, until);
            }
            Next::Leave(until) => {
                self.left += 1;
                self.wake();
                self.look_at(worker, Some(until));
            }
        }
    }

    fn look_at(&mut self, worker: usize, until: Option<Instant>) {
        self.workers[worker].looks += 1;
        let look = self.workers[worker].looks;
        if let Some(until) = until {
            self.at((until - self.base).as_secs_f64() + 1e-9, Event::Look(worker, look));
        }
    }

    fn start(&mut self, worker: usize, logs: &[Log], len: usize) {
        let device = self.workers[worker].device;
        let spec = &self.world.specs[device];
        let cells = ROWS * logs.len() * len;
        let ready = self.now + spec.assembly.0 + spec.assembly.1 * cells as f64;
        let begins = ready.max(self.device_free[device]);
        // Runs of one shape differ by a few percent.
        let mut time = spec.cost.seconds(cells, len) * (0.97 + 0.06 * self.random.f64());
        if let Some((from, to, times)) = spec.ill
            && (from..to).contains(&begins)
        {
            time *= times;
        }
        let ends = begins + time;
        self.device_free[device] = ends;
        self.at(ends, Event::Free(worker));
        self.workers[worker].run = Some((cells, len, ends - ready));
        self.spans.push((begins, ends));
        self.tokens += ROWS * logs.iter().map(|log| log.tokens).sum::<usize>();
        self.rounded += ROWS * logs.iter().map(|log| PADDING.padded_len(log.tokens)).sum::<usize>();
        self.cells += cells;
        self.runs += 1;
        self.done.extend(logs.iter().map(|log| (log.at, ends - log.at, device)));
    }

    fn finish(&mut self, worker: usize) {
        let worker = &mut self.workers[worker];
        let Some((cells, len, time)) = worker.run.take() else { return };
        if worker.costs.observe(cells, len, Duration::from_secs_f64(time)) {
            worker.asker.learns(worker.costs.cost());
            worker.asker.probe_after = worker.costs.is_worse().then_some(Duration::from_secs(5));
        }
    }

    fn fifo(&mut self) -> Next {
        let mut logs = Vec::new();
        let mut len = 0;
        while let Some(next) = self.line.front() {
            let longest = PADDING.padded_len(next.tokens).max(len);
            let rows = ROWS * (logs.len() + 1);
            let limits = &self.world.limits;
            if !logs.is_empty() && (rows * longest > limits.max_tokens || rows > limits.max_rows) {
                break;
            }
            len = longest;
            logs.extend(self.line.pop_front());
        }
        if logs.is_empty() { Next::Wait(None) } else { Next::Batch((logs, len)) }
    }

    fn outcome(mut self) -> Outcome {
        let all_at_once = self.world.rate.is_infinite();
        let end = if all_at_once { self.now } else { self.last_arrival };
        // The first tenth fills the server and teaches it.
        let from = if all_at_once { 0.0 } else { end / 10.0 };
        let within = |(begins, ends): &(f64, f64)| (ends.min(end) - begins.max(from)).max(0.0);
        let busy: f64 = self.spans.iter().map(within).sum();
        let mut shares = vec![0.0; self.world.specs.len()];
        self.done.iter().for_each(|(_, _, device)| shares[*device] += 1.0 / self.done.len() as f64);
        self.done.retain(|(at, _, _)| *at >= from);
        let mut times: Vec<f64> = self.done.iter().map(|(_, time, _)| *time).collect();
        times.sort_by(f64::total_cmp);
        let good = times.partition_point(|time| *time <= self.world.in_time);
        let quantile = |q: f64| times[((times.len() - 1) as f64 * q) as usize] * 1e3;
        Outcome {
            logs_per_s: times.len() as f64 / (end - from),
            good_per_s: good as f64 / (end - from),
            utilisation: busy / (end - from) / self.world.specs.len() as f64,
            padding: 1.0 - self.tokens as f64 / self.cells as f64,
            padding_by_company: 1.0 - self.rounded as f64 / self.cells as f64,
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            tokens_per_run: self.cells as f64 / self.runs as f64,
            shares,
            left_to_faster: self.left,
        }
    }
}
