//! Batch calls.

use oddlog::device::FakeDevice;
use serde_json::{Value, json};

use crate::support::{POISON, Running, Setup, eventually};

const BATCH: &str = "/api/v1/analyze/batch";

fn batch(server: &Running, body: Value) -> Value {
    let answer = server.post(BATCH, body.to_string());
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn problems(server: &Running, body: &str) -> Vec<Value> {
    let answer = server.post(BATCH, body);
    assert_eq!(answer.status, 422, "{body}: {}", answer.text());
    answer.json()["detail"].as_array().unwrap().clone()
}

#[test]
fn every_log_has_its_entry_in_order_with_the_answer_it_gets_alone() {
    let server = Setup::default().serve();
    let logs: Vec<String> = (0..500).map(|i| format!("request {i} took {} ms{}", i * 7, " x".repeat(i % 40))).collect();
    let json = batch(&server, json!({ "logs": logs, "threshold": "0.6" }));
    assert_eq!(json["threshold"], 0.6);
    let results = json["results"].as_array().unwrap();
    assert_eq!(results.len(), logs.len());
    let mut anomalies = 0;
    for (log, result) in logs.iter().zip(results) {
        let alone = server.post("/api/v1/analyze", json!({ "log_message": log, "threshold": 0.6 }).to_string()).json();
        for key in ["label", "confidence", "is_anomaly"] {
            assert_eq!(result[key], alone[key], "{log}");
        }
        let label = result["label"].as_str().unwrap();
        assert_eq!((&result["scores"][label], &result["truncated"]), (&result["confidence"], &json!(false)));
        assert_eq!(result.as_object().unwrap().len(), 5);
        anomalies += usize::from(result["is_anomaly"] == true);
    }
    assert!((50..450).contains(&anomalies), "{anomalies}: the fake device must tell logs apart");
}

#[test]
fn a_bad_log_has_an_error_of_its_own() {
    let server = Setup::device(FakeDevice::new("fake:0", 2).failing_on(POISON)).serve();
    let text = r#"{"logs": ["fine", "", " \n", 5, null, "poison", "\ud800", ["a"], "fine"]}"#;
    let answer = server.post(BATCH, text);
    let json = answer.json();
    let kind = |i: usize| json["results"][i]["error"]["type"].as_str().unwrap_or("none").to_owned();
    let kinds: Vec<String> = (0..9).map(kind).collect();
    assert_eq!(
        kinds,
        [
            "none",
            "string_too_short",
            "string_too_short",
            "string_type",
            "string_type",
            "inference_failed",
            "string_unicode",
            "string_type",
            "none"
        ]
    );
    assert_eq!(json["results"][0], json["results"][8]);
    assert_eq!(
        json["results"][3],
        json!({ "error": { "type": "string_type", "msg": "Input should be a valid string" } })
    );
}

#[test]
fn no_log_is_no_error_and_the_limit_is_exact() {
    let server = Setup::default().with(|c| c.server.max_batch_logs = 3).serve();
    assert_eq!(batch(&server, json!({ "logs": [] })), json!({ "results": [], "threshold": 0.5 }));
    assert_eq!(batch(&server, json!({ "logs": ["a", "b", "c"] }))["results"].as_array().unwrap().len(), 3);
    let found = problems(&server, r#"{"logs": ["a", "b", "c", 4]}"#);
    assert_eq!(found[0]["msg"], "List should have at most 3 items after validation, not 4");
    assert_eq!(found[0]["ctx"], json!({ "field_type": "List", "max_length": 3, "actual_length": 4 }));
}

#[test]
fn a_call_may_bring_its_own_labels() {
    let server = Setup::default().serve();
    let body = json!({
        "logs": ["disk full"], "labels": ["network", "disk", "login"], "anomaly_label": "disk",
        "hypothesis_template": "The topic is {}.", "threshold": 0
    });
    let result = batch(&server, body)["results"][0].clone();
    assert_eq!((&result["label"], &result["is_anomaly"]), (&json!("disk"), &json!(true)));
    let sum: f64 = result["scores"].as_object().unwrap().values().map(|v| v.as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-5, "{result}");
    // The labels' own order is kept.
    let answer = server.post(BATCH, r#"{"logs": ["x"], "labels": ["z", "a", "m"], "multi_label": true}"#);
    let at = |label: &str| answer.text().find(&format!("\"{label}\":")).unwrap();
    assert!(at("z") < at("a") && at("a") < at("m"), "{}", answer.text());
    let scores = answer.json()["results"][0]["scores"].clone();
    let sum: f64 = scores.as_object().unwrap().values().map(|v| v.as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() > 1e-3, "each label on its own does not sum to 1: {scores}");
}

#[test]
fn what_is_wrong_with_the_whole_body_fails_the_call() {
    let server = Setup::default().serve();
    for (body, kind, loc) in [
        ("{}", "missing", json!(["body", "logs"])),
        (r#"{"logs": "x"}"#, "list_type", json!(["body", "logs"])),
        (r#"{"logs": null}"#, "list_type", json!(["body", "logs"])),
        (r#"{"logs": [], "threshold": 7}"#, "less_than_equal", json!(["body", "threshold"])),
        (r#"{"logs": [], "labels": "a"}"#, "list_type", json!(["body", "labels"])),
        (r#"{"logs": [], "labels": ["a", 1]}"#, "string_type", json!(["body", "labels", 1])),
        (r#"{"logs": [], "labels": ["a", " "]}"#, "string_too_short", json!(["body", "labels", 1])),
        (r#"{"logs": [], "labels": []}"#, "value_error", json!(["body", "labels"])),
        (r#"{"logs": [], "labels": ["a", "a"]}"#, "value_error", json!(["body", "labels"])),
        (r#"{"logs": [], "anomaly_label": 1}"#, "string_type", json!(["body", "anomaly_label"])),
        (r#"{"logs": [], "anomaly_label": "odd"}"#, "value_error", json!(["body", "anomaly_label"])),
        (r#"{"logs": [], "hypothesis_template": "no place"}"#, "value_error", json!(["body", "hypothesis_template"])),
        (r#"{"logs": [], "multi_label": "yes"}"#, "bool_type", json!(["body", "multi_label"])),
        (r#"{"logs": [}"#, "json_invalid", json!(["body", 10])),
        ("[]", "model_attributes_type", json!(["body"])),
    ] {
        let found = problems(&server, body);
        assert_eq!((found.len(), &found[0]["type"], &found[0]["loc"]), (1, &json!(kind), &loc), "{body}");
    }
    let found = problems(&server, r#"{"multi_label": 3, "threshold": "x", "logs": 1}"#);
    let kinds: Vec<_> = found.iter().map(|p| p["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["list_type", "float_parsing", "bool_type"]);
    let labels: Vec<String> = (0..33).map(|i| i.to_string()).collect();
    let found = problems(&server, &json!({ "logs": [], "labels": labels }).to_string());
    assert!(found[0]["msg"].as_str().unwrap().contains("at most 32"), "{found:?}");
}

#[test]
fn a_template_cannot_be_made_to_explode() {
    let server = Setup::default().serve();
    let body = json!({ "logs": ["x"], "labels": ["l".repeat(1 << 20)], "hypothesis_template": "{}".repeat(1 << 19) });
    let found = problems(&server, &body.to_string());
    assert_eq!((&found[0]["type"], &found[0]["loc"]), (&json!("value_error"), &json!(["body", "hypothesis_template"])));
}

#[test]
fn a_long_log_is_cut_and_says_so() {
    let server = Setup::default().serve();
    let json = batch(&server, json!({ "logs": ["disk full ".repeat(2000), "x".repeat(1 << 20), "short"] }));
    let truncated: Vec<_> = (0..3).map(|i| json["results"][i]["truncated"].as_bool().unwrap()).collect();
    // A word of a million letters is one unknown token, but not all of it is looked at.
    assert_eq!(truncated, [true, true, false]);
}

#[test]
fn more_logs_than_the_bulk_pool_holds_wait_for_their_turn() {
    let server = Setup::default()
        .with(|c| {
            c.model.max_length = 32;
            c.scoring.max_labels = 2;
            c.batching.max_bulk_tokens = 64;
        })
        .serve();
    let logs: Vec<String> = (0..1024).map(|i| format!("line {i}")).collect();
    let json = batch(&server, json!({ "logs": logs }));
    let scored = json["results"].as_array().unwrap().iter().filter(|r| r.get("label").is_some()).count();
    assert_eq!(scored, 1024);
    assert_eq!(server.sample("oddlog_verdicts_total", None), 1024.0);
}

#[test]
fn a_client_that_leaves_takes_its_logs_with_it() {
    let (setup, gate) = Setup::gated();
    let server = setup.serve();
    let logs: Vec<String> = (0..200).map(|i| format!("line {i}")).collect();
    let mut connection = server.connect();
    connection.send("POST", BATCH, &[], json!({ "logs": logs }).to_string().as_bytes());
    eventually("the logs are queued", || server.sample("oddlog_queue_jobs", None) > 100.0);
    drop(connection);
    eventually("the call is given up", || server.sample("oddlog_http_requests_total", Some(("status", "499"))) == 1.0);
    assert_eq!(server.sample("oddlog_http_requests_in_flight", None), 0.0);
    drop(gate);
    assert_eq!(server.post("/api/v1/analyze", r#"{"log_message": "x"}"#).status, 200);
}
