//! `[server]`: the HTTP front end.

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::at_least_one;

/// `[server]`: the HTTP front end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// Threads of the HTTP front end; 0 takes one a core.
    pub http_threads: usize,
    /// Open connections; a further one waits in the kernel's backlog.
    pub max_connections: usize,
    /// Largest request body in bytes; beyond it 413.
    pub max_body_bytes: usize,
    /// Bytes of large request bodies (over 64 KiB) in memory at once; further ones wait.
    pub max_buffered_bytes: usize,
    /// Most logs in one batch call.
    pub max_batch_logs: usize,
    /// Streams at once; a further one is refused with 429.
    pub max_streams: usize,
    /// Longest line of a stream in bytes; a longer one gets an error of its own.
    pub max_stream_line_bytes: usize,
    /// Lines of one stream that are being scored or wait for the client to take their answers; beyond it reading stops.
    pub max_stream_lines: usize,
    /// Bytes of those lines; beyond it reading stops.
    pub max_stream_bytes: usize,
    /// Time without a byte from a stream's client, or without its taking an answer, in ms; then the stream ends.
    pub stream_idle_timeout_ms: u64,
    /// Time for a request's header, and idle time of a kept-alive connection, in ms.
    pub header_timeout_ms: u64,
    /// Time for a request's body, in ms; beyond it 408.
    pub body_timeout_ms: u64,
    /// Time for running requests after SIGTERM or SIGINT, in ms.
    pub shutdown_timeout_ms: u64,
    /// Allowed CORS origins; `["*"]` allows any, `[]` turns CORS off.
    pub cors_allow_origins: Vec<String>,
    /// File with bearer keys, one a line; empty turns authentication off.
    pub api_keys_file: String,
    /// Further bearer keys, for the environment.
    pub api_keys: Secrets,
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
            http_threads: 0,
            max_connections: 4096,
            max_body_bytes: 4 << 20,
            max_buffered_bytes: 256 << 20,
            max_batch_logs: 1024,
            max_streams: 64,
            max_stream_line_bytes: 1 << 20,
            max_stream_lines: 512,
            max_stream_bytes: 4 << 20,
            stream_idle_timeout_ms: 60_000,
            header_timeout_ms: 30_000,
            body_timeout_ms: 30_000,
            shutdown_timeout_ms: 30_000,
            cors_allow_origins: vec!["*".into()],
            api_keys_file: String::new(),
            api_keys: Secrets::default(),
        }
    }
}

impl Server {
    /// # Errors
    /// A text that names the first key that cannot be used.
    pub(super) fn check(&self) -> Result<(), String> {
        at_least_one(&[
            ("server.max_connections", self.max_connections),
            ("server.max_body_bytes", self.max_body_bytes),
            ("server.max_batch_logs", self.max_batch_logs),
            ("server.max_streams", self.max_streams),
            ("server.max_stream_line_bytes", self.max_stream_line_bytes),
            ("server.max_stream_lines", self.max_stream_lines),
            ("server.max_stream_bytes", self.max_stream_bytes),
        ])?;
        if self.max_buffered_bytes < self.max_body_bytes {
            return Err("server.max_buffered_bytes must be at least server.max_body_bytes".into());
        }
        Ok(())
    }
}
