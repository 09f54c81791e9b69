//! What signals mean to `serve`, and what it tells systemd.

use std::{process::exit, sync::Arc};

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{error::StartError, http::App};

/// Signals that are caught from now on.
pub struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    /// Catches SIGTERM, SIGINT and SIGHUP.
    ///
    /// # Errors
    /// [`StartError::Io`] if the system does not allow that.
    pub fn catch() -> Result<Self, StartError> {
        let catch = |kind| signal(kind).map_err(|source| StartError::Io { what: "catching signals".into(), source });
        let (term, int) = (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
        Ok(Self { term, int, hup: catch(SignalKind::hangup())? })
    }

    /// Ready at the first SIGTERM or SIGINT; a second one ends the process at once, with the exit code that shells
    /// give it. SIGHUP reads `app`'s files again.
    pub async fn watch(self, app: Arc<App>) {
        let Self { mut term, mut int, mut hup } = self;
        loop {
            tokio::select! {
                _ = term.recv() => break,
                _ = int.recv() => break,
                _ = hup.recv() => reload(app.clone()).await,
            }
        }
        tell(&[NotifyState::Stopping]);
        tracing::info!("finishing running requests; a second signal ends at once");
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = term.recv() => exit(128 + libc::SIGTERM),
                    _ = int.recv() => exit(128 + libc::SIGINT),
                    _ = hup.recv() => {}
                }
            }
        });
    }
}

async fn reload(app: Arc<App>) {
    let mut begins = vec![NotifyState::Reloading];
    begins.extend(NotifyState::monotonic_usec_now());
    tell(&begins);
    // Files may be on a slow disk.
    if let Err(error) = tokio::task::spawn_blocking(move || app.reload()).await {
        tracing::error!(%error, "reading the files again failed");
    }
    tell(&[NotifyState::Ready]);
}

/// Tells systemd that the server takes requests.
pub fn tell_ready() {
    tell(&[NotifyState::Ready]);
}

fn tell(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}
