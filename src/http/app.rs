//! What every route may use.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{auth::Keys, body, cors::Cors, request_id::RequestIds};
use crate::{config::Server, engine::Handle, error::StartError};

/// The engine's handle and everything that is configured, ready for use.
pub struct App {
    /// The way to the engine.
    pub(super) handle: Handle,
    /// Limits.
    pub(super) config: Server,
    /// The served model, as the operator named it.
    pub(super) model: String,
    /// Who may ask; `None` lets anyone in.
    pub(super) keys: Option<Keys>,
    /// Which pages may read.
    pub(super) cors: Cors,
    /// Room for large request bodies.
    pub(super) bodies: Arc<Semaphore>,
    /// Names for requests that bring none.
    pub(super) ids: RequestIds,
    /// Room for streams.
    pub(super) streams: Arc<Semaphore>,
    /// Cancelled when the end begins.
    pub(super) draining: CancellationToken,
}

impl App {
    /// Reads the key file and checks the origins. `model` is the served model as the operator named it.
    ///
    /// # Errors
    /// [`StartError`] if either cannot be used.
    pub fn new(handle: Handle, config: Server, model: String) -> Result<Self, StartError> {
        Ok(Self {
            handle,
            keys: Keys::read(&config)?,
            cors: Cors::new(&config.cors_allow_origins)?,
            bodies: body::room(&config),
            ids: RequestIds::new(),
            streams: Arc::new(Semaphore::new(config.max_streams)),
            draining: CancellationToken::new(),
            config,
            model,
        })
    }

    /// Whether new requests are welcome: the engine is open and the end has not begun.
    pub(super) fn is_ready(&self) -> bool {
        !self.is_draining() && self.handle.is_open()
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
