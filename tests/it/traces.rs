//! Traces: what a real receiver of OTLP gets, and that one that fails harms nobody.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{SocketAddr, TcpListener},
    sync::mpsc::{Receiver, channel},
    time::Instant,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use oddlog::config::{CacheMode, Headers};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message;
use serde_json::json;

use crate::support::{
    Connection, PATIENCE, Running, Setup, eventually,
    process::{oddlog, serve, signal},
};

const ANALYZE: &str = "/api/v1/analyze";
const MARK: &str = "hunter2-is-the-secret";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A collector: whatever is posted to it, decoded.
struct Collector {
    address: SocketAddr,
    exports: Receiver<(HeaderMap, String, Bytes)>,
    spans: Vec<Span>,
    _runtime: tokio::runtime::Runtime,
}

impl Collector {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let (address, (sender, exports)) = (listener.local_addr().unwrap(), channel());
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let sender = sender.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let sender = sender.clone();
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        // The test may be over.
                        let _ = sender.send((head.headers, head.uri.path().to_owned(), body));
                        let answer = ExportTraceServiceResponse::default().encode_to_vec();
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(answer))))
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
            }
        });
        Self { address, exports, spans: Vec::new(), _runtime: runtime }
    }

    /// A server that sends it everything, as soon as it can.
    fn server(&self, setup: Setup) -> Running {
        setup
            .with(|c| {
                c.telemetry.otlp_endpoint = format!("http://{}", self.address);
                c.telemetry.otlp_headers = Headers([("x-token".into(), "t".into())].into());
                c.telemetry.service_name = "oddlog-test".into();
                c.telemetry.export_interval_ms = 5;
            })
            .serve()
    }

    /// Waits for the span of a request, and returns it with the spans under it, in the order of their beginnings.
    fn request(&mut self, name: &str) -> (Span, Vec<Span>) {
        loop {
            if let Some(at) = self.spans.iter().position(|span| span.name == name) {
                let root = self.spans.remove(at);
                let (mut under, others): (Vec<_>, Vec<_>) =
                    self.spans.drain(..).partition(|span| span.parent_span_id == root.span_id);
                self.spans = others;
                under.sort_by_key(|span| (span.start_time_unix_nano, span.end_time_unix_nano));
                for span in &under {
                    assert_eq!(span.trace_id, root.trace_id);
                    assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
                    assert!(span.end_time_unix_nano <= root.end_time_unix_nano, "{} ends late", span.name);
                }
                return (root, under);
            }
            self.receive();
        }
    }

    fn receive(&mut self) {
        let (headers, path, body) = self.exports.recv_timeout(PATIENCE).unwrap();
        assert_eq!(
            (path.as_str(), &headers["content-type"]),
            ("/v1/traces", &"application/x-protobuf".parse().unwrap())
        );
        assert_eq!(headers["x-token"], "t");
        assert!(!body.windows(MARK.len()).any(|part| part == MARK.as_bytes()), "a log message is in a span");
        for resource in ExportTraceServiceRequest::decode(body).unwrap().resource_spans {
            let attributes = of(&resource.resource.unwrap().attributes);
            assert_eq!(attributes["service.name"], "oddlog-test");
            assert_eq!(attributes["service.version"], env!("CARGO_PKG_VERSION"));
            self.spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }
}

/// Attributes as texts.
fn of(attributes: &[KeyValue]) -> HashMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().unwrap().value.as_ref().unwrap() {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    attributes.iter().map(|pair| (pair.key.clone(), text(&pair.value))).collect()
}

fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn analyze(server: &Running, log: &str, parent: Option<&str>) -> u16 {
    let headers: Vec<_> = parent.iter().map(|parent| ("traceparent", *parent)).collect();
    let body = json!({ "log_message": log }).to_string();
    server.call("POST", ANALYZE, &[&headers[..], &[("x-request-id", "my-name")]].concat(), body.as_bytes()).status
}

