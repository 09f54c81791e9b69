//! Devices that fail, panic, hang and run out of memory, by script: each accepted log is answered once, and the service
//! comes back.

mod batches;
mod hangs;
mod sessions;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crossbeam_channel::{Sender, TrySendError, bounded};
use oddlog::{
    config::{Batching, Devices, Scoring},
    device::{Device, DeviceError, DeviceMaker, FakeDevice, fake::Step},
    engine::{Engine, Fleet, Handle},
    error::StartError,
    metrics::Metrics,
    model::{InputTensors, Model},
};

use crate::engine::{classify, fake, metric, until};

const FOR_EVER: u64 = 600_000;

/// Nothing counts as hung.
fn patient() -> Devices {
    Devices { run_timeout_ms: FOR_EVER, rebuild_backoff_ms: 1, max_rebuild_backoff_ms: 4, ..Devices::default() }
}

/// A hang is seen soon.
fn impatient() -> Devices {
    Devices { run_timeout_ms: 80, terminate_grace_ms: 80, ..patient() }
}

fn start(model: &Model, makers: Vec<DeviceMaker>, rules: Devices) -> Engine {
    let fleet = Fleet { makers, rules };
    Engine::start(model, fleet, &Scoring::default(), &Batching::default(), Metrics::new().unwrap()).unwrap()
}

/// A device that plays what is sent.
fn scripted(name: &str) -> (FakeDevice, Sender<Step>) {
    let (send, script) = bounded(1024);
    (FakeDevice::new(name, 2).scripted(script), send)
}

/// A hang that does not end before the sender says so, or is dropped.
fn hang() -> (Step, Sender<()>) {
    let (release, held) = bounded(1);
    (Step::Wait(held), release)
}

/// Waits until the hung run has gone on.
async fn released(release: Sender<()>) {
    until(|| matches!(release.try_send(()), Err(TrySendError::Disconnected(())))).await;
}

/// A maker that fails while the number is above zero, and counts it down.
fn failing_maker(device: FakeDevice) -> (DeviceMaker, Arc<AtomicUsize>) {
    let failures = Arc::new(AtomicUsize::new(0));
    let (mut maker, left) = (device.maker(), failures.clone());
    let make = move || match left.try_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
        Ok(_) => Err(StartError::Device { name: "fake:0".into(), reason: "is broken".into() }),
        Err(_) => maker.make().map(Stubborn),
    };
    (DeviceMaker::new("fake:0".into(), make), failures)
}

/// A device that nothing terminates.
struct Stubborn(Box<dyn Device>);

impl Device for Stubborn {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn run(&mut self, inputs: &InputTensors, logits: &mut Vec<f32>) -> Result<(), DeviceError> {
        self.0.run(inputs, logits)
    }
}

fn of_device(handle: &Handle, name: &str) -> f64 {
    metric(handle, &format!("oddlog_device_{name}{{device=\"fake:0\"}}"))
}

fn rebuilds(handle: &Handle, reason: &str, result: &str) -> f64 {
    let labels = format!("device=\"fake:0\",reason=\"{reason}\",result=\"{result}\"");
    let name = format!("oddlog_device_rebuilds_total{{{labels}}}");
    if handle.metrics().render().contains(&name) { metric(handle, &name) } else { 0.0 }
}

/// What a healthy device says of each line.
async fn expected(model: &Model, lines: &[String]) -> HashMap<String, Vec<f32>> {
    let engine = start(model, vec![fake().maker()], patient());
    let handle = engine.handle();
    let mut scores = HashMap::new();
    for line in lines {
        scores.insert(line.clone(), classify(&handle, line).await.unwrap().scores);
    }
    scores
}
