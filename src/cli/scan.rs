//! `oddlog scan`: grep for odd lines.

mod args;
mod colour;
mod lines;
mod rows;
mod show;
mod tables;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

pub use args::ScanArgs;

use super::load::{make_devices, open_model, start_log};
use crate::{
    engine::Engine,
    error::StartError,
    metrics::Metrics,
    scan::{Input, Question, Remote, Scan, Scorer, Settings, Source},
};
use show::Show;

/// Time between two sums of the engine's metrics.
const UPKEEP: Duration = Duration::from_secs(1);

/// How it ended.
enum End {
    Whole,
    /// Ctrl-C.
    Interrupted,
    /// Nothing more can be scored.
    Failed(String),
}

/// Scans the inputs.
///
/// # Errors
/// [`StartError`] if the model or the server cannot be used.
pub fn run(args: ScanArgs) -> Result<ExitCode, StartError> {
    let (engine, scorer) = match &args.server {
        Some(url) => (None, Scorer::Remote(Arc::new(Remote::connect(question(&args, url)?)?))),
        None => {
            let (engine, scorer) = local(&args)?;
            (Some(engine), scorer)
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| StartError::Io { what: "starting the scan".into(), source })?;
    let sources = sources(&args);
    let names = sources.iter().map(Source::name).collect();
    let input = Input::start(sources, args.follow, args.from_end)?;
    let mut show = Show::new(&args, names, &scorer, input.progress());
    let settings = Settings { raw: args.raw, ..Settings::default() };
    let end = runtime.block_on(async {
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => End::Interrupted,
            never = upkeep(&scorer) => match never {},
            result = Scan::new(&scorer, settings).run(input, |next| show.take(next)) => match result {
                Ok(()) => End::Whole,
                Err(reason) => End::Failed(reason),
            },
        }
    });
    let outcome = show.finish();
    // A call to a server may still run; nobody waits for its answer.
    runtime.shutdown_background();
    if let Some(engine) = engine {
        engine.shutdown(Duration::from_secs(1));
    }
    let outcome = outcome.map_err(|source| StartError::Io { what: "writing the result".into(), source })?;
    Ok(match end {
        End::Interrupted => ExitCode::from(130),
        End::Failed(reason) => return Err(StartError::Io { what: "scoring".into(), source: io::Error::other(reason) }),
        End::Whole if outcome.failed => ExitCode::from(2),
        End::Whole => ExitCode::from(u8::from(args.fail_on_anomaly && outcome.found)),
    })
}

/// Sums up what histograms gather, which would else grow with each text. It has no end.
async fn upkeep(scorer: &Scorer) -> std::convert::Infallible {
    let Scorer::Engine { handle, .. } = scorer else { return std::future::pending().await };
    let mut upkeep = tokio::time::interval(UPKEEP);
    loop {
        upkeep.tick().await;
        handle.metrics().upkeep();
    }
}

fn local(args: &ScanArgs) -> Result<(Engine, Scorer), StartError> {
    // Nobody waits for a single answer here, so none is late.
    let more = serde_json::json!({ "batching": { "request_timeout_ms": 600_000 } });
    let mut config = args.load.config(more)?;
    if std::env::var_os("ODDLOG_LOG__LEVEL").is_none() && args.load.config.is_none() {
        config.log.level = "warn".into();
    }
    start_log(&config)?;
    let model = open_model(&config)?;
    let devices = make_devices(&config, &model)?;
    let metrics = Metrics::new().map_err(|e| StartError::Config(e.to_string()))?;
    let engine = Engine::start(&model, devices, &config.scoring, &config.batching, metrics)?;
    let handle = engine.handle();
    let task = handle
        .task(args.labels.clone(), args.anomaly_label.clone(), None, None)
        .map_err(|e| StartError::Config(e.to_string()))?;
    let threshold = args.threshold.unwrap_or(handle.scoring().threshold);
    Ok((engine, Scorer::Engine { handle, task, threshold }))
}

fn question(args: &ScanArgs, url: &str) -> Result<Question, StartError> {
    let key = |path: &std::path::PathBuf| {
        let what = format!("reading the key {}", path.display());
        let text = std::fs::read_to_string(path).map_err(|source| StartError::Io { what, source })?;
        Ok::<_, StartError>(text.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or_default().to_owned())
    };
    Ok(Question {
        url: url.to_owned(),
        api_key: args.api_key_file.as_ref().map(key).transpose()?,
        threshold: args.threshold,
        labels: args.labels.clone(),
        anomaly_label: args.anomaly_label.clone(),
    })
}

fn sources(args: &ScanArgs) -> Vec<Source> {
    let mut sources: Vec<Source> = args
        .files
        .iter()
        .map(|path| if path.as_os_str() == "-" { Source::Stdin } else { Source::File(path.clone()) })
        .collect();
    if sources.is_empty() {
        sources.push(Source::Stdin);
    }
    if sources.contains(&Source::Stdin) && io::stdin().is_terminal() {
        eprintln!("oddlog: reading lines from the terminal; Ctrl-D ends");
    }
    sources
}
