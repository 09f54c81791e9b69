//! The same with the real engine: threads, clocks and a tokenizer, around devices that only wait.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use oddlog::{
    batching::Class,
    config::{Batching, Devices, Scoring},
    device::FakeDevice,
    engine::{Engine, Fleet},
    metrics::Metrics,
    model::Model,
};

/// What the engine did with so many devices.
#[derive(serde::Serialize)]
pub struct Real {
    pub devices: usize,
    pub logs_per_s: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// Closed loop: 256 logs in flight for each device, runs of 5 ms and 10 microseconds a padded token.
pub fn run(devices: usize) -> Real {
    let model = Model::open("models/oddlog-minilm".as_ref(), 512).expect("the shipped model opens");
    let (fixed, per_token) = (Duration::from_millis(5), Duration::from_micros(10));
    let makers = (0..devices)
        .map(|number| FakeDevice::new(format!("fake:{number}"), model.spec.classes).taking(fixed, per_token).maker())
        .collect();
    let fleet = Fleet { makers, rules: Devices::default() };
    let batching = Batching { max_batch_tokens: 2048, ..Batching::default() };
    let metrics = Metrics::new().expect("fixed buckets");
    let engine = Engine::start(&model, fleet, &Scoring::default(), &batching, metrics).expect("it starts");
    let handle = engine.handle();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let logs = 4000 * devices;
    let line = |i: usize| format!("worker {i} finished job {} in {} ms{}", i * 7919, i % 97, " and more".repeat(i % 6));
    let (mut times, seconds) = runtime.block_on(async {
        let started = Instant::now();
        let one = |i| {
            let handle = &handle;
            async move {
                let (text, asked) = (line(i), Instant::now());
                handle.classify(&text, handle.default_task(), Class::Bulk).await.expect("it answers");
                asked.elapsed().as_secs_f64() * 1e3
            }
        };
        let times: Vec<f64> = stream::iter(0..logs).map(one).buffer_unordered(256 * devices).collect().await;
        (times, started.elapsed().as_secs_f64())
    });
    times.sort_by(f64::total_cmp);
    let quantile = |q: f64| times[((logs - 1) as f64 * q) as usize];
    Real { devices, logs_per_s: logs as f64 / seconds, p50_ms: quantile(0.5), p99_ms: quantile(0.99) }
}
