//! What every route may use, and what is read again on SIGHUP.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{auth::Keys, body, cors::Cors, request_id::RequestIds, tls::Tls};
use crate::{
    config::{Log, Server},
    engine::Handle,
    error::StartError,
    novelty::Novelty,
    telemetry::Traces,
    verdicts::Verdicts,
};

/// The engine's handle and everything that is configured, ready for use.
pub struct App {
    /// The way to the engine.
    pub(super) handle: Handle,
    /// The way to it past what is remembered: logs go here.
    pub(super) verdicts: Verdicts,
    /// What is learned of the kinds of messages; `None` if nothing is.
    pub(super) novelty: Option<Arc<Novelty>>,
    /// Limits.
    pub(super) config: Server,
    /// The served model, as the operator named it.
    pub(super) model: String,
    /// Why `auto` took the devices that it took, if it was asked for.
    pub(super) auto_takes: Option<String>,
    /// Who may ask; `None` lets anyone in.
    pub(super) keys: Option<Keys>,
    /// The certificate; `None` for plain HTTP.
    pub(super) tls: Option<Tls>,
    /// Which pages may read.
    pub(super) cors: Cors,
    /// Room for large request bodies.
    pub(super) bodies: Arc<Semaphore>,
    /// Names for requests that bring none.
    pub(super) ids: RequestIds,
    /// What oddlog's own log may say.
    pub(super) log: Log,
    /// Where traces of requests begin, if they do.
    pub(super) traces: Option<Arc<Traces>>,
    /// Room for streams.
    pub(super) streams: Arc<Semaphore>,
    /// Cancelled when the end begins.
    pub(super) draining: CancellationToken,
}

/// Where a connection came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// `server.listen`.
    Public,
    /// `server.private_listen`.
    Private,
}

impl App {
    /// Reads the files of keys and certificate and checks the origins. `model` is the served model as the operator
    /// named it.
    ///
    /// # Errors
    /// [`StartError`] if any of them cannot be used.
    pub fn new(verdicts: Verdicts, config: Server, model: String) -> Result<Self, StartError> {
        Ok(Self {
            handle: verdicts.handle().clone(),
            verdicts,
            novelty: None,
            keys: Keys::read(&config)?,
            tls: Tls::read(&config)?,
            cors: Cors::new(&config.cors_allow_origins)?,
            bodies: body::room(&config),
            ids: RequestIds::new(),
            log: Log::default(),
            traces: None,
            streams: Arc::new(Semaphore::new(config.max_streams)),
            draining: CancellationToken::new(),
            config,
            model,
            auto_takes: None,
        })
    }

    /// With a `[log]` section other than the default.
    #[must_use]
    pub fn with_log(self, log: Log) -> Self {
        Self { log, ..self }
    }

    /// With why `auto` took the devices that it took, in words for whoever may see `/metrics`.
    #[must_use]
    pub fn with_auto_takes(self, auto_takes: Option<String>) -> Self {
        Self { auto_takes, ..self }
    }

    /// With traces of analysis requests.
    #[must_use]
    pub fn with_traces(self, traces: Option<Arc<Traces>>) -> Self {
        Self { traces, ..self }
    }

    /// Learning what kinds of messages come.
    #[must_use]
    pub fn with_novelty(self, novelty: Option<Arc<Novelty>>) -> Self {
        Self { novelty, ..self }
    }

    /// Reads the files of keys and certificate again. What cannot be used stays as it was, and the log says why.
    pub fn reload(&self) {
        let metrics = self.handle.metrics();
        let keys = self.keys.as_ref().map(|keys| ("keys", keys.reload().map(|_| ())));
        let certificate = self.tls.as_ref().map(|tls| ("certificate", tls.reload()));
        for (what, result) in keys.into_iter().chain(certificate) {
            metrics.reloaded(what, result.is_ok());
            match result {
                Ok(()) => tracing::info!(what, "read again"),
                Err(error) => tracing::error!(what, %error, "could not be read again and stays as it was"),
            }
        }
    }

    /// Writes a scored log to oddlog's own log, for whoever looks at level `debug` and wants to see logs there.
    pub(super) fn note_verdict(&self, log: &str, label: &str, confidence: f32) {
        let log = if self.log.redact { "(redacted)" } else { log };
        tracing::debug!(log, label, confidence, "scored");
    }

    /// Whether `door` leads to what operators alone should see.
    pub(super) fn shows_operations(&self, door: Door) -> bool {
        door == Door::Private || self.config.private_listen.is_empty()
    }

    /// Whether new requests are welcome: logs are scored and the end has not begun.
    pub(super) async fn is_ready(&self) -> bool {
        !self.is_draining() && self.handle.is_ready().await
    }

    /// Whether the end has begun: what was accepted is answered, and no connection is kept.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Begins the end.
    pub(super) fn drain(&self) {
        self.draining.cancel();
    }
}
