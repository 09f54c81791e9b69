//! Micro-benchmarks: the queue, the tokenizer, the engine around a fake device (oddlog's own cost), the real model.
//!
//! `make bench`; another model: `ODDLOG_BENCH_MODEL=dir make bench`; real lines: `ODDLOG_BENCH_LINES=file`.

use std::{
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use divan::{Bencher, black_box, counter::ItemsCount};
use futures_util::{StreamExt, stream};
use oddlog::{
    batching::{Class, Entry, Limits, Queue},
    config::{Batching, Cache, Devices, Scoring, Templates},
    device::{
        Device, FakeDevice,
        onnx::{CpuOptions, OnnxDevice, Runtime},
    },
    engine::{Engine, Fleet},
    metrics::Metrics,
    model::{InputTensors, Model},
    novelty::Novelty,
    templates::{Book, Listing, Settings},
    verdicts::Verdicts,
};

fn main() {
    divan::main();
}

fn model() -> Model {
    let dir = std::env::var_os("ODDLOG_BENCH_MODEL").map_or_else(|| "models/oddlog-minilm".into(), PathBuf::from);
    Model::open(&dir, 512).expect("the benchmark's model opens")
}

/// Different lines of the kinds and lengths that real logs have.
fn lines() -> Vec<String> {
    if let Some(path) = std::env::var_os("ODDLOG_BENCH_LINES") {
        let text = std::fs::read_to_string(path).expect("ODDLOG_BENCH_LINES is a text file");
        return text.lines().filter(|l| !l.trim().is_empty()).map(str::to_owned).collect();
    }
    let shapes: [fn(usize) -> String; 4] = [
        |i| {
            format!(
                "081109 20{i:04} 148 INFO dfs.DataNode: Receiving block blk_{} src: /10.0.0.{}:5010",
                i * 7919,
                i % 250
            )
        },
        |i| {
            format!(
                "Jun 14 15:16:01 combo sshd(pam_unix)[{i}]: authentication failure; uid=0 tty=ssh rhost=10.9.8.{}",
                i % 99
            )
        },
        |i| format!("GET /api/v2/orders/{i} HTTP/1.1 {} {}ms", 200 + i % 5, i % 900),
        |i| format!("kernel: eth{}: link is up, 1000 Mbps full duplex", i % 4),
    ];
    (0..2000).map(|i| shapes[i % shapes.len()](i)).collect()
}

#[divan::bench]
fn queue_push_and_take(bencher: Bencher) {
    let limits = Limits {
        max_tokens: 1024,
        max_bulk_tokens: 1024,
        max_rows: 64,
        max_padding: 0.25,
        max_padding_tokens: usize::MAX,
        bulk_share: 0.2,
        max_delay: Duration::ZERO,
        aim: None,
    };
    let now = Instant::now();
    bencher.counter(ItemsCount::new(1000usize)).with_inputs(|| Queue::new(false)).bench_values(|mut queue| {
        for i in 0..1000usize {
            let len = 16 * (1 + i * 31 % 8);
            queue.push(Entry {
                item: i,
                class: Class::Interactive,
                rows: 2,
                tokens: 2 * len,
                len,
                enqueued_at: now,
                deadline: now + Duration::from_secs(9),
            });
        }
        while let Some(batch) = queue.take(&limits) {
            black_box(batch);
        }
    });
}

#[divan::bench]
fn tokenize_a_log(bencher: Bencher) {
    let (model, lines) = (model(), lines());
    let mut next = lines.iter().cycle();
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| {
        next.next().map(|line| model.tokenizer.encode_log(line, 8..=8));
    });
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn engine_with_a_fake_device(bencher: Bencher) {
    let (model, lines) = (model(), lines());
    let makers = vec![FakeDevice::new("fake:0", model.spec.classes).maker()];
    let fleet = Fleet { makers, rules: Devices::default() };
    let metrics = Metrics::new().expect("fixed buckets");
    let engine = Engine::start(&model, fleet, &Scoring::default(), &Batching::default(), metrics).expect("it starts");
    let handle = engine.handle();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    bencher.counter(ItemsCount::new(lines.len())).bench_local(|| {
        runtime.block_on(async {
            let task = handle.default_task();
            let all = stream::iter(&lines).map(|line| handle.classify(line, task, Class::Bulk));
            all.buffered(256).for_each(|answer| async { drop(black_box(answer.expect("it answers"))) }).await;
        });
    });
}

#[divan::bench]
fn remembered_log(bencher: Bencher) {
    let (model, lines) = (model(), lines());
    let makers = vec![FakeDevice::new("fake:0", model.spec.classes).maker()];
    let fleet = Fleet { makers, rules: Devices::default() };
    let metrics = Metrics::new().expect("fixed buckets");
    let engine = Engine::start(&model, fleet, &Scoring::default(), &Batching::default(), metrics).expect("it starts");
    let verdicts = Verdicts::new(engine.handle(), &Cache::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let ask = |line: &String| {
        let task = verdicts.handle().default_task();
        runtime.block_on(verdicts.classify(line, task, Class::Interactive)).expect("it answers")
    };
    lines.iter().for_each(|line| drop(ask(line)));
    let mut next = lines.iter().cycle();
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| next.next().map(&ask));
}

/// What `templates.enabled` costs a log.
#[divan::bench]
fn observe_a_log(bencher: Bencher) {
    let (lines, now) = (lines(), SystemTime::now());
    let metrics = Metrics::new().expect("fixed buckets").templates();
    let novelty = Novelty::open(&Templates::default(), metrics, now).expect("it keeps nothing");
    lines.iter().for_each(|line| drop(novelty.observe(line, now)));
    let mut next = lines.iter().cycle();
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| next.next().map(|line| novelty.observe(line, now)));
}

