//! The API that existing clients call.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::support::{Running, Setup};

const ANALYZE: &str = "/api/v1/analyze";

fn keys(json_text: &str) -> Vec<String> {
    // serde_json sorts keys, so the order is read off the text.
    let map: serde_json::Map<String, Value> = serde_json::from_str(json_text).unwrap();
    let mut keys: Vec<String> = map.keys().cloned().collect();
    keys.sort_by_key(|key| json_text.find(&format!("\"{key}\":")).unwrap());
    keys
}

fn analyze(server: &Running, body: Value) -> Value {
    let answer = server.post(ANALYZE, body.to_string());
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[test]
fn a_source_has_its_own_threshold() {
    let server = Setup::default()
        .with(|config| {
            config.scoring.threshold = 0.25;
            config.scoring.thresholds.insert("web".into(), 0.75);
        })
        .serve();
    for (more, expected) in [
        ("", 0.25),
        (r#", "source": "web""#, 0.75),
        (r#", "source": "db""#, 0.25),
        (r#", "source": 3"#, 0.25),
        (r#", "source": "web", "threshold": 0.5"#, 0.5),
    ] {
        let one = server.post("/api/v1/analyze", format!(r#"{{"log_message": "disk full"{more}}}"#)).json();
        let many = server.post("/api/v1/analyze/batch", format!(r#"{{"logs": ["disk full"]{more}}}"#)).json();
        assert_eq!((&one["threshold"], &many["threshold"]), (&json!(expected), &json!(expected)), "{more}");
    }
    let text = server.call("POST", "/api/v1/analyze/stream?respond=summary&source=web", &[], b"\"disk full\"\n");
    assert_eq!(text.json()["threshold"], 0.75);
}

#[test]
fn an_analysis_has_exactly_five_keys_in_order() {
    let server = Setup::default().serve();
    let answer = server.post(ANALYZE, r#"{"log_message": "disk \"full\" \u00e4", "threshold": 0.7, "more": [1]}"#);
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_eq!(keys(answer.text()), ["log_message", "label", "confidence", "is_anomaly", "threshold"]);
    let json = answer.json();
    assert_eq!((&json["log_message"], &json["threshold"]), (&json!("disk \"full\" ä"), &json!(0.7)));
    assert_eq!(json["is_anomaly"], json!(json["label"] == "anomaly"));
    let body_without_spaces = !answer.text().contains(": ");
    assert!(body_without_spaces && answer.text().contains(r#""threshold":0.7}"#), "{}", answer.text());
}

#[test]
fn confidence_is_the_shortest_decimal_of_a_float32() {
    let server = Setup::default().serve();
    let mut seen = HashSet::new();
    for i in 0..50 {
        let log = format!("request {i} failed after {} ms", i * 37);
        let answer = server.post(ANALYZE, json!({ "log_message": log }).to_string());
        let text = answer.text();
        let number = text.split("\"confidence\":").nth(1).unwrap().split(',').next().unwrap();
        let value: f32 = number.parse().unwrap();
        assert_eq!(number, serde_json::to_string(&value).unwrap(), "{text}");
        assert!(number.len() <= 12 && (0.0..=1.0).contains(&value), "{number}");
        seen.insert(number.to_owned());
    }
    assert!(seen.len() > 20, "{seen:?}");
}

#[test]
fn the_threshold_decides_and_equality_is_an_anomaly() {
    let server = Setup::default().serve();
    let at = |threshold: Value| analyze(&server, json!({ "log_message": "disk full", "threshold": threshold }));
    let always = at(json!(0));
    assert_eq!((&always["is_anomaly"], &always["label"]), (&json!(true), &json!("anomaly")));
    let score = always["confidence"].as_f64().unwrap();
    assert!(score < 1.0);
    assert_eq!(at(json!(score))["is_anomaly"], true);
    let above = at(json!(score + 1e-4));
    assert_eq!((&above["is_anomaly"], &above["label"]), (&json!(false), &json!("normal")));
    assert!((above["confidence"].as_f64().unwrap() + score - 1.0).abs() < 1e-6);
    let default = at(Value::Null);
    assert_eq!(default["threshold"], 0.5);
    assert_eq!(at(json!("0.25"))["threshold"], 0.25);
}

#[test]
fn the_configured_threshold_and_rule_hold() {
    let server = Setup::default()
        .with(|c| {
            c.scoring.threshold = 1.0;
            c.scoring.threshold_rule = oddlog::config::ThresholdRule::Upstream;
        })
        .serve();
    let json = analyze(&server, json!({ "log_message": "disk full" }));
    // No top score reaches 1, so the old rule gives the other label.
    assert!(json["confidence"].as_f64().unwrap() <= 0.5, "{json}");
    assert_eq!(json["threshold"], 1.0);
}

#[test]
fn a_body_is_json_whatever_it_is_called_unless_it_is_plain_text() {
    let server = Setup::default().serve();
    let body = br#"{"log_message": "disk full"}"#;
    for media_type in [
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        "application/vnd.log+json",
        "application/x-www-form-urlencoded",
        "application/octet-stream",
    ] {
        assert_eq!(server.call("POST", ANALYZE, &[("content-type", media_type)], body).status, 200, "{media_type}");
    }
    assert_eq!(server.call("POST", ANALYZE, &[], body).status, 200);
    let with_mark = [b"\xef\xbb\xbf", &body[..]].concat();
    assert_eq!(server.post(ANALYZE, with_mark).status, 200);
}

#[test]
fn answers_carry_their_name_and_stage_times() {
    let server = Setup::default().serve();
    let body = br#"{"log_message": "disk full"}"#;
    let named = server.call("POST", ANALYZE, &[("x-request-id", "abc/1")], body);
    assert_eq!(named.header("x-request-id"), "abc/1");
    for stage in ["x-tokenization-time", "x-queue-time", "x-inference-time"] {
        let ms: f64 = named.header(stage).parse().unwrap();
        assert!((0.0..30_000.0).contains(&ms), "{stage}: {ms}");
    }
    let own = server.call("POST", ANALYZE, &[("x-request-id", "not fit")], body).header("x-request-id").to_owned();
    assert!(own.len() == 16 && own != server.get("/nowhere").header("x-request-id"), "{own}");
    assert!(!server.get("/livez").has("x-queue-time"));
}

#[test]
fn health_and_root() {
    let mut server = Setup::default().serve();
    let health = server.get("/api/v1/health");
    assert_eq!(keys(health.text()), ["status", "model_loaded", "model_path"]);
    assert_eq!(health.json(), json!({ "status": "healthy", "model_loaded": true, "model_path": "tiny" }));
    let root = server.get("/api/v1/").json();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(root, json!({ "message": "Log Anomaly Detection API", "version": version, "docs": "/docs" }));
    server.end_engine();
    let health = server.get("/api/v1/health");
    assert_eq!(health.status, 200);
    assert_eq!(health.json(), json!({ "status": "unhealthy", "model_loaded": false, "model_path": "tiny" }));
}

#[test]
fn a_slash_too_many_or_too_few_is_redirected_with_method_and_query() {
    let server = Setup::default().serve();
    for (method, path, location) in [
        ("GET", "/api/v1", "/api/v1/"),
        ("POST", "/api/v1/analyze/", "/api/v1/analyze"),
        ("POST", "/api/v1/analyze/batch/?a=1&b=%2F", "/api/v1/analyze/batch?a=1&b=%2F"),
        ("GET", "/docs/", "/docs"),
    ] {
        let answer = server.call(method, path, &[], b"");
        assert_eq!((answer.status, answer.header("location")), (307, location), "{path}");
    }
    // A real client follows it and is answered.
    let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
    let url = format!("http://{}/api/v1", server.address);
    let text = agent.get(&url).call().unwrap().body_mut().read_to_string().unwrap();
    assert!(text.contains("Log Anomaly Detection API"), "{text}");
}

#[test]
fn methods_and_unknown_paths() {
    let server = Setup::default().serve();
    for (method, path, status, allow) in [
        ("GET", ANALYZE, 405, Some("POST, OPTIONS")),
        ("HEAD", ANALYZE, 405, Some("POST, OPTIONS")),
        ("PUT", "/api/v1/analyze/batch", 405, Some("POST, OPTIONS")),
        ("POST", "/api/v1/health", 405, Some("GET, HEAD, OPTIONS")),
        ("DELETE", "/metrics", 405, Some("GET, HEAD, OPTIONS")),
        ("NONSENSE", "/docs", 405, Some("GET, HEAD, OPTIONS")),
        ("OPTIONS", ANALYZE, 204, Some("POST, OPTIONS")),
        ("OPTIONS", "/livez", 204, Some("GET, HEAD, OPTIONS")),
        ("GET", "/", 404, None),
        ("GET", "/api/v2/analyze", 404, None),
        ("POST", "/api/v1/analyze/batch/x", 404, None),
        ("GET", "/docs/nothing.js", 404, None),
    ] {
        let mut connection = server.connect();
        connection.send(method, path, &[], b"");
        let answer = connection.answer_to(method);
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.has("allow").then(|| answer.header("allow")), allow, "{method} {path}");
        let text = match status {
            404 => r#"{"detail":"Not Found"}"#,
            405 if method != "HEAD" => r#"{"detail":"Method Not Allowed"}"#,
            _ => "",
        };
        assert_eq!(answer.text(), text, "{method} {path}");
    }
}

#[test]
fn head_is_get_without_the_body() {
    let server = Setup::default().serve();
    for path in ["/api/v1/health", "/docs", "/openapi.json"] {
        let mut connection = server.connect();
        connection.send("HEAD", path, &[], b"");
        let head = connection.answer_to("HEAD");
        // The connection is still in step: nothing of a body was sent.
        connection.send("GET", path, &[], b"");
        let get = connection.answer();
        assert_eq!((head.status, head.header("content-length")), (200, get.header("content-length")), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"));
    }
}
