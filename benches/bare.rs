//! The bare loop: the model's own speed on a file of lines, without queue, HTTP or anything else of oddlog around it.
//!
//! Two figures, as JSON on standard output, which `loadtest/bars.py` sets beside the same lines through HTTP:
//! - `logs_per_second`: one session and thread for each core, batches formed beforehand from lines sorted by length;
//! - `p50_ms`: one line at a time on one session.
//!
//! Usage: `bare --model DIR --lines FILE [--threads N] [--seconds S] [--batch-tokens T] [--singles N] [--multiple N]`

use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use oddlog::{
    classify::Task,
    config::Scoring,
    device::{
        Device,
        onnx::{CpuOptions, OnnxDevice, Runtime},
    },
    model::{
        EncodedLog, InputTensors, Model,
        tensors::{MIN_ROWS, length_multiple},
    },
};

#[derive(Parser)]
struct Args {
    #[arg(long, default_value = "models/oddlog-minilm")]
    model: PathBuf,
    #[arg(long)]
    lines: PathBuf,
    #[arg(long, default_value_t = thread::available_parallelism().map_or(1, usize::from))]
    threads: usize,
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    #[arg(long, default_value_t = 1024)]
    batch_tokens: usize,
    /// Lines of the latency figure
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..))]
    singles: u16,
    /// Lengths are padded to multiples of this
    #[arg(long, default_value_t = length_multiple())]
    multiple: usize,
    /// Given by `cargo bench`; means nothing here.
    #[arg(long, hide = true)]
    bench: bool,
}

fn tensors(model: &Model, task: &Task, logs: &[&EncodedLog], multiple: usize) -> InputTensors {
    let mut inputs = InputTensors::default();
    let longest = logs.iter().map(|l| task.longest_pair(&model.tokenizer, l.ids.len())).max().unwrap_or(1);
    let rows = (logs.len() * task.rows()).max(MIN_ROWS);
    inputs.reset_to((rows, longest.next_multiple_of(multiple)), model.spec.pad_id);
    for log in logs {
        task.hypotheses.iter().for_each(|h| inputs.push(&model.tokenizer, &log.ids, h));
    }
    inputs.finish();
    inputs
}

/// Batches of neighbours in length within the token budget.
fn batches(model: &Model, task: &Task, logs: &[EncodedLog], args: &Args) -> Vec<(InputTensors, usize)> {
    let mut sorted: Vec<&EncodedLog> = logs.iter().collect();
    sorted.sort_by_key(|log| log.ids.len());
    let mut made = Vec::new();
    let mut rest = sorted.as_slice();
    while !rest.is_empty() {
        let cells = |n: usize| {
            let len = task.longest_pair(&model.tokenizer, rest[n - 1].ids.len());
            n * task.rows() * len.next_multiple_of(args.multiple)
        };
        let n = (1..=rest.len()).take_while(|n| *n == 1 || cells(*n) <= args.batch_tokens).last().unwrap_or(1);
        made.push((tensors(model, task, &rest[..n], args.multiple), n));
        rest = &rest[n..];
    }
    made
}

fn device(model: &Model) -> OnnxDevice {
    let runtime = Runtime::load(&Runtime::find("")).expect("ONNX Runtime loads; `make onnxruntime`");
    let options = CpuOptions { intra_op_threads: 1, max_run_tokens: usize::MAX };
    OnnxDevice::cpu(runtime, "bare".into(), model, options).expect("the model loads")
}

fn main() {
    let args = Args::parse();
    let model = Model::open(&args.model, 512).expect("the model opens");
    let task = Task::configured(&Scoring::default(), &model.tokenizer).expect("the default labels fit");
    let text = std::fs::read_to_string(&args.lines).expect("--lines is a text file");
    let logs: Vec<EncodedLog> = text
        .lines()
        .filter(|l| !l.trim().is_empty())
        .map(|l| model.tokenizer.encode_log(l, task.lengths.clone()))
        .collect();
    assert!(!logs.is_empty(), "--lines has no lines");
    let batches = batches(&model, &task, &logs, &args);

    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let devices: Vec<OnnxDevice> = (0..args.threads).map(|_| device(&model)).collect();
    let started = Instant::now();
    let until = started + Duration::from_secs_f64(args.seconds);
    thread::scope(|scope| {
        for mut device in devices {
            let (next, done, batches) = (&next, &done, &batches);
            scope.spawn(move || {
                let mut logits = Vec::new();
                while Instant::now() < until {
                    // A stride spreads the lengths, so that every second sees the same mix.
                    let (inputs, n) = &batches[next.fetch_add(1, Ordering::Relaxed) * 7919 % batches.len()];
                    device.run(inputs, &mut logits).expect("the model runs");
                    done.fetch_add(*n, Ordering::Relaxed);
                }
            });
        }
    });
    let rate = done.into_inner() as f64 / started.elapsed().as_secs_f64();

    let mut device = device(&model);
    let mut logits = Vec::new();
    let mut times: Vec<f64> = (0..usize::from(args.singles))
        .map(|i| {
            let inputs = tensors(&model, &task, &[&logs[i * 7919 % logs.len()]], args.multiple);
            let started = Instant::now();
            device.run(&inputs, &mut logits).expect("the model runs");
            started.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!(
        "{{\"logs_per_second\": {rate:.1}, \"p50_ms\": {:.3}, \"threads\": {}, \"lines\": {}, \"batches\": {}}}",
        times[times.len() / 2],
        args.threads,
        logs.len(),
        batches.len()
    );
}
