//! Streams of lines.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    process::{Child, ChildStderr, Command, Stdio},
    thread,
};

use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use oddlog::device::FakeDevice;
use serde_json::{Value, json};

use crate::support::{PATIENCE, POISON, Running, Setup, eventually};

const STREAM: &str = "/api/v1/analyze/stream";
const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");
const PLAIN: (&str, &str) = ("content-type", "text/plain");

/// A client that reads while it writes.
struct Client {
    socket: TcpStream,
    reader: BufReader<TcpStream>,
    head: Vec<String>,
    /// Bytes of the answer's body that are not read yet, and whether its end was seen.
    body: Vec<u8>,
    ended: bool,
}

impl Client {
    fn open(server: &Running, query: &str, headers: &[(&str, &str)]) -> Self {
        let mut socket = TcpStream::connect(server.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        let mut head = format!("POST {STREAM}{query} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        socket.write_all((head + "\r\n").as_bytes()).unwrap();
        let reader = BufReader::new(socket.try_clone().unwrap());
        Self { socket, reader, head: Vec::new(), body: Vec::new(), ended: false }
    }

    /// Sends a part of the body.
    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.socket.write_all(format!("{:x}\r\n", bytes.len()).as_bytes()).unwrap();
        self.socket.write_all(bytes).unwrap();
        self.socket.write_all(b"\r\n").unwrap();
    }

    fn end(&mut self) {
        self.socket.write_all(b"0\r\n\r\n").unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        assert!(line.ends_with("\r\n"), "the answer broke off: {line:?}");
        line.truncate(line.len() - 2);
        line
    }

    /// Reads the head; whether it was 200.
    fn is_ok(&mut self) -> bool {
        while self.head.last().is_none_or(|line| !line.is_empty()) {
            let line = self.line().to_lowercase();
            self.head.push(line);
        }
        self.head[0] == "http/1.1 200 ok"
    }

    /// Reads one more chunk.
    fn chunk(&mut self) {
        if self.head.is_empty() {
            assert!(self.is_ok(), "{:?}", self.head);
        }
        let size = usize::from_str_radix(&self.line(), 16).unwrap();
        let mut bytes = vec![0; size + 2];
        self.reader.read_exact(&mut bytes).unwrap();
        self.body.extend(&bytes[..size]);
        self.ended = size == 0;
    }

    /// The next entry; `None` at the end.
    fn entry(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.body.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.body.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            if self.ended {
                assert!(self.body.is_empty(), "{:?}", self.body);
                return None;
            }
            self.chunk();
        }
    }

    fn entries(mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.entry()).collect()
    }

    /// The whole body as it came.
    fn bytes(mut self) -> Vec<u8> {
        while !self.ended {
            self.chunk();
        }
        self.body
    }
}

