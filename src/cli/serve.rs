//! `oddlog serve`: the server, from configuration to the last answer.

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use clap::Args;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::load::{LoadArgs, make_devices, open_model, start_log};
use crate::{
    engine::Engine,
    error::StartError,
    http::{self, App},
    metrics::Metrics,
};

/// Serve the HTTP API
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  oddlog serve
  oddlog serve --listen 0.0.0.0:8000 --config config.toml
  ODDLOG_BATCHING__MAX_BATCH_TOKENS=2048 oddlog serve --device cpu --device cpu

Exit codes: 0 after SIGTERM or SIGINT with every request answered, 1 if some had to be cut off, 2 for an error.")]
pub struct ServeArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Address and port to listen on
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
}

/// Serves until a signal.
///
/// # Errors
/// [`StartError`] if the server cannot start.
pub fn run(args: ServeArgs) -> Result<ExitCode, StartError> {
    let more = args.listen.map_or(json!({}), |listen| json!({ "server": { "listen": listen } }));
    let config = args.load.config(more)?;
    start_log(&config)?;
    let model = open_model(&config)?;
    let devices = make_devices(&config, &model)?;
    let names: Vec<String> = devices.makers.iter().map(|maker| maker.name.clone()).collect();
    let metrics = Metrics::new().map_err(|e| StartError::Config(e.to_string()))?;
    let engine = Engine::start(&model, devices, &config.scoring, &config.batching, metrics)?;

    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if config.server.http_threads > 0 {
        runtime.worker_threads(config.server.http_threads);
    }
    let runtime = runtime
        .thread_name("http")
        .enable_all()
        .build()
        .map_err(|source| StartError::Io { what: "starting the HTTP threads".into(), source })?;
    let bound = Duration::from_millis(config.server.shutdown_timeout_ms);
    let answered = runtime.block_on(async {
        let address = config.server.listen;
        let what = format!("listening on {address}");
        let listener =
            tokio::net::TcpListener::bind(address).await.map_err(|source| StartError::Io { what, source })?;
        let address = listener.local_addr().unwrap_or(address);
        let app = App::new(engine.handle(), config.server, config.model.source.clone())?;
        // Caught from now on: whoever reads the next line may send one.
        let stop = stop_signal();
        tracing::info!(
            %address, model = config.model.source, devices = ?names, "oddlog {} serves", env!("CARGO_PKG_VERSION")
        );
        Ok(http::serve(listener, Arc::new(app), stop).await)
    })?;
    let drained = engine.shutdown(bound);
    tracing::info!(answered, drained, "stopped");
    Ok(ExitCode::from(u8::from(!(answered && drained))))
}

/// Catches SIGTERM and SIGINT from the call on. Ready at the first one; the second one ends the process at once.
fn stop_signal() -> impl Future<Output = ()> {
    let signals = signal(SignalKind::terminate()).and_then(|term| Ok((term, signal(SignalKind::interrupt())?)));
    async move {
        let Ok((mut term, mut int)) = signals else {
            tracing::warn!("signals cannot be caught; only SIGKILL ends the server");
            return std::future::pending().await;
        };
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::info!("finishing running requests; a second signal ends at once");
        tokio::spawn(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            std::process::exit(1);
        });
    }
}
