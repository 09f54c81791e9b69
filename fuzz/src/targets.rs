//! One function for each fuzz target: any bytes in, a panic if what must hold does not. The integration tests run them
//! over the seeds and over mutations of these; `cargo fuzz` runs them for as long as one likes (see `fuzz/README.md`).

use std::{cell::RefCell, fs, sync::LazyLock};

use oddlog::{
    config::Config,
    model::PairTokenizer,
    records::recognise,
    templates::{Miner, Settings, mask},
};
use serde_json::value::RawValue;

use crate::support::{Answer, Connection, Running, Setup, server::tiny_model};

/// Most bytes of a body here; more is refused, which is an answer like any other.
const MAX_BODY_BYTES: usize = 4096;

/// A server with a device that answers at once and small limits, one for the whole process.
static SERVER: LazyLock<Running> = LazyLock::new(|| {
    let small = |config: &mut Config| {
        config.server.max_body_bytes = MAX_BODY_BYTES;
        config.server.header_timeout_ms = 200;
        config.log.level = "off".into();
    };
    Setup::default().with(small).serve()
});

thread_local! {
    static CONNECTION: RefCell<Option<Connection>> = const { RefCell::new(None) };
}

/// Where a body goes, and how it says what it is. The first byte of an input chooses.
const ROUTES: [(&str, &[(&str, &str)]); 6] = [
    ("/api/v1/analyze", &[("content-type", "application/json")]),
    ("/api/v1/analyze/batch", &[("content-type", "application/json")]),
    ("/api/v1/analyze", &[]),
    ("/api/v1/analyze", &[("content-type", "text/plain; charset=utf-8")]),
    ("/api/v1/analyze/batch", &[("content-type", "text/plain")]),
    ("/api/v1/analyze", &[("content-type", "application/x-www-form-urlencoded")]),
];

/// What tells a verdict from an error. Their values are not read: an echoed 1e400 is JSON, but no number of Rust's.
#[derive(serde::Deserialize)]
struct Parts<'a> {
    #[serde(borrow)]
    threshold: Option<&'a RawValue>,
    #[serde(borrow)]
    detail: Option<&'a RawValue>,
}

/// Bodies of the JSON routes. Each gets one answer: a verdict, or an error that says what is wrong; never a 5xx.
pub fn body(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else { return };
    let (path, headers) = ROUTES[usize::from(*choice) % ROUTES.len()];
    let answer = ask(path, headers, body);
    let allowed: &[u16] = if body.len() > MAX_BODY_BYTES { &[413] } else { &[200, 400, 422] };
    assert!(allowed.contains(&answer.status), "{path}: {answer:?}");
    let parts: Parts = serde_json::from_slice(&answer.body).unwrap_or_else(|e| panic!("{e}: {answer:?}"));
    assert!(if answer.status == 200 { parts.threshold.is_some() } else { parts.detail.is_some() }, "{answer:?}");
}

/// Bodies of the stream route, as lines of JSON or text, coded or not. The first byte chooses.
const STREAMS: [&[(&str, &str)]; 5] = [
    &[("content-type", "application/x-ndjson")],
    &[("content-type", "text/plain")],
    &[("content-type", "application/x-ndjson"), ("content-encoding", "gzip")],
    &[("content-type", "application/x-ndjson"), ("content-encoding", "zstd")],
    &[("content-type", "application/json"), ("content-encoding", "identity")],
];

/// Lines of a stream. Each body gets one summary: of all its lines, or one that says why they could not be read.
pub fn lines(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else { return };
    let headers = STREAMS[usize::from(*choice) % STREAMS.len()];
    let answer = ask("/api/v1/analyze/stream?respond=summary", headers, body);
    assert!(matches!(answer.status, 200 | 400), "{headers:?}: {answer:?}");
    let parts: serde_json::Value = answer.json();
    assert!(parts["lines"].is_u64() || parts["detail"].is_string(), "{answer:?}");
}

/// Sends a request on a connection that is kept while the server keeps it.
fn ask(path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    CONNECTION.with_borrow_mut(|kept| {
        let connection = kept.get_or_insert_with(|| SERVER.connect());
        connection.send("POST", path, headers, body);
        let answer = connection.answer();
        if answer.headers.iter().any(|(name, value)| name == "connection" && value == "close") {
            *kept = None;
        }
        answer
    })
}

