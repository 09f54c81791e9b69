//! Devices of different speed and health behind one queue.

use std::time::Duration;

use crossbeam_channel::bounded;
use oddlog::{
    config::{Batching, Devices, Scoring},
    device::{FakeDevice, fake::Step},
    engine::{Engine, Fleet, Handle},
    metrics::Metrics,
};

use super::engine::{classify, lines, metric, model, spawn, until};

fn start(devices: Vec<FakeDevice>) -> Engine {
    let makers = devices.into_iter().map(FakeDevice::maker).collect();
    // One log a run: who runs how many shows who was asked.
    // However little of the processor the devices get, nothing is refused for it.
    let patient = Batching { max_queue_wait_ms: 60_000, request_timeout_ms: 60_000, ..Batching::default() };
    let batching = Batching { max_batch_rows: 2, ..patient };
    let fleet = Fleet { makers, rules: Devices::default() };
    Engine::start(&model(), fleet, &Scoring::default(), &batching, Metrics::new().unwrap()).unwrap()
}

/// Sum of a metric of one device over its other labels.
fn of_device(handle: &Handle, name: &str, device: &str) -> f64 {
    let text = handle.metrics().render();
    let samples = prometheus_parse::Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap().samples;
    let value = |sample: &prometheus_parse::Sample| match &sample.value {
        prometheus_parse::Value::Counter(value) | prometheus_parse::Value::Gauge(value) => *value,
        prometheus_parse::Value::Histogram(buckets) => buckets.last().map_or(0.0, |bucket| bucket.count),
        other => panic!("{other:?}"),
    };
    samples.iter().filter(|s| s.metric == name && s.labels.get("device") == Some(device)).map(value).sum()
}

fn runs(handle: &Handle, device: &str) -> f64 {
    of_device(handle, "oddlog_device_run_duration_seconds", device)
}

fn device(name: &str, ms: u64) -> FakeDevice {
    FakeDevice::new(name, 2).taking(Duration::from_millis(ms), Duration::ZERO)
}

/// Waves of logs until what runs cost is known of every device.
async fn teach(handle: &Handle, devices: &[&str]) {
    while devices.iter().any(|device| of_device(handle, "oddlog_device_cost_seconds", device) == 0.0) {
        for answer in spawn(handle, &lines(8)) {
            answer.await.unwrap().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_device_helps_with_a_long_queue_only() {
    let engine = start(vec![device("fast", 1), device("slow", 40)]);
    let handle = engine.handle();
    teach(&handle, &["fast", "slow"]).await;
    let before = runs(&handle, "slow");
    for line in lines(100) {
        classify(&handle, &line).await.unwrap();
    }
    // Where the fast device's thread gets no processor for tens of milliseconds, the slow one is right to step in.
    let alone = runs(&handle, "slow") - before;
    assert!(alone <= 20.0, "the slow device took {alone} of 100 logs that came alone");
    let answers = spawn(&handle, &lines(400));
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    let helped = runs(&handle, "slow") - before - alone;
    assert!((1.0..=100.0).contains(&helped), "the slow device took {helped} of 400 logs that came at once");
    assert!(of_device(&handle, "oddlog_device_left_to_faster_total", "slow") > 0.0);
    assert_eq!(of_device(&handle, "oddlog_device_left_to_faster_total", "fast"), 0.0);
    assert!(of_device(&handle, "oddlog_device_tokens_total", "fast") > 0.0);
    assert!(engine.shutdown(Duration::from_secs(30)));
}

/// Alike at short logs, so that either may be woken; at long ones one of them is far slower and leaves them to the other.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_to_a_faster_device_wakes_it() {
    let taking = |name, us, ns| FakeDevice::new(name, 2).taking(Duration::from_micros(us), Duration::from_nanos(ns));
    let engine = start(vec![taking("even", 7_000, 2_000), taking("steep", 0, 100_000)]);
    let handle = engine.handle();
    // Two rows of 48 tokens take the even one 7.2 ms and the steep one 9.6 ms, two of 512 tokens 9 and 102 ms.
    let (short, long) = ("word ".repeat(36), "word ".repeat(600));
    let both = |text: &str| spawn(&handle, &[format!("{text} one"), format!("{text} two")]);
    let cost = |device| of_device(&handle, "oddlog_device_cost_seconds", device);
    while cost("even") == 0.0 || cost("steep") == 0.0 {
        for answer in [both(&short), both(&long)].into_iter().flatten() {
            answer.await.unwrap().unwrap();
        }
    }
    let left = || of_device(&handle, "oddlog_device_left_to_faster_total", "steep");
    let before = left();
    for _ in 0..20 {
        // Both run, and the steep one is the last to go idle: the first to be woken.
        let first = spawn(&handle, std::slice::from_ref(&short));
        until(|| metric(&handle, "oddlog_queue_jobs") == 0.0).await;
        for answer in spawn(&handle, std::slice::from_ref(&short)).into_iter().chain(first) {
            answer.await.unwrap().unwrap();
        }
        classify(&handle, &long).await.unwrap();
    }
    assert!(left() > before, "nothing was left to the faster device");
    assert!(engine.shutdown(Duration::from_secs(30)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_fails_gets_less_and_then_nothing() {
    let (say, script) = bounded(4096);
    let engine = start(vec![device("well", 1), device("sick", 1).scripted(script)]);
    let handle = engine.handle();
    teach(&handle, &["well", "sick"]).await;
    (0..4096).for_each(|_| say.send(Step::Fail).unwrap());
    let mut failed = 0;
    for _ in 0..100 {
        for answer in spawn(&handle, &lines(4)) {
            failed += usize::from(answer.await.unwrap().is_err());
        }
    }
    assert!((1..100).contains(&failed), "{failed} of 400 logs failed on a device that fails always");
    drop(say);
    assert!(engine.shutdown(Duration::from_secs(30)));
}

/// Devices that hang or are slow by chance do not hold up the others: nothing is lost when the fast one goes away.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_device_takes_all_when_the_fast_one_hangs() {
    let (say, script) = bounded(1);
    let (open, gate) = bounded(0);
    let engine = start(vec![device("fast", 1).scripted(script), device("slow", 5)]);
    let handle = engine.handle();
    teach(&handle, &["fast", "slow"]).await;
    say.send(Step::Wait(gate)).unwrap();
    let answers = spawn(&handle, &lines(30));
    // All but the one that is held are answered.
    let mut answers: Vec<_> = answers.into_iter().collect();
    let mut answered = 0;
    while answered < 29 {
        tokio::task::yield_now().await;
        let before = answers.len();
        answers.retain(|answer| !answer.is_finished());
        answered += before - answers.len();
    }
    drop(open);
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    assert!(engine.shutdown(Duration::from_secs(30)));
}
