//! Who may ask, and which pages may read: bearer keys and CORS.

use std::io::Write;

use oddlog::{
    config::{Cache, Secrets, Server},
    engine::Handle,
    http::App,
    verdicts::Verdicts,
};
use serde_json::json;

use crate::support::{Connection, Running, Setup, eventually};

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
    for path in [
        "/api/v1/health",
        "/api/v1/",
        "/livez",
        "/readyz",
        "/api/v1/devices",
        "/metrics",
        "/docs",
        "/redoc",
        "/openapi.json",
    ] {
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

fn turned_away(server: &Running, reason: &str) -> f64 {
    server.sample("oddlog_requests_turned_away_total", Some(("reason", reason)))
}

#[test]
fn a_key_has_so_many_requests_at_once_and_a_second() {
    let (setup, gate) = Setup::gated();
    let server = setup
        .with(|c| {
            c.server.api_keys = Secrets(vec!["a".into(), "b".into()]);
            c.server.key_max_in_flight = 1;
        })
        .serve();
    let mut first = server.connect();
    first.send("POST", ANALYZE, &[("authorization", "Bearer a")], BODY);
    eventually("the device has it", || server.sample("oddlog_batches_total", None) == 1.0);
    let second = server.call("POST", ANALYZE, &[("authorization", "Bearer a")], BODY);
    assert_eq!((second.status, second.header("retry-after")), (429, "1"));
    assert!(second.json()["detail"].as_str().unwrap().contains("requests open"), "{}", second.text());
    assert_eq!(turned_away(&server, "key_in_flight"), 1.0);
    let mut other = server.connect();
    other.send("POST", ANALYZE, &[("authorization", "Bearer b")], BODY);
    drop(gate);
    assert_eq!((first.answer().status, other.answer().status), (200, 200));
    eventually("its place is free", || {
        server.call("POST", ANALYZE, &[("authorization", "Bearer a")], BODY).status == 200
    });

    let server = Setup::default()
        .with(|c| {
            c.server.api_keys = Secrets(vec!["a".into()]);
            c.server.key_requests_per_s = 1;
            c.server.key_burst = 3;
        })
        .serve();
    let ask = || server.call("POST", ANALYZE, &[("authorization", "Bearer a")], BODY);
    for _ in 0..3 {
        assert_eq!(ask().status, 200);
    }
    let mut refused = None;
    eventually("it is too fast", || {
        refused = Some(ask()).filter(|answer| answer.status == 429);
        refused.is_some()
    });
    assert_eq!(refused.unwrap().header("retry-after"), "1");
    assert_eq!(turned_away(&server, "key_rate"), 1.0);
    // What needs no key has no limit.
    assert_eq!(server.get("/livez").status, 200);
    server.post(ANALYZE, BODY);
    server.call("POST", ANALYZE, &[("authorization", "Bearer c")], BODY);
    assert_eq!((turned_away(&server, "no_key"), turned_away(&server, "unknown_key")), (1.0, 1.0));
}

#[test]
fn keys_are_read_again_while_serving() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let write = |text: &str| std::fs::write(file.path(), text).unwrap();
    write("one\n");
    let path = file.path().to_str().unwrap().to_owned();
    let server = Setup::default().with(|c| c.server.api_keys_file = path).serve();
    let status = |key: &str| server.call("POST", ANALYZE, &[("authorization", &format!("Bearer {key}"))], BODY).status;
    assert_eq!((status("one"), status("two")), (200, 401));
    write("two\n");
    assert_eq!((status("one"), status("two")), (200, 401));
    server.app.reload();
    assert_eq!((status("one"), status("two")), (401, 200));
    for bad in ["", "# none\n"] {
        write(bad);
        server.app.reload();
        assert_eq!((status("one"), status("two")), (401, 200));
    }
    let reloads = |result| server.sample("oddlog_reloads_total", Some(("result", result)));
    assert_eq!((reloads("ok"), reloads("error")), (1.0, 2.0));
}

#[test]
fn with_a_private_listener_operations_are_only_there() {
    let server = Setup::default().with(|c| c.server.private_listen = "127.0.0.1:0".into()).serve();
    let private = |path: &str| {
        let mut connection = Connection::open(server.private_address.unwrap());
        connection.send("GET", path, &[], b"");
        connection.answer().status
    };
    for path in ["/api/v1/devices", "/metrics", "/docs", "/redoc", "/openapi.json", "/docs/swagger-ui.css"] {
        let public = server.get(path);
        assert_eq!((public.status, public.json()), (404, json!({ "detail": "Not Found" })), "{path}");
        assert_eq!(private(path), 200, "{path}");
    }
    assert_eq!(server.get("/docs/").status, 404);
    for path in ["/livez", "/readyz", "/api/v1/health", "/api/v1/"] {
        assert_eq!((server.get(path).status, private(path)), (200, 200), "{path}");
    }
    assert_eq!(server.post(ANALYZE, BODY).status, 200);
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
