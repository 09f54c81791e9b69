//! Limits of size and time, broken clients, and HTTP/2.

use serde_json::json;

use crate::support::{Connection, Running, Setup, eventually};

const ANALYZE: &str = "/api/v1/analyze";
const BODY: &[u8] = br#"{"log_message": "x"}"#;

fn impatient() -> Running {
    Setup::default()
        .with(|c| {
            c.server.header_timeout_ms = 60;
            c.server.body_timeout_ms = 60;
        })
        .serve()
}

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
    let server = impatient();
    let mut connection = server.connect();
    connection.write(format!("POST {ANALYZE} HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{{\"log"));
    let answer = connection.answer();
    assert_eq!(answer.status, 408);
    assert_eq!(answer.json(), json!({ "detail": "The request body took too long to arrive." }));
}

#[test]
fn silence_ends_a_connection_at_every_stage() {
    let server = impatient();
    for sent in [
        "",
        // The beginning of HTTP/2's preface, and all of it.
        "PRI * HT",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET /livez HTT",
        "GET /livez HTTP/1.1\r\nhost: x\r\nx-more",
    ] {
        let mut connection = server.connect();
        connection.write(sent);
        let rest = connection.rest();
        // Before it goes, HTTP/2 says its settings and HTTP/1.1 may say 408.
        assert!(!rest.starts_with(b"HTTP/1.1 200"), "{sent:?}: {rest:?}");
    }
    let mut kept = server.connect();
    kept.send("GET", "/livez", &[], b"");
    assert_eq!(kept.answer().status, 200);
    assert_eq!(kept.rest(), b"");
}

#[test]
fn a_client_that_never_reads_is_dropped() {
    let server = impatient();
    let mut connection = server.connect();
    // Answers of a megabyte each fill every buffer on the way; the server stops reading, and so the writing here fails
    // at last when the connection is reset.
    let request = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: x\r\n\r\n".repeat(64);
    connection.write(&request);
    eventually("the connection is gone", || connection.is_broken());
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

/// An HTTP/2 frame: type, payload.
fn frame(connection: &mut Connection) -> (u8, u8, Vec<u8>) {
    let head = connection.read(9);
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    (head[3], head[4], connection.read(length))
}

#[test]
fn http2_without_upgrade_is_answered_on_the_same_port() {
    const HEADERS: u8 = 1;
    const DATA: u8 = 0;
    const END_STREAM: u8 = 1;
    let server = Setup::default().serve();
    let mut connection = server.connect();
    // Method POST and scheme http are whole entries of HPACK's static table; the path is a literal for its entry 4.
    let mut block = vec![0x83, 0x86, 0x04, ANALYZE.len() as u8];
    block.extend(ANALYZE.as_bytes());
    block.extend([0x01, 4]);
    block.extend(b"test");
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    bytes.extend([0, 0, block.len() as u8, HEADERS, 4, 0, 0, 0, 1]);
    bytes.extend(block);
    bytes.extend([0, 0, BODY.len() as u8, DATA, END_STREAM, 0, 0, 0, 1]);
    bytes.extend(BODY);
    connection.write(bytes);
    let (mut status_ok, mut text) = (false, Vec::new());
    loop {
        match frame(&mut connection) {
            // 0x88 is the static table's ":status: 200".
            (HEADERS, _, block) => status_ok = block[0] == 0x88,
            (DATA, flags, data) => {
                text.extend(data);
                if flags & END_STREAM != 0 {
                    break;
                }
            }
            _ => {}
        }
    }
    assert!(status_ok);
    assert!(text.starts_with(br#"{"log_message":"x","label":"#), "{text:?}");
}
