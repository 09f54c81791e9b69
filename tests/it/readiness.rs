//! `/readyz` and `/api/v1/health` say what is so: not ready when no device can answer, and again when one can.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crossbeam_channel::bounded;
use futures_util::future::join_all;
use oddlog::{
    device::{DeviceMaker, FakeDevice, fake::Step},
    error::StartError,
};

use crate::support::{Setup, eventually};

const ANALYZE: &str = "/api/v1/analyze";
const BODY: &[u8] = br#"{"log_message": "x"}"#;

#[test]
fn readiness_goes_with_the_last_device_and_comes_back() {
    let (script, steps) = bounded(8);
    let broken = Arc::new(AtomicBool::new(false));
    let (device, is_broken) = (FakeDevice::new("fake:0", 2).scripted(steps), broken.clone());
    let maker = DeviceMaker::new("fake:0".into(), move || match is_broken.load(Ordering::SeqCst) {
        true => Err(StartError::Device { name: "fake:0".into(), reason: "is broken".into() }),
        false => Ok(device.clone()),
    });
    let server = Setup { devices: vec![maker], ..Setup::default() }
        .with(|c| {
            c.devices.run_timeout_ms = 80;
            c.devices.terminate_grace_ms = 80;
            (c.devices.rebuild_backoff_ms, c.devices.max_rebuild_backoff_ms) = (1, 4);
        })
        .serve();
    let health = || server.get("/api/v1/health").json();
    assert_eq!((server.get("/readyz").status, server.post(ANALYZE, BODY).status), (200, 200));
    assert_eq!((&health()["status"], &health()["model_loaded"]), (&"healthy".into(), &true.into()));

    broken.store(true, Ordering::SeqCst);
    let (release, held) = bounded(1);
    script.send(Step::Wait(held)).unwrap();
    assert_eq!(server.post(ANALYZE, BODY).status, 503);
    eventually("it is not ready", || server.get("/readyz").status == 503);
    assert_eq!((&health()["status"], &health()["model_loaded"]), (&"unhealthy".into(), &false.into()));
    let refused = server.post(ANALYZE, BODY);
    assert_eq!((refused.status, refused.header("retry-after")), (503, "5"));
    assert!(server.sample("oddlog_refused_total", Some(("reason", "no_device"))) >= 1.0);
    assert_eq!(server.sample("oddlog_device_up", None), 0.0);

    broken.store(false, Ordering::SeqCst);
    eventually("it is ready again", || server.get("/readyz").status == 200);
    assert_eq!((server.post(ANALYZE, BODY).status, &health()["status"]), (200, &"healthy".into()));
    drop(release);
}

#[test]
fn readiness_is_proved_by_a_run() {
    let (setup, gate) = Setup::gated();
    let server = setup.with(|c| (c.devices.ready_max_age_ms, c.devices.ready_timeout_ms) = (0, 40)).serve();
    let batches = || server.sample("oddlog_batches_total", None);
    // The last success is too old, and the device does not come to a run.
    assert_eq!((server.get("/readyz").status, batches()), (503, 1.0));
    assert_eq!(server.get("/livez").status, 200);
    drop(gate);
    eventually("a run proves it", || server.get("/readyz").status == 200);

    // Whoever asks while a run is on its way shares it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let shared = || {
        let before = batches();
        let answers = runtime.block_on(join_all((0..50).map(|_| server.handle.is_ready())));
        answers.into_iter().all(|ready| ready) && batches() == before + 1.0
    };
    // A busy machine may not run it in time.
    eventually("fifty share one run", shared);
}

#[test]
fn a_recent_success_is_proof_enough() {
    let (setup, gate) = Setup::gated();
    let server = setup.with(|c| c.devices.ready_max_age_ms = 600_000).serve();
    for _ in 0..10 {
        assert_eq!(server.get("/readyz").status, 200);
    }
    assert_eq!(server.sample("oddlog_batches_total", None), 0.0);
    drop(gate);
}
