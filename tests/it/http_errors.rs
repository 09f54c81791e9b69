//! The error table: every row, with status and body.

use oddlog::device::FakeDevice;
use serde_json::{Value, json};

use crate::support::{Connection, PANIC, POISON, Setup, eventually};

const ANALYZE: &str = "/api/v1/analyze";

fn field(kind: &str, field: &str, msg: &str, input: Value) -> Value {
    json!({ "type": kind, "loc": ["body", field], "msg": msg, "input": input })
}

fn with_ctx(mut problem: Value, ctx: Value) -> Value {
    problem["ctx"] = ctx;
    problem
}

#[test]
fn what_is_wrong_with_a_field_is_listed_in_pydantics_words() {
    let server = Setup::default().serve();
    let string = |input| field("string_type", "log_message", "Input should be a valid string", input);
    let blank = |input: &str| {
        let msg = "String should have at least 1 character that is not white space";
        with_ctx(field("string_too_short", "log_message", msg, json!(input)), json!({ "min_length": 1 }))
    };
    let number = |kind, msg, input| field(kind, "threshold", msg, input);
    let below = |input| {
        let msg = "Input should be greater than or equal to 0";
        with_ctx(number("greater_than_equal", msg, input), json!({ "ge": 0.0 }))
    };
    let above = |input| {
        let msg = "Input should be less than or equal to 1";
        with_ctx(number("less_than_equal", msg, input), json!({ "le": 1.0 }))
    };
    let parsing = "Input should be a valid number, unable to parse string as a number";
    let finite = || number("finite_number", "Input should be a finite number", Value::Null);
    let kind = |input| number("float_type", "Input should be a valid number", input);
    let unicode = "Input should be a valid string, unable to parse raw data as a unicode string";

    let rows: Vec<(&str, Vec<Value>)> = vec![
        ("{}", vec![field("missing", "log_message", "Field required", json!({}))]),
        (r#"{"log": 1}"#, vec![field("missing", "log_message", "Field required", json!({ "log": 1 }))]),
        (r#"{"log_message": null}"#, vec![string(Value::Null)]),
        (r#"{"log_message": 5}"#, vec![string(json!(5))]),
        (r#"{"log_message": ["a"]}"#, vec![string(json!(["a"]))]),
        (r#"{"log_message": {"a": true}}"#, vec![string(json!({ "a": true }))]),
        (r#"{"log_message": ""}"#, vec![blank("")]),
        (r#"{"log_message": " \t\n\u00a0"}"#, vec![blank(" \t\n\u{a0}")]),
        (r#"{"log_message": "x", "threshold": 1.5}"#, vec![above(json!(1.5))]),
        (r#"{"log_message": "x", "threshold": -0.1}"#, vec![below(json!(-0.1))]),
        (r#"{"log_message": "x", "threshold": "2"}"#, vec![above(json!("2"))]),
        (r#"{"log_message": "x", "threshold": "x"}"#, vec![number("float_parsing", parsing, json!("x"))]),
        (r#"{"log_message": "x", "threshold": NaN}"#, vec![finite()]),
        (r#"{"log_message": "x", "threshold": -Infinity}"#, vec![finite()]),
        (r#"{"log_message": "x", "threshold": 1e400}"#, vec![finite()]),
        (r#"{"log_message": "x", "threshold": "nan"}"#, vec![finite()]),
        (r#"{"log_message": "x", "threshold": true}"#, vec![kind(json!(true))]),
        (r#"{"log_message": "x", "threshold": [0.5]}"#, vec![kind(json!([0.5]))]),
        // Two bad fields: both, in the order of the fields, not of the body.
        (r#"{"threshold": 2, "log_message": 3}"#, vec![string(json!(3)), above(json!(2))]),
        (
            r#"{"threshold": "x"}"#,
            vec![
                field("missing", "log_message", "Field required", json!({ "threshold": "x" })),
                number("float_parsing", parsing, json!("x")),
            ],
        ),
        // Of equal names the last one counts.
        (r#"{"log_message": "x", "log_message": 3}"#, vec![string(json!(3))]),
    ];
    for (body, problems) in rows {
        let answer = server.post(ANALYZE, body);
        assert_eq!((answer.status, answer.header("content-type")), (422, "application/json"), "{body}");
        assert_eq!(answer.json(), json!({ "detail": problems }), "{body}");
    }
    // A lone surrogate cannot be echoed: strict readers of JSON would refuse the answer.
    let answer = server.post(ANALYZE, r#"{"log_message": "a\ud800"}"#);
    let problem = field("string_unicode", "log_message", unicode, json!("a\u{fffd}"));
    assert_eq!((answer.status, answer.json()), (422, json!({ "detail": [problem] })));
    assert_eq!(server.post(ANALYZE, r#"{"log_message": 3, "log_message": "x", "threshold": null}"#).status, 200);
}

#[test]
fn what_is_wrong_with_the_whole_body() {
    let server = Setup::default().serve();
    let missing = json!({ "detail": [{ "type": "missing", "loc": ["body"], "msg": "Field required", "input": null }] });
    for body in ["", "  \n", "null"] {
        let answer = server.post(ANALYZE, body);
        assert_eq!((answer.status, answer.json()), (422, missing.clone()), "{body:?}");
    }
    let other = |input: Value| {
        let msg = "Input should be a valid dictionary or object to extract fields from";
        json!({ "detail": [{ "type": "model_attributes_type", "loc": ["body"], "msg": msg, "input": input }] })
    };
    for (body, input) in [
        ("[]", json!([])),
        ("[{\"log_message\": \"x\"}]", json!([{ "log_message": "x" }])),
        ("\"x\"", json!("x")),
        ("3", json!(3)),
        ("true", json!(true)),
        ("NaN", json!("NaN")),
    ] {
        let answer = server.post(ANALYZE, body);
        assert_eq!((answer.status, answer.json()), (422, other(input)), "{body}");
    }
    let plain = br#"{"log_message": "x"}"#;
    let answer = server.call("POST", ANALYZE, &[("content-type", "text/plain; charset=utf-8")], plain);
    assert_eq!((answer.status, answer.json()), (422, other(json!(std::str::from_utf8(plain).unwrap()))));
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let answer = server.call("POST", ANALYZE, &form, b"log_message=x");
    assert_eq!((answer.status, answer.json()), (422, other(json!("log_message=x"))));

    for (body, offset) in [
        (r#"{"log_message": "x""#, 19),
        (r#"{"log_message": }"#, 16),
        (r#"{"log_message": "ä", ]"#, 21),
        (r#"{'log_message': 1}"#, 1),
        (r#"{"log_message": "x"} x"#, 21),
        (r#"{"log_message": "\q"}"#, 18),
        ("x", 0),
    ] {
        let answer = server.post(ANALYZE, body);
        let json = answer.json();
        let problem = &json["detail"][0];
        assert_eq!((answer.status, &problem["type"]), (422, &json!("json_invalid")), "{body}");
        assert_eq!(problem["loc"], json!(["body", offset]), "{body}: {json}");
        assert_eq!((&problem["msg"], &problem["input"]), (&json!("JSON decode error"), &json!({})));
        assert!(!problem["ctx"]["error"].as_str().unwrap().is_empty());
    }

    let not_text = json!({ "detail": "There was an error parsing the body" });
    for body in [&b"{\"log_message\": \"\xff\"}"[..], b"\xc3", b"\xfe\xff\0{\0}"] {
        let answer = server.post(ANALYZE, body);
        assert_eq!((answer.status, answer.json()), (400, not_text.clone()), "{body:?}");
    }
}

#[test]
fn deep_nesting_is_harmless() {
    let server = Setup::default().serve();
    let deep = "[".repeat(500_000) + &"]".repeat(500_000);
    let unknown = format!(r#"{{"log_message": "x", "more": {deep}}}"#);
    assert_eq!(server.post(ANALYZE, unknown).status, 200);
    let answer = server.post(ANALYZE, format!(r#"{{"log_message": {deep}}}"#));
    assert!(answer.status == 422 && answer.text().contains("string_type"));
    let answer = server.post(ANALYZE, "{\"a\":".repeat(500_000));
    assert!(answer.status == 422 && answer.text().contains("json_invalid"));
}

#[test]
fn a_full_queue_is_429_with_a_time_to_retry() {
    let (setup, gate) = Setup::gated();
    let server = setup
        .with(|c| {
            c.model.max_length = 32;
            c.scoring.max_labels = 2;
            c.batching.max_queue_tokens = 64;
        })
        .serve();
    let body = r#"{"log_message": "x"}"#;
    // A log takes 2 rows of 16 tokens, so two of ten find room.
    let mut connections: Vec<Connection> = (0..10).map(|_| server.connect()).collect();
    for connection in &mut connections {
        connection.send("POST", ANALYZE, &[], body.as_bytes());
    }
    let refusals = || server.sample("oddlog_http_requests_total", Some(("status", "429")));
    eventually("the queue is full", || refusals() == 8.0);
    assert_eq!(server.sample("oddlog_refused_total", Some(("reason", "queue_full"))), 8.0);
    drop(gate);
    let mut served = 0;
    for connection in &mut connections {
        let answer = connection.answer();
        if answer.status == 200 {
            served += 1;
            continue;
        }
        assert_eq!(answer.status, 429);
        let seconds: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=60).contains(&seconds), "{seconds}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("overloaded") && detail.contains(&seconds.to_string()), "{detail}");
    }
    assert_eq!(served, 2);
}

#[test]
fn an_ended_engine_is_503_with_a_time_to_retry() {
    let mut server = Setup::default().serve();
    server.end_engine();
    for (path, body) in [(ANALYZE, r#"{"log_message": "x"}"#), ("/api/v1/analyze/batch", r#"{"logs": ["x"]}"#)] {
        let answer = server.post(path, body);
        assert_eq!((answer.status, answer.header("retry-after")), (503, "1"), "{path}");
        assert!(answer.json()["detail"].as_str().unwrap().contains("shutting down"), "{}", answer.text());
    }
    assert_eq!(server.post(ANALYZE, "{}").status, 422);
}

#[test]
fn a_deadline_that_passes_is_504() {
    let (setup, gate) = Setup::gated();
    let server = setup.with(|c| c.batching.request_timeout_ms = 5).serve();
    let answer = server.post(ANALYZE, r#"{"log_message": "x"}"#);
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert!(answer.json()["detail"].as_str().unwrap().contains("deadline"));
    drop(gate);
}

#[test]
fn a_log_that_the_model_cannot_score_is_500_and_harms_no_other() {
    let device = FakeDevice::new("fake:0", 2).failing_on(POISON).panicking_on(PANIC);
    let server = Setup::device(device).serve();
    for word in ["poison", "panic"] {
        let answer = server.post(ANALYZE, json!({ "log_message": word }).to_string());
        assert_eq!(answer.status, 500);
        assert_eq!(answer.json(), json!({ "detail": "The model could not score this log message." }));
        assert_eq!(server.post(ANALYZE, r#"{"log_message": "fine"}"#).status, 200);
    }
}
