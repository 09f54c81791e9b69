//! Graphs of one model against each other: logs/s over batch sizes and lengths, turn by turn in one run.
//!
//! ```text
//! for each setup (sessions x threads)      all graphs' sessions are loaded
//!   for each round                         the order of the graphs is turned round every time
//!     for each point (logs x tokens)
//!       for each graph                     one run to warm up, then runs for --seconds, at least 1
//! ```
//!
//! A machine whose speed drifts does so for all graphs of a point alike; so the ratios are those within a round, and medians are
//! over rounds. A rate is logs / the median time of a run, summed over the sessions, which all run at once. Rows are full:
//! no padding. It does not know how the graphs were made, nor any text: token ids are random.
//!
//! Usage: `sweep --graph stock=DIR --graph fast=DIR [--setup 1x1 ...] [--point 8x48 ...] [--rounds 3] [--seconds 1]`;
//! JSON on standard output, progress on standard error.

use std::{
    path::PathBuf,
    str::FromStr,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use oddlog::{
    device::{
        Device,
        onnx::{CpuOptions, OnnxDevice, Runtime},
    },
    model::{InputTensors, Model},
};
use serde_json::{Value, json};

/// Rows of one log: the two default hypotheses.
const ROWS_PER_LOG: usize = 2;

#[derive(Parser)]
struct Args {
    /// A model directory and its name in the results; ratios are to the first
    #[arg(long = "graph", value_name = "NAME=DIR", required = true)]
    graphs: Vec<Graph>,
    /// Sessions that run at once, and threads of each; default: 1x1 and one session a core
    #[arg(long = "setup", value_name = "SESSIONSxTHREADS")]
    setups: Vec<Pair>,
    /// Logs in a run and tokens in a row; default: the points of issue 3
    #[arg(long = "point", value_name = "LOGSxTOKENS")]
    points: Vec<Pair>,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Time for one graph at one point in one round
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Given by `cargo bench`; means nothing here.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone)]
struct Graph {
    name: String,
    dir: PathBuf,
}

impl FromStr for Graph {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, dir) = text.split_once('=').ok_or("it must be NAME=DIR")?;
        Ok(Self { name: name.into(), dir: dir.into() })
    }
}

/// Two numbers written as `8x48`.
#[derive(Clone, Copy)]
struct Pair(usize, usize);

impl FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |n: &str| n.parse().ok().filter(|n| *n > 0).ok_or("it must be two numbers from 1, as in 8x48");
        let (a, b) = text.split_once('x').ok_or("it must be two numbers, as in 8x48")?;
        Ok(Self(number(a)?, number(b)?))
    }
}

impl std::fmt::Display for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}x{}", self.0, self.1)
    }
}

/// Full rows of random ids, the same in every run of the program.
fn inputs(Pair(logs, tokens): Pair, vocab: usize) -> InputTensors {
    let mut inputs = InputTensors::default();
    inputs.reset(logs * ROWS_PER_LOG, tokens, 0);
    let mut state = 7u64;
    for id in &mut inputs.input_ids {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *id = (state >> 33) as i64 % vocab as i64;
    }
    inputs.attention_mask.fill(1);
    inputs.rows = inputs.padded_rows;
    inputs
}

fn load(graph: &Graph, Pair(sessions, threads): Pair) -> (Vec<OnnxDevice>, usize) {
    let model = Model::open(&graph.dir, 512).expect("--graph is a model directory");
    let runtime = Runtime::load(&Runtime::find("")).expect("ONNX Runtime loads; `make onnxruntime`");
    let options = CpuOptions { intra_op_threads: threads, max_run_tokens: usize::MAX };
    let device = |_| OnnxDevice::cpu(runtime, graph.name.clone(), &model, options).expect("the graph loads");
    let vocab = model.spec.vocab_size.expect("config.json gives vocab_size");
    ((0..sessions).map(device).collect(), vocab)
}

