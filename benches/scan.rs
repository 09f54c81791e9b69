//! A scan without its command: the library's own way through a file, with a sink that only counts.
//!
//! One JSON object on standard output, which `loadtest/scan.py` sets beside `oddlog scan` on the same file: `records`, `texts`
//! (that the model was asked about), `seconds` without the model's start.
//!
//! Usage: `scan FILE [--model DIR] [--fake] [--threads N]`

use std::{ops::ControlFlow, path::PathBuf, thread, time::Instant};

use clap::Parser;
use oddlog::{
    config::{Batching, Devices, Scoring},
    device::{
        CPU_RUN_TOKENS, FakeDevice,
        onnx::{CpuOptions, OnnxDevice, Runtime},
    },
    engine::{Engine, Fleet},
    metrics::Metrics,
    model::Model,
    scan::{Input, Next, Scan, Scorer, Settings, Source},
};

#[derive(Parser)]
struct Args {
    file: PathBuf,
    #[arg(long, default_value = "models/oddlog-minilm")]
    model: PathBuf,
    /// A device that only pretends: everything but the model is measured
    #[arg(long)]
    fake: bool,
    #[arg(long, default_value_t = thread::available_parallelism().map_or(1, usize::from))]
    threads: usize,
    /// Given by `cargo bench`; means nothing here.
    #[arg(long, hide = true)]
    bench: bool,
}

fn fleet(args: &Args, model: &Model, batching: &Batching) -> Fleet {
    let options = CpuOptions { intra_op_threads: 1, max_run_tokens: batching.batch_tokens(CPU_RUN_TOKENS) };
    let maker = |number: usize| match args.fake {
        true => FakeDevice::new(format!("fake:{number}"), model.spec.classes).maker(),
        false => {
            let runtime = Runtime::load(&Runtime::find("")).expect("ONNX Runtime loads; `make onnxruntime`");
            OnnxDevice::cpu_maker(runtime, format!("cpu:{number}"), model, options)
        }
    };
    let threads = if args.fake { 1 } else { args.threads };
    Fleet { makers: (0..threads).map(maker).collect(), rules: Devices::default() }
}

fn main() {
    let args = Args::parse();
    let model = Model::open(&args.model, 512).expect("the model opens");
    let batching = Batching { request_timeout_ms: 600_000, ..Batching::default() };
    let metrics = Metrics::new().expect("the registry");
    let fleet = fleet(&args, &model, &batching);
    let engine = Engine::start(&model, fleet, &Scoring::default(), &batching, metrics.clone()).expect("it starts");
    let handle = engine.handle();
    let (task, threshold) = (handle.default_task().clone(), handle.scoring().threshold);
    let scorer = Scorer::Engine { handle, task, threshold };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (mut records, mut texts, mut odd) = (0u64, 0u64, 0u64);
    let started = Instant::now();
    runtime.block_on(async {
        let input = Input::start(vec![Source::File(args.file.clone())], false, false).expect("a thread");
        let sink = |next: Next<'_>| {
            match next {
                Next::Record(judged) => {
                    records += 1;
                    texts += u64::from(judged.is_new);
                    odd += u64::from(judged.scored.as_ref().expect("every text is scored").is_odd);
                    // As the command does every second; without it histograms grow.
                    if texts.is_multiple_of(65_536) && judged.is_new {
                        metrics.upkeep();
                    }
                }
                Next::Failed(_, reason) => panic!("{reason}"),
            }
            ControlFlow::Continue(())
        };
        Scan::new(&scorer, Settings::default()).run(input, sink).await.expect("it ends");
    });
    let seconds = started.elapsed().as_secs_f64();
    println!("{{\"records\": {records}, \"texts\": {texts}, \"odd\": {odd}, \"seconds\": {seconds:.3}}}");
}
