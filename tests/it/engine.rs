//! The engine around a fake device: every accepted log is answered exactly once, whatever happens to its neighbours.

use std::{path::Path, sync::Arc, time::Duration};

use crossbeam_channel::{Sender, bounded};
use futures_util::{FutureExt, future::join_all};
use oddlog::{
    config::{Batching, Devices, Scoring},
    device::FakeDevice,
    engine::{Class, Classified, Engine, Fleet, Handle},
    error::RequestError,
    metrics::Metrics,
    model::Model,
};

pub fn model() -> Model {
    Model::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny-deberta"), 512).unwrap()
}

pub fn fake() -> FakeDevice {
    FakeDevice::new("fake:0", 2)
}

fn start(model: &Model, devices: Vec<FakeDevice>, batching: &Batching) -> Engine {
    Engine::start(model, fleet(devices), &Scoring::default(), batching, Metrics::new().unwrap()).unwrap()
}

/// To be held at a gate is no hang.
fn fleet(devices: Vec<FakeDevice>) -> Fleet {
    let makers = devices.into_iter().map(FakeDevice::maker).collect();
    Fleet { makers, rules: Devices { run_timeout_ms: 600_000, ..Devices::default() } }
}

/// A device that runs a batch for each token sent; one is there for the engine's warm-up.
fn gated() -> (FakeDevice, Sender<()>) {
    let (gate, tokens) = bounded(64);
    gate.send(()).unwrap();
    (fake().gated(tokens), gate)
}

pub async fn classify(handle: &Handle, log: &str) -> Result<Classified, RequestError> {
    handle.classify(log, handle.default_task(), Class::Interactive).await
}

pub fn lines(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("line {i} of {} came{}", n, " and went on".repeat(i % 7))).collect()
}

/// Starts classifying without waiting for the answers.
pub fn spawn(handle: &Handle, lines: &[String]) -> Vec<tokio::task::JoinHandle<Result<Classified, RequestError>>> {
    let one = |line: &String| {
        let (handle, line) = (handle.clone(), line.clone());
        tokio::spawn(async move { classify(&handle, &line).await })
    };
    lines.iter().map(one).collect()
}

