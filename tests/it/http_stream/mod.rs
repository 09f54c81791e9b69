//! Streams of lines: a client that reads while it writes, and what the tests of this folder share.

mod codings;
mod ends;
mod entries;
mod pressure;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use flate2::{Compression, write::GzEncoder};
use serde_json::Value;

use crate::support::{PATIENCE, Running};

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
