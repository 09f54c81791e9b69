//! Devices that are made anew, or cannot be.

use std::{sync::atomic::Ordering, time::Duration};

use futures_util::future::join_all;
use oddlog::{device::fake::Step, error::RequestError};

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