/// The value of a counter or gauge without labels.
pub fn metric(handle: &Handle, name: &str) -> f64 {
    let text = handle.metrics().render();
    let line = text.lines().find(|l| l.split(' ').next() == Some(name));
    line.and_then(|l| l.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no {name} in\n{text}"))
}

/// Batches that devices took so far.
pub fn batches(handle: &Handle) -> f64 {
    let text = handle.metrics().render();
    let counts = text.lines().filter(|l| l.starts_with("oddlog_batches_total{"));
    counts.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Lets other tasks run until `ready`; the test runner's own time limit is the bound.
pub async fn until(mut ready: impl FnMut() -> bool) {
    while !ready() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_log_gets_its_own_answer_in_any_company() {
    let model = model();
    let lines = lines(500);
    let alone = start(&model, vec![fake()], &Batching { max_batch_rows: 2, ..Batching::default() });
    let mut expected = Vec::new();
    for line in &lines {
        expected.push(classify(&alone.handle(), line).await.unwrap().scores);
    }
    let together = start(&model, vec![fake(), fake(), fake()], &Batching::default());
    let handle = together.handle();
    let got = join_all(lines.iter().map(|line| classify(&handle, line))).await;
    let got: Vec<_> = got.into_iter().map(|r| r.unwrap().scores).collect();
    assert_eq!(got, expected);
    let different: std::collections::HashSet<u32> = expected.iter().map(|s| s[0].to_bits()).collect();
    assert!(different.len() > 400, "the fake device must tell logs apart, or this test proves nothing");
    assert_eq!(metric(&handle, "oddlog_queue_jobs"), 0.0);
}

/// A word whose first token occurs in none of `lines`, and that token.
pub fn poison(model: &Model, lines: &[String]) -> (String, u32) {
    let used: Vec<u32> = lines.iter().flat_map(|l| model.tokenizer.encode_log(l, 0..=0).ids).collect();
    let word = ["zebra", "Xylophone", "quartz", "#", "%", "jinx"].into_iter().find_map(|word| {
        let id = model.tokenizer.encode_log(word, 0..=0).ids.into_iter().find(|id| !used.contains(id))?;
        Some((word.to_owned(), id))
    });
    word.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_or_panics_alone_harms_no_neighbour() {
    let model = model();
    let lines = lines(60);
    let (word, id) = poison(&model, &lines);
    for device in [fake().failing_on(id), fake().panicking_on(id)] {
        let engine = start(&model, vec![device], &Batching::default());
        let handle = engine.handle();
        let mixed: Vec<String> = lines
            .iter()
            .enumerate()
            .map(|(i, l)| if i % 10 == 3 { format!("{l} {word}") } else { l.clone() })
            .collect();
        let got = join_all(mixed.iter().map(|line| classify(&handle, line))).await;
        for (i, answer) in got.into_iter().enumerate() {
            match i % 10 {
                3 => assert_eq!(answer.unwrap_err(), RequestError::Inference),
                _ => assert_eq!(answer.unwrap().scores.len(), 2),
            }
        }
        assert!(classify(&handle, "still alive").await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_everything_accepted_is_answered() {
    let model = model();
    let (device, gate) = gated();
    let batching = Batching { max_queue_tokens: 16_384, max_bulk_tokens: 16_384, ..Batching::default() };
    let engine = start(&model, vec![device], &batching);
    let handle = engine.handle();
    let waiting = spawn(&handle, &lines(1000));
    // Each takes at least 2 rows of 16 tokens, so at most 512 of them fit.
    until(|| waiting.iter().filter(|w| w.is_finished()).count() >= 488).await;
    drop(gate);
    let answers = join_all(waiting).await;
    let (mut accepted, mut refused) = (0, 0);
    for answer in answers {
        match answer.unwrap() {
            Ok(_) => accepted += 1,
            Err(RequestError::Overloaded { retry_after }) => {
                assert!((1..=60).contains(&retry_after.as_secs()));
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(accepted + refused, 1000);
    assert!(accepted > 0 && refused >= 488, "{accepted} accepted, {refused} refused");
    assert!(classify(&handle, "room again").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_hangs_up_is_dropped_before_it_costs_a_run() {
    let model = model();
    let (device, gate) = gated();
    let engine = start(&model, vec![device], &Batching { max_batch_rows: 2, ..Batching::default() });
    let handle = engine.handle();
    let first = spawn(&handle, &lines(1));
    until(|| batches(&handle) == 1.0).await;
    let gone = spawn(&handle, &lines(20));
    until(|| metric(&handle, "oddlog_queue_jobs") == 20.0).await;
    for task in &gone {
        task.abort();
    }
    for task in gone {
        assert!(task.await.unwrap_err().is_cancelled());
    }
    let stays = spawn(&handle, &lines(3));
    drop(gate);
    for answer in join_all(first.into_iter().chain(stays)).await {
        answer.unwrap().unwrap();
    }
    assert_eq!(metric(&handle, "oddlog_dropped_by_client_total"), 20.0);
    assert_eq!(batches(&handle), 4.0);
}

/// Requests that wait, as many as are let in, and what the next one is told.
fn fill(handle: &Handle) -> (Vec<impl Future<Output = Result<Classified, RequestError>>>, RequestError) {
    let mut waiting = Vec::new();
    loop {
        let mut next = Box::pin(classify(handle, "x"));
        match (&mut next).now_or_never() {
            None => waiting.push(next),
            Some(answer) => return (waiting, answer.unwrap_err()),
        }
    }
}

/// The device never asks meanwhile: it is held in the run of the first log.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_hangs_up_makes_room_at_once_and_what_runs_keeps_its_place() {
    let model = model();
    let (device, gate) = gated();
    let batching = Batching { max_queue_tokens: 640, max_bulk_tokens: 64, ..Batching::default() };
    let engine = start(&model, vec![device], &batching);
    let handle = engine.handle();
    let running = spawn(&handle, &["x".to_owned()]).remove(0);
    until(|| batches(&handle) == 1.0).await;
    let (waiting, refusal) = fill(&handle);
    let room = waiting.len();
    assert!(room > 8 && matches!(refusal, RequestError::Overloaded { .. }), "{room}, {refusal}");
    drop(waiting);
    // Far more than the inbox has room for.
    for _ in 0..2000 {
        assert_eq!(classify(&handle, "x").now_or_never(), None, "whoever left before is in the way");
    }
    // What runs for nobody counts all the same.
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    let (waiting, refusal) = fill(&handle);
    assert!(waiting.len() == room && matches!(refusal, RequestError::Overloaded { .. }), "{refusal}");
    drop(gate);
    for answer in join_all(waiting).await {
        answer.unwrap();
    }
    assert_eq!(metric(&handle, "oddlog_queue_jobs"), 0.0);
    assert_eq!(metric(&handle, "oddlog_dropped_by_client_total"), (room + 2001) as f64);
    // Its place is free again, too.
    until(|| handle.is_idle()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_answers_what_was_accepted_and_refuses_the_rest() {
    let model = model();
    let (device, gate) = gated();
    let engine = start(&model, vec![device], &Batching::default());
    let handle = engine.handle();
    let waiting = spawn(&handle, &lines(50));
    // The device holds the first batch at its gate; the others wait.
    until(|| batches(&handle) == 1.0 && metric(&handle, "oddlog_queue_jobs") > 0.0).await;
    let late = handle.clone();
    let ending = tokio::task::spawn_blocking(move || engine.shutdown(Duration::from_secs(60)));
    until(|| !late.is_open()).await;
    let refused = classify(&late, "too late").await.unwrap_err();
    assert_eq!(refused, RequestError::Draining);
    drop(gate);
    assert!(ending.await.unwrap());
    for answer in join_all(waiting).await {
        match answer.unwrap() {
            Ok(_) | Err(RequestError::Draining) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(metric(&late, "oddlog_queue_jobs"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_device_does_not_hold_the_shutdown() {
    let model = model();
    let (device, gate) = gated();
    let engine = start(&model, vec![device], &Batching::default());
    let handle = engine.handle();
    let stuck = spawn(&handle, &lines(1));
    until(|| batches(&handle) == 1.0).await;
    assert!(!tokio::task::spawn_blocking(move || engine.shutdown(Duration::from_millis(10))).await.unwrap());
    drop(gate);
    assert!(stuck.into_iter().next().unwrap().await.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_does_not_run_is_refused_at_start() {
    let model = model();
    let ids = model.tokenizer.encode_log("INFO", 0..=0).ids;
    let broken = fleet(vec![fake().failing_on(ids[0])]);
    let error = Engine::start(&model, broken, &Scoring::default(), &Batching::default(), Metrics::new().unwrap());
    let text = error.err().unwrap().to_string();
    assert!(text.contains("fake:0") && text.contains("does not run"), "{text}");
    let labels = Scoring { anomaly_label: "odd".into(), ..Scoring::default() };
    let fine = fleet(vec![fake()]);
    let error = Engine::start(&model, fine, &labels, &Batching::default(), Metrics::new().unwrap());
    assert!(error.err().unwrap().to_string().contains("anomaly_label"));
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_calls_wait_for_their_turn_instead_of_failing() {
    let model = model();
    let batching = Batching { max_bulk_tokens: 16_384, ..Batching::default() };
    let engine = start(&model, vec![fake()], &batching);
    let handle = Arc::new(engine.handle());
    let lines = lines(2000);
    let all = lines.iter().map(|line| handle.classify(line, handle.default_task(), Class::Bulk));
    assert!(join_all(all).await.into_iter().all(|answer| answer.is_ok()));
}
