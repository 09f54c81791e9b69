//! `GET /api/v1/devices`: what each device is, how it is, and what happened to it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crossbeam_channel::bounded;
use oddlog::{
    device::{DeviceMaker, FakeDevice, fake::Step},
    error::StartError,
};
use serde_json::{Value, json};

use crate::support::{Running, Setup, eventually};

const ANALYZE: &str = "/api/v1/analyze";
const BODY: &[u8] = br#"{"log_message": "x"}"#;

fn devices(server: &Running) -> Vec<Value> {
    server.get("/api/v1/devices").json()["devices"].as_array().unwrap().clone()
}

#[test]
fn each_device_is_told_with_what_it_is_and_did() {
    let took = Duration::from_millis(2);
    let device = |name: &str| FakeDevice::new(name, 2).taking(took, Duration::ZERO).maker();
    let makers = vec![device("fake:0").about("a fake, 2 ms a run".into()), device("fake:1")];
    let server = Setup { devices: makers, ..Setup::default() }.serve();
    let answer = server.get("/api/v1/devices");
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    let new = answer.json();
    assert_eq!(new["auto_takes"], Value::Null);
    for (device, (name, about)) in
        new["devices"].as_array().unwrap().iter().zip([("fake:0", "a fake, 2 ms a run"), ("fake:1", "")])
    {
        let since = device["since"].as_str().unwrap();
        assert!(since.starts_with("20") && since.ends_with('Z'), "{since}");
        let budget = server.sample("oddlog_device_token_budget", Some(("device", name))) as u64;
        let expected = json!({
            "name": name, "about": about, "state": "up", "since": since, "last_fault": null, "seconds_since_run": null,
            "runs": 0, "tokens": 0, "token_budget": budget, "cost": null
        });
        assert_eq!(*device, expected);
    }

    for _ in 0..40 {
        assert_eq!(server.post(ANALYZE, BODY).status, 200);
    }
    let sum = |key: &str| devices(&server).iter().map(|device| device[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("runs"), sum("tokens") as f64), (40, server.sample("oddlog_device_tokens_total", None)));
    let busiest = devices(&server).into_iter().max_by_key(|device| device["runs"].as_u64()).unwrap();
    assert!((0.0..60.0).contains(&busiest["seconds_since_run"].as_f64().unwrap()), "{busiest}");
    let cost = &busiest["cost"];
    let total = cost["run_ms"].as_f64().unwrap() + cost["kilotoken_ms"].as_f64().unwrap() * 0.032;
    assert!((1.0..100.0).contains(&total), "runs take 2 ms, and {cost} is learned");
}

#[test]
fn a_device_that_fails_says_why_and_comes_back() {
    let (script, steps) = bounded(8);
    let broken = Arc::new(AtomicBool::new(false));
    let (device, is_broken) = (FakeDevice::new("fake:0", 2).scripted(steps), broken.clone());
    let maker = DeviceMaker::new("fake:0".into(), move || match is_broken.load(Ordering::SeqCst) {
        true => Err(StartError::Device { name: "fake:0".into(), reason: "/home/secret is broken".into() }),
        false => Ok(device.clone()),
    });
    let server = Setup { devices: vec![maker], ..Setup::default() }
        .with(|c| {
            (c.devices.run_timeout_ms, c.devices.terminate_grace_ms) = (80, 80);
            (c.devices.rebuild_backoff_ms, c.devices.max_rebuild_backoff_ms) = (1, 4);
        })
        .serve();
    let first = || devices(&server).swap_remove(0);
    let since = first()["since"].clone();

    let plays = |step: Step| {
        // Who finds no memory is tried again, after a run that shows whose fault it is.
        if let Step::OutOfMemory = step {
            script.send(Step::OutOfMemory).unwrap();
            script.send(Step::Run).unwrap();
        }
        script.send(step).unwrap();
        assert_ne!(server.post(ANALYZE, BODY).status, 200);
    };
    for (step, kind, says) in [
        (Step::Fail, "failed", "server's log"),
        (Step::OutOfMemory, "out_of_memory", "smaller batches"),
        (Step::Panic, "panicked", "made anew"),
    ] {
        plays(step);
        eventually("it is told", || first()["last_fault"]["kind"] == kind);
        let device = first();
        assert!(device["last_fault"]["text"].as_str().unwrap().contains(says), "{device}");
        // Also the one that was made anew.
        assert_eq!((server.post(ANALYZE, BODY).status, &first()["state"]), (200, &"up".into()));
    }
    assert_eq!(first()["since"], since, "a fault that it survives is no time off");

    broken.store(true, Ordering::SeqCst);
    let (release, held) = bounded(1);
    plays(Step::Wait(held));
    eventually("it is down", || first()["state"] == "down" && first()["last_fault"]["kind"] == "not_made");
    let down = first();
    assert!(down["since"].as_str() > since.as_str(), "{down}");
    assert!(down["last_fault"]["text"].as_str().unwrap().contains("tried again"), "{down}");
    assert!(!server.get("/api/v1/devices").text().contains("secret"));
    let health = server.get("/api/v1/health").json();
    assert_eq!(health, json!({ "status": "unhealthy", "model_loaded": false, "model_path": "tiny" }));

    broken.store(false, Ordering::SeqCst);
    eventually("it is up again", || first()["state"] == "up");
    let again = first();
    assert!(again["since"].as_str() >= down["since"].as_str(), "{again}");
    // It stays known. A busy machine may take the new device's first run for one that hangs, too.
    assert!(["not_made", "hung"].contains(&again["last_fault"]["kind"].as_str().unwrap()), "{again}");
    assert!(again["last_fault"]["at"].as_str() <= again["since"].as_str(), "{again}");
    drop(release);
}

#[test]
fn a_device_that_is_given_up_says_so() {
    let (script, steps) = bounded(8);
    let server = Setup::device(FakeDevice::new("fake:0", 2).scripted(steps))
        .with(|c| {
            (c.devices.run_timeout_ms, c.devices.terminate_grace_ms) = (40, 40);
            c.devices.max_abandoned_threads = 0;
        })
        .serve();
    let (release, held) = bounded(1);
    script.send(Step::Wait(held)).unwrap();
    assert_eq!(server.post(ANALYZE, BODY).status, 503);
    eventually("it is given up", || devices(&server)[0]["last_fault"]["kind"] == "given_up");
    eventually("it is down", || devices(&server)[0]["state"] == "down");
    drop(release);
}
