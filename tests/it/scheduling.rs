//! Devices of different speed and health behind one queue.

use std::time::Duration;

use crossbeam_channel::bounded;
use oddlog::{
    config::{Batching, Devices, Scoring},
    device::{FakeDevice, fake::Step},
    engine::{Engine, Fleet, Handle},
    metrics::Metrics,
};

use super::engine::{classify, lines, model, spawn};

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
    let engine = start(vec![taking("even", 2_000, 2_000), taking("steep", 0, 100_000)]);
    let handle = engine.handle();
    teach(&handle, &["even", "steep"]).await;
    let left = || of_device(&handle, "oddlog_device_left_to_faster_total", "steep");
    let long = "a long line goes on ".repeat(100);
    for round in 0.. {
        // Both run, and the slower one is the last to go idle: the first to be woken.
        for answer in spawn(&handle, &lines(2)) {
            answer.await.unwrap().unwrap();
        }
        classify(&handle, &long).await.unwrap();
        if left() > 2.0 || round == 50 {
            break;
        }
    }
    assert!(left() > 2.0, "the slower device never had to leave a log");
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

/// What a GPU takes at once would keep a processor busy for seconds.
#[tokio::test(flavor = "multi_thread")]
async fn each_device_takes_runs_of_the_size_that_suits_it() {
    for (configured, most) in [(0, [512, 4096]), (256, [256, 256])] {
        let (told, shapes): (Vec<_>, Vec<_>) = (0..2).map(|_| bounded(1000)).unzip();
        let makers = ["small", "large"]
            .into_iter()
            .zip(told)
            .zip([512, 4096])
            .map(|((name, told), tokens)| device(name, 20).telling(told).maker().suited_by(tokens));
        let fleet = Fleet { makers: makers.collect(), rules: Devices::default() };
        let batching = Batching {
            max_batch_tokens: configured,
            max_queue_wait_ms: 60_000,
            request_timeout_ms: 60_000,
            ..Batching::default()
        };
        let engine = Engine::start(&model(), fleet, &Scoring::default(), &batching, Metrics::new().unwrap()).unwrap();
        for answer in spawn(&engine.handle(), &lines(600)) {
            answer.await.unwrap().unwrap();
        }
        for (shapes, most) in shapes.iter().zip(most) {
            let largest = shapes.try_iter().map(|(rows, len)| rows * len).max().unwrap();
            // Runs are filled up to a row or two.
            assert!((most * 2 / 3..=most).contains(&largest), "{largest} of {most}");
        }
    }
}
