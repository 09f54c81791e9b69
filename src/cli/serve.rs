//! `oddlog serve`: the server, from configuration to the last answer.

use std::{
    net::SocketAddr,
    process::ExitCode,
    sync::Arc,
    time::{Duration, SystemTime},
};

use clap::Args;
use serde_json::json;

use super::{
    load::{LoadArgs, make_devices, open_model, placement, start_log},
    signals::{Signals, tell_ready},
    sockets::{Handed, make_room},
};
use crate::{
    compiled::of_model,
    config::CacheMode,
    engine::Engine,
    error::StartError,
    http::{self, App},
    metrics::Metrics,
    novelty::Novelty,
    telemetry::Traces,
    verdicts::Verdicts,
};

/// Serve the HTTP API
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  oddlog serve
  oddlog serve --listen 0.0.0.0:8000 --config config.toml
  ODDLOG_BATCHING__MAX_BATCH_TOKENS=2048 oddlog serve --device cpu --device cpu

SIGTERM and SIGINT finish running requests first; a second one ends at once. SIGHUP reads keys and certificate again.
A listener that systemd hands over is used in place of --listen.

Exit codes: 0 after SIGTERM or SIGINT with every request answered, 1 if some had to be cut off, 2 for an error, 143 or
130 after a second SIGTERM or SIGINT.")]
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
    let handed = Handed::find();
    let mut config = args.load.config(more)?;
    start_log(&config)?;
    config.server.max_connections = make_room(config.server.max_connections);
    let model = open_model(&config)?;
    let (auto_takes, brief) = placement(&config)?.reason.map(|reason| (reason.text, reason.brief)).unzip();
    let devices = make_devices(&config, &model)?;
    let names: Vec<String> = devices.makers.iter().map(|maker| format!("{} ({})", maker.name, maker.about)).collect();
    let metrics = Metrics::new().map_err(|e| StartError::Config(e.to_string()))?;
    let traces = Traces::start(&config.telemetry, metrics.clone())?.map(Arc::new);
    let novelty = || Novelty::open(&config.templates, metrics.templates(), SystemTime::now()).map(Arc::new);
    let novelty = config.learns_templates().then(novelty).transpose()?;
    // Templates are mined once, whoever asks for them, and trust in them lasts as long as they do.
    let shared = match &novelty {
        Some(novelty) if config.cache.mode == CacheMode::Template => {
            let read_by = format!("{} {}", of_model(&model.files)?, config.model.max_length);
            Some((novelty.book().clone(), read_by))
        }
        _ => None,
    };
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
        let verdicts = match shared {
            Some((book, read_by)) => Verdicts::sharing(engine.handle(), &config.cache, book, &read_by),
            None => Verdicts::new(engine.handle(), &config.cache),
        };
        let app = App::new(verdicts, config.server.clone(), config.model.source.clone())?.with_log(config.log);
        let app = Arc::new(app.with_auto_takes(brief).with_traces(traces.clone()).with_novelty(novelty.clone()));
        let doors = handed.open(&config.server)?;
        let address = doors.public.local_addr().unwrap_or(address);
        let private = doors.private.as_ref().and_then(|listener| listener.local_addr().ok());
        // Caught from now on: whoever reads the next line may send one.
        let signals = Signals::catch()?;
        tracing::info!(
            %address, private = private.map(tracing::field::display), tls = !config.server.tls_key_file.is_empty(),
            model = config.model.source, devices = ?names, auto_takes, "oddlog {} serves", env!("CARGO_PKG_VERSION")
        );
        tell_ready();
        let served = http::serve(doors, app.clone(), signals.watch(app));
        Ok(match novelty.clone() {
            None => served.await,
            Some(novelty) => tokio::select! {
                answered = served => answered,
                () = novelty.keep() => unreachable!("snapshots are kept until this is dropped"),
            },
        })
    })?;
    if let Some(novelty) = novelty {
        novelty.save(SystemTime::now());
    }
    let drained = engine.shutdown(bound);
    // What waits for the collector is no answer: the exit code does not depend on it.
    if let Some(traces) = traces {
        traces.shutdown();
    }
    tracing::info!(answered, drained, "stopped");
    Ok(ExitCode::from(u8::from(!(answered && drained))))
}
