//! `[server]`: the HTTP front end.

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::at_least_one;

/// `[server]`: the HTTP front end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Address and port to listen on. A listener that systemd hands over takes its place.
    pub listen: SocketAddr,
    /// Address and port of a second listener for operators; empty for none. When there is one, metrics and
    /// documentation are only there. It speaks plain HTTP.
    pub private_listen: String,
    /// Shares the port with other processes (`SO_REUSEPORT`), so that a successor can start before this one ends.
    pub reuse_port: bool,
    /// Threads of the HTTP front end; 0 takes one a core.
    pub http_threads: usize,
    /// Open connections, of about 36 KiB each when idle; a further one gets 503 and is closed.
    pub max_connections: usize,
    /// Bytes of a request's header; beyond it 431. At least 8192. A header has at most 100 fields.
    pub max_header_bytes: usize,
    /// Largest request body in bytes; beyond it 413.
    pub max_body_bytes: usize,
    /// Bytes of large request bodies (over 64 KiB) in memory at once; further ones wait.
    pub max_buffered_bytes: usize,
    /// Most logs in one batch call.
    pub max_batch_logs: usize,
    /// Requests that one HTTP/2 connection may have open.
    pub http2_max_streams: u32,
    /// Requests that one HTTP/2 connection may abandon beyond those that it lets finish; then it is closed.
    pub http2_max_resets: usize,
    /// Time between two pings on an HTTP/2 connection, and time for their answers, in ms.
    pub http2_ping_ms: u64,
    /// Time for the TLS handshake and for the first byte after it, in ms; then the connection is closed.
    pub first_byte_timeout_ms: u64,
    /// Time for a request's header from its first byte, in ms; then the connection is closed.
    pub header_timeout_ms: u64,
    /// Idle time of a kept-alive connection, in ms; then it is closed.
    pub idle_timeout_ms: u64,
    /// Time for a request's body, in ms; beyond it 408.
    pub body_timeout_ms: u64,
    /// Time between two parts of a request's body, in ms; beyond it 408.
    pub body_idle_timeout_ms: u64,
    /// Time in which a client that is sent an answer must have taken some of it, in ms; then the connection is closed.
    pub write_timeout_ms: u64,
    /// Time between SIGTERM or SIGINT, from which `/readyz` says no, and the end of accepting connections, in ms.
    pub shutdown_delay_ms: u64,
    /// Time for running requests after that, in ms.
    pub shutdown_timeout_ms: u64,
    /// Allowed CORS origins; `["*"]` allows any, `[]` turns CORS off.
    pub cors_allow_origins: Vec<String>,
    /// File with bearer keys, one a line, read again on SIGHUP; empty turns authentication off.
    pub api_keys_file: String,
    /// Further bearer keys, for the environment.
    pub api_keys: Secrets,
    /// Requests a second that each key may make on average; beyond it 429. 0 for any number.
    pub key_requests_per_s: u32,
    /// Requests that a key may make at once after a rest; 0 for as many as in a second.
    pub key_burst: u32,
    /// Requests that each key may have open; beyond it 429. 0 for any number.
    pub key_max_in_flight: usize,
    /// Certificate chain (PEM) for TLS, read again on SIGHUP; empty for plain HTTP.
    pub tls_certificate_file: String,
    /// The certificate's private key (PEM), read again on SIGHUP.
    pub tls_key_file: String,
}

/// Texts that are never printed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secrets(pub Vec<String>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "[{} hidden]", self.0.len())
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            private_listen: String::new(),
            reuse_port: false,
            http_threads: 0,
            max_connections: 10_240,
            max_header_bytes: 64 << 10,
            max_body_bytes: 4 << 20,
            max_buffered_bytes: 256 << 20,
            max_batch_logs: 1024,
            http2_max_streams: 256,
            http2_max_resets: 200,
            http2_ping_ms: 20_000,
            first_byte_timeout_ms: 10_000,
            header_timeout_ms: 10_000,
            idle_timeout_ms: 75_000,
            body_timeout_ms: 30_000,
            body_idle_timeout_ms: 10_000,
            write_timeout_ms: 30_000,
            shutdown_delay_ms: 0,
            shutdown_timeout_ms: 30_000,
            cors_allow_origins: vec!["*".into()],
            api_keys_file: String::new(),
            api_keys: Secrets::default(),
            key_requests_per_s: 0,
            key_burst: 0,
            key_max_in_flight: 0,
            tls_certificate_file: String::new(),
            tls_key_file: String::new(),
        }
    }
}

impl Server {
    /// Where the second listener is, if there is to be one.
    ///
    /// # Errors
    /// A text for an address that cannot be read.
    pub fn private_address(&self) -> Result<Option<SocketAddr>, String> {
        if self.private_listen.is_empty() {
            return Ok(None);
        }
        self.private_listen.parse().map(Some).map_err(|_| {
            format!("server.private_listen = {:?} is no address:port, for example 127.0.0.1:9000", self.private_listen)
        })
    }

    /// # Errors
    /// A text that names the first key that cannot be used.
    pub(super) fn check(&self) -> Result<(), String> {
        let ms = |value: u64| value as usize;
        at_least_one(&[
            ("server.max_connections", self.max_connections),
            ("server.max_body_bytes", self.max_body_bytes),
            ("server.max_batch_logs", self.max_batch_logs),
            ("server.http2_max_streams", self.http2_max_streams as usize),
            ("server.http2_ping_ms", ms(self.http2_ping_ms)),
            ("server.first_byte_timeout_ms", ms(self.first_byte_timeout_ms)),
            ("server.header_timeout_ms", ms(self.header_timeout_ms)),
            ("server.idle_timeout_ms", ms(self.idle_timeout_ms)),
            ("server.body_timeout_ms", ms(self.body_timeout_ms)),
            ("server.body_idle_timeout_ms", ms(self.body_idle_timeout_ms)),
            ("server.write_timeout_ms", ms(self.write_timeout_ms)),
        ])?;
        if self.max_buffered_bytes < self.max_body_bytes {
            return Err("server.max_buffered_bytes must be at least server.max_body_bytes".into());
        }
        if !(8192..=16 << 20).contains(&self.max_header_bytes) {
            return Err(format!(
                "server.max_header_bytes must be from 8192 to 16777216, not {}",
                self.max_header_bytes
            ));
        }
        self.private_address()?;
        if self.tls_certificate_file.is_empty() != self.tls_key_file.is_empty() {
            return Err("server.tls_certificate_file and server.tls_key_file must be set together".into());
        }
        let keyless = self.api_keys_file.is_empty() && self.api_keys.0.is_empty();
        let limits = [
            ("server.key_requests_per_s", self.key_requests_per_s as usize),
            ("server.key_burst", self.key_burst as usize),
            ("server.key_max_in_flight", self.key_max_in_flight),
        ];
        match limits.iter().find(|(_, value)| keyless && *value > 0) {
            Some((key, _)) => Err(format!("{key} limits each key: set server.api_keys_file or server.api_keys too")),
            None if self.key_burst > 0 && self.key_requests_per_s == 0 => {
                Err("server.key_burst needs server.key_requests_per_s".into())
            }
            None => Ok(()),
        }
    }
}
