//! The bare loop on one device: how long runs of fixed shapes take, without queue, HTTP or anything else of oddlog.
//!
//! One JSON object on standard output, which `benches/gpu_check.py` sets beside the same through HTTP: for each shape rows
//! and logs a second over all sessions, and the median of one session's run.
//!
//! Usage: `gpu --model DIR [--graph FILE] [--device cuda:0|cpu] [--sessions N] [--shapes 2x48,64x48] [--seconds S]`

use std::{
    path::PathBuf,
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use oddlog::{
    classify::Task,
    config::{Cuda, Scoring},
    device::{
        Device,
        onnx::{CpuOptions, CudaOptions, OnnxDevice, Runtime},
    },
    model::{InputTensors, Model},
};

const LOG: &str = "kernel: device eth0 entered promiscuous mode; worker 17 could not reach 10.0.3.8:5432 (timed out) ";

#[derive(Parser)]
struct Args {
    #[arg(long, default_value = "models/oddlog-minilm")]
    model: PathBuf,
    /// Another graph than the model's
    #[arg(long)]
    graph: Option<PathBuf>,
    #[arg(long, default_value = "cuda:0")]
    device: String,
    /// Sessions that share the device, a thread each
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    sessions: u8,
    /// Rows x tokens
    #[arg(long, value_delimiter = ',', default_value = "2x48,8x48,32x48,128x48,512x48,32x16,32x128,32x256,32x512")]
    shapes: Vec<Shape>,
    /// Seconds for each shape
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Products of single precision in TF32
    #[arg(long)]
    tf32: bool,
    /// Given by `cargo bench`; means nothing here.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    len: usize,
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('x').and_then(|(rows, len)| Some((rows.parse().ok()?, len.parse().ok()?)));
        match parts {
            Some((rows, len)) if rows >= 2 && len >= 16 => Ok(Self { rows, len }),
            _ => Err(format!("{text:?} is no shape like 32x48, of at least 2 rows and 16 tokens")),
        }
    }
}

/// Rows of real tokens, as long as the shape is.
fn tensors(model: &Model, task: &Task, shape: Shape) -> InputTensors {
    let ids = model.tokenizer.encode_log(LOG, task.lengths.clone()).ids;
    let mut inputs = InputTensors::default();
    inputs.reset(shape.rows, shape.len, model.spec.pad_id);
    for hypothesis in task.hypotheses.iter().cycle().take(shape.rows) {
        let room = shape.len.saturating_sub(model.tokenizer.pair_len(0, hypothesis.len()));
        let log: Vec<u32> = ids.iter().copied().cycle().take(room).collect();
        inputs.push(&model.tokenizer, &log, hypothesis);
    }
    inputs.finish();
    inputs
}

fn device(model: &Model, args: &Args) -> OnnxDevice {
    let runtime = Runtime::load(&Runtime::find("")).unwrap_or_else(|e| panic!("{e}"));
    let max_run_tokens = usize::MAX / 1024;
    let made = match args.device.strip_prefix("cuda:") {
        None => OnnxDevice::cpu(runtime, "cpu".into(), model, CpuOptions { intra_op_threads: 1, max_run_tokens }),
        Some(gpu) => {
            let gpu = gpu.parse().expect("--device is cpu or cuda:0");
            let cuda = Cuda::default();
            let survey = runtime.survey(&cuda.libraries, cuda.cudnn).unwrap_or_else(|e| panic!("{e}"));
            let (found, works) = survey.gpus.into_iter().find(|(g, _)| g.index == gpu).expect("the GPU is there");
            works.unwrap_or_else(|e| panic!("{e}"));
            let memory_limit = cuda.memory_limit(found.memory, usize::from(args.sessions));
            let options = CudaOptions { gpu, max_run_tokens, memory_limit, tf32: args.tf32, cudnn: cuda.cudnn };
            OnnxDevice::cuda(runtime, args.device.clone(), model, &options)
        }
    };
    made.unwrap_or_else(|e| panic!("{e}"))
}

/// Milliseconds of each run of each session.
fn measure(devices: &mut [OnnxDevice], inputs: &InputTensors, time: Duration) -> (Vec<f64>, f64) {
    let started = Instant::now();
    let times = thread::scope(|scope| {
        let running: Vec<_> = devices
            .iter_mut()
            .map(|device| {
                scope.spawn(move || {
                    let (mut logits, mut times) = (Vec::new(), Vec::new());
                    while times.len() < 3 || started.elapsed() < time {
                        let run = Instant::now();
                        device.run(inputs, &mut logits).expect("the model runs");
                        times.push(run.elapsed().as_secs_f64() * 1e3);
                    }
                    times
                })
            })
            .collect();
        running.into_iter().flat_map(|thread| thread.join().expect("it ends")).collect()
    });
    (times, started.elapsed().as_secs_f64())
}

fn main() {
    let args = Args::parse();
    let mut model = Model::open(&args.model, 512).expect("the model opens");
    model.files.onnx = args.graph.clone().unwrap_or(model.files.onnx);
    let task = Task::configured(&Scoring::default(), &model.tokenizer).expect("the default labels fit");
    let mut devices: Vec<OnnxDevice> = (0..args.sessions).map(|_| device(&model, &args)).collect();
    let mut rows = Vec::new();
    for shape in &args.shapes {
        let inputs = tensors(&model, &task, *shape);
        // The first run of a shape chooses kernels and takes memory.
        measure(&mut devices, &inputs, Duration::ZERO);
        let (mut times, wall) = measure(&mut devices, &inputs, Duration::from_secs_f64(args.seconds));
        times.sort_by(f64::total_cmp);
        let per_second = (times.len() * shape.rows) as f64 / wall;
        rows.push(serde_json::json!({
            "rows": shape.rows, "len": shape.len, "runs": times.len(), "run_p50_ms": times[times.len() / 2],
            "rows_per_second": per_second, "logs_per_second": per_second / task.rows() as f64,
        }));
    }
    println!("{}", serde_json::json!({ "device": args.device, "sessions": args.sessions, "shapes": rows }));
}
