//! Devices that are made anew, or cannot be.

use std::{sync::atomic::Ordering, time::Duration};

use futures_util::future::join_all;
use oddlog::{
    device::{FakeDevice, fake::Step},
    error::RequestError,
};

use super::{failing_maker, hang, impatient, of_device, patient, rebuilds, scripted, start};
use crate::engine::{batches, classify, lines, metric, model, spawn, until};

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

/// Its logs are not to blame: they are refused, which clients may try again.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_runs_nothing_any_more_is_made_anew() {
    let (device, script) = scripted("fake:0");
    let engine = start(&model(), vec![device.maker()], patient());
    let handle = engine.handle();
    for (times, fault) in [Step::Fail, Step::OutOfMemory].into_iter().enumerate() {
        // The run, and the one that is known to work.
        script.send(fault.clone()).unwrap();
        script.send(fault).unwrap();
        assert_eq!(classify(&handle, "alone").await.unwrap_err(), RequestError::Unavailable);
        until(|| handle.can_answer()).await;
        assert!(classify(&handle, "again").await.is_ok());
        assert_eq!(rebuilds(&handle, "broken", "made"), times as f64 + 1.0);
    }
    script.send(Step::Fail).unwrap();
    assert_eq!(classify(&handle, "its own fault").await.unwrap_err(), RequestError::Inference);
    assert_eq!(rebuilds(&handle, "broken", "made"), 2.0);
}

/// It fails much faster than the other one works, and must not get all the logs for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_device_gets_no_more_logs() {
    let (device, script) = scripted("fake:0");
    let (maker, failures) = failing_maker(device);
    let slow = FakeDevice::new("fake:1", 2).taking(Duration::from_millis(5), Duration::ZERO);
    let engine = start(&model(), vec![maker, slow.maker()], patient());
    let handle = engine.handle();
    failures.store(usize::MAX, Ordering::SeqCst);
    for _ in 0..1000 {
        script.send(Step::Fail).unwrap();
    }
    until(|| handle.can_answer()).await;
    let answers = join_all(spawn(&handle, &lines(400))).await;
    let refused = answers.iter().filter(|a| matches!(a, Ok(Err(RequestError::Unavailable)))).count();
    let answered = answers.iter().filter(|a| matches!(a, Ok(Ok(_)))).count();
    // What was in the run that told.
    assert!(refused <= 64 && refused + answered == 400, "{refused} refused, {answered} answered");
    assert_eq!(of_device(&handle, "up"), 0.0);
    assert!(handle.can_answer());
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