/// Seconds of the middle run of each session.
fn measure(devices: &mut [OnnxDevice], inputs: &InputTensors, time: Duration) -> Vec<f64> {
    let start = Barrier::new(devices.len());
    thread::scope(|scope| {
        let runners: Vec<_> = devices
            .iter_mut()
            .map(|device| {
                let start = &start;
                scope.spawn(move || {
                    let mut logits = Vec::new();
                    device.run(inputs, &mut logits).expect("the model runs");
                    start.wait();
                    let until = Instant::now() + time;
                    let mut runs = Vec::new();
                    while runs.is_empty() || Instant::now() < until {
                        let started = Instant::now();
                        device.run(inputs, &mut logits).expect("the model runs");
                        runs.push(started.elapsed().as_secs_f64());
                    }
                    median(&runs)
                })
            })
            .collect();
        runners.into_iter().map(|runner| runner.join().expect("a runner does not panic")).collect()
    })
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
}

/// Three digits are more than the machine's noise leaves.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// One entry a point; `rates[point][graph][round]` in logs/s.
fn report(args: &Args, setup: Pair, points: &[Pair], rates: &[Vec<Vec<f64>>]) -> Vec<Value> {
    let entry = |(point, rates): (&Pair, &Vec<Vec<f64>>)| {
        let graphs = args.graphs.iter().zip(rates).map(|(graph, of_rounds)| {
            let ratios: Vec<f64> = of_rounds.iter().zip(&rates[0]).map(|(rate, first)| rate / first).collect();
            let most = of_rounds.iter().copied().fold(f64::MIN, f64::max);
            let least = of_rounds.iter().copied().fold(f64::MAX, f64::min);
            json!({
                "name": graph.name,
                "logs_per_second": rounded(median(of_rounds)),
                "ratio_to_first": rounded(median(&ratios)),
                "spread": rounded((most - least) / median(of_rounds)),
                "rounds": of_rounds.iter().copied().map(rounded).collect::<Vec<f64>>(),
                "ratios": ratios.into_iter().map(rounded).collect::<Vec<f64>>(),
            })
        });
        json!({
            "sessions": setup.0, "threads": setup.1, "logs": point.0, "tokens": point.1,
            "graphs": graphs.collect::<Vec<Value>>(),
        })
    };
    points.iter().zip(rates).map(entry).collect()
}

fn main() {
    let args = Args::parse();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let or = |given: &[Pair], default: &[Pair]| if given.is_empty() { default.to_vec() } else { given.to_vec() };
    let setups = or(&args.setups, &[Pair(1, 1), Pair(cores, 1)]);
    let points = or(&args.points, &[Pair(1, 32), Pair(1, 64), Pair(4, 48), Pair(8, 48), Pair(16, 48), Pair(32, 48)]);
    let time = Duration::from_secs_f64(args.seconds);

    let mut results = Vec::new();
    for setup in setups {
        let mut loaded: Vec<(Vec<OnnxDevice>, usize)> = args.graphs.iter().map(|graph| load(graph, setup)).collect();
        let mut rates = vec![vec![Vec::new(); args.graphs.len()]; points.len()];
        for round in 0..args.rounds {
            for (point, rates) in points.iter().zip(&mut rates) {
                let mut order: Vec<usize> = (0..loaded.len()).collect();
                if round % 2 == 1 {
                    order.reverse();
                }
                for graph in order {
                    let (devices, vocab) = &mut loaded[graph];
                    let times = measure(devices, &inputs(*point, *vocab), time);
                    rates[graph].push(times.iter().map(|t| point.0 as f64 / t).sum());
                }
            }
            eprintln!("setup {setup}: round {} of {}", round + 1, args.rounds);
        }
        results.extend(report(&args, setup, &points, &rates));
    }
    println!("{:#}", json!({ "rounds": args.rounds, "seconds": args.seconds, "points": results }));
}