/// The n-th of many words that masks leave alone.
fn word(n: usize) -> String {
    (0..6).map(|place| char::from(b'a' + (n / 16usize.pow(place) % 16) as u8)).collect()
}

fn full_book(templates: usize) -> Book {
    let mut book = Book::new(Settings { max_templates: templates, ..Settings::default() }, 0);
    (0..templates).for_each(|n| drop(book.observe(&format!("{} of some service failed with <num>", word(n)), 0)));
    book
}

/// A log of a new template for which another one is forgotten.
#[divan::bench(args = [200, 2_000, 20_000])]
fn observe_a_new_template(bencher: Bencher, templates: usize) {
    let (mut book, mut n) = (full_book(templates), templates);
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| {
        n += 1;
        book.observe(&format!("{} of some service failed with <num>", word(n)), 0)
    });
}

/// For how long a snapshot holds the lock.
#[divan::bench(args = [2_000, 20_000], sample_count = 20, sample_size = 1)]
fn copy_a_book(bencher: Bencher, templates: usize) {
    let book = full_book(templates);
    bencher.bench_local(|| book.snapshot());
}

/// A page of the listing, with the choice that is made without the lock.
#[divan::bench(args = [2_000, 20_000], sample_count = 20, sample_size = 1)]
fn page_of_a_book(bencher: Bencher, templates: usize) {
    let book = full_book(templates);
    bencher.bench_local(|| Listing { limit: 100, ..Listing::default() }.page(|| &book, 0));
}

/// The model alone: `logs` logs of `tokens` tokens, 2 rows each, one thread.
#[divan::bench(args = [(1, 32), (1, 64), (4, 48), (8, 48), (16, 48)], sample_count = 20, sample_size = 1)]
fn model_run(bencher: Bencher, (logs, tokens): (usize, usize)) {
    let model = model();
    let runtime = Runtime::load(&Runtime::find("")).expect("ONNX Runtime loads; `make onnxruntime`");
    let options = CpuOptions { intra_op_threads: 1, max_run_tokens: 1 << 16 };
    let mut device = OnnxDevice::cpu(runtime, "cpu:0".into(), &model, options).expect("the model loads");
    let id = model.tokenizer.encode_log("error", 0..=0).ids[0];
    let (hypothesis, log) = (vec![id; 6], vec![id; tokens - 6 - model.tokenizer.pair_len(0, 0)]);
    let mut inputs = InputTensors::default();
    inputs.reset(2 * logs, tokens, model.spec.pad_id);
    for _ in 0..2 * logs {
        inputs.push(&model.tokenizer, &log, &hypothesis);
    }
    inputs.finish();
    let mut logits = Vec::new();
    bencher.counter(ItemsCount::new(logs)).bench_local(|| device.run(&inputs, &mut logits).expect("it runs"));
}
