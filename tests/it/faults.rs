//! Devices that fail, panic, hang and run out of memory, by script: each accepted log is answered once, and the service
//! comes back.

use std::{
    collections::HashMap,
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crossbeam_channel::{Sender, TrySendError, bounded};
use futures_util::{StreamExt, future::join_all, stream};
use oddlog::{
    config::{Batching, Devices, Scoring},
    device::{Device, DeviceError, DeviceMaker, FakeDevice, fake::Step},
    engine::{Class, Engine, Fleet, Handle},
    error::{RequestError, StartError},
    metrics::Metrics,
    model::{InputTensors, Model},
};

use super::{
    engine::{batches, classify, fake, lines, metric, model, poison, spawn, until},
    parity::{onnx_device, shipped},
};

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

#[tokio::test(flavor = "multi_thread")]
async fn one_percent_of_poison_gets_all_the_errors_and_no_neighbour_any() {
    let model = model();
    let clean = lines(1000);
    let expected = expected(&model, &clean).await;
    let (word, id) = poison(&model, &clean);
    for (device, failing) in [(fake().failing_on(id), true), (fake().panicking_on(id), false)] {
        let engine = start(&model, vec![device.clone().maker(), device.maker()], patient());
        let handle = engine.handle();
        let calls = clean.iter().enumerate().map(|(i, line)| {
            let (handle, poisoned) = (&handle, i % 100 == 37);
            let text = if poisoned { format!("{line} {word}") } else { line.clone() };
            async move { (poisoned, line, classify(handle, &text).await) }
        });
        let answers: Vec<_> = stream::iter(calls).buffer_unordered(128).collect().await;
        assert_eq!(answers.len(), 1000);
        for (poisoned, line, answer) in answers {
            match poisoned {
                true => assert_eq!(answer.unwrap_err(), RequestError::Inference),
                false => assert_eq!(answer.unwrap().scores, expected[line]),
            }
        }
        assert_eq!(metric(&handle, "oddlog_failed_jobs_total"), 10.0);
        let panicked = rebuilds(&handle, "panic", "made");
        assert_eq!((panicked > 0.0, rebuilds(&handle, "panic", "failed")), (!failing, 0.0));
        assert_eq!(of_device(&handle, "up"), 1.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_memory_takes_smaller_batches_and_grows_back() {
    let model = model();
    let memory = Arc::new(AtomicUsize::new(usize::MAX));
    let (device, script) = scripted("fake:0");
    let engine = start(&model, vec![device.with_memory(memory.clone()).maker()], patient());
    let handle = engine.handle();
    assert_eq!(of_device(&handle, "token_budget"), 512.0);
    let lines = lines(60);
    let expected = expected(&model, &lines).await;

    memory.store(200, Ordering::Relaxed);
    let (gate, closed) = bounded(0);
    script.send(Step::Wait(closed)).unwrap();
    let waiting = spawn(&handle, &lines);
    until(|| metric(&handle, "oddlog_queue_jobs") > 40.0).await;
    drop(gate);
    for (line, answer) in lines.iter().zip(join_all(waiting).await) {
        assert_eq!(answer.unwrap().unwrap().scores, expected[line]);
    }
    let budget = of_device(&handle, "token_budget");
    assert!((100.0..=256.0).contains(&budget), "{budget}");
    // It learns: not each batch is tried too large first.
    let shrinks = of_device(&handle, "budget_shrinks_total");
    assert!((1.0..=3.0).contains(&shrinks), "{shrinks}");

    memory.store(16, Ordering::Relaxed);
    assert_eq!(classify(&handle, "alone too large").await.unwrap_err(), RequestError::Inference);
    assert!(of_device(&handle, "token_budget") >= 32.0);

    memory.store(usize::MAX, Ordering::Relaxed);
    while of_device(&handle, "token_budget") < 512.0 {
        for line in &lines {
            assert_eq!(classify(&handle, line).await.unwrap().scores, expected[line]);
        }
    }
    assert_eq!(rebuilds(&handle, "panic", "made") + rebuilds(&handle, "hang", "made"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_panicked_is_made_anew() {
    let (device, script) = scripted("fake:0");
    let engine = start(&model(), vec![device.maker()], patient());
    let handle = engine.handle();
    for times in 1..=3 {
        script.send(Step::Panic).unwrap();
        assert_eq!(classify(&handle, "alone").await.unwrap_err(), RequestError::Inference);
        assert!(classify(&handle, "again").await.is_ok());
        assert_eq!(rebuilds(&handle, "panic", "made"), f64::from(times));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_cannot_be_made_is_tried_again_and_meanwhile_refuses() {
    let (device, script) = scripted("fake:0");
    let (maker, failures) = failing_maker(device);
    let engine = start(&model(), vec![maker], patient());
    let handle = engine.handle();
    assert!(classify(&handle, "well").await.is_ok());
    failures.store(usize::MAX, Ordering::SeqCst);
    script.send(Step::Panic).unwrap();
    assert_eq!(classify(&handle, "alone").await.unwrap_err(), RequestError::Inference);
    until(|| rebuilds(&handle, "panic", "failed") >= 3.0).await;
    assert_eq!((of_device(&handle, "up"), handle.can_answer(), handle.is_ready().await), (0.0, false, false));
    assert_eq!(classify(&handle, "now").await.unwrap_err(), RequestError::Unavailable);
    // It works again, but its first run panics: that is one more failure.
    script.send(Step::Panic).unwrap();
    failures.store(0, Ordering::SeqCst);
    until(|| handle.can_answer()).await;
    assert!(classify(&handle, "well again").await.is_ok() && handle.is_ready().await);
    assert_eq!((of_device(&handle, "up"), rebuilds(&handle, "panic", "made")), (1.0, 1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_run_is_terminated() {
    let (device, script) = scripted("fake:0");
    let rules = Devices { terminate_grace_ms: FOR_EVER, ..impatient() };
    let engine = start(&model(), vec![device.maker()], rules);
    let handle = engine.handle();
    for times in 1..=3 {
        script.send(Step::Hang).unwrap();
        assert_eq!(classify(&handle, "stuck").await.unwrap_err(), RequestError::Unavailable);
        assert!(classify(&handle, "goes on").await.is_ok());
        assert_eq!(of_device(&handle, "terminated_runs_total"), f64::from(times));
    }
    assert_eq!((of_device(&handle, "abandoned_threads_total"), rebuilds(&handle, "hang", "made")), (0.0, 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_be_terminated_is_abandoned_and_its_logs_are_answered_once() {
    let (device, script) = scripted("fake:0");
    let engine = start(&model(), vec![device.maker()], impatient());
    let handle = engine.handle();
    let (step, release) = hang();
    script.send(step).unwrap();
    let stuck = spawn(&handle, &lines(1));
    until(|| batches(&handle) == 1.0).await;
    let waiting = spawn(&handle, &lines(20));
    assert_eq!(stuck.into_iter().next().unwrap().await.unwrap().unwrap_err(), RequestError::Unavailable);
    // What waited is answered by the new session, though the old thread still hangs.
    for answer in join_all(waiting).await {
        assert!(matches!(answer.unwrap(), Ok(_) | Err(RequestError::Unavailable)));
    }
    until(|| handle.can_answer()).await;
    assert!(classify(&handle, "back").await.is_ok());
    let counts = ["terminated_runs_total", "abandoned_threads_total"].map(|name| of_device(&handle, name));
    assert_eq!((counts, rebuilds(&handle, "hang", "made")), ([1.0, 1.0], 1.0));
    // The old thread comes back with an answer that nobody asked for any more.
    released(release).await;
    assert!(classify(&handle, "still well").await.is_ok());
    assert_eq!(metric(&handle, "oddlog_dropped_by_client_total"), 0.0);
    assert!(tokio::task::spawn_blocking(move || engine.shutdown(Duration::from_secs(60))).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_hangs_too_often_is_given_up() {
    let (device, script) = scripted("fake:0");
    let engine = start(&model(), vec![device.maker()], Devices { max_abandoned_threads: 1, ..impatient() });
    let handle = engine.handle();
    let mut held = Vec::new();
    for times in [1.0, 2.0] {
        let (step, release) = hang();
        script.send(step).unwrap();
        held.push(release);
        assert_eq!(classify(&handle, "stuck").await.unwrap_err(), RequestError::Unavailable);
        until(|| of_device(&handle, "abandoned_threads_total") == times).await;
        until(|| handle.can_answer() == (times == 1.0)).await;
    }
    assert_eq!(classify(&handle, "refused").await.unwrap_err(), RequestError::Unavailable);
    assert_eq!((handle.is_ready().await, rebuilds(&handle, "hang", "made")), (false, 1.0));
    // Threads that hang do not hold the end.
    assert!(tokio::task::spawn_blocking(move || engine.shutdown(Duration::from_secs(60))).await.unwrap());
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_device_does_not_hold_the_queue() {
    let (device, script) = scripted("fake:0");
    let engine = start(&model(), vec![device.maker(), FakeDevice::new("fake:1", 2).maker()], patient());
    let handle = engine.handle();
    let (step, release) = hang();
    script.send(step).unwrap();
    let mut stuck = Vec::new();
    // Until the device with the script has taken one.
    while !script.is_empty() {
        stuck.extend(spawn(&handle, &lines(1)));
        until(|| metric(&handle, "oddlog_queue_jobs") == 0.0).await;
    }
    let answers = join_all(lines(500).iter().map(|line| classify(&handle, line))).await;
    assert!(answers.into_iter().all(|answer| answer.is_ok()));
    released(release).await;
    assert!(join_all(stuck).await.into_iter().all(|answer| answer.unwrap().is_ok()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expires_is_answered_while_every_device_hangs() {
    let (device, script) = scripted("fake:0");
    let fleet = Fleet { makers: vec![device.maker()], rules: patient() };
    let batching = Batching { request_timeout_ms: 400, ..Batching::default() };
    let engine = Engine::start(&model(), fleet, &Scoring::default(), &batching, Metrics::new().unwrap()).unwrap();
    let handle = engine.handle();
    let (step, release) = hang();
    script.send(step).unwrap();
    let stuck = spawn(&handle, &lines(1));
    until(|| batches(&handle) == 1.0).await;
    let waiting = spawn(&handle, &lines(5));
    for answer in join_all(waiting).await {
        assert_eq!(answer.unwrap().unwrap_err(), RequestError::DeadlineExceeded);
    }
    // Each is told by its own clock, the stuck one too; the watchdog empties the queue.
    until(|| metric(&handle, "oddlog_queue_jobs") == 0.0).await;
    until(|| metric(&handle, "oddlog_expired_total") == 6.0).await;
    drop(release);
    for answer in join_all(stuck).await {
        assert!(matches!(answer.unwrap(), Ok(_) | Err(RequestError::DeadlineExceeded)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_answers_everything_while_the_only_device_hangs_or_is_gone() {
    for broken in [false, true] {
        let (device, script) = scripted("fake:0");
        let (maker, failures) = failing_maker(device);
        let engine = start(&model(), vec![maker], impatient());
        let handle = engine.handle();
        let (step, release) = hang();
        script.send(step).unwrap();
        let stuck = spawn(&handle, &lines(1));
        until(|| batches(&handle) == 1.0).await;
        if broken {
            failures.store(usize::MAX, Ordering::SeqCst);
        }
        let waiting = spawn(&handle, &lines(30));
        let ending = tokio::task::spawn_blocking(move || engine.shutdown(Duration::from_secs(60)));
        assert!(ending.await.unwrap());
        for answer in join_all(stuck.into_iter().chain(waiting)).await {
            let answer = answer.unwrap();
            let refused = matches!(answer, Err(RequestError::Unavailable | RequestError::Draining));
            assert!(refused || (answer.is_ok() && !broken), "{answer:?}");
        }
        assert_eq!(metric(&handle, "oddlog_queue_jobs"), 0.0);
        drop(release);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_and_every_fault_at_once_nothing_is_lost_and_the_service_comes_back() {
    let model = model();
    let lines = lines(2000);
    let expected = expected(&model, &lines).await;
    let (makers, scripts): (Vec<_>, Vec<_>) =
        (0..3).map(|i| scripted(&format!("fake:{i}"))).map(|(device, script)| (device.maker(), script)).unzip();
    let engine = start(&model, makers, Devices { max_abandoned_threads: 1000, ..impatient() });
    let handle = engine.handle();
    let mut random = fastrand::Rng::with_seed(7);
    let mut held = Vec::new();
    for script in &scripts {
        let mut steps = vec![Step::Hang, Step::Panic, Step::OutOfMemory, Step::Fail];
        let (step, release) = hang();
        held.push(release);
        steps.push(step);
        steps.extend((0..6).map(|_| [Step::Panic, Step::OutOfMemory, Step::Fail][random.usize(..3)].clone()));
        steps.extend((0..40).map(|_| Step::Run));
        random.shuffle(&mut steps);
        steps.into_iter().for_each(|step| script.send(step).unwrap());
    }
    let task = handle.default_task();
    let (mut sent, mut answered, mut harmed) = (0, 0, 0);
    // Until every script is played.
    while !scripts.iter().all(Sender::is_empty) {
        sent += lines.len();
        let calls = lines.iter().map(|line| {
            let handle = &handle;
            async move { (line, handle.classify(line, task, Class::Bulk).await) }
        });
        let mut answers = stream::iter(calls).buffer_unordered(256);
        while let Some((line, answer)) = answers.next().await {
            answered += 1;
            match answer {
                Ok(classified) => assert_eq!(classified.scores, expected[line]),
                Err(RequestError::Inference | RequestError::Unavailable) => harmed += 1,
                Err(other) => panic!("{other}"),
            }
        }
    }
    assert!(answered == sent && harmed > 0, "{harmed} of {answered}");
    until(|| handle.can_answer()).await;
    let again = join_all(lines[..200].iter().map(|line| classify(&handle, line))).await;
    assert!(again.into_iter().all(|answer| answer.is_ok()));
    assert_eq!(metric(&handle, "oddlog_queue_jobs"), 0.0);
    drop(held);
    assert!(tokio::task::spawn_blocking(move || engine.shutdown(Duration::from_secs(60))).await.unwrap());
}

/// Rows of ordinary words.
fn tensors(model: &Model, rows: usize, len: usize) -> InputTensors {
    let (log, hypothesis) = (model.tokenizer.encode_log("disk failure", 0..=0).ids, vec![7; len / 2]);
    let mut inputs = InputTensors::default();
    inputs.reset(rows, len, model.spec.pad_id);
    (0..rows).for_each(|_| inputs.push(&model.tokenizer, &log, &hypothesis));
    inputs.finish();
    inputs
}

#[test]
fn onnx_runtime_ends_a_run_that_is_terminated_and_runs_again() {
    let model = shipped("model.onnx");
    let mut device = onnx_device(&model, 1 << 20);
    let terminator = device.terminator().unwrap();
    let (short, long) = (tensors(&model, 2, 32), tensors(&model, 512, 256));
    let (mut before, mut after) = (Vec::new(), Vec::new());
    device.run(&short, &mut before).unwrap();

    // From the start, and in the middle of some seconds of work.
    terminator.terminate();
    assert_eq!(device.run(&short, &mut after), Err(DeviceError::Terminated));
    terminator.clear();
    let begins = Barrier::new(2);
    let result = thread::scope(|scope| {
        let run = scope.spawn(|| {
            begins.wait();
            device.run(&long, &mut after)
        });
        begins.wait();
        terminator.terminate();
        run.join().unwrap()
    });
    assert_eq!(result, Err(DeviceError::Terminated));

    terminator.clear();
    device.run(&short, &mut after).unwrap();
    assert_eq!(after, before);
}
