//! An HTTP/1.1 client that sends exactly what it is told to, rubbish included.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

use super::PATIENCE;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// The body as it came.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header that must be there once.
    pub fn header(&self, name: &str) -> &str {
        let found: Vec<_> = self.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect();
        assert!(found.len() == 1, "{name}: {found:?} in {self:?}");
        found[0]
    }

    /// Whether a header is there.
    pub fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(n, _)| n == name)
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

/// One connection.
pub struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    /// Connects; no read of this connection hangs for ever.
    pub fn open(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self { reader: BufReader::new(socket) }
    }

    /// Sends bytes as they are.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.reader.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Says that nothing more will be sent.
    pub fn end(&mut self) {
        // A server that has closed already does not mind.
        let _ = self.reader.get_mut().shutdown(Shutdown::Write);
    }

    /// Sends a request with a body of known length; none if it is empty.
    pub fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() || method == "POST" {
            head += &format!("content-length: {}\r\n", body.len());
        }
        self.write([head.as_bytes(), b"\r\n", body].concat());
    }

    /// Reads one answer.
    pub fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    /// Reads one answer to a request of this method: one to `HEAD` has no body.
    pub fn answer_to(&mut self, method: &str) -> Answer {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        let status =
            line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap_or_else(|| panic!("{line:?}"));
        let mut answer = Answer { status: status.parse().unwrap(), headers: Vec::new(), body: Vec::new() };
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            answer.headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        if method != "HEAD" && answer.has("content-length") {
            answer.body = vec![0; answer.header("content-length").parse().unwrap()];
            self.reader.read_exact(&mut answer.body).unwrap();
        }
        answer
    }

    /// Reads whatever comes until the server closes.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
        rest
    }

    /// Whether nothing comes for `time`.
    pub fn is_silent_for(&mut self, time: Duration) -> bool {
        self.reader.get_mut().set_read_timeout(Some(time)).unwrap();
        let silent = match self.reader.fill_buf() {
            Ok(_) => false,
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        };
        self.reader.get_mut().set_read_timeout(Some(PATIENCE)).unwrap();
        silent
    }

    /// Sends bytes as they are if the server still takes them.
    pub fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.reader.get_mut().write_all(bytes.as_ref()).is_ok()
    }

    /// Whether the server has dropped the connection, found out by writing to it.
    pub fn is_broken(&mut self) -> bool {
        !self.try_write(b"\r\n")
    }

    /// Reads exactly so many bytes.
    pub fn read(&mut self, bytes: usize) -> Vec<u8> {
        let mut read = vec![0; bytes];
        self.reader.read_exact(&mut read).unwrap();
        read
    }
}
