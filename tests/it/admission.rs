//! Deadlines, classes and refusals from end to end: what a client is told, and what no device ever sees.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Connection, Running, Setup, eventually};

const ANALYZE: &str = "/api/v1/analyze";
const BATCH: &str = "/api/v1/analyze/batch";
const HEADER: &str = "x-request-timeout-ms";
const BODY: &[u8] = br#"{"log_message": "x"}"#;

fn send(server: &Running, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Connection {
    let mut connection = server.connect();
    connection.send("POST", path, headers, body);
    connection
}

fn batches(server: &Running) -> f64 {
    server.sample("oddlog_batches_total", None)
}

fn waiting(server: &Running) -> f64 {
    server.sample("oddlog_queue_jobs", None)
}

#[test]
fn a_timeout_that_is_no_number_of_milliseconds_is_422() {
    let server = Setup::default().with(|c| c.batching.max_request_timeout_ms = 5000).serve();
    for (value, rule, text, ctx) in [
        ("soon", "int_parsing", "Input should be a valid integer, unable to parse string as an integer", Value::Null),
        ("0", "greater_than_equal", "Input should be greater than or equal to 1", json!({ "ge": 1 })),
        ("5001", "less_than_equal", "Input should be less than or equal to 5000", json!({ "le": 5000 })),
    ] {
        let mut problem = json!({ "type": rule, "loc": ["header", HEADER], "msg": text, "input": value });
        if !ctx.is_null() {
            problem["ctx"] = ctx;
        }
        for (path, body) in [(ANALYZE, BODY), (BATCH, br#"{"logs": ["x"]}"#)] {
            let answer = server.call("POST", path, &[(HEADER, value)], body);
            assert_eq!((answer.status, answer.json()), (422, json!({ "detail": [problem] })), "{path} {value}");
        }
    }
    assert_eq!(server.call("POST", ANALYZE, &[(HEADER, "5000")], BODY).status, 200);
}

#[test]
fn what_is_late_is_504_and_never_run() {
    let (setup, gate) = Setup::gated();
    let server = setup.with(|c| c.batching.max_batch_rows = 2).serve();
    let mut first = send(&server, ANALYZE, &[], BODY);
    eventually("the device has the first", || batches(&server) == 1.0);
    // The device is busy meanwhile: nobody looks at the queue, and the clients are told all the same.
    let late = server.call("POST", ANALYZE, &[(HEADER, "20")], BODY);
    assert_eq!(late.status, 504, "{}", late.text());
    let call = server.call("POST", BATCH, &[(HEADER, "20")], br#"{"logs": ["x", "", "y"]}"#);
    assert_eq!(call.status, 200);
    let kinds: Vec<Value> =
        call.json()["results"].as_array().unwrap().iter().map(|r| r["error"]["type"].clone()).collect();
    assert_eq!(kinds, ["deadline_exceeded", "string_too_short", "deadline_exceeded"]);
    assert_eq!(server.sample("oddlog_expired_total", None), 3.0);
    let mut last = send(&server, ANALYZE, &[], BODY);
    eventually("the last waits", || waiting(&server) == 4.0);
    drop(gate);
    assert_eq!((first.answer().status, last.answer().status), (200, 200));
    assert_eq!((batches(&server), waiting(&server)), (2.0, 0.0));
    assert_eq!(server.sample("oddlog_expired_total", None), 3.0);
    assert_eq!(server.sample("oddlog_dropped_by_client_total", None), 0.0);
}

#[test]
fn what_would_be_late_is_429_at_once_and_an_empty_house_takes_anyone() {
    let (setup, gate) = Setup::gated();
    let server = setup
        .with(|c| {
            // A log of 2 rows is a batch.
            c.batching.max_batch_rows = 2;
            c.batching.max_batch_tokens = 32;
            c.batching.max_queue_wait_ms = 500;
        })
        .serve();
    // The first one leaves nothing behind, so that it begins no measurement.
    let mut accepted = vec![send(&server, ANALYZE, &[], BODY)];
    eventually("the first runs", || batches(&server) == 1.0);
    accepted.extend((0..12).map(|_| send(&server, ANALYZE, &[], BODY)));
    eventually("one runs and twelve wait", || waiting(&server) == 12.0);
    gate.send(()).unwrap();
    eventually("the second runs", || batches(&server) == 2.0);
    // The next batch leaves at the earliest then: 32 tokens in 50 ms or more.
    let measured = Instant::now() + Duration::from_millis(50);
    eventually("some time passes", || Instant::now() >= measured);
    gate.send(()).unwrap();
    eventually("the third runs", || batches(&server) == 3.0);
    // Before a further one there are 10 waiting and one running: 11 x 50 ms or more.
    let refused = server.post(ANALYZE, BODY);
    assert_eq!(refused.status, 429, "{}", refused.text());
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert!(refused.json()["detail"].as_str().unwrap().contains("cannot answer in time"), "{}", refused.text());
    assert_eq!(server.sample("oddlog_refused_total", Some(("reason", "too_late"))), 1.0);
    drop(gate);
    for connection in &mut accepted {
        assert_eq!(connection.answer().status, 200);
    }
    assert_eq!(server.post(ANALYZE, BODY).status, 200);
}

#[test]
fn a_single_request_goes_before_the_logs_of_a_call() {
    let (setup, gate) = Setup::gated();
    let server = setup.with(|c| c.batching.max_batch_rows = 2).serve();
    let call = json!({ "logs": vec!["x"; 50] }).to_string();
    let mut call = send(&server, BATCH, &[], call.as_bytes());
    eventually("one log runs and the others wait", || waiting(&server) == 49.0);
    let mut single = send(&server, ANALYZE, &[], BODY);
    eventually("the request waits behind them", || waiting(&server) == 50.0);
    // One for the log that runs, one for the request.
    gate.send(()).unwrap();
    gate.send(()).unwrap();
    assert_eq!(single.answer().status, 200);
    drop(gate);
    let answer = call.answer();
    assert_eq!(answer.status, 200);
    assert!(answer.json()["results"].as_array().unwrap().iter().all(|result| result["label"].is_string()));
}
