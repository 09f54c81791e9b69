//! How many lines a second one stream takes, without the model: the real server around a device that only pretends.
//!
//! Each pass sends all distinct lines in one call of `/api/v1/analyze/stream?respond=summary`:
//! - `new`: none is known; they are tokenised and go to the device;
//! - `known_by_tokens`: other spaces at their ends, so that no text is known and all tokens are: tokenising is most of it;
//! - `known_by_text`: as they were sent before.
//!
//! Beside that `tokenizer`: the same lines tokenised in a loop, on as many threads. All in lines a second, the best of
//! `--passes`, but `new`, which comes once. JSON on standard output.
//!
//! Usage: `stream --lines FILE [--model DIR] [--threads N] [--passes N]`, below `taskset` for a number of cores.

use std::{
    collections::HashSet,
    fs,
    hint::black_box,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::Arc,
    thread,
    time::Instant,
};

use clap::Parser;
use oddlog::{
    config::{Batching, Cache, Devices, Scoring, Server},
    device::FakeDevice,
    engine::{Engine, Fleet},
    http::{self, App, Doors},
    metrics::Metrics,
    model::Model,
    verdicts::Verdicts,
};
use tokio::{net::TcpListener, sync::oneshot};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Args {
    #[arg(long, default_value = "models/oddlog-minilm")]
    model: PathBuf,
    #[arg(long)]
    lines: PathBuf,
    /// Threads of the server's runtime, and of the tokenizer's loop
    #[arg(long, default_value_t = 1)]
    threads: usize,
    #[arg(long, default_value_t = 5)]
    passes: usize,
    /// Given by `cargo bench`; means nothing here.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Lines a second.
fn rate(lines: usize, work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    lines as f64 / started.elapsed().as_secs_f64()
}

fn tokenizer(model: &Model, lines: &[&str], threads: usize) -> f64 {
    rate(lines.len(), || {
        thread::scope(|scope| {
            for part in lines.chunks(lines.len().div_ceil(threads)) {
                let encode = |line: &&str| drop(black_box(model.tokenizer.encode_log(line, 8..=8)));
                scope.spawn(move || part.iter().for_each(encode));
            }
        });
    })
}

/// Sends all lines, each with so many spaces behind it.
fn stream(address: SocketAddr, lines: &[&str], spaces: usize) -> f64 {
    let end = format!("{}\n", " ".repeat(spaces));
    let body: String = lines.iter().flat_map(|line| [line, end.as_str()]).collect();
    let mut answer = String::new();
    let rate = rate(lines.len(), || {
        let mut socket = TcpStream::connect(address).expect("it listens");
        let head = format!(
            "POST /api/v1/analyze/stream?respond=summary HTTP/1.1\r\nhost: oddlog\r\nconnection: close\r\n\
             content-type: text/plain\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all(head.as_bytes()).expect("it reads");
        socket.write_all(body.as_bytes()).expect("it reads");
        socket.read_to_string(&mut answer).expect("it answers");
    });
    let all = format!("\"scored\":{},", lines.len());
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(&all), "{answer}");
    rate
}

fn main() {
    let args = Args::parse();
    let text = fs::read_to_string(&args.lines).expect("--lines is a text file");
    let mut seen = HashSet::new();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty() && seen.insert(*line)).collect();
    let model = Model::open(&args.model, 512).expect("the model opens");
    let best = |one: &dyn Fn(usize) -> f64| (1..=args.passes).map(one).fold(0.0, f64::max);
    let tokenizer = best(&|_| tokenizer(&model, &lines, args.threads));

    let metrics = Metrics::new().expect("fixed buckets");
    let makers = vec![FakeDevice::new("fake:0", model.spec.classes).maker()];
    let fleet = Fleet { makers, rules: Devices::default() };
    let engine =
        Engine::start(&model, fleet, &Scoring::default(), &Batching::default(), metrics.clone()).expect("it starts");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(args.threads).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let verdicts = Verdicts::new(engine.handle(), &Cache::default());
    let app = Arc::new(App::new(verdicts, Server::default(), "fake".into()).expect("the defaults are fine"));
    let (stop, stopped) = oneshot::channel::<()>();
    let served = runtime.spawn(http::serve(Doors::from(listener), app, async { drop(stopped.await) }));

    let new = stream(address, &lines, 0);
    let misses = || {
        let text = metrics.render();
        let found = text.lines().find_map(|line| line.strip_prefix("oddlog_cache_logs_total{outcome=\"miss\"} "));
        found.and_then(|count| count.parse::<f64>().ok()).expect("it is counted")
    };
    let before = misses();
    let known_by_tokens = best(&|pass| stream(address, &lines, pass));
    let known_by_text = best(&|_| stream(address, &lines, 1));
    assert!(misses() == before, "all were known");
    drop(stop);
    assert!(runtime.block_on(served).expect("it ends"), "every request was answered");
    let found = serde_json::json!({
        "threads": args.threads,
        "lines": lines.len(),
        "tokenizer": tokenizer.round(),
        "new": new.round(),
        "known_by_tokens": known_by_tokens.round(),
        "known_by_text": known_by_text.round(),
    });
    println!("{found}");
}
