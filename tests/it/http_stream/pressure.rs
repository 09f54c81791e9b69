//! What is bounded: lines in the server, streams, memory; and clients that do not read.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    process::{Child, ChildStderr, Command, Stdio},
    thread,
};

use serde_json::{Value, json};

use super::{Client, PLAIN, STREAM, some_lines, stream};
use crate::support::{PATIENCE, Setup, eventually};

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
    // Twice, so that every thread has worked before.
    send(150);
    send(150);
    let before = peak(&server);
    send(400);
    let after = peak(&server);
    server.kill().unwrap();
    server.wait().unwrap();
    // What lies about for a moment depends on how busy the machine is: seen were 65 MB more. A body that is kept would be
    // 250 MB more.
    assert!(after < before + (100 << 10), "from {before} to {after} KiB at most");
}
