//! Batches that fail: halved, or run in smaller parts; and every fault at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crossbeam_channel::{Sender, bounded};
use futures_util::{StreamExt, future::join_all, stream};
use oddlog::{config::Devices, device::fake::Step, engine::Class, error::RequestError};

use super::{expected, hang, impatient, of_device, patient, rebuilds, scripted, start};
use crate::engine::{classify, fake, lines, metric, model, poison, spawn, until};

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
async fn a_batch_with_one_poisoned_log_is_halved_until_that_is_alone() {
    let model = model();
    let mut lines: Vec<String> = (1..=8).map(|i| format!("disk sda{i} is full")).collect();
    let expected = expected(&model, &lines).await;
    let (word, id) = poison(&model, &lines);
    for place in [0, 5] {
        let (device, script) = scripted("fake:0");
        let engine = start(&model, vec![device.failing_on(id).maker()], patient());
        let handle = engine.handle();
        let (gate, closed) = bounded(0);
        script.send(Step::Wait(closed)).unwrap();
        let first = spawn(&handle, &["the first one".to_owned()]);
        until(|| script.is_empty()).await;

        let clean = std::mem::replace(&mut lines[place], format!("disk {word} is full"));
        let waiting = spawn(&handle, &lines);
        until(|| metric(&handle, "oddlog_queue_jobs") == 8.0).await;
        drop(gate);
        for (i, answer) in join_all(waiting).await.into_iter().enumerate() {
            match answer.unwrap() {
                Ok(classified) => assert_eq!(classified.scores, expected[&lines[i]]),
                Err(error) => assert_eq!((i, error), (place, RequestError::Inference)),
            }
        }
        assert!(join_all(first).await.into_iter().all(|answer| answer.unwrap().is_ok()));
        // All eight are one batch: 8, 4, 2, 1.
        assert_eq!(of_device(&handle, "halved_batches_total"), 3.0);
        assert_eq!(metric(&handle, "oddlog_failed_jobs_total"), 1.0);
        lines[place] = clean;
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
    // Half of what failed, and a step more if so many small batches followed that it grew back already.
    assert!((100.0..=256.0 + 512.0 / 8.0).contains(&budget), "{budget}");
    // It learns: not each batch is tried too large first.
    let shrinks = of_device(&handle, "budget_shrinks_total");
    assert!((1.0..=3.0).contains(&shrinks), "{shrinks}");

    // Enough for what every device must run.
    memory.store(100, Ordering::Relaxed);
    assert_eq!(classify(&handle, &"alone too large ".repeat(30)).await.unwrap_err(), RequestError::Inference);
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
