//! Whether a log's logits depend on its company: lines scored alone, then in random batches of 2 to 64 at other padding,
//! on the true graph. `oddlog verify` asks the same of the shipped samples; this takes thousands of lines and minutes.
//!
//! Usage: `invariance --model DIR --lines FILE [--from N] [--count N] [--seed N] [--multiple N]`; JSON on standard output. Exit code 1 if
//! any log has other bits. `--from` and `--count` allow to do a large file in parts.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
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
    #[arg(long)]
    model: PathBuf,
    #[arg(long)]
    lines: PathBuf,
    /// First of the chosen lines
    #[arg(long, default_value_t = 0)]
    from: usize,
    /// Lines
    #[arg(long, default_value_t = 2000)]
    count: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Lengths are padded to multiples of this, and in company up to 32 tokens further
    #[arg(long, default_value_t = length_multiple())]
    multiple: usize,
    /// Given by `cargo bench`; means nothing here.
    #[arg(long, hide = true)]
    bench: bool,
}

struct Work<'a> {
    model: &'a Model,
    task: &'a Task,
    logs: &'a [EncodedLog],
    multiple: usize,
}

impl Work<'_> {
    fn device(&self) -> OnnxDevice {
        let runtime = Runtime::load(&Runtime::find("")).expect("ONNX Runtime loads; `make onnxruntime`");
        let options = CpuOptions { intra_op_threads: 1, max_run_tokens: 4096 };
        OnnxDevice::cpu(runtime, "cpu".into(), self.model, options).expect("the model loads")
    }

    /// The bits of each log's logits, run in these groups with so many tokens more padding than needed.
    fn bits(&self, groups: &[(Vec<usize>, usize)]) -> Vec<Vec<u32>> {
        let next = AtomicUsize::new(0);
        let one_thread = || {
            let (mut device, mut inputs, mut logits) = (self.device(), InputTensors::default(), Vec::new());
            let mut found: Vec<(usize, Vec<u32>)> = Vec::new();
            while let Some((group, extra)) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                let lengths = group.iter().map(|log| self.logs[*log].ids.len());
                let longest = lengths.max().map_or(1, |ids| self.task.longest_pair(&self.model.tokenizer, ids));
                let most = self.model.spec.max_length.unwrap_or(512);
                let len = (longest + extra).min(most).next_multiple_of(self.multiple);
                let rows = (group.len() * self.task.rows()).max(MIN_ROWS);
                inputs.reset_to((rows, len), self.model.spec.pad_id);
                for log in group {
                    let hypotheses = &self.task.hypotheses;
                    hypotheses.iter().for_each(|h| inputs.push(&self.model.tokenizer, &self.logs[*log].ids, h));
                }
                inputs.finish();
                device.run(&inputs, &mut logits).expect("the model runs");
                let rows = logits.chunks_exact(self.task.rows() * self.model.spec.classes);
                assert_eq!(rows.len(), group.len());
                found.extend(group.iter().zip(rows).map(|(log, z)| (*log, z.iter().map(|z| z.to_bits()).collect())));
            }
            found
        };
        let mut bits = vec![Vec::new(); self.logs.len()];
        thread::scope(|scope| {
            let cores = thread::available_parallelism().map_or(1, usize::from);
            let threads: Vec<_> = (0..cores).map(|_| scope.spawn(one_thread)).collect();
            for thread in threads {
                for (log, of_log) in thread.join().expect("it does not panic") {
                    bits[log] = of_log;
                }
            }
        });
        bits
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let model = Model::open(&args.model, 512).expect("the model opens");
    let task = Task::configured(&Scoring::default(), &model.tokenizer).expect("the default labels fit");
    let text = String::from_utf8_lossy(&std::fs::read(&args.lines).expect("--lines is a file")).into_owned();
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    // The same lines for every part and seed, of the whole file's mix.
    fastrand::Rng::with_seed(0).shuffle(&mut lines);
    let chosen = lines.iter().skip(args.from).take(args.count);
    let logs: Vec<EncodedLog> = chosen.map(|line| model.tokenizer.encode_log(line, task.lengths.clone())).collect();
    assert!(!logs.is_empty(), "--lines has no lines there");

    let mut random = fastrand::Rng::with_seed(args.seed);
    let mut order: Vec<usize> = (0..logs.len()).collect();
    random.shuffle(&mut order);
    let alone: Vec<_> = order.iter().map(|log| (vec![*log], 0)).collect();
    random.shuffle(&mut order);
    let mut company = Vec::new();
    let mut rest = order.as_slice();
    while !rest.is_empty() {
        let (group, others) = rest.split_at(random.usize(2..=64).min(rest.len()));
        company.push((group.to_vec(), args.multiple * random.usize(0..=32 / args.multiple)));
        rest = others;
    }
    let work = Work { model: &model, task: &task, logs: &logs, multiple: args.multiple };
    let started = Instant::now();
    let (expected, alone_s) = (work.bits(&alone), started.elapsed().as_secs_f64());
    let (got, all_s) = (work.bits(&company), started.elapsed().as_secs_f64());
    let other = expected.iter().zip(&got).filter(|(a, b)| a != b).count();
    assert!(expected.iter().all(|bits| !bits.is_empty()));
    let found = serde_json::json!({
        "model": args.model,
        "from": args.from,
        "multiple": args.multiple,
        "logs": logs.len(),
        "batches": company.len(),
        "logs_with_other_bits": other,
        "seconds_alone": alone_s,
        "seconds_in_company": all_s - alone_s,
    });
    println!("{found}");
    ExitCode::from(u8::from(other > 0))
}
