//! The scheduler on devices of given speed, with a clock of its own: exact, and as fast as the queue itself.
//!
//! ```sh
//! cargo bench --bench simulation -- --out benches/runs/<date>-simulation
//! ```
//!
//! Logs come in a Poisson process, each in its own time, whether or not earlier ones were answered. Their lengths are
//! those of LogHub's lines (`loghub_lengths.json`, made by `cargo bench --bench tokenizer -- --lengths`). The policy is the
//! server's own code, beside naive FIFO: in order of arrival, with the same token budget. Admission is not simulated.

#![allow(missing_docs, clippy::unwrap_used, reason = "a tool for developers")]

mod real;
mod report;
mod world;

use std::{path::PathBuf, time::Duration};

use clap::Parser;
use oddlog::{
    batching::{Cost, Limits},
    config::Batching,
    device::{CPU_RUN_TOKENS, GPU_RUN_TOKENS},
};
use world::{Outcome, Policy, Spec, World};

#[derive(Parser)]
struct Args {
    /// Folder for `results.json`, `summary.md` and `plot.svg`; nothing is written without.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Logs of each simulated run, times the devices.
    #[arg(long, default_value_t = 40_000)]
    logs: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Largest p99 that the search for a rate accepts, and the time in which an answer is good, in ms.
    #[arg(long, default_value_t = 50.0)]
    p99_ms: f64,
    /// Largest share of padding for which logs of other lengths join.
    #[arg(long, default_value_t = Batching::default().max_padding)]
    max_padding: f32,
    /// Given by `cargo bench`; means nothing here.
    #[arg(long, hide = true)]
    bench: bool,
}

/// About a large GPU with a base model in half precision: 10,000 logs a second of 2 x 48 tokens.
const FAST: Cost = Cost { fixed: 1.5e-3, per_token: 0.95e-6, per_pair: 0.4e-9 };
/// About a core with the small model in 8 bits.
const CORE: Cost = Cost { fixed: 0.2e-3, per_token: 20e-6, per_pair: 10e-9 };

fn times(cost: Cost, factor: f64) -> Cost {
    Cost { fixed: cost.fixed * factor, per_token: cost.per_token * factor, per_pair: cost.per_pair * factor }
}

fn device(cost: Cost) -> Spec {
    Spec { cost, instances: 1, assembly: (50e-6, 5e-9), ill: None }
}

/// One line of the results: what was simulated, and what came of it.
#[derive(serde::Serialize)]
pub struct Row {
    pub part: &'static str,
    pub devices: String,
    pub policy: &'static str,
    /// Share of what the devices can do with this policy's batches; `None` where the rate was searched for.
    pub load: Option<f64>,
    pub outcome: Outcome,
}

struct Bench {
    args: Args,
    lengths: Vec<usize>,
    rows: Vec<Row>,
}

fn main() {
    let args = Args::parse();
    let lengths = serde_json::from_str(include_str!("loghub_lengths.json")).unwrap();
    let mut bench = Bench { args, lengths, rows: Vec::new() };
    bench.loads();
    bench.scaling();
    bench.padding();
    bench.mixed();
    bench.ill();
    bench.instances();
    let real = [1, 4].map(real::run);
    report::print(&bench.rows, &real);
    if let Some(out) = &bench.args.out {
        report::write(out, &bench.rows, &real, bench.args.p99_ms).unwrap();
    }
}

fn name(policy: Policy) -> &'static str {
    match policy {
        Policy::Ours => "oddlog",
        Policy::Blind => "no rule",
        Policy::Fifo => "fifo",
    }
}

impl Bench {
    fn world<'a>(&'a self, specs: &'a [Spec], policy: Policy, rate: f64) -> World<'a> {
        // As without a configuration.
        let max_tokens = match specs.iter().all(|spec| spec.cost == CORE) {
            true => CPU_RUN_TOKENS,
            false => GPU_RUN_TOKENS,
        };
        let limits = Limits {
            max_tokens,
            max_bulk_tokens: max_tokens,
            max_rows: 1024,
            max_padding: self.args.max_padding,
            max_padding_tokens: usize::MAX,
            bulk_share: 0.2,
            max_delay: Duration::ZERO,
            aim: None,
        };
        let in_time = self.args.p99_ms / 1e3;
        let logs = self.args.logs * specs.len().min(4);
        World { policy, specs, limits, lengths: &self.lengths, rate, logs, in_time, seed: self.args.seed }
    }

    /// Logs a second when all wait from the beginning.
    fn capacity(&self, specs: &[Spec], policy: Policy) -> f64 {
        self.world(specs, policy, f64::INFINITY).run().logs_per_s
    }

    /// What the devices do at the largest rate with an acceptable p99.
    fn best(&self, specs: &[Spec], policy: Policy) -> Outcome {
        let (mut low, mut high) = (0.0, 1.1 * self.capacity(specs, policy));
        let mut best = self.world(specs, policy, high / 100.0).run();
        for _ in 0..12 {
            let rate = (low + high) / 2.0;
            let outcome = self.world(specs, policy, rate).run();
            if outcome.p99_ms <= self.args.p99_ms {
                (low, best) = (rate, outcome);
            } else {
                high = rate;
            }
        }
        best
    }

