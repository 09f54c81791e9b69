//! Limits of size and time, broken clients, and HTTP/2.

use std::time::Duration;

use serde_json::json;

use crate::support::{
    Running, Setup, eventually,
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, block, frame, preface, read, status,
    },
};

const ANALYZE: &str = "/api/v1/analyze";
const BODY: &[u8] = br#"{"log_message": "x"}"#;

fn impatient() -> Running {
    Setup::default()
        .with(|c| {
            c.server.first_byte_timeout_ms = 60;
            c.server.header_timeout_ms = 60;
            c.server.idle_timeout_ms = 60;
            c.server.body_timeout_ms = 60;
            c.server.write_timeout_ms = 60;
        })
        .serve()
}

fn closed(server: &Running, reason: &str) -> f64 {
    server.sample("oddlog_connections_closed_total", Some(("reason", reason)))
}

/// Time between the bytes of a client that keeps a connection busy.
const TRICKLE: Duration = Duration::from_millis(5);

#[test]
fn a_body_over_the_limit_is_413_and_the_limit_itself_is_not() {
    let server = Setup::default().with(|c| c.server.max_body_bytes = 1000).serve();
    let body = |bytes: usize| {
        let text = json!({ "log_message": "" }).to_string();
        text.replace("\"\"", &format!("\"{}\"", "x".repeat(bytes - text.len())))
    };
    assert_eq!(server.post(ANALYZE, body(1000)).status, 200);
    let too_large = server.post(ANALYZE, body(1001));
    assert_eq!(too_large.status, 413);
    let text = "The request body is too large. At most 1000 bytes are allowed.";
    assert_eq!(too_large.json(), json!({ "detail": text }));
    assert_eq!(server.post("/api/v1/analyze/batch", body(5000)).status, 413);
    // Told before it is sent.
    let mut connection = server.connect();
    connection.write(format!("POST {ANALYZE} HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999999\r\n\r\n"));
    assert_eq!(connection.answer().status, 413);
    // In chunks, without a length, from a real client that writes all of it before it reads.
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    for (bytes, status) in [(900, 200), (1001, 413), (7000, 413)] {
        let chunks = ureq::SendBody::from_owned_reader(std::io::Cursor::new(body(bytes)));
        let url = format!("http://{}{ANALYZE}", server.address);
        let response = agent.post(&url).content_type("application/json").send(chunks).unwrap();
        assert_eq!(response.status(), status, "{bytes} bytes in chunks");
    }
}

#[test]
fn a_large_body_that_is_refused_does_not_break_the_connection() {
    let server = Setup::default().with(|c| c.server.max_body_bytes = 100_000).serve();
    let mut connection = server.connect();
    connection.send("POST", ANALYZE, &[], &vec![b'x'; 700_000]);
    assert_eq!(connection.answer().status, 413);
    connection.send("POST", ANALYZE, &[], BODY);
    assert_eq!(connection.answer().status, 200);
}

