//! Who may ask, and which pages may read: bearer keys and CORS.

use std::io::Write;

use oddlog::{
    config::{Cache, Server},
    engine::Handle,
    http::App,
    verdicts::Verdicts,
};
use serde_json::json;

use crate::support::{Running, Setup};

const ANALYZE: &str = "/api/v1/analyze";
const BODY: &[u8] = br#"{"log_message": "x"}"#;

fn keyed() -> Running {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "# the readers\nfirst-key\n\n  second-key  ").unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    // The file is read at the start, and may be gone after it.
    Setup::default().with(|c| c.server.api_keys_file = path).serve()
}

#[test]
fn analysis_asks_for_a_key_and_the_rest_is_open() {
    let server = keyed();
    let analyze = |headers: &[(&str, &str)]| server.call("POST", ANALYZE, headers, BODY);
    for key in ["Bearer first-key", "bearer second-key"] {
        assert_eq!(analyze(&[("authorization", key)]).status, 200, "{key}");
    }
    let none = analyze(&[]);
    assert_eq!((none.status, none.header("www-authenticate")), (401, "Bearer"));
    assert!(none.json()["detail"].as_str().unwrap().contains("Authorization: Bearer"), "{}", none.text());
    for key in ["Bearer first-ke", "Bearer first-keys", "Bearer", "Basic first-key", "Bearer # the readers"] {
        assert_eq!(analyze(&[("authorization", key)]).status, 401, "{key}");
    }
    let wrong = analyze(&[("authorization", "Bearer nope"), ("origin", "https://a.org")]);
    assert_eq!(wrong.header("www-authenticate"), "Bearer error=\"invalid_token\"");
    assert_eq!(wrong.header("access-control-allow-origin"), "*");
    assert_eq!(server.post("/api/v1/analyze/batch", r#"{"logs": []}"#).status, 401);
    for path in ["/api/v1/health", "/api/v1/", "/livez", "/readyz", "/metrics", "/docs", "/redoc", "/openapi.json"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    let preflight = [("origin", "https://a.org"), ("access-control-request-method", "POST")];
    assert_eq!(server.call("OPTIONS", ANALYZE, &preflight, b"").status, 204);
}

#[test]
fn keys_and_origins_that_cannot_be_used_stop_the_start() {
    let engine = Setup::default().engine();
    let start = |server: Server, handle: Handle| {
        let verdicts = Verdicts::new(handle, &Cache::default());
        App::new(verdicts, server, "tiny".into()).err().map(|e| e.to_string())
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    let empty = file.path().to_str().unwrap().to_owned();
    for (server, part) in [
        (Server { api_keys_file: "/no/such/file".into(), ..Server::default() }, "/no/such/file"),
        (Server { api_keys_file: empty, ..Server::default() }, "holds no key"),
        (Server { cors_allow_origins: vec!["a.org".into()], ..Server::default() }, "scheme://host"),
    ] {
        let error = start(server, engine.handle()).unwrap();
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(start(Server::default(), engine.handle()), None);
}

#[test]
fn any_origin_may_read_by_default() {
    let server = Setup::default().serve();
    let with = server.call("POST", ANALYZE, &[("origin", "https://a.org")], BODY);
    assert_eq!(with.header("access-control-allow-origin"), "*");
    assert!(with.header("access-control-expose-headers").contains("x-request-id"));
    assert!(!with.has("access-control-allow-credentials") && !with.has("vary"));
    let without = server.post(ANALYZE, BODY);
    assert!(!without.has("access-control-allow-origin"));
    // Errors can be read too.
    let error = server.call("GET", "/nowhere", &[("origin", "https://a.org")], b"");
    assert_eq!(error.header("access-control-allow-origin"), "*");

    let asked = [
        ("origin", "https://a.org"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    let preflight = server.call("OPTIONS", ANALYZE, &asked, b"");
    assert_eq!((preflight.status, preflight.text()), (204, ""));
    for (header, value) in [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "POST, OPTIONS"),
        ("access-control-allow-headers", "authorization,content-type"),
        ("access-control-max-age", "600"),
    ] {
        assert_eq!(preflight.header(header), value);
    }
}

#[test]
fn only_listed_origins_may_read() {
    let origins = vec!["https://a.org".to_owned(), "http://localhost:3000".to_owned()];
    let server = Setup::default().with(|c| c.server.cors_allow_origins = origins).serve();
    let from = |origin| server.call("POST", ANALYZE, &[("origin", origin)], BODY);
    for origin in ["https://a.org", "http://localhost:3000"] {
        let answer = from(origin);
        assert_eq!((answer.header("access-control-allow-origin"), answer.header("vary")), (origin, "Origin"));
    }
    for origin in ["https://b.org", "http://a.org", "https://a.org.evil.example", "null"] {
        let answer = from(origin);
        // The answer is given, but a browser will not show it to the page.
        assert_eq!((answer.status, answer.header("vary")), (200, "Origin"));
        assert!(!answer.has("access-control-allow-origin"), "{origin}");
    }
    let asked = [("origin", "https://b.org"), ("access-control-request-method", "POST")];
    let preflight = server.call("OPTIONS", ANALYZE, &asked, b"");
    assert_eq!((preflight.status, preflight.json()), (400, json!({ "detail": "Disallowed CORS origin" })));
    assert!(!preflight.has("access-control-allow-origin"));
}

#[test]
fn no_origins_turn_cors_off() {
    let server = Setup::default().with(|c| c.server.cors_allow_origins.clear()).serve();
    let answer = server.call("POST", ANALYZE, &[("origin", "https://a.org")], BODY);
    assert!(!answer.has("access-control-allow-origin") && !answer.has("vary"));
    let asked = [("origin", "https://a.org"), ("access-control-request-method", "POST")];
    let preflight = server.call("OPTIONS", ANALYZE, &asked, b"");
    assert!(preflight.has("allow") && !preflight.has("access-control-allow-methods"));
}
