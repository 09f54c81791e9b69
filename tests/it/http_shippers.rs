//! Log shippers, imitated to the byte: the requests that Vector's and Fluent Bit's HTTP outputs make, as their sources
//! say; and the answers as those read them.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

use crate::support::{Running, Setup};

const PATH: &str = "/api/v1/analyze/stream?respond=summary&threshold=0.8";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Sends a request, twice over one connection as both keep theirs, and reads the summaries.
fn summaries(server: &Running, head: &str, body: &[u8]) -> Vec<Value> {
    let mut connection = server.connect();
    let head = head.replace("{length}", &body.len().to_string());
    (0..2)
        .map(|_| {
            connection.write([head.as_bytes(), body].concat());
            let answer = connection.answer();
            assert_eq!(answer.status, 200, "{}", answer.text());
            // Both read an answer of known length; Fluent Bit at most 4 KiB with its head.
            assert_eq!(answer.header("content-type"), "application/json");
            assert!(!answer.has("content-encoding") && answer.body.len() < 3000);
            answer.json()
        })
        .collect()
}

#[test]
fn fluent_bit_json_lines() {
    let server = Setup::default().serve();
    let records: String = (0..100)
        .map(|i| {
            format!("{{\"date\":1764064800.{i:06},\"log\":\"request {i} took {} ms\",\"stream\":\"stdout\"}}\n", i * 3)
        })
        .collect();
    for compressed in [false, true] {
        let coding = if compressed { "Content-Encoding: gzip\r\n" } else { "" };
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nContent-Length: {{length}}\r\n\
             Content-Type: application/x-ndjson\r\n{coding}User-Agent: Fluent-Bit\r\n\r\n"
        );
        // Older versions call the same body JSON.
        for head in [head.clone(), head.replace("x-ndjson", "json")] {
            let body = if compressed { gzip(records.as_bytes()) } else { records.clone().into_bytes() };
            for summary in summaries(&server, &head, &body) {
                assert_eq!((&summary["lines"], &summary["scored"]), (&json!(100), &json!(100)), "{summary}");
            }
        }
    }
}

#[test]
fn vector_newline_delimited_json_and_text() {
    let server = Setup::default().serve();
    let event = |i: usize| {
        format!(
            "{{\"file\":\"/var/log/app.log\",\"host\":\"db-{i}\",\"message\":\"replica lag {i} s\",\"source_type\":\"file\",\
             \"timestamp\":\"2026-11-25T10:00:00.{i:06}Z\"}}"
        )
    };
    // No line end after the last event.
    let json = (0..50).map(event).collect::<Vec<_>>().join("\n").into_bytes();
    let text: Vec<u8> = (0..50).flat_map(|i| format!("replica lag {i} s\n").into_bytes()).collect();
    for (media_type, body) in [("application/x-ndjson", json), ("text/plain", text)] {
        for (coding, body) in [
            ("", body.clone()),
            ("content-encoding: gzip\r\n", gzip(&body)),
            ("content-encoding: zstd\r\n", zstd::encode_all(&body[..], 3).unwrap()),
        ] {
            let head = format!(
                "POST {PATH} HTTP/1.1\r\ncontent-type: {media_type}\r\n{coding}\
                 user-agent: Vector/0.50.0 (x86_64-unknown-linux-gnu)\r\naccept-encoding: identity\r\n\
                 host: 127.0.0.1:8000\r\ncontent-length: {{length}}\r\n\r\n"
            );
            for summary in summaries(&server, &head, &body) {
                assert_eq!((&summary["lines"], &summary["scored"]), (&json!(50), &json!(50)), "{summary}");
            }
        }
    }
}