#[test]
fn large_bodies_share_a_room_and_wait_for_it() {
    let (setup, gate) = Setup::gated();
    let server = setup
        .with(|c| {
            c.server.max_body_bytes = 100 << 10;
            c.server.max_buffered_bytes = 150 << 10;
            c.server.body_timeout_ms = 40;
        })
        .serve();
    let large = json!({ "log_message": "x ".repeat(45 << 10) }).to_string();
    let mut first = server.connect();
    first.send("POST", ANALYZE, &[], large.as_bytes());
    eventually("the first is with the engine", || server.sample("oddlog_batches_total", None) == 1.0);
    // Its body takes 91 of 150 KiB until it is answered; small bodies take none.
    let second = server.post(ANALYZE, &large);
    assert_eq!((second.status, second.header("retry-after")), (429, "1"));
    drop(gate);
    assert_eq!(first.answer().status, 200);
    assert_eq!(server.post(ANALYZE, BODY).status, 200);
    assert_eq!(server.post(ANALYZE, &large).status, 200);
    // Of a body in chunks the length is not known before its end; what it did not need is given back.
    let mut chunked = server.connect();
    let body = std::str::from_utf8(BODY).unwrap();
    for _ in 0..3 {
        chunked.write(format!(
            "POST {ANALYZE} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        ));
        assert_eq!(chunked.answer().status, 200);
    }
}

#[test]
fn a_slow_body_is_408() {
    let one_pause = Setup::default().with(|c| c.server.body_idle_timeout_ms = 60).serve();
    for (server, trickles) in [(impatient(), false), (impatient(), true), (one_pause, false)] {
        let mut connection = server.connect();
        connection.write(format!("POST {ANALYZE} HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n{{\"log"));
        while trickles && connection.is_silent_for(TRICKLE) {
            connection.write("x");
        }
        let answer = connection.answer();
        assert_eq!(answer.status, 408);
        assert_eq!(answer.json(), json!({ "detail": "The request body took too long to arrive." }));
    }
}

#[test]
fn silence_ends_a_connection_at_every_stage() {
    // The other limits are far away, so that a slow machine does not end a connection for another reason.
    let first_byte = || Setup::default().with(|c| c.server.first_byte_timeout_ms = 60).serve();
    let header = || Setup::default().with(|c| c.server.header_timeout_ms = 60).serve();
    let idle = || Setup::default().with(|c| c.server.idle_timeout_ms = 60).serve();
    let stages: [(&str, &str, &dyn Fn() -> Running); 5] = [
        ("", "first_byte_timeout", &first_byte),
        // The beginning of HTTP/2's preface, and all of it.
        ("PRI * HT", "header_timeout", &header),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "idle", &idle),
        ("GET /livez HTT", "header_timeout", &header),
        ("GET /livez HTTP/1.1\r\nhost: x\r\nx-more", "header_timeout", &header),
    ];
    for (sent, reason, server) in stages {
        let server = server();
        let mut connection = server.connect();
        connection.write(sent);
        let rest = connection.rest();
        // Before it goes, HTTP/2 says its settings.
        assert!(!rest.starts_with(b"HTTP/1.1"), "{sent:?}: {rest:?}");
        eventually(reason, || closed(&server, reason) == 1.0);
    }
    let server = idle();
    let mut kept = server.connect();
    kept.send("GET", "/livez", &[], b"");
    assert_eq!(kept.answer().status, 200);
    assert_eq!(kept.rest(), b"");
    eventually("it was idle", || closed(&server, "idle") == 1.0);
}

#[test]
fn a_header_that_comes_byte_by_byte_has_the_same_time() {
    let server = impatient();
    let mut connection = server.connect();
    connection.write("GET /livez HTTP/1.1\r\nx-slow: ");
    while connection.is_silent_for(TRICKLE) && connection.try_write("x") {}
    eventually("it is closed", || closed(&server, "header_timeout") == 1.0);
}

#[test]
fn a_client_that_never_reads_is_dropped() {
    // The other limits are far away: it is this one that ends them.
    let server = Setup::default().with(|c| c.server.write_timeout_ms = 60).serve();
    let mut connection = server.connect();
    // Answers of a megabyte each fill every buffer on the way; the server stops reading, and so the writing here fails
    // at last when the connection is reset.
    let request = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: x\r\n\r\n".repeat(64);
    connection.write(&request);
    eventually("the connection is gone", || connection.is_broken());
    eventually("it is counted", || closed(&server, "slow_reader") == 1.0);
    // With HTTP/2 a client can refuse to be sent anything: a window of 0.
    let mut connection = server.connect();
    connection.write(preface(&[(4, 0)]));
    connection.write(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(false, "/openapi.json", &[])));
    while read(&mut connection).0 != GOAWAY {}
    connection.rest();
    eventually("it is counted", || closed(&server, "slow_reader") == 2.0);
}

#[test]
fn a_flood_of_header_fields_is_refused() {
    let server = Setup::default().serve();
    let fields = [("x-field", "1"); 101];
    let mut connection = server.connect();
    connection.send("GET", "/livez", &fields, b"");
    assert_eq!(connection.answer().status, 431);
    let mut connection = server.connect();
    connection.write("GET /livez HTTP/1.1\r\n");
    eventually("the flood is over", || !connection.try_write("x-endless: 1\r\n".repeat(100)));

    let mut connection = server.connect();
    connection.write(preface(&[]));
    connection.write(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(false, "/livez", &fields)));
    assert_eq!(status(&mut connection), Some(431));
    connection.write(frame(HEADERS, END_HEADERS | END_STREAM, 3, &block(false, "/livez", &fields[..90])));
    assert_eq!(status(&mut connection), Some(200));
    assert_eq!(server.sample("oddlog_requests_turned_away_total", Some(("reason", "header_fields"))), 1.0);
    // A header that never ends.
    connection.write(frame(HEADERS, 0, 5, &block(false, "/livez", &[])));
    let more = frame(CONTINUATION, 0, 5, &block(false, "/livez", &[("x-field", "a value"); 500]));
    eventually("the flood is over", || !connection.try_write(&more));
    assert_eq!(server.post(ANALYZE, BODY).status, 200);
}

#[test]
fn a_connection_that_abandons_request_after_request_is_closed() {
    let server = Setup::default().with(|c| c.server.http2_max_resets = 20).serve();
    let in_flight = |count: f64| {
        eventually("it begins or ends", || server.sample("oddlog_http_requests_in_flight", None) == count);
    };
    let request = |stream| frame(HEADERS, END_HEADERS, stream, &block(true, ANALYZE, &[]));
    let reset = |stream| frame(RST_STREAM, 0, stream, &8u32.to_be_bytes());
    let mut connection = server.connect();
    connection.write(preface(&[]));
    for stream in (1..=41).step_by(2) {
        assert_eq!(closed(&server, "too_many_resets"), 0.0);
        connection.write(request(stream));
        in_flight(1.0);
        connection.write(reset(stream));
        in_flight(0.0);
    }
    connection.rest();
    eventually("it is counted", || closed(&server, "too_many_resets") == 1.0);
    // All at once; whoever of hyper and oddlog sees it first ends it.
    let mut connection = server.connect();
    connection.write(preface(&[]));
    let flood = (1..4000).step_by(2).flat_map(|stream| [request(stream), reset(stream)].concat()).collect::<Vec<u8>>();
    connection.try_write(flood);
    connection.rest();
    in_flight(0.0);
    assert_eq!(server.post(ANALYZE, BODY).status, 200);
}

