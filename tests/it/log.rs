//! oddlog's own log: request names in every entry, an access log, and no log message where none may be.

use std::{
    io::{BufRead, BufReader, Read},
    thread,
};

use serde_json::{Value, json};

use crate::support::{
    Connection, frames,
    process::{oddlog, serve, signal},
};

const MARK: &str = "hunter2-is-the-secret";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

/// Sends `MARK` on every way that takes text, and returns the log's entries.
fn entries(redact: bool, access: &str) -> Vec<Value> {
    let (mut child, address) = serve(|command| {
        command.env("ODDLOG_DEVICES__DEVICES", "[\"fake\"]").env("ODDLOG_LOG__LEVEL", "trace");
        command.env("ODDLOG_LOG__REDACT", redact.to_string()).env("ODDLOG_LOG__ACCESS", access);
    });
    let mut pipe = child.stderr.take().unwrap();
    let log = thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        text
    });
    let listen = address.parse().unwrap();
    let mut connection = Connection::open(listen);
    let mut post = |path: &str, body: Value, status: u16| {
        let headers = [("x-request-id", "my-name"), ("traceparent", TRACEPARENT)];
        connection.send("POST", path, &headers, body.to_string().as_bytes());
        assert_eq!(connection.answer().status, status, "{body}");
    };
    post("/api/v1/analyze", json!({ "log_message": MARK }), 200);
    post("/api/v1/analyze", json!({ "log_message": format!("password {MARK}"), "threshold": MARK }), 422);
    post("/api/v1/analyze", json!({ "log_message": [MARK] }), 422);
    post("/api/v1/analyze/batch", json!({ "logs": [MARK, [MARK], ""] }), 200);
    connection.send("POST", "/api/v1/analyze", &[], format!("{{\"log_message\": {MARK}").as_bytes());
    assert_eq!(connection.answer().status, 422);
    connection.send("POST", "/api/v1/analyze", &[("content-type", "text/plain")], MARK.as_bytes());
    assert_eq!(connection.answer().status, 422);
    let body = json!({ "log_message": MARK }).to_string();
    let mut connection = Connection::open(listen);
    connection.write(frames::preface(&[]));
    connection.write(frames::frame(
        frames::HEADERS,
        frames::END_HEADERS,
        1,
        &frames::block(true, "/api/v1/analyze", &[]),
    ));
    connection.write(frames::frame(frames::DATA, frames::END_STREAM, 1, body.as_bytes()));
    assert_eq!(frames::status(&mut connection), Some(200));
    drop(connection);
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    log.join().unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn says<'a>(entries: &'a [Value], message: &str) -> Vec<&'a Value> {
    entries.iter().filter(|entry| entry["fields"]["message"] == message).collect()
}

#[test]
fn no_level_shows_log_messages_unless_it_is_asked_for() {
    let redacted = entries(true, "debug");
    let shown: Vec<_> = redacted.iter().filter(|entry| entry.to_string().contains(MARK)).collect();
    assert!(shown.is_empty(), "{shown:?}");
    assert_eq!(says(&redacted, "scored").len(), 3);
    let open = entries(false, "info");
    let shown: Vec<_> = open.iter().filter(|entry| entry.to_string().contains(MARK)).collect();
    assert_eq!(shown.len(), 3, "{shown:?}");
    for entry in shown {
        assert_eq!(entry["level"], "DEBUG");
    }
}

#[test]
fn entries_carry_the_name_of_their_request() {
    let entries = entries(true, "info");
    let access = says(&entries, "answered");
    assert_eq!(access.len(), 7);
    let first = access[0];
    assert_eq!((&first["level"], &first["target"]), (&json!("INFO"), &json!("oddlog::access")));
    assert_eq!((&first["fields"]["method"], &first["fields"]["status"]), (&json!("POST"), &json!(200)));
    assert_eq!(first["fields"]["client"], "127.0.0.1");
    for entry in [first, says(&entries, "scored")[0]] {
        assert_eq!((&entry["span"]["id"], &entry["span"]["route"]), (&json!("my-name"), &json!("/api/v1/analyze")));
        assert_eq!(entry["span"]["trace_id"], TRACE);
    }
    // Also of a request that brought no name, and without an id of a trace when it brought none.
    assert_eq!(access[6]["span"]["id"].as_str().unwrap().len(), 16);
    assert!(access[6]["span"]["trace_id"].is_null());
}

#[test]
fn text_entries_carry_them_too() {
    let mut command = oddlog(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("ODDLOG_DEVICES__DEVICES", "[\"fake\"]").env("ODDLOG_LOG__FORMAT", "text");
    command.env("ODDLOG_LOG__ACCESS", "info");
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("address=") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0);
    }
    let address =
        line.split_whitespace().find_map(|word| word.strip_prefix("address=")).unwrap_or_else(|| panic!("{line}"));
    let mut connection = Connection::open(address.parse().unwrap());
    let headers = [("x-request-id", "my-name"), ("traceparent", TRACEPARENT)];
    connection.send("POST", "/api/v1/analyze", &headers, b"{}");
    assert_eq!(connection.answer().status, 422);
    line.clear();
    log.read_line(&mut line).unwrap();
    for part in ["request{id=\"my-name\" route=\"/api/v1/analyze\"", &format!("trace_id=\"{TRACE}\""), "status=422"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
