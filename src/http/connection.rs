//! One connection: HTTP/1.1 or HTTP/2, with or without TLS, under [`Traffic`]'s limits, and its graceful end.
//!
//! A connection whose limit has passed is closed at once, or told first where the client may not be to blame; then it
//! has the shortest of the limits to leave.

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Instant};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
    time::{Duration, timeout},
};

use super::{
    app::{App, Door},
    auth::Pass,
    exchange::{Caller, exchange},
    traffic::{Limits, Traffic},
    watched::{OpenRequest, WatchedBody, WatchedSocket},
};
use crate::{config::Server, telemetry::Trace};

/// At the end, time for a request that is already on its way over a kept connection.
const LINGER: Duration = Duration::from_millis(250);
/// The same for a connection that has not sent its first one.
const LINGER_FRESH: Duration = Duration::from_secs(1);

/// Serves connections of one door.
#[derive(Clone)]
pub struct Driver {
    app: Arc<App>,
    door: Door,
    limits: Limits,
    protocol: auto::Builder<TokioExecutor>,
}

impl Driver {
    /// With the limits of `app`'s configuration.
    pub fn new(app: Arc<App>, door: Door) -> Self {
        let (protocol, limits) = (protocol(&app.config), Limits::new(&app.config));
        Self { app, door, limits, protocol }
    }

    /// Serves `socket` until the client leaves, a limit passes, or `stop` closes. Returns why it ended, as metrics name
    /// it.
    pub async fn drive(self, socket: TcpStream, client: IpAddr, stop: watch::Receiver<()>) -> &'static str {
        let Some(tls) = self.app.tls.as_ref().filter(|_| self.door == Door::Public) else {
            return self.serve(socket, client, stop).await;
        };
        match timeout(self.limits.first_byte, tls.acceptor().accept(socket)).await {
            Ok(Ok(socket)) => self.serve(socket, client, stop).await,
            Ok(Err(error)) => {
                tracing::debug!(%client, %error, "a TLS handshake failed");
                "tls_handshake_failed"
            }
            Err(_) => "tls_handshake_timeout",
        }
    }

    async fn serve<S>(self, socket: S, client: IpAddr, mut stop: watch::Receiver<()>) -> &'static str
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { app, door, limits, protocol } = self;
        let traffic = Arc::new(Traffic::new(limits, Instant::now()));
        let of_service = traffic.clone();
        let service = service_fn(move |request| {
            let open = OpenRequest::new(of_service.clone());
            let app = app.clone();
            async move {
                let mut answer = exchange(&app, Caller { door, client }, request).await;
                let pass = answer.extensions_mut().remove::<Pass>();
                let trace = answer.extensions_mut().remove::<Trace>();
                Ok::<_, Infallible>(answer.map(|body| WatchedBody::new(body, open, (pass, trace))))
            }
        });
        let socket = TokioIo::new(WatchedSocket::new(socket, traffic.clone()));
        let connection = protocol.serve_connection(socket, service);
        tokio::pin!(connection);
        let look = tokio::time::sleep(traffic.next_look(Instant::now()));
        tokio::pin!(look);
        // Why the end has begun, and whether it was said to the client.
        let (mut ending, mut said): (Option<&str>, bool) = (None, false);
        let mut stopping = false;
        loop {
            tokio::select! {
                result = connection.as_mut() => return match result {
                    Ok(()) => ending.unwrap_or("client"),
                    Err(error) => {
                        tracing::debug!(%client, error, "a connection ended with an error");
                        ending.unwrap_or("error")
                    }
                },
                () = traffic.flooded() => return "too_many_resets",
                _ = stop.changed(), if !stopping => {
                    stopping = true;
                    ending = Some("shutdown");
                    let linger = if traffic.has_received() { LINGER } else { LINGER_FRESH };
                    look.as_mut().reset((Instant::now() + linger).into());
                }
                () = look.as_mut() => {
                    let now = Instant::now();
                    let overdue = traffic.overdue(now);
                    match overdue {
                        _ if stopping && !said => {
                            said = true;
                            connection.as_mut().graceful_shutdown();
                        }
                        Some(overdue) if overdue.is_polite() && !said => {
                            (ending, said) = (Some(overdue.reason()), true);
                            connection.as_mut().graceful_shutdown();
                        }
                        Some(overdue) => return ending.unwrap_or(overdue.reason()),
                        None => {}
                    }
                    let next = if overdue.is_some() { limits.shortest() } else { traffic.next_look(now) };
                    look.as_mut().reset((now + next).into());
                }
            }
        }
    }
}

/// A protocol server with the limits of `config`, but those that [`Traffic`] holds.
fn protocol(config: &Server) -> auto::Builder<TokioExecutor> {
    let ping = Duration::from_millis(config.http2_ping_ms);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(config.max_header_bytes);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(ping)
        .keep_alive_timeout(ping)
        .max_concurrent_streams(config.http2_max_streams)
        .max_header_list_size(config.max_header_bytes as u32);
    builder
}
