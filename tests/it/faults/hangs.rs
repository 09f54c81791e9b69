//! Runs that hang: terminated, abandoned, given up; the queue goes on meanwhile.

use std::{sync::Barrier, thread, time::Duration};

use futures_util::future::join_all;
use oddlog::{
    config::{Batching, Devices, Scoring},
    device::{Device, DeviceError, FakeDevice, fake::Step},
    engine::{Engine, Fleet},
    error::RequestError,
    metrics::Metrics,
    model::{InputTensors, Model},
};

use super::{FOR_EVER, hang, impatient, of_device, patient, rebuilds, released, scripted, start};
use crate::{
    engine::{batches, classify, lines, metric, model, spawn, until},
    parity::{onnx_device, shipped},
};

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
