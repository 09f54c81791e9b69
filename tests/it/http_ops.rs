//! What operators ask, and the graceful end.

use std::collections::HashSet;

use prometheus_parse::{Scrape, Value};
use serde_json::json;

use crate::support::{Setup, eventually};

const ANALYZE: &str = "/api/v1/analyze";
const BODY: &[u8] = br#"{"log_message": "x"}"#;

#[test]
fn alive_and_ready() {
    let mut server = Setup::default().serve();
    let live = server.get("/livez");
    assert_eq!((live.status, live.json()), (200, json!({ "status": "alive" })));
    let ready = server.get("/readyz");
    assert_eq!((ready.status, ready.json()), (200, json!({ "status": "ready" })));
    server.end_engine();
    assert_eq!(server.get("/livez").status, 200);
    let ready = server.get("/readyz");
    assert_eq!((ready.status, ready.json()), (503, json!({ "status": "not_ready" })));
}

#[test]
fn metrics_parse_and_count_routes_by_pattern_and_status() {
    let server = Setup::default().serve();
    for _ in 0..3 {
        server.post(ANALYZE, BODY);
    }
    server.post(ANALYZE, "{}");
    server.get("/nowhere/else");
    server.get("/nowhere/other");
    server.get("/docs/swagger-ui.css");
    server.call("PUT", "/livez", &[], b"");
    let answer = server.get("/metrics");
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let scrape = Scrape::parse(answer.text().lines().map(|line| Ok(line.to_owned()))).unwrap();
    let requests: HashSet<(String, String, u64)> = scrape
        .samples
        .iter()
        .filter(|s| s.metric == "oddlog_http_requests_total")
        .map(|s| {
            let Value::Counter(count) = s.value else { panic!("{s:?}") };
            (s.labels["route"].to_owned(), s.labels["status"].to_owned(), count as u64)
        })
        .collect();
    let expected = [
        (ANALYZE, "200", 3),
        (ANALYZE, "422", 1),
        ("unknown", "404", 2),
        ("/docs/:file", "200", 1),
        ("/livez", "405", 1),
    ];
    assert_eq!(requests, expected.map(|(r, s, n)| (r.to_owned(), s.to_owned(), n)).into());
    // The scrape itself is being answered.
    let in_flight = scrape.samples.iter().find(|s| s.metric == "oddlog_http_requests_in_flight").unwrap();
    assert_eq!(in_flight.value, Value::Gauge(1.0));
    for name in ["oddlog_http_request_duration_seconds", "oddlog_stage_duration_seconds", "oddlog_batch_rows"] {
        let sample = scrape.samples.iter().find(|s| s.metric == name).unwrap();
        assert!(matches!(sample.value, Value::Histogram(_)), "{name}");
    }
    let family = |name: &str| name.trim_end_matches("_sum").trim_end_matches("_count").to_owned();
    let families = scrape.samples.iter().map(|sample| family(&sample.metric));
    let undocumented: Vec<_> = families.filter(|name| !scrape.docs.contains_key(name)).collect();
    assert!(undocumented.is_empty(), "{undocumented:?}");
}

#[test]
fn the_end_answers_what_was_accepted() {
    let (setup, gate) = Setup::gated();
    let mut server = setup.serve();
    let mut idle = vec![server.connect(), server.connect()];
    for connection in &mut idle {
        connection.send("GET", "/livez", &[], b"");
        assert_eq!(connection.answer().status, 200);
    }
    let mut waiting: Vec<_> = (0..8)
        .map(|_| {
            let mut connection = server.connect();
            connection.send("POST", ANALYZE, &[], BODY);
            connection
        })
        .collect();
    eventually("all are in flight", || server.sample("oddlog_http_requests_in_flight", None) == 8.0);
    server.begin_end();
    // What is on its way over an idle connection is answered, and it is said that the connection ends.
    eventually("it is not ready", || {
        let connection = idle.last_mut().unwrap();
        connection.send("GET", "/readyz", &[], b"");
        let last = connection.answer();
        if last.status == 200 && last.has("connection") {
            // The end began between this answer's status and its head.
            idle.pop();
            return false;
        }
        last.status == 503 && last.header("connection") == "close"
    });
    // Nobody new is let in.
    eventually("the port is closed", || std::net::TcpStream::connect(server.address).is_err());
    drop(gate);
    for connection in &mut waiting {
        let answer = connection.answer();
        assert_eq!((answer.status, answer.header("connection")), (200, "close"));
        assert_eq!(connection.rest(), b"");
    }
    assert!(server.wait_end());
}

#[test]
fn the_end_has_a_bound() {
    let (setup, gate) = Setup::gated();
    let mut server = setup.with(|c| c.server.shutdown_timeout_ms = 20).serve();
    let mut connection = server.connect();
    connection.send("POST", ANALYZE, &[], BODY);
    eventually("it is in flight", || server.sample("oddlog_http_requests_in_flight", None) == 1.0);
    server.begin_end();
    assert!(!server.wait_end());
    assert_eq!(connection.rest(), b"");
    eventually("it is counted", || server.sample("oddlog_http_requests_total", Some(("status", "499"))) == 1.0);
    drop(gate);
}

#[test]
fn a_client_that_leaves_is_counted_and_its_place_is_free() {
    let (setup, gate) = Setup::gated();
    let server = setup.serve();
    let mut connection = server.connect();
    connection.send("POST", ANALYZE, &[], BODY);
    eventually("it is in flight", || server.sample("oddlog_http_requests_in_flight", None) == 1.0);
    drop(connection);
    eventually("it is counted", || server.sample("oddlog_http_requests_total", Some(("status", "499"))) == 1.0);
    assert_eq!(server.sample("oddlog_http_requests_in_flight", None), 0.0);
    drop(gate);
}

#[test]
fn connections_beyond_the_limit_are_told_so() {
    let server = Setup::default().with(|c| c.server.max_connections = 1).serve();
    let mut first = server.connect();
    first.send("GET", "/livez", &[], b"");
    assert_eq!(first.answer().status, 200);
    let mut second = server.connect();
    second.send("GET", "/livez", &[], b"");
    let full = second.answer();
    assert_eq!((full.status, full.header("retry-after"), full.header("connection")), (503, "1", "close"));
    assert_eq!(full.json(), json!({ "detail": "Too many connections. Retry after 1 s." }));
    assert_eq!(second.rest(), b"");
    let closed = |reason| server.sample("oddlog_connections_closed_total", Some(("reason", reason)));
    assert_eq!((closed("too_many"), server.sample("oddlog_connections", None)), (1.0, 1.0));
    drop(first);
    eventually("the first is gone", || closed("client") == 1.0);
    assert_eq!(server.get("/livez").status, 200);
}