    fn push(&mut self, part: &'static str, devices: &str, policy: Policy, load: Option<f64>, outcome: Outcome) {
        self.rows.push(Row { part, devices: devices.to_owned(), policy: name(policy), load, outcome });
    }

    fn loads(&mut self) {
        for count in [1, 2, 4, 8] {
            let specs = vec![device(FAST); count];
            for policy in [Policy::Ours, Policy::Fifo] {
                let capacity = self.capacity(&specs, policy);
                for load in [0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.1] {
                    let outcome = self.world(&specs, policy, load * capacity).run();
                    self.push("load", &format!("{count} fast"), policy, Some(load), outcome);
                }
            }
        }
    }

    fn scaling(&mut self) {
        for policy in [Policy::Ours, Policy::Fifo] {
            for count in [1, 2, 4, 8] {
                let outcome = self.best(&vec![device(FAST); count], policy);
                self.push("rate at p99", &format!("{count} fast"), policy, None, outcome);
            }
        }
    }

    /// How much padding a batch may have: less of it means more runs.
    fn padding(&mut self) {
        let specs = vec![device(FAST); 4];
        for max_padding in [0.0, 0.03, 0.05, 0.1, 0.25, 0.5] {
            let devices = format!("4 fast, max_padding {max_padding}");
            let run = |rate: f64| {
                let mut world = self.world(&specs, Policy::Ours, rate);
                world.limits.max_padding = max_padding;
                world.run()
            };
            let capacity = run(f64::INFINITY).logs_per_s;
            let outcomes = [0.3, 0.6, 0.9, 1.1].map(|load| (load, run(load * capacity)));
            for (load, outcome) in outcomes {
                self.push("padding", &devices, Policy::Ours, Some(load), outcome);
            }
        }
    }

    fn mixed(&mut self) {
        let (fast, core) = (vec![device(FAST)], vec![device(CORE)]);
        let slower = |factor: f64| vec![device(times(FAST, factor))];
        let fleets: [(&str, Vec<Spec>); 8] = [
            ("1 fast alone", fast.clone()),
            ("1 fast, 4 cores", [fast.clone(), core.repeat(4)].concat()),
            ("4 fast, 8 cores", [fast.repeat(4), core.repeat(8)].concat()),
            ("2 fast, 2 of 0.4", [fast.repeat(2), slower(2.5).repeat(2)].concat()),
            ("3 fast, 1 of 0.4", [fast.repeat(3), slower(2.5)].concat()),
            ("1 fast, 3 of 0.4", [fast.clone(), slower(2.5).repeat(3)].concat()),
            ("2 fast, 2 of 0.1", [fast.repeat(2), slower(10.0).repeat(2)].concat()),
            ("4 cores alone", core.repeat(4)),
        ];
        for (devices, specs) in &fleets {
            let capacity = self.capacity(specs, Policy::Ours);
            for policy in [Policy::Ours, Policy::Blind] {
                for load in [0.1, 0.5, 0.8, 0.95] {
                    let outcome = self.world(specs, policy, load * capacity).run();
                    self.push("mixed", devices, policy, Some(load), outcome);
                }
                let outcome = self.best(specs, policy);
                self.push("mixed, rate at p99", devices, policy, None, outcome);
            }
        }
    }

    /// One of four devices takes twenty times as long for a while.
    fn ill(&mut self) {
        let mut specs = vec![device(FAST); 4];
        let capacity = self.capacity(&specs, Policy::Ours);
        for load in [0.3, 0.6] {
            let seconds = 4.0 * self.args.logs as f64 / (load * capacity);
            specs[0].ill = Some((0.3 * seconds, 0.6 * seconds, 20.0));
            for policy in [Policy::Ours, Policy::Blind] {
                let outcome = self.world(&specs, policy, load * capacity).run();
                self.push("one of them ill for a while", "4 fast", policy, Some(load), outcome);
            }
        }
    }

    /// A second worker makes the next batch's tensors while the first one's run is on.
    fn instances(&mut self) {
        for (devices, assembly) in [("1 fast", (50e-6, 5e-9)), ("1 fast, slow assembly", (500e-6, 100e-9))] {
            for instances in [1, 2] {
                let specs = [Spec { instances, assembly, ..device(FAST) }];
                let devices = format!("{devices}, {instances} instance{}", if instances == 1 { "" } else { "s" });
                let capacity = self.capacity(&specs, Policy::Ours);
                for load in [0.1, 0.8, 1.1] {
                    let outcome = self.world(&specs, Policy::Ours, load * capacity).run();
                    self.push("instances", &devices, Policy::Ours, Some(load), outcome);
                }
                let outcome = self.best(&specs, Policy::Ours);
                self.push("instances, rate at p99", &devices, Policy::Ours, None, outcome);
            }
        }
    }
}