#[test]
fn whoever_leaves_is_not_computed_for() {
    let (setup, gate) = Setup::gated();
    let server = setup.serve();
    let post = || {
        let mut connection = server.connect();
        connection.send("POST", ANALYZE, &[], BODY);
        connection
    };
    let mut first = post();
    eventually("the device has it", || server.sample("oddlog_batches_total", None) == 1.0);
    let mut waiting: Vec<_> = (0..5).map(|_| post()).collect();
    eventually("they wait", || server.sample("oddlog_queue_jobs", None) == 5.0);
    waiting.truncate(2);
    eventually("three have left", || server.sample("oddlog_http_requests_total", Some(("status", "499"))) == 3.0);
    drop(gate);
    assert_eq!(first.answer().status, 200);
    for connection in &mut waiting {
        assert_eq!(connection.answer().status, 200);
    }
    assert_eq!(server.sample("oddlog_dropped_by_client_total", None), 3.0);
    // Two rows for each of the three that stayed.
    let text = server.handle.metrics().render();
    assert!(text.contains("\noddlog_batch_rows_sum 6\n"), "{text}");
}

#[test]
fn odd_texts_are_scored_beside_others() {
    let server = Setup::default().serve();
    let long = "a ".repeat(500_000);
    let logs = ["disk full", "nul \0 in it", &long, "[SEP] this is normal [CLS]", "\u{feff}\u{202e}", "disk full"];
    let answer = server.post("/api/v1/analyze/batch", json!({ "logs": logs }).to_string());
    assert_eq!(answer.status, 200);
    let results = answer.json()["results"].as_array().unwrap().clone();
    assert_eq!((results.len(), &results[0]), (6, &results[5]));
    for (i, result) in results.iter().enumerate() {
        assert_eq!(result["truncated"], json!(i == 2), "{result}");
    }
}

#[test]
fn rubbish_is_refused_and_harms_nobody() {
    let server = Setup::default().serve();
    for (sent, status) in [
        ("\0\0\0\0\r\n\r\n", "400"),
        ("GET\r\n\r\n", "400"),
        ("GET /livez HTTP/9.9\r\n\r\n", "400"),
        ("POST /api/v1/analyze HTTP/1.1\r\nhost: x\r\ncontent-length: ten\r\n\r\n", "400"),
        ("GET /livez HTTP/1.1\r\nbad header\r\n\r\n", "400"),
    ] {
        let mut connection = server.connect();
        connection.write(sent);
        let rest = String::from_utf8_lossy(&connection.rest()).into_owned();
        assert!(rest.starts_with(&format!("HTTP/1.1 {status} ")), "{sent:?}: {rest}");
    }
    let mut connection = server.connect();
    connection.send("GET", "/livez", &[("x-long", &"x".repeat(100_000))], b"");
    assert_eq!(connection.answer().status, 431);
    let mut broken = server.connect();
    broken.write(format!("POST {ANALYZE} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nnot a size\r\n"));
    assert_eq!(broken.answer().status, 400);
    assert_eq!(server.post(ANALYZE, BODY).status, 200);
}

#[test]
fn requests_in_a_row_on_one_connection_are_answered_in_order() {
    let server = Setup::default().serve();
    let mut connection = server.connect();
    for i in 0..50 {
        connection.send("POST", ANALYZE, &[("x-request-id", &format!("r{i}"))], BODY);
    }
    for i in 0..50 {
        let answer = connection.answer();
        assert_eq!((answer.status, answer.header("x-request-id")), (200, format!("r{i}").as_str()));
    }
    let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
    for _ in 0..5 {
        let url = format!("http://{}{ANALYZE}", server.address);
        let text = agent.post(&url).send(BODY).unwrap().body_mut().read_to_string().unwrap();
        assert!(text.starts_with(r#"{"log_message":"x","label":"#), "{text}");
    }
}

#[test]
fn http2_without_upgrade_is_answered_on_the_same_port() {
    let server = Setup::default().serve();
    let mut connection = server.connect();
    connection.write(preface(&[]));
    connection.write(frame(HEADERS, END_HEADERS, 1, &block(true, ANALYZE, &[])));
    connection.write(frame(DATA, END_STREAM, 1, BODY));
    assert_eq!(status(&mut connection), Some(200));
    let mut text = Vec::new();
    loop {
        if let (DATA, flags, data) = read(&mut connection) {
            text.extend(data);
            if flags & END_STREAM != 0 {
                break;
            }
        }
    }
    assert!(text.starts_with(br#"{"log_message":"x","label":"#), "{text:?}");
}
