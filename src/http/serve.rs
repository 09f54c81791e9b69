//! The accept loops: how many connections, and the graceful end.
//!
//! ```text
//! signal -> not ready -> shutdown_delay -> no new connections -> those that began -> requests finish -> the end
//! ```

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::{
    app::{App, Door},
    connection::Driver,
};

/// Time between two foldings of the recorded samples.
const UPKEEP: Duration = Duration::from_secs(5);
/// Wait after a connection could not be accepted.
const BREATH: Duration = Duration::from_millis(50);
/// Before a listener closes, time for connections whose handshake has begun.
const HANDSHAKES: Duration = Duration::from_millis(250);
/// Connections of operators.
const PRIVATE_CONNECTIONS: usize = 256;
/// Connections beyond the limit that are told so at once; further ones are just closed.
const TOLD: usize = 64;
/// Time for a client to read that there are too many connections.
const GOODBYE: Duration = Duration::from_secs(1);
/// What it reads.
const FULL: &str = r#"{"detail":"Too many connections. Retry after 1 s."}"#;

/// Where connections come in.
#[derive(Debug)]
pub struct Doors {
    /// For everyone.
    pub public: TcpListener,
    /// For operators.
    pub private: Option<TcpListener>,
    /// Whether the listeners belong to whoever handed them over, and stay open after this server.
    pub lent: bool,
}

impl From<TcpListener> for Doors {
    fn from(public: TcpListener) -> Self {
        Self { public, private: None, lent: false }
    }
}

/// Serves `app` at `doors` until `shutdown` is ready, then lets open requests finish within the configured bound and
/// cuts off the rest. Returns whether none had to be.
pub async fn serve(doors: impl Into<Doors>, app: Arc<App>, shutdown: impl Future<Output = ()>) -> bool {
    let Doors { public, private, lent } = doors.into();
    // Dropping the sender ends the loop: the public one first, so that the end can be watched through the other.
    let (public_open, public_ends) = watch::channel(());
    let (private_open, private_ends) = watch::channel(());
    let delay = Duration::from_millis(app.config.shutdown_delay_ms);
    let lead = async {
        upkeep_until(shutdown, &app).await;
        app.drain();
        tokio::time::sleep(delay).await;
        drop(public_open);
    };
    let everyone = async {
        let all = Entrance::new(&app, Door::Public, app.config.max_connections, lent).run(public, public_ends).await;
        drop(private_open);
        all
    };
    let operators = async {
        if let Some(private) = private {
            Entrance::new(&app, Door::Private, PRIVATE_CONNECTIONS, lent).run(private, private_ends).await;
        }
    };
    let ((), all, ()) = tokio::join!(lead, everyone, operators);
    all
}

async fn upkeep_until(shutdown: impl Future<Output = ()>, app: &App) {
    let mut upkeep = tokio::time::interval(UPKEEP);
    // Nobody waits for these: they end when the end begins.
    let checks = app.verdicts.check_templates();
    tokio::pin!(shutdown, checks);
    loop {
        tokio::select! {
            () = &mut shutdown => return,
            _ = &mut checks => {}
            _ = upkeep.tick() => app.handle.metrics().upkeep(),
        }
    }
}

/// One listener's connections.
struct Entrance {
    app: Arc<App>,
    driver: Driver,
    speaks_tls: bool,
    lent: bool,
    places: Arc<Semaphore>,
    told: Arc<Semaphore>,
    connections: JoinSet<()>,
}

impl Entrance {
    fn new(app: &Arc<App>, door: Door, places: usize, lent: bool) -> Self {
        Self {
            app: app.clone(),
            driver: Driver::new(app.clone(), door),
            speaks_tls: door == Door::Public && app.tls.is_some(),
            lent,
            places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
            told: Arc::new(Semaphore::new(TOLD)),
            connections: JoinSet::new(),
        }
    }

    /// Accepts until `ends` closes, then waits for the connections within the bound. Returns whether all ended.
    async fn run(mut self, listener: TcpListener, mut ends: watch::Receiver<()>) -> bool {
        let (stop, stopped) = watch::channel(());
        loop {
            tokio::select! {
                _ = ends.changed() => break,
                Some(_) = self.connections.join_next() => {}
                accepted = listener.accept() => self.take(accepted, &stopped).await,
            }
        }
        if !self.lent {
            // Whoever is connected in the client's eyes must be served: closing a listener resets what it has not
            // accepted yet.
            refuse_handshakes(&listener);
            let until = Instant::now() + HANDSHAKES;
            while let Ok(accepted) = timeout_at(until, listener.accept()).await {
                self.take(accepted, &stopped).await;
            }
        }
        drop(listener);
        drop(stop);
        let bound = Duration::from_millis(self.app.config.shutdown_timeout_ms);
        let all = async { while self.connections.join_next().await.is_some() {} };
        timeout(bound, all).await.is_ok()
    }

    async fn take(&mut self, accepted: io::Result<(TcpStream, SocketAddr)>, stopped: &watch::Receiver<()>) {
        let metrics = self.app.handle.metrics().clone();
        let (socket, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Most often too many open files: others may close soon.
                metrics.accept_failed();
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(BREATH).await;
                return;
            }
        };
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            metrics.connection_refused("too_many");
            self.turn_away(socket);
            return;
        };
        // Small answers must not wait for the client's acknowledgement.
        let _ = socket.set_nodelay(true);
        metrics.connection_opened();
        let (driver, stopped) = (self.driver.clone(), stopped.clone());
        self.connections.spawn(async move {
            let mut closed = Closed { metrics, reason: "cut_off" };
            // Made here and not outside: a future that is moved into another takes its room twice.
            closed.reason = driver.drive(socket, client.ip(), stopped).await;
            drop(place);
        });
    }

    /// Says that there are too many connections, where that can be said without a handshake.
    fn turn_away(&mut self, mut socket: TcpStream) {
        if self.speaks_tls {
            return;
        }
        let Ok(place) = self.told.clone().try_acquire_owned() else { return };
        let length = FULL.len();
        let answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{FULL}"
        );
        self.connections.spawn(async move {
            let goodbye = async {
                socket.write_all(answer.as_bytes()).await?;
                socket.shutdown().await?;
                // Closing with unread bytes would take the answer back.
                while socket.read(&mut [0; 1024]).await? > 0 {}
                io::Result::Ok(())
            };
            // It may be gone already, or never read: both are fine.
            let _ = timeout(GOODBYE, goodbye).await;
            drop(place);
        });
    }
}

/// Counts a connection's end, also when it is cut off.
struct Closed {
    metrics: Arc<crate::metrics::Metrics>,
    reason: &'static str,
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.metrics.connection_closed(self.reason);
    }
}

/// Lets `listener` ignore connections that begin from now on. Their clients ask again: by then another process may
/// listen, or the port is closed and says so.
fn refuse_handshakes(listener: &TcpListener) {
    #[cfg(target_os = "linux")]
    {
        use socket2::{SockFilter, SockRef};
        // Classic BPF over a TCP header: drop what has SYN and not ACK among its flags, byte 13; keep all else.
        let filter = [
            SockFilter::new(0x30, 0, 0, 13),
            SockFilter::new(0x54, 0, 0, 0x12),
            SockFilter::new(0x15, 0, 1, 0x02),
            SockFilter::new(0x06, 0, 0, 0),
            SockFilter::new(0x06, 0, 0, u32::MAX),
        ];
        if let Err(error) = SockRef::from(listener).attach_filter(&filter) {
            tracing::debug!(%error, "new connections cannot be held off");
        }
    }
}