/// Request heads, as bytes on a connection of their own: the server answers or closes, and serves the next one.
pub fn head(data: &[u8]) {
    let mut connection = SERVER.connect();
    // The end that follows stands for a client that has said all it will say. A server that has heard enough may have
    // closed before all is written.
    if connection.try_write(data) && connection.try_write(b"\r\n\r\n") {
        connection.end();
    }
    let rest = connection.rest();
    let http1 = rest.is_empty() || rest.starts_with(b"HTTP/1.") || data.starts_with(b"PRI * HTTP/2.0");
    assert!(http1, "{:?}", String::from_utf8_lossy(&rest));
    assert!(!rest.starts_with(b"HTTP/1.1 5"), "{:?}", String::from_utf8_lossy(&rest));
    let answer = ask("/api/v1/analyze", &[], br#"{"log_message":"disk failure"}"#);
    assert_eq!(answer.status, 200, "after that head: {answer:?}");
}

/// Text of a log: its ids are words of the vocabulary, never special tokens, and within the model's length.
pub fn text(data: &[u8]) {
    static TOKENIZER: LazyLock<PairTokenizer> = LazyLock::new(|| {
        let files = tiny_model(64).files;
        PairTokenizer::read(&files.tokenizer, 64).unwrap()
    });
    static SPECIAL: LazyLock<Vec<u32>> = LazyLock::new(|| {
        let file = fs::read(tiny_model(64).files.tokenizer).unwrap();
        let tokenizer: serde_json::Value = serde_json::from_slice(&file).unwrap();
        let added = tokenizer["added_tokens"].as_array().cloned().unwrap_or_default();
        let special = added.iter().filter(|token| token["special"] == true && token["content"] != "[UNK]");
        special.map(|token| token["id"].as_u64().unwrap() as u32).collect()
    });
    let text = String::from_utf8_lossy(data);
    let encoded = TOKENIZER.encode_log(&text, 4..=6);
    assert!(TOKENIZER.pair_len(encoded.ids.len(), 6) <= 64 || encoded.ids.is_empty(), "{encoded:?}");
    assert!(encoded.ids.iter().all(|id| !SPECIAL.contains(id)), "{text:?}: {encoded:?}");
    let again = TOKENIZER.encode_log(&text, 4..=6);
    assert_eq!(encoded, again);
}

/// Lines of a log, one miner for all of them: masks leave no digit, bounds hold, and what was learned can be kept.
pub fn templates(data: &[u8]) {
    let settings = Settings { max_templates: 12, max_bytes: 8 << 10, max_on_leaf: 4, ..Settings::default() };
    let (text, mut miner, mut masked) = (String::from_utf8_lossy(data), Miner::new(settings), String::new());
    for line in text.split('\n') {
        let message = &line[recognise(line).len..];
        mask(message, &mut masked);
        let whole =
            !masked.bytes().any(|b| b.is_ascii_digit()) && !masked.contains("  ") && masked.trim_matches(' ') == masked;
        assert!(whole, "{message:?}: {masked:?}");
        let matched = miner.add(message);
        assert!(miner.get(matched.id).is_some_and(|template| template.count == matched.count), "{message:?}");
        assert!(miner.find(message).is_some(), "{message:?}");
        assert!(miner.templates().len() <= 12, "{message:?}");
    }
    let kept = serde_json::to_vec(&miner.snapshot()).unwrap();
    let again = Miner::restore(settings, serde_json::from_slice(&kept).unwrap()).unwrap();
    assert_eq!((again.seen(), again.templates().len()), (miner.seen(), miner.templates().len()));
}

/// Configuration files: read, or refused with a text of one line.
pub fn config(data: &[u8]) {
    thread_local! {
        static FILE: tempfile::NamedTempFile = tempfile::NamedTempFile::new().unwrap();
    }
    FILE.with(|file| {
        fs::write(file.path(), data).unwrap();
        match Config::load(Some(file.path()), serde_json::json!({})) {
            Ok(config) => config.check().unwrap(),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    });
}
