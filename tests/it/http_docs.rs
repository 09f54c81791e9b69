//! The OpenAPI document and the pages that show it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::Setup;

/// Every `$ref` in a document.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get("$ref") {
                found.insert(target.clone());
            }
            map.values().for_each(|v| references(v, found));
        }
        Value::Array(list) => list.iter().for_each(|v| references(v, found)),
        _ => {}
    }
}

#[test]
fn the_document_is_openapi_31_whole_and_of_every_route() {
    let server = Setup::default().with(|config| config.templates.enabled = true).serve();
    let answer = server.get("/openapi.json");
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    let document = answer.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{}", document["openapi"]);
    assert_eq!(document["info"]["title"], "oddlog");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(document["info"]["license"]["name"], "MIT");

    let mut targets = BTreeSet::new();
    references(&document, &mut targets);
    assert!(targets.len() > 5, "{targets:?}");
    for target in targets {
        let pointer = target.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{target} points nowhere");
    }

    let operations: BTreeSet<String> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |method| format!("{method} {path}")))
        .collect();
    let expected = [
        "get /api/v1/",
        "get /api/v1/devices",
        "get /api/v1/health",
        "get /api/v1/templates",
        "get /docs",
        "get /livez",
        "get /metrics",
        "get /openapi.json",
        "get /readyz",
        "get /redoc",
        "post /api/v1/analyze",
        "post /api/v1/analyze/batch",
        "post /api/v1/analyze/stream",
    ];
    assert_eq!(operations, expected.map(str::to_owned).into());
    for operation in &operations {
        let (method, path) = operation.split_once(' ').unwrap();
        let item = &document["paths"][path][method];
        assert!(!item["summary"].as_str().unwrap().is_empty(), "{operation}");
        if method == "get" {
            assert_eq!(server.get(path).status, 200, "{operation}");
        }
        for (status, response) in item["responses"].as_object().unwrap() {
            assert!(!response["description"].as_str().unwrap().is_empty(), "{operation} {status}");
        }
    }
}

#[test]
fn every_documented_status_has_an_example_and_examples_of_requests_are_answered() {
    let server = Setup::default().serve();
    let document = server.get("/openapi.json").json();
    let schema = |reference: &Value| {
        let pointer = reference["$ref"].as_str().unwrap().strip_prefix('#').unwrap();
        document.pointer(pointer).unwrap().clone()
    };
    for path in ["/api/v1/analyze", "/api/v1/analyze/batch"] {
        let operation = &document["paths"][path]["post"];
        let statuses: Vec<&str> = operation["responses"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            statuses,
            ["200", "400", "401", "405", "408", "413", "415", "422", "429", "500", "503", "504"],
            "{path}"
        );
        for (status, response) in operation["responses"].as_object().unwrap() {
            let content = &response["content"]["application/json"];
            let example =
                content.get("example").cloned().unwrap_or_else(|| schema(&content["schema"])["example"].clone());
            assert!(example.is_object(), "{path} {status} has no example");
            if status != "200" {
                assert!(example["detail"].is_string() || example["detail"].is_array(), "{path} {status}: {example}");
            }
        }
        let request = schema(&operation["requestBody"]["content"]["application/json"]["schema"]);
        let answer = server.post(path, request["example"].to_string());
        assert_eq!(answer.status, 200, "{}", answer.text());
        let response = schema(&operation["responses"]["200"]["content"]["application/json"]["schema"]);
        let documented: BTreeSet<_> = response["properties"].as_object().unwrap().keys().cloned().collect();
        let given: BTreeSet<_> = answer.json().as_object().unwrap().keys().cloned().collect();
        assert_eq!(documented, given, "{path}");
    }
    let request = &document["components"]["schemas"]["AnalyzeRequest"];
    assert_eq!(request["required"], json!(["log_message"]));
    assert_eq!(request["properties"]["threshold"]["maximum"], 1);
}

#[test]
fn the_pages_load_nothing_from_elsewhere() {
    let server = Setup::default().serve();
    for (page, folder) in [("/docs", "docs/"), ("/redoc", "redoc/")] {
        let answer = server.get(page);
        assert_eq!((answer.status, answer.header("content-type")), (200, "text/html; charset=utf-8"));
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("http"), "{policy}");
        let files: Vec<_> = answer.text().split('"').filter(|part| part.starts_with(folder)).collect();
        assert!(files.len() >= 2, "{files:?}");
        for file in files {
            let path = format!("/{file}");
            let plain = server.get(&path);
            assert_eq!((plain.status, plain.has("content-encoding")), (200, false), "{path}");
            let packed = server.call("GET", &path, &[("accept-encoding", "br, gzip")], b"");
            assert_eq!(packed.header("content-type"), plain.header("content-type"));
            let text = String::from_utf8_lossy(&plain.body);
            assert!(!text.contains("cdn.") && !text.contains("fonts.googleapis"), "{path} names a foreign host");
            if packed.has("content-encoding") {
                assert_eq!((packed.header("content-encoding"), packed.header("vary")), ("gzip", "Accept-Encoding"));
                assert!(packed.body.len() < plain.body.len() / 2 || file.ends_with("png"), "{path}");
                let mut inflated = Vec::new();
                let mut decoder = flate2::read::GzDecoder::new(&packed.body[..]);
                std::io::Read::read_to_end(&mut decoder, &mut inflated).unwrap();
                assert!(inflated == plain.body, "{path}");
            } else {
                assert!(packed.body == plain.body, "{path}");
            }
        }
    }
}
