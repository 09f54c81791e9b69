//! What lines get: an entry each, in order, as a batch call would give; parameters and the summary.

use oddlog::device::FakeDevice;
use serde_json::{Value, json};

use super::{Client, NDJSON, PLAIN, STREAM, kinds, some_lines, stream};
use crate::support::{POISON, Setup, eventually};

#[test]
fn every_line_has_its_entry_in_order_as_in_a_batch() {
    let server = Setup::default().with(|c| c.server.max_stream_lines = 50).serve();
    let logs = some_lines(700);
    let batch = server.post("/api/v1/analyze/batch", json!({ "logs": logs, "threshold": 0.6 }).to_string()).json();
    let body: String = logs.iter().map(|log| json!({ "log_message": log }).to_string() + "\n").collect();
    let expected: Vec<Value> = batch["results"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .map(|(at, result)| {
            let mut entry = result.clone();
            entry["line"] = json!(at + 1);
            entry
        })
        .collect();
    assert_eq!(stream(&server, "?threshold=0.6", &[NDJSON], &body), expected);
    let plain = stream(&server, "?threshold=0.6", &[PLAIN], logs.join("\r\n"));
    assert_eq!(plain, expected);
    // Only the anomalies, and what they are among.
    let mut anomalies = stream(&server, "?threshold=0.6&respond=anomalies", &[NDJSON], &body);
    let summary = anomalies.pop().unwrap()["summary"].clone();
    let odd: Vec<Value> = expected.into_iter().filter(|entry| entry["is_anomaly"] == true).collect();
    assert_eq!(anomalies, odd);
    assert_eq!((&summary["lines"], &summary["anomalies"]), (&json!(700), &json!(odd.len())));
    assert_eq!(server.sample("oddlog_stream_lines_total", Some(("outcome", "scored"))), 2100.0);
    let read = 2 * body.len() + logs.join("\r\n").len();
    assert_eq!(server.sample("oddlog_stream_bytes_total", None), read as f64);
    eventually("no stream is open", || server.sample("oddlog_streams_open", None) == 0.0);
}

#[test]
fn a_bad_line_has_an_error_of_its_own() {
    let server = Setup::device(FakeDevice::new("fake:0", 2).failing_on(POISON))
        .with(|c| c.server.max_stream_line_bytes = 2000)
        .serve();
    let long = "x".repeat(2001);
    let lines: [&[u8]; 17] = [
        b"{\"log_message\": \"fine\"}",
        b"",
        b"{\"log_message\": ",
        b"{\"message\": \"fine\"}\r",
        b"{\"text\": \"x\"}",
        b"  \t",
        b"\"fine\"",
        b"{\"log\": \"\xff\"}",
        b"{\"log\": \"a\0b\"}",
        long.as_bytes(),
        b"{\"log\": 7}",
        b"\0",
        b"{\"log\": \" \"}",
        b"{\"log\": \"poison\"}",
        b"[\"fine\"]",
        b"{\"log\": \"\\u0000\"}",
        b"{\"log_message\": \"fine\"}",
    ];
    let entries = stream(&server, "", &[NDJSON], lines.join(&b'\n'));
    let expected = [
        (1, "scored"),
        (3, "json_invalid"),
        (4, "scored"),
        (5, "missing"),
        (7, "scored"),
        (8, "string_unicode"),
        (9, "json_invalid"),
        (10, "line_too_long"),
        (11, "string_type"),
        (12, "json_invalid"),
        (13, "string_too_short"),
        (14, "inference_failed"),
        (15, "model_attributes_type"),
        (16, "scored"),
        (17, "scored"),
    ];
    assert_eq!(kinds(&entries), expected);
    let fine: Vec<&Value> = [0, 2, 4, 14].iter().map(|at| &entries[*at]["scores"]).collect();
    assert!(fine.iter().all(|scores| *scores == fine[0]), "{fine:?}");
    assert_eq!(entries[7]["error"]["msg"], "The line is too long. At most 2000 bytes are allowed.");
    let counts = ["scored", "error", "blank"].map(|o| server.sample("oddlog_stream_lines_total", Some(("outcome", o))));
    assert_eq!(counts, [5.0, 10.0, 2.0]);
}

#[test]
fn a_line_of_a_megabyte_and_nothing_at_all() {
    let server = Setup::default().serve();
    let entries = stream(&server, "", &[PLAIN], format!("a\n{}\n{}\n", "disk ".repeat(209_715), "b".repeat(2 << 20)));
    assert_eq!(kinds(&entries), [(1, "scored"), (2, "scored"), (3, "line_too_long")]);
    assert_eq!(entries[1]["truncated"], true);
    for body in ["", "\n\n \n"] {
        let mut client = Client::open(&server, "", &[PLAIN]);
        if !body.is_empty() {
            client.send(body);
        }
        client.end();
        assert_eq!(client.entries(), Vec::<Value>::new());
    }
}

#[test]
fn a_stream_may_bring_its_own_labels_and_wrong_parameters_are_named() {
    let server = Setup::default().serve();
    let query = "?labels=network&labels=disk%2C+login&anomaly_label=disk%2C+login&threshold=0\
                 &hypothesis_template=It+is+%7B%7D.&multi_label=1&field=event";
    let entries = stream(&server, query, &[NDJSON], r#"{"event": "disk full", "message": 7}"#);
    assert_eq!((&entries[0]["label"], &entries[0]["is_anomaly"]), (&json!("disk, login"), &json!(true)));
    assert_eq!(entries[0]["scores"].as_object().unwrap().len(), 2);
    for (query, kind, loc) in [
        ("threshold=7", "less_than_equal", "threshold"),
        ("respond=some", "value_error", "respond"),
        ("labels=a&labels=a", "value_error", "labels"),
        ("anomaly_label=odd", "value_error", "anomaly_label"),
    ] {
        let answer = server.call("POST", &format!("{STREAM}?{query}"), &[PLAIN], b"x\n");
        assert_eq!(answer.status, 422, "{query}");
        let problem = answer.json()["detail"][0].clone();
        assert_eq!((&problem["type"], &problem["loc"]), (&json!(kind), &json!(["query", loc])), "{query}");
    }
    let wrong = server.get(STREAM);
    assert_eq!((wrong.status, wrong.header("allow")), (405, "POST, OPTIONS"));
}

#[test]
fn a_summary_is_small_and_asks_to_send_again_what_found_no_room() {
    let server = Setup::default().serve();
    let path = format!("{STREAM}?respond=summary&threshold=0");
    let body = some_lines(5000).join("\n") + "\n\n";
    let answer = server.call("POST", &path, &[PLAIN], body.as_bytes());
    let summary = answer.json();
    assert_eq!(answer.status, 200);
    for (key, value) in [("lines", 5001), ("scored", 5000), ("anomalies", 5000), ("errors", 0), ("blank", 1)] {
        assert_eq!(summary[key], value, "{key}");
    }
    let listed = summary["first_anomalies"].as_array().unwrap();
    assert_eq!((listed.len(), &listed[31]["line"]), (32, &json!(32)));
    // Fluent Bit reads no more than 4 KiB of head and body.
    assert!(answer.body.len() < 3000);
    let answer = server.call("POST", &path, &[NDJSON], b"{}\n\"a\"\n");
    assert_eq!((answer.status, &answer.json()["first_error"]["line"]), (200, &json!(1)));

    let (setup, gate) = Setup::gated();
    let server = setup
        .with(|c| {
            c.batching.request_timeout_ms = 40;
            c.batching.max_request_timeout_ms = 40;
        })
        .serve();
    let answer = server.call("POST", &path, &[PLAIN], b"a\nb\n");
    drop(gate);
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"), "{}", answer.text());
    assert_eq!(answer.json()["first_error"]["error"]["type"], "deadline_exceeded");
}
