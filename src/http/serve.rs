//! The accept loop: how many connections, and the graceful end.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::{
    app::App,
    connection::{drive, protocol},
};

/// Time between two foldings of the recorded samples.
const UPKEEP: Duration = Duration::from_secs(5);
/// Wait after a connection could not be accepted.
const BREATH: Duration = Duration::from_millis(50);

/// Serves `app` on `listener` until `shutdown` is ready, then lets open requests finish within the configured bound and
/// cuts off the rest. Returns whether none had to be.
pub async fn serve(listener: TcpListener, app: Arc<App>, shutdown: impl Future<Output = ()>) -> bool {
    let protocol = protocol(&app.config);
    let places = Arc::new(Semaphore::new(app.config.max_connections));
    let (stop, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut upkeep = tokio::time::interval(UPKEEP);
    tokio::pin!(shutdown);
    loop {
        let accept = async {
            let place = places.clone().acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            () = &mut shutdown => break,
            _ = upkeep.tick() => {
                app.handle.metrics().upkeep();
                continue;
            }
            Some(_) = connections.join_next() => continue,
            accepted = accept => accepted,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                // Most often too many open files: others may close soon.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        // Small answers must not wait for the client's acknowledgement.
        let _ = socket.set_nodelay(true);
        let connection = drive(protocol.clone(), socket, app.clone(), stopped.clone());
        connections.spawn(async move {
            connection.await;
            drop(place);
        });
    }
    drop(listener);
    app.drain();
    let _ = stop.send(());
    let bound = Duration::from_millis(app.config.shutdown_timeout_ms);
    let all = async { while connections.join_next().await.is_some() {} };
    tokio::time::timeout(bound, all).await.is_ok()
}