/// Sends a whole body and reads all entries.
fn stream(server: &Running, query: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<Value> {
    let mut client = Client::open(server, query, headers);
    client.send(body);
    client.end();
    client.entries()
}

fn kinds(entries: &[Value]) -> Vec<(u64, &str)> {
    let kind = |entry: &'_ Value| entry["error"]["type"].as_str().map(str::to_owned);
    entries
        .iter()
        .map(|entry| (entry["line"].as_u64().unwrap(), kind(entry).map_or("scored", |kind| kind.leak())))
        .collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn some_lines(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("request {i} took {} ms{}", i * 7, " x".repeat(i % 40))).collect()
}

#[test]
fn every_line_has_its_entry_in_order_as_in_a_batch() {
    let server = Setup::default().with(|c| c.server.max_stream_lines = 50).serve();
    let logs = some_lines(700);
    let batch = server.post("/api/v1/analyze/batch", json!({ "logs": logs, "threshold": 0.6 }).to_string()).json();
    let body: String = logs.iter().map(|log| json!({ "log_message": log }).to_string() + "\n").collect();
    let expected: Vec<Value> = batch["results"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .map(|(at, result)| {
            let mut entry = result.clone();
            entry["line"] = json!(at + 1);
            entry
        })
        .collect();
    assert_eq!(stream(&server, "?threshold=0.6", &[NDJSON], &body), expected);
    let plain = stream(&server, "?threshold=0.6", &[PLAIN], logs.join("\r\n"));
    assert_eq!(plain, expected);
    // Only the anomalies, and what they are among.
    let mut anomalies = stream(&server, "?threshold=0.6&respond=anomalies", &[NDJSON], &body);
    let summary = anomalies.pop().unwrap()["summary"].clone();
    let odd: Vec<Value> = expected.into_iter().filter(|entry| entry["is_anomaly"] == true).collect();
    assert_eq!(anomalies, odd);
    assert_eq!((&summary["lines"], &summary["anomalies"]), (&json!(700), &json!(odd.len())));
    assert_eq!(server.sample("oddlog_stream_lines_total", Some(("outcome", "scored"))), 2100.0);
    let read = 2 * body.len() + logs.join("\r\n").len();
    assert_eq!(server.sample("oddlog_stream_bytes_total", None), read as f64);
    eventually("no stream is open", || server.sample("oddlog_streams_open", None) == 0.0);
}

#[test]
fn a_bad_line_has_an_error_of_its_own() {
    let server = Setup::device(FakeDevice::new("fake:0", 2).failing_on(POISON))
        .with(|c| c.server.max_stream_line_bytes = 2000)
        .serve();
    let long = "x".repeat(2001);
    let lines: [&[u8]; 17] = [
        b"{\"log_message\": \"fine\"}",
        b"",
        b"{\"log_message\": ",
        b"{\"message\": \"fine\"}\r",
        b"{\"text\": \"x\"}",
        b"  \t",
        b"\"fine\"",
        b"{\"log\": \"\xff\"}",
        b"{\"log\": \"a\0b\"}",
        long.as_bytes(),
        b"{\"log\": 7}",
        b"\0",
        b"{\"log\": \" \"}",
        b"{\"log\": \"poison\"}",
        b"[\"fine\"]",
        b"{\"log\": \"\\u0000\"}",
        b"{\"log_message\": \"fine\"}",
    ];
    let entries = stream(&server, "", &[NDJSON], lines.join(&b'\n'));
    let expected = [
        (1, "scored"),
        (3, "json_invalid"),
        (4, "scored"),
        (5, "missing"),
        (7, "scored"),
        (8, "string_unicode"),
        (9, "json_invalid"),
        (10, "line_too_long"),
        (11, "string_type"),
        (12, "json_invalid"),
        (13, "string_too_short"),
        (14, "inference_failed"),
        (15, "model_attributes_type"),
        (16, "scored"),
        (17, "scored"),
    ];
    assert_eq!(kinds(&entries), expected);
    let fine: Vec<&Value> = [0, 2, 4, 14].iter().map(|at| &entries[*at]["scores"]).collect();
    assert!(fine.iter().all(|scores| *scores == fine[0]), "{fine:?}");
    assert_eq!(entries[7]["error"]["msg"], "The line is too long. At most 2000 bytes are allowed.");
    let counts = ["scored", "error", "blank"].map(|o| server.sample("oddlog_stream_lines_total", Some(("outcome", o))));
    assert_eq!(counts, [5.0, 10.0, 2.0]);
}

#[test]
fn a_line_of_a_megabyte_and_nothing_at_all() {
    let server = Setup::default().serve();
    let entries = stream(&server, "", &[PLAIN], format!("a\n{}\n{}\n", "disk ".repeat(209_715), "b".repeat(2 << 20)));
    assert_eq!(kinds(&entries), [(1, "scored"), (2, "scored"), (3, "line_too_long")]);
    assert_eq!(entries[1]["truncated"], true);
    for body in ["", "\n\n \n"] {
        let mut client = Client::open(&server, "", &[PLAIN]);
        if !body.is_empty() {
            client.send(body);
        }
        client.end();
        assert_eq!(client.entries(), Vec::<Value>::new());
    }
}

#[test]
fn answers_come_while_the_body_is_sent_in_every_coding() {
    let server = Setup::default().serve();
    for coding in ["identity", "gzip", "zstd"] {
        let mut client = Client::open(&server, "", &[PLAIN, ("accept-encoding", coding)]);
        let mut seen = String::new();
        for line in 1..=3 {
            client.send("disk");
            client.send(" full\n");
            // What came so far can be decoded, though the stream is not at its end.
            let wanted = format!("{{\"line\":{line},");
            while !seen.contains(&wanted) {
                client.chunk();
                seen.clear();
                let mut decoder: Box<dyn Read + '_> = match coding {
                    "gzip" => Box::new(MultiGzDecoder::new(&client.body[..])),
                    "zstd" => Box::new(zstd::Decoder::new(&client.body[..]).unwrap()),
                    _ => Box::new(&client.body[..]),
                };
                let mut byte = [0];
                while decoder.read(&mut byte).is_ok_and(|read| read == 1) {
                    seen.push(char::from(byte[0]));
                }
            }
            assert!(seen.ends_with("}\n"), "{seen}");
        }
        let named = client.head.contains(&format!("content-encoding: {coding}"));
        assert!(client.head.contains(&"vary: accept-encoding".into()) && named == (coding != "identity"));
        client.end();
        let bytes = client.bytes();
        let text = match coding {
            "gzip" => std::io::read_to_string(MultiGzDecoder::new(&bytes[..])).unwrap(),
            "zstd" => String::from_utf8(zstd::decode_all(&bytes[..]).unwrap()).unwrap(),
            _ => String::from_utf8(bytes).unwrap(),
        };
        assert_eq!(text, seen, "{coding}");
    }
}

#[test]
fn coded_bodies_are_read_and_broken_ones_end_with_an_error() {
    let server = Setup::default().serve();
    let text = some_lines(300).join("\n");
    let expected = stream(&server, "", &[PLAIN], &text);
    for (coding, coded) in [("gzip", gzip(text.as_bytes())), ("zstd", zstd(text.as_bytes()))] {
        let headers = [PLAIN, ("content-encoding", coding)];
        assert_eq!(stream(&server, "", &headers, &coded), expected, "{coding}");
        // In small pieces, and with a second member.
        let mut client = Client::open(&server, "", &headers);
        coded.chunks(7).for_each(|piece| client.send(piece));
        client.send(if coding == "gzip" { gzip(b"\nmore") } else { zstd(b"\nmore") });
        client.end();
        assert_eq!(client.entries().len(), 301);
        let mut corrupt = coded.clone();
        let middle = coded.len() / 2;
        corrupt[middle..middle + 40].iter_mut().for_each(|byte| *byte ^= 0x55);
        for broken in [&coded[..coded.len() - 5], &corrupt, b"no such thing" as &[u8]] {
            let entries = stream(&server, "", &headers, broken);
            let (last, before) = entries.split_last().unwrap();
            assert_eq!(last["error"]["type"], "body_undecodable", "{coding}: {last}");
            assert!(last["error"]["msg"].as_str().unwrap().contains(coding), "{last}");
            // What was read before it is answered; a corrupt part may have said anything.
            let numbers: Vec<u64> = before.iter().map(|entry| entry["line"].as_u64().unwrap()).collect();
            assert!(numbers.is_sorted() && numbers.iter().all(|number| *number < last["line"].as_u64().unwrap()));
            let whole = server.call("POST", &format!("{STREAM}?respond=summary"), &headers, broken);
            assert_eq!(whole.status, 400, "{}", whole.text());
            assert!(whole.json()["detail"].as_str().unwrap().contains(coding));
        }
    }
    // More than the window that HTTP allows.
    let mut wide = zstd::Encoder::new(Vec::new(), 1).unwrap();
    wide.window_log(27).unwrap();
    wide.write_all(text.as_bytes()).unwrap();
    let entries = stream(&server, "", &[PLAIN, ("content-encoding", "zstd")], wide.finish().unwrap());
    assert_eq!(kinds(&entries), [(1, "body_undecodable")]);
}

#[test]
fn single_and_batch_calls_take_coded_bodies_too() {
    let server = Setup::default().with(|c| c.server.max_body_bytes = 100_000).serve();
    let (one, many) = (br#"{"log_message": "x"}"#, br#"{"logs": ["x", "y"]}"#);
    for (path, body) in [("/api/v1/analyze", &one[..]), ("/api/v1/analyze/batch", many)] {
        let plain = server.post(path, body);
        let text = plain.text();
        for (coding, coded) in [("gzip", gzip(body)), ("zstd", zstd(body)), ("identity", body.to_vec())] {
            let answer = server.call("POST", path, &[("content-encoding", coding)], &coded);
            assert_eq!((answer.status, answer.text()), (200, text), "{coding}");
            if coding != "identity" {
                let answer = server.call("POST", path, &[("content-encoding", coding)], &coded[..coded.len() - 2]);
                assert_eq!(answer.status, 400, "{coding} truncated");
                assert!(answer.text().contains(coding));
            }
        }
        // A bomb is as large as what it says.
        let bomb = [body, &vec![b' '; 20 << 20]].concat();
        for (coding, coded) in [("gzip", gzip(&bomb)), ("zstd", zstd(&bomb))] {
            let small = coded.len() < 100_000;
            let answer = server.call("POST", path, &[("content-encoding", coding)], &coded);
            assert_eq!(answer.status, 413, "{coding}: {}, {small}", answer.text());
        }
    }
    for path in ["/api/v1/analyze", "/api/v1/analyze/batch", STREAM] {
        for coding in ["br", "gzip, zstd"] {
            let answer = server.call("POST", path, &[("content-encoding", coding)], one);
            assert_eq!((answer.status, answer.header("accept-encoding")), (415, "gzip, zstd"), "{path}");
        }
    }
    let answer = server.call("POST", STREAM, &[("content-type", "application/msgpack")], one);
    assert_eq!(answer.status, 415);
    assert!(answer.text().contains("application/x-ndjson"));
}

#[test]
fn a_bomb_is_one_long_line() {
    let server = Setup::default().serve();
    let bomb = [&vec![b'x'; 100 << 20], &b"\nafter\n"[..]].concat();
    for (coding, coded) in [("gzip", gzip(&bomb)), ("zstd", zstd(&bomb))] {
        assert!(coded.len() < 1 << 20);
        let entries = stream(&server, "", &[PLAIN, ("content-encoding", coding)], coded);
        assert_eq!(kinds(&entries), [(1, "line_too_long"), (2, "scored")], "{coding}");
    }
}

#[test]
fn a_full_window_stops_the_reading_and_so_the_client() {
    let (setup, gate) = Setup::gated();
    let server = setup.with(|c| c.server.max_stream_lines = 8).serve();
    let lines = some_lines(20_000);
    let body = lines.join("\n");
    let length = body.len();
    let mut client = Client::open(&server, "", &[PLAIN]);
    let mut writer = client.socket.try_clone().unwrap();
    let sending = thread::spawn(move || {
        for piece in body.as_bytes().chunks(1 << 16) {
            writer.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).unwrap();
            writer.write_all(piece).unwrap();
            writer.write_all(b"\r\n").unwrap();
        }
        writer.write_all(b"0\r\n\r\n").unwrap();
    });
    // A batch of them is on the device, which waits; the rest of the window is in the queue.
    eventually("the device has the first", || server.sample("oddlog_batches_total", None) == 1.0);
    assert!(client.is_ok());
    for _ in 0..1000 {
        assert!(server.sample("oddlog_queue_jobs", None) <= 8.0);
        assert!(server.sample("oddlog_stream_bytes_total", None) <= (32 << 10) as f64);
    }
    drop(gate);
    assert_eq!(client.entries().len(), 20_000);
    sending.join().unwrap();
    assert_eq!(server.sample("oddlog_stream_bytes_total", None), length as f64);
}

#[test]
fn a_client_that_does_not_read_is_not_read_from_and_then_dropped() {
    let server = Setup::default()
        .with(|c| {
            c.server.stream_idle_timeout_ms = 300;
            c.server.header_timeout_ms = 100;
        })
        .serve();
    let client = Client::open(&server, "", &[PLAIN]);
    let mut writer = client.socket.try_clone().unwrap();
    // 20 MB of lines have 300 MB of answers: more than any buffer between here and there.
    let chunk = "x\n".repeat(10_000);
    let piece = format!("{:x}\r\n{chunk}\r\n", chunk.len());
    let mut sent = 0;
    while sent < 10_000 && writer.write_all(piece.as_bytes()).is_ok() {
        sent += 1;
    }
    assert!(sent < 1000, "the server read on while its answers were not taken");
    eventually("its stream is over", || server.sample("oddlog_streams_open", None) == 0.0);
    assert_eq!(server.sample("oddlog_queue_jobs", None), 0.0);
    drop(client);
    assert_eq!(stream(&server, "", &[PLAIN], "x").len(), 1);
}

#[test]
fn a_client_that_leaves_takes_its_lines_with_it() {
    let (setup, gate) = Setup::gated();
    let server = setup.serve();
    for query in ["", "?respond=summary"] {
        let mut client = Client::open(&server, query, &[PLAIN]);
        client.send("line\n".repeat(300));
        eventually("the lines are queued", || server.sample("oddlog_queue_jobs", None) > 200.0);
        assert_eq!(server.sample("oddlog_streams_open", None), 1.0);
        client.socket.shutdown(Shutdown::Both).unwrap();
        eventually("the stream is given up", || server.sample("oddlog_streams_open", None) == 0.0);
        gate.send(()).unwrap();
        eventually("nothing is queued", || server.sample("oddlog_queue_jobs", None) == 0.0);
    }
    drop(gate);
    assert!(server.sample("oddlog_dropped_by_client_total", None) > 400.0);
    assert_eq!(stream(&server, "", &[PLAIN], "x").len(), 1);
}

#[test]
fn a_client_that_stalls_is_told_and_the_answer_is_whole() {
    let server = Setup::default().with(|c| c.server.stream_idle_timeout_ms = 300).serve();
    let mut client = Client::open(&server, "", &[PLAIN]);
    client.send("one\ntwo\nthr");
    let entries = client.entries();
    assert_eq!(kinds(&entries), [(1, "scored"), (2, "scored"), (3, "body_timeout")]);
    let mut client = Client::open(&server, "?respond=summary", &[PLAIN]);
    client.send("one\ntwo\nthr");
    assert!(!client.is_ok() && client.head[0].contains("408"), "{:?}", client.head);
}

#[test]
fn at_the_end_of_the_server_accepted_lines_are_answered_and_the_rest_is_named() {
    let (setup, gate) = Setup::gated();
    let mut server = setup.with(|c| c.server.max_stream_lines = 20).serve();
    let mut client = Client::open(&server, "", &[PLAIN]);
    let mut other = Client::open(&server, "?respond=summary", &[PLAIN]);
    let body = some_lines(30).join("\n");
    for client in [&mut client, &mut other] {
        client.send(&body);
    }
    let read = 2.0 * body.len() as f64;
    eventually("both windows are full", || server.sample("oddlog_stream_bytes_total", None) == read);
    let mut probe = server.connect();
    let mut ready = || {
        probe.send("GET", "/readyz", &[], b"");
        probe.answer().status == 200
    };
    assert!(ready());
    server.begin_end();
    eventually("the end has begun", || !ready());
    drop(gate);
    let entries = client.entries();
    let (last, accepted) = entries.split_last().unwrap();
    assert_eq!(kinds(accepted), (1..=20).map(|line| (line, "scored")).collect::<Vec<_>>());
    assert_eq!((&last["line"], &last["error"]["type"]), (&json!(21), &json!("draining")));
    assert!(last["error"]["msg"].as_str().unwrap().contains("from line 21 on"), "{last}");
    assert!(!other.is_ok() && other.head[0].contains("503"), "{:?}", other.head);
    assert!(other.head.iter().any(|line| line.starts_with("retry-after: ")));
    drop(other);
    assert!(server.wait_end());
}

#[test]
fn a_stream_may_bring_its_own_labels_and_wrong_parameters_are_named() {
    let server = Setup::default().serve();
    let query = "?labels=network&labels=disk%2C+login&anomaly_label=disk%2C+login&threshold=0\
                 &hypothesis_template=It+is+%7B%7D.&multi_label=1&field=event";
    let entries = stream(&server, query, &[NDJSON], r#"{"event": "disk full", "message": 7}"#);
    assert_eq!((&entries[0]["label"], &entries[0]["is_anomaly"]), (&json!("disk, login"), &json!(true)));
    assert_eq!(entries[0]["scores"].as_object().unwrap().len(), 2);
    for (query, kind, loc) in [
        ("threshold=7", "less_than_equal", "threshold"),
        ("respond=some", "value_error", "respond"),
        ("labels=a&labels=a", "value_error", "labels"),
        ("anomaly_label=odd", "value_error", "anomaly_label"),
    ] {
        let answer = server.call("POST", &format!("{STREAM}?{query}"), &[PLAIN], b"x\n");
        assert_eq!(answer.status, 422, "{query}");
        let problem = answer.json()["detail"][0].clone();
        assert_eq!((&problem["type"], &problem["loc"]), (&json!(kind), &json!(["query", loc])), "{query}");
    }
    let wrong = server.get(STREAM);
    assert_eq!((wrong.status, wrong.header("allow")), (405, "POST, OPTIONS"));
}

#[test]
fn a_summary_is_small_and_asks_to_send_again_what_found_no_room() {
    let server = Setup::default().serve();
    let path = format!("{STREAM}?respond=summary&threshold=0");
    let body = some_lines(5000).join("\n") + "\n\n";
    let answer = server.call("POST", &path, &[PLAIN], body.as_bytes());
    let summary = answer.json();
    assert_eq!(answer.status, 200);
    for (key, value) in [("lines", 5001), ("scored", 5000), ("anomalies", 5000), ("errors", 0), ("blank", 1)] {
        assert_eq!(summary[key], value, "{key}");
    }
    let listed = summary["first_anomalies"].as_array().unwrap();
    assert_eq!((listed.len(), &listed[31]["line"]), (32, &json!(32)));
    // Fluent Bit reads no more than 4 KiB of head and body.
    assert!(answer.body.len() < 3000);
    let answer = server.call("POST", &path, &[NDJSON], b"{}\n\"a\"\n");
    assert_eq!((answer.status, &answer.json()["first_error"]["line"]), (200, &json!(1)));

    let (setup, gate) = Setup::gated();
    let server = setup.with(|c| c.batching.request_timeout_ms = 40).serve();
    let answer = server.call("POST", &path, &[PLAIN], b"a\nb\n");
    drop(gate);
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"), "{}", answer.text());
    assert_eq!(answer.json()["first_error"]["error"]["type"], "deadline_exceeded");
}

#[test]
fn the_number_of_streams_is_limited() {
    let server = Setup::default().with(|c| c.server.max_streams = 1).serve();
    let mut first = Client::open(&server, "", &[PLAIN]);
    assert!(first.is_ok());
    let second = server.call("POST", STREAM, &[PLAIN], b"x\n");
    assert_eq!((second.status, second.header("retry-after")), (429, "1"));
    first.end();
    assert!(first.entries().is_empty());
    eventually("there is room", || server.sample("oddlog_streams_open", None) == 0.0);
    assert_eq!(stream(&server, "", &[PLAIN], "x").len(), 1);
}

/// Runs a script with the server's address in `$URL` and returns what it prints.
fn run(server: &Running, command: &[&str], input: &str) -> String {
    let url = format!("http://{}{STREAM}", server.address);
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .env("URL", &url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writing = thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn curl_reads_while_it_writes_and_python_writes_everything_first() {
    let server = Setup::default().serve();
    let text = some_lines(20_000).join("\n");
    for extra in ["", "-H 'Expect: 100-continue'", "--compressed", "--http2-prior-knowledge"] {
        let script = format!("curl -sS --fail -T - -X POST -H 'content-type: text/plain' {extra} \"$URL\"");
        let out = run(&server, &["sh", "-c", &script], &text);
        assert_eq!(out.lines().count(), 20_000, "{extra}");
        assert!(out.lines().last().unwrap().starts_with("{\"line\":20000,"), "{extra}");
    }
    let script = "import http.client, json, os, sys, urllib.parse\n\
                  url = urllib.parse.urlsplit(os.environ['URL'])\n\
                  connection = http.client.HTTPConnection(url.netloc, timeout=60)\n\
                  body = sys.stdin.buffer.read()\n\
                  connection.request('POST', url.path + '?respond=summary', body, {'Content-Type': 'text/plain'})\n\
                  answer = connection.getresponse()\n\
                  print(answer.status, json.load(answer)['scored'])\n";
    assert_eq!(run(&server, &["python3", "-c", script], &text), "200 20000\n");
}

/// A process with devices that cost nothing, its address, and its log, which must be kept.
fn serve_alone() -> (Child, String, BufReader<ChildStderr>) {
    let mut server = Command::new(env!("CARGO_BIN_EXE_oddlog"))
        .args(["serve", "--listen", "127.0.0.1:0", "--device", "fake"])
        .env("ODDLOG_LOG__FORMAT", "json")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(server.stderr.take().unwrap());
    let mut line = String::new();
    let address = loop {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "the server did not start");
        let entry: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
        if let Some(address) = entry["fields"]["address"].as_str() {
            break address.to_owned();
        }
    };
    (server, address, log)
}

#[test]
fn memory_does_not_depend_on_the_length_of_the_body() {
    let (mut server, address, _log) = serve_alone();
    let peak = |server: &Child| -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    // Lines of many lengths, one of them too long, 4 MB in all.
    let mut piece = some_lines(300).join("\n") + "\n";
    for length in [100, 10_000, 300_000, 1_000_000, 2_600_000] {
        piece += &("disk ".repeat(length / 5) + "\n");
    }
    let send = |megabytes: usize| {
        let mut socket = TcpStream::connect(&address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = "POST /api/v1/analyze/stream?respond=summary HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\n";
        let pieces = megabytes * 1_000_000 / piece.len();
        write!(socket, "{head}connection: close\r\ncontent-length: {}\r\n\r\n", pieces * piece.len()).unwrap();
        (0..pieces).for_each(|_| socket.write_all(piece.as_bytes()).unwrap());
        let answer = std::io::read_to_string(socket).unwrap();
        let summary: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!((&summary["lines"], &summary["errors"]), (&json!(305 * pieces), &json!(pieces)), "{summary}");
    };
    send(150);
    let before = peak(&server);
    send(400);
    let after = peak(&server);
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(after < before + (40 << 10), "from {before} to {after} KiB at most");
}
