//! One connection: HTTP/1.1 or HTTP/2, idle time, and its graceful end.
//!
//! hyper limits the time for a header once the first bytes are there. It does not limit the time before them, the idle
//! time of HTTP/2, or a client that never reads its answer: [`drive`] does, by one rule. A connection without an open
//! request ends after the idle time; if it cannot end politely it is dropped after as much again.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{net::TcpStream, sync::watch};

use super::{app::App, exchange::exchange};
use crate::config::Server;

/// Bytes of a request's header; beyond it 431.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// Requests that one HTTP/2 connection may have open.
const MAX_STREAMS: u32 = 256;
/// At the end, time for a request that is already on its way over an idle connection.
const LINGER: Duration = Duration::from_millis(250);

/// A protocol server with the limits of `config`.
pub fn protocol(config: &Server) -> auto::Builder<TokioExecutor> {
    let idle = idle(config);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(idle).max_buf_size(MAX_HEADER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(idle)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES as u32);
    builder
}

fn idle(config: &Server) -> Duration {
    Duration::from_millis(config.header_timeout_ms)
}

/// Serves `socket` until the client leaves, idles too long, or `stop` changes.
pub async fn drive(
    protocol: auto::Builder<TokioExecutor>,
    socket: TcpStream,
    app: Arc<App>,
    mut stop: watch::Receiver<()>,
) {
    let idle = idle(&app.config);
    let peer = Arc::new(Peer { app, since: Instant::now(), open: AtomicUsize::new(0), rested_ms: AtomicU64::new(0) });
    let of_service = peer.clone();
    let service = service_fn(move |request| {
        let open = OpenRequest::new(of_service.clone());
        async move {
            let mut answer = exchange(&open.0.app, request).await;
            answer.body_mut().hold(open);
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = protocol.serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    let check = tokio::time::sleep(idle);
    tokio::pin!(check);
    let (mut stopping, mut ending) = (false, false);
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(error, "a connection ended with an error");
                }
                return;
            }
            _ = stop.changed(), if !stopping => {
                stopping = true;
                check.as_mut().reset((Instant::now() + LINGER).into());
            }
            () = check.as_mut() => {
                let rest = peer.rest();
                if stopping && !ending {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                } else if rest.is_some_and(|rest| rest >= idle) {
                    if ending {
                        return;
                    }
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                let left = if ending { idle } else { idle.saturating_sub(rest.unwrap_or_default()) };
                check.as_mut().reset((Instant::now() + left).into());
            }
        }
    }
}

/// What one connection's requests share.
struct Peer {
    app: Arc<App>,
    since: Instant,
    /// Requests without an answer.
    open: AtomicUsize,
    /// Milliseconds from `since` to the last answer.
    rested_ms: AtomicU64,
}

impl Peer {
    /// How long there has been no open request; `None` while there is one.
    fn rest(&self) -> Option<Duration> {
        let rested = Duration::from_millis(self.rested_ms.load(Ordering::Relaxed));
        (self.open.load(Ordering::Relaxed) == 0).then(|| self.since.elapsed().saturating_sub(rested))
    }
}

/// A request without an answer, counted until it is dropped.
struct OpenRequest(Arc<Peer>);

impl OpenRequest {
    fn new(peer: Arc<Peer>) -> Self {
        peer.open.fetch_add(1, Ordering::Relaxed);
        Self(peer)
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.rested_ms.store(self.0.since.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