#[test]
fn a_request_has_a_span_for_each_stage_under_the_callers() {
    let mut collector = Collector::start();
    let server = collector.server(Setup::default().with(|c| c.cache.mode = CacheMode::Exact));
    assert_eq!(analyze(&server, MARK, Some(&format!("00-{TRACE}-{PARENT}-01"))), 200);
    let (root, stages) = collector.request("POST /api/v1/analyze");
    assert_eq!((hex(&root.trace_id), hex(&root.parent_span_id)), (TRACE.to_owned(), PARENT.to_owned()));
    let attributes = of(&root.attributes);
    for (key, value) in [
        ("http.request.method", "POST"),
        ("http.route", ANALYZE),
        ("http.response.status_code", "200"),
        ("oddlog.request_id", "my-name"),
        ("oddlog.cache", "miss"),
    ] {
        assert_eq!(attributes[key], value, "{key}");
    }
    assert_eq!(names(&stages), ["tokenise", "queue", "run", "respond"]);
    for pair in stages.windows(2) {
        assert!(pair[0].end_time_unix_nano <= pair[1].start_time_unix_nano, "{} overlaps", pair[1].name);
    }
    let run = of(&stages[2].attributes);
    for (key, value) in [("device", "fake:0"), ("batch.logs", "1"), ("batch.rows", "2"), ("batch.closed_by", "empty")] {
        assert_eq!(run[&format!("oddlog.{key}")], value, "{key}");
    }
    assert!(run["oddlog.batch.tokens"].parse::<u32>().unwrap() >= 32);

    // The same log again: no queue, no run.
    assert_eq!(analyze(&server, MARK, None), 200);
    let (root, _) = collector.request("POST /api/v1/analyze");
    assert_eq!((of(&root.attributes)["oddlog.cache"].as_str(), root.parent_span_id.len()), ("hit", 0));
    assert_ne!(hex(&root.trace_id), TRACE);
    // A refusal says so.
    assert_eq!(server.post(ANALYZE, format!("{{\"log_message\": [\"{MARK}\"]}}")).status, 422);
    let (root, stages) = collector.request("POST /api/v1/analyze");
    assert_eq!((of(&root.attributes)["http.response.status_code"].as_str(), names(&stages)), ("422", vec!["respond"]));
    eventually("all are counted", || server.sample("oddlog_trace_spans_total", Some(("outcome", "exported"))) >= 8.0);
    assert!(server.traces.as_ref().unwrap().shutdown());
}

#[test]
fn many_logs_share_the_spans_of_their_runs() {
    let mut collector = Collector::start();
    let server = collector.server(Setup::default().with(|c| c.cache.mode = CacheMode::Off));
    let logs: Vec<_> = (0..40).map(|i| format!("{MARK} {i}")).collect();
    let answer = server.post("/api/v1/analyze/batch", json!({ "logs": logs }).to_string());
    assert_eq!((answer.status, answer.text().matches("truncated").count()), (200, 40), "{}", answer.text());
    let (root, stages) = collector.request("POST /api/v1/analyze/batch");
    check_runs(&root, &stages, 40);
    let lines: String = logs.iter().map(|log| format!("{}\n", json!(log))).collect();
    let answer = server.post("/api/v1/analyze/stream?respond=summary", lines);
    assert_eq!((answer.status, &answer.json()["scored"]), (200, &json!(40)), "{}", answer.text());
    let (root, stages) = collector.request("POST /api/v1/analyze/stream");
    check_runs(&root, &stages, 40);
}

fn check_runs(root: &Span, stages: &[Span], logs: u64) {
    let attributes = of(&root.attributes);
    assert_eq!(attributes["oddlog.logs"], logs.to_string());
    assert_eq!(attributes["oddlog.runs_left_out"], "0");
    let runs: Vec<_> = stages.iter().filter(|span| span.name == "run").collect();
    let scored: u64 = runs.iter().map(|run| of(&run.attributes)["oddlog.batch.logs"].parse::<u64>().unwrap()).sum();
    assert_eq!(scored, logs, "each run is told of once");
    assert_eq!(stages.iter().filter(|span| span.name == "queue").count(), runs.len());
}

