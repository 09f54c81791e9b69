//! What a client sees of the memory of verdicts.

use oddlog::{config::CacheMode, device::FakeDevice};
use serde_json::{Value, json};

use crate::support::{Answer, POISON, Running, Setup, eventually};

const ANALYZE: &str = "/api/v1/analyze";
const BATCH: &str = "/api/v1/analyze/batch";

fn remembering(setup: Setup) -> Setup {
    setup.with(|config| config.cache.mode = CacheMode::Exact)
}

fn analyze(server: &Running, log: &str) -> Answer {
    server.post(ANALYZE, json!({ "log_message": log }).to_string())
}

fn times(answer: &Answer) -> [&str; 3] {
    ["x-tokenization-time", "x-queue-time", "x-inference-time"].map(|name| answer.header(name))
}

#[test]
fn the_second_answer_is_the_first_one_again_without_a_run() {
    let server = remembering(Setup::default()).serve();
    let first = analyze(&server, "request 7 took 9 ms");
    let second = analyze(&server, "request 7 took 9 ms");
    assert_eq!((first.header("x-oddlog-cache"), second.header("x-oddlog-cache")), ("miss", "hit"));
    assert_eq!(first.text(), second.text());
    assert_eq!(times(&second)[1..], ["0.000"; 2]);
    assert_ne!(times(&first)[2], "0.000");
    let third = analyze(&server, "request 7 took 9 ms");
    assert_eq!((third.header("x-oddlog-cache"), times(&third)), ("hit", ["0.000"; 3]), "not even its tokens");
    let body = json!({ "log_message": "request 7 took 9 ms", "threshold": 1 });
    let other = server.post(ANALYZE, body.to_string());
    assert_eq!(other.header("x-oddlog-cache"), "hit", "a threshold makes a verdict of the same scores");
    assert_eq!((other.json()["is_anomaly"].clone(), other.json()["threshold"].clone()), (json!(false), json!(1.0)));
    let text = server.get("/metrics");
    for line in ["oddlog_cache_logs_total{outcome=\"hit\"} 3", "oddlog_cache_entries 2"] {
        assert!(text.text().contains(line), "{line} in {}", text.text());
    }
    assert!(server.sample("oddlog_cache_bytes", None) > 19.0);
    assert_eq!(server.sample("oddlog_batches_total", None), 1.0);
}

#[test]
fn a_text_that_the_model_reads_alike_has_the_same_answer() {
    let server = remembering(Setup::default()).serve();
    let first = analyze(&server, "Request 7 took 9 ms");
    let second = analyze(&server, "request 7  TOOK 9 ms");
    assert_eq!((first.header("x-oddlog-cache"), second.header("x-oddlog-cache")), ("miss", "hit"));
    let verdict = |answer: &Answer| (answer.json()["label"].clone(), answer.json()["confidence"].clone());
    assert_eq!((verdict(&second), times(&second)[2]), (verdict(&first), "0.000"));
    assert_eq!(second.json()["log_message"], "request 7  TOOK 9 ms", "each is told its own text");
    assert_eq!(analyze(&server, "request 8 took 9 ms").header("x-oddlog-cache"), "miss");
    assert_eq!(server.sample("oddlog_batches_total", None), 2.0);
}

#[test]
fn a_batch_call_counts_its_outcomes() {
    let server = remembering(Setup::device(FakeDevice::new("fake:0", 2).failing_on(POISON))).serve();
    let call = |logs: Value| server.post(BATCH, json!({ "logs": logs }).to_string());
    let first = call(json!(["a", "b", "poison", 5]));
    assert_eq!(first.header("x-oddlog-cache"), "hit=0, joined=0, miss=2");
    let second = call(json!(["b", "c", "a", "poison"]));
    assert_eq!(second.header("x-oddlog-cache"), "hit=2, joined=0, miss=1");
    let (first, second) = (first.json(), second.json());
    assert_eq!(first["results"][0], second["results"][2]);
    assert_eq!(second["results"][3]["error"]["type"], "inference_failed");
    assert_eq!(analyze(&server, "c").header("x-oddlog-cache"), "hit", "routes share what is remembered");
}

#[test]
fn twins_of_one_call_and_of_many_connections_join() {
    let (setup, gate) = Setup::gated();
    let server = remembering(setup).serve();
    let mut call = server.connect();
    call.send("POST", BATCH, &[], json!({ "logs": vec!["same"; 100] }).to_string().as_bytes());
    eventually("the run begins", || server.sample("oddlog_batches_total", None) == 1.0);
    let mut others: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for other in &mut others {
        other.send("POST", ANALYZE, &[], br#"{"log_message": "same"}"#);
    }
    eventually("one of them is in the queue", || server.sample("oddlog_queue_jobs", None) == 1.0);
    drop(gate);
    let answer = call.answer();
    assert_eq!(answer.header("x-oddlog-cache"), "hit=0, joined=99, miss=1");
    let mut misses = 0;
    for other in &mut others {
        let answer = other.answer();
        assert_eq!(answer.status, 200);
        misses += usize::from(answer.header("x-oddlog-cache") == "miss");
    }
    assert!(misses <= 1, "{misses}");
    assert_eq!(server.sample("oddlog_batches_total", None), 2.0);
}

#[test]
fn without_a_memory_nothing_speaks_of_it() {
    let server = Setup::default().serve();
    for _ in 0..2 {
        let answer = analyze(&server, "same");
        assert!(answer.status == 200 && !answer.has("x-oddlog-cache"));
    }
    assert!(!server.post(BATCH, r#"{"logs": ["same"]}"#).has("x-oddlog-cache"));
    assert_eq!(server.sample("oddlog_batches_total", None), 3.0);
    assert!(!server.get("/metrics").text().contains("oddlog_cache"));
}
