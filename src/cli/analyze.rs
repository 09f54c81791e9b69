//! `oddlog analyze`: verdicts for lines given as arguments or on standard input, without a server.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use super::load::{LoadArgs, make_devices, open_model, start_log};
use crate::{
    classify::{Verdict, verdict},
    engine::{Class, Engine},
    error::{RequestError, StartError},
    metrics::Metrics,
    verdicts::Verdicts,
};

/// Lines scored at once; more would only wait in the queue.
const IN_FLIGHT: usize = 256;

/// Longest line that is read, in bytes; the rest of it is a line of its own.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// Score lines given as arguments or on standard input
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  oddlog analyze 'ERROR: Database connection timeout after 30s'
  tail -n 100 app.log | oddlog analyze --threshold 0.8
  oddlog analyze --labels 'a security threat,a hardware failure,normal operation' --anomaly-label 'a security threat' < app.log
  oddlog analyze --fail-on-anomaly < deploy.log || echo look at it

On a terminal it prints a table, in a pipe one JSON object a line.
Exit codes: 0, or with --fail-on-anomaly 1 if a line is an anomaly; 2 for an error.")]
pub struct AnalyzeArgs {
    /// Lines to score; without any, standard input is read
    #[arg(value_name = "LINE")]
    lines: Vec<String>,
    #[command(flatten)]
    load: LoadArgs,
    /// Score from which a line is an anomaly, 0 to 1
    #[arg(long, value_name = "SCORE", value_parser = parse_threshold)]
    threshold: Option<f32>,
    /// Candidate labels, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "LABEL,...")]
    labels: Option<Vec<String>>,
    /// The label that counts as the anomaly; without it the configured one, or the first of --labels
    #[arg(long, value_name = "LABEL")]
    anomaly_label: Option<String>,
    /// Exit with 1 if a line is an anomaly
    #[arg(long)]
    fail_on_anomaly: bool,
    /// Print JSON lines also on a terminal
    #[arg(long)]
    json: bool,
}

/// A threshold as a flag gives it.
pub(super) fn parse_threshold(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(t) if (0.0..=1.0).contains(&t) => Ok(t),
        _ => Err("it must be a number from 0 to 1".into()),
    }
}

#[derive(Serialize)]
struct Row<'a> {
    log_message: &'a str,
    label: &'a str,
    confidence: f32,
    is_anomaly: bool,
    threshold: f32,
}

/// Scores the lines.
///
/// # Errors
/// [`StartError`] if the model cannot be used, or a line cannot be read, scored or printed.
pub fn run(args: AnalyzeArgs) -> Result<ExitCode, StartError> {
    let mut config = args.load.config(serde_json::json!({}))?;
    if std::env::var_os("ODDLOG_LOG__LEVEL").is_none() && args.load.config.is_none() {
        config.log.level = "warn".into();
    }
    start_log(&config)?;
    let model = open_model(&config)?;
    let devices = make_devices(&config, &model)?;
    let metrics = Metrics::new().map_err(|e| StartError::Config(e.to_string()))?;
    let engine = Engine::start(&model, devices, &config.scoring, &config.batching, metrics)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(io_error("starting the reader"))?;
    let found = runtime.block_on(analyze(&args, &Verdicts::new(engine.handle(), &config.cache)))?;
    engine.shutdown(Duration::from_secs(1));
    Ok(ExitCode::from(u8::from(args.fail_on_anomaly && found)))
}

fn io_error(what: &str) -> impl FnOnce(io::Error) -> StartError {
    let what = what.to_owned();
    move |source| StartError::Io { what, source }
}

/// Scores every line in order; returns whether any is an anomaly.
async fn analyze(args: &AnalyzeArgs, verdicts: &Verdicts) -> Result<bool, StartError> {
    let handle = verdicts.handle();
    let task = handle
        .task(args.labels.clone(), args.anomaly_label.clone(), None, None)
        .map_err(|e| StartError::Config(e.to_string()))?;
    let threshold = args.threshold.unwrap_or(handle.scoring().threshold);
    let table = io::stdout().is_terminal() && !args.json;
    let colour = table && std::env::var_os("NO_COLOR").is_none();
    let task = &task;
    let score = |line: io::Result<String>| async move {
        let line = line.map_err(io_error("reading standard input"))?;
        let scored = verdicts.classify(&line, task, Class::Bulk).await;
        Ok::<_, StartError>((line, scored))
    };
    let lines = match args.lines.as_slice() {
        [] => stdin_lines().left_stream(),
        given => stream::iter(given.iter().cloned().map(Ok)).right_stream(),
    };
    let lines = lines.filter(|line| std::future::ready(!matches!(line, Ok(l) if l.trim().is_empty())));
    let mut scored = std::pin::pin!(lines.map(score).buffered(IN_FLIGHT));
    let mut out = io::stdout().lock();
    let (mut total, mut anomalies) = (0u64, 0u64);
    while let Some(next) = scored.next().await {
        let (line, result) = next?;
        let scores =
            result.map_err(|e: RequestError| StartError::Config(format!("{e} The line: {line:?}")))?.classified.scores;
        let v = verdict(&scores, task, threshold, handle.scoring().threshold_rule);
        total += 1;
        anomalies += u64::from(v.is_anomaly);
        let label = task.labels[v.label].as_str();
        let printed = match table {
            true => print_row(&mut out, &line, label, v, colour),
            false => print_json(&mut out, &line, label, v, threshold),
        };
        match printed {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(anomalies > 0),
            other => other.map_err(io_error("writing the verdicts"))?,
        }
    }
    if table && total > 1 {
        eprintln!("{anomalies} of {total} lines at threshold {threshold}");
    }
    Ok(anomalies > 0)
}

fn print_row(out: &mut impl Write, line: &str, label: &str, v: Verdict, colour: bool) -> io::Result<()> {
    let (on, off) = match (colour, v.is_anomaly) {
        (true, true) => ("\x1b[1;31m", "\x1b[0m"),
        (true, false) => ("\x1b[2m", "\x1b[0m"),
        (false, _) => ("", ""),
    };
    // Control characters of a log line must not reach the terminal.
    let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    writeln!(out, "{on}{label:<10} {:>6.3}{off}  {line}", v.confidence)
}

fn print_json(out: &mut impl Write, line: &str, label: &str, v: Verdict, threshold: f32) -> io::Result<()> {
    let row = Row { log_message: line, label, confidence: v.confidence, is_anomaly: v.is_anomaly, threshold };
    serde_json::to_writer(&mut *out, &row)?;
    out.write_all(b"\n")
}

/// Lines of standard input; bytes that are no UTF-8 become replacement characters.
fn stdin_lines() -> impl Stream<Item = io::Result<String>> {
    if io::stdin().is_terminal() {
        eprintln!("oddlog: reading lines from the terminal; Ctrl-D ends");
    }
    stream::unfold(BufReader::new(tokio::io::stdin()), |mut input| async move {
        let mut line = Vec::new();
        match (&mut input).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await {
            Ok(0) => None,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line);
                Some((Ok(text.trim_end_matches(['\r', '\n']).to_owned()), input))
            }
            Err(error) => Some((Err(error), input)),
        }
    })
}