#[test]
fn the_caller_decides_and_else_the_ratio() {
    let mut collector = Collector::start();
    let server = collector.server(Setup::default().with(|c| c.telemetry.sample_ratio = 0.0));
    for parent in [None, Some(format!("00-{TRACE}-{PARENT}-00")), Some("rubbish".into())] {
        assert_eq!(analyze(&server, "x", parent.as_deref()), 200);
    }
    assert_eq!(server.get("/livez").status, 200);
    assert_eq!(analyze(&server, "x", Some(&format!("00-{TRACE}-{PARENT}-01"))), 200);
    let (root, stages) = collector.request("POST /api/v1/analyze");
    assert_eq!(hex(&root.trace_id), TRACE);
    assert!(server.traces.as_ref().unwrap().shutdown());
    let all = 1.0 + stages.len() as f64;
    assert_eq!(server.sample("oddlog_trace_spans_total", Some(("outcome", "exported"))), all);
}

#[test]
fn a_client_that_leaves_has_a_span_that_says_so() {
    let mut collector = Collector::start();
    let (setup, gate) = Setup::gated();
    let server = collector.server(setup);
    let mut connection = server.connect();
    connection.send("POST", ANALYZE, &[], br#"{"log_message": "x"}"#);
    eventually("it is in flight", || server.sample("oddlog_http_requests_in_flight", None) == 1.0);
    drop(connection);
    let (root, stages) = collector.request("POST /api/v1/analyze");
    assert_eq!(of(&root.attributes)["http.response.status_code"], "499");
    assert_eq!(names(&stages), Vec::<&str>::new());
    drop(gate);
}

#[test]
fn a_collector_that_hangs_costs_spans_and_nothing_else() {
    // Connections wait in its backlog for ever.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let server = Setup::default()
        .with(|c| {
            c.telemetry.otlp_endpoint = endpoint;
            c.telemetry.export_timeout_ms = 300;
            c.telemetry.export_interval_ms = 1;
            c.telemetry.max_queued_spans = 8;
        })
        .serve();
    for _ in 0..20 {
        assert_eq!(analyze(&server, "x", None), 200);
    }
    let spans = |outcome| server.sample("oddlog_trace_spans_total", Some(("outcome", outcome)));
    eventually("an export failed", || spans("failed") > 0.0);
    assert!(spans("dropped") > 0.0, "there is room for 8 spans of 100");
    eventually("every answer is sent", || server.sample("oddlog_connections", None) == 0.0);
    let begun = Instant::now();
    server.traces.as_ref().unwrap().shutdown();
    assert!(begun.elapsed() < PATIENCE, "the end is bounded");
    assert_eq!(spans("failed") + spans("dropped"), 100.0, "each is counted once");
    assert_eq!(analyze(&server, "x", None), 200);
}

#[test]
fn a_collector_that_is_not_there_is_a_warning_and_a_wrong_address_an_error() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (mut child, address) = serve(|command| {
        command
            .env("ODDLOG_DEVICES__DEVICES", "[\"fake\"]")
            .env("ODDLOG_TELEMETRY__OTLP_ENDPOINT", format!("http://{nobody}"));
        command.env("ODDLOG_TELEMETRY__EXPORT_TIMEOUT_MS", "200").env("ODDLOG_TELEMETRY__EXPORT_INTERVAL_MS", "1");
    });
    let mut connection = Connection::open(address.parse().unwrap());
    for _ in 0..3 {
        connection.send("POST", ANALYZE, &[], br#"{"log_message": "x"}"#);
        assert_eq!(connection.answer().status, 200);
    }
    drop(connection);
    signal(&child, "TERM");
    let mut log = String::new();
    std::io::Read::read_to_string(child.stderr.as_mut().unwrap(), &mut log).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "spans that are lost change no exit code");
    assert_eq!(log.matches("traces cannot be exported").count(), 1, "{log}");

    for (key, value) in [("OTLP_ENDPOINT", "127.0.0.1:4318"), ("OTLP_HEADERS", "{\"a b\"=\"c\"}")] {
        let mut command = oddlog(&["serve", "--listen", "127.0.0.1:0"]);
        command
            .env("ODDLOG_DEVICES__DEVICES", "[\"fake\"]")
            .env("ODDLOG_TELEMETRY__OTLP_ENDPOINT", "http://127.0.0.1:1");
        let output = command.env(format!("ODDLOG_TELEMETRY__{key}"), value).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(&format!("telemetry.{}", key.to_lowercase())), "{error}");
    }
}
