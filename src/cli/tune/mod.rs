//! `oddlog tune`: measures settings on this machine with the user's lines and writes the best into a configuration.

mod summary;
mod write;

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    Format,
    load::{LoadArgs, cores, make_devices, open_model, placement, start_log},
};
use crate::{
    config::Config,
    error::StartError,
    tuning::{Bench, Candidate, Effort, Grid, Halt, Outcome, Plan, Run, Sites, built_in_lines, read_lines, search},
};
use summary::Summary;
use write::Target;

/// Most clients that send at once, unless they are chosen by a flag.
const MOST_CLIENTS: usize = 256;
/// The same for each GPU, whose runs hold hundreds of logs,
const MOST_CLIENTS_OF_GPU: usize = 1024;
/// and for all of them together, and of those that a flag may choose.
const MOST_CLIENTS_OF_ALL: usize = 4096;

/// Find the fastest settings for this machine, by measuring, and write them into a configuration file
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  oddlog tune --lines /var/log/app.log
  oddlog tune --lines app.log --p99-ms 100 && oddlog serve --config oddlog.tuned.toml
  oddlog tune --lines app.log --config config.toml --write
  oddlog tune --quick --format json

It runs the model with different instances x threads, max_batch_tokens and max_queue_delay_us, each with as many clients
as the target allows, and compares each with the present settings in alternation, so that a noisy machine favours none.
The present settings stay unless others are surely better. Nothing else should run on the machine meanwhile.

Exit codes: 0 written, 1 nothing meets the target (nothing is written), 2 for an error, 130 after Ctrl-C.")]
pub struct TuneArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// File with log lines as the server will get them; without it, lines that ship with the program
    #[arg(long, value_name = "FILE")]
    lines: Option<PathBuf>,
    /// Target: 99 of 100 logs are answered within this many ms
    #[arg(long, value_name = "MS", default_value_t = 250.0, value_parser = positive::<1_000_000>)]
    p99_ms: f64,
    /// How long each measurement lasts, in s; longer ones are surer [default: 5, with --quick 1]
    #[arg(long, value_name = "S", value_parser = positive::<600>)]
    seconds_per_step: Option<f64>,
    /// Numbers of clients to measure with, separated by commas; without it 1, 2, 4, ... as the target allows
    #[arg(long, value_delimiter = ',', value_name = "N,...", value_parser = clap::value_parser!(u32).range(1..=MOST_CLIENTS_OF_ALL as i64))]
    concurrency: Vec<u32>,
    /// Fewer values and short steps: a first impression in about a minute
    #[arg(long)]
    quick: bool,
    /// File to write the tuned keys to
    #[arg(long, value_name = "FILE", default_value = "oddlog.tuned.toml", conflicts_with = "write")]
    out: PathBuf,
    /// Change the tuned keys in the file given by --config instead, and keep all else in it
    #[arg(long)]
    write: bool,
    /// Overwrite a file that tune has not written
    #[arg(long)]
    force: bool,
    /// How to print what was measured
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

fn positive<const MOST: u32>(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= f64::from(MOST) => Ok(value),
        _ => Err(format!("it must be a number above 0 and at most {MOST}")),
    }
}

/// Measures, prints, writes.
///
/// # Errors
/// [`StartError`] if the model or the lines cannot be used, or the file cannot be written.
pub fn run(args: TuneArgs) -> Result<ExitCode, StartError> {
    let mut config = args.load.config(serde_json::json!({}))?;
    if std::env::var_os("ODDLOG_LOG__LEVEL").is_none() && args.load.config.is_none() {
        config.log.level = "warn".into();
    }
    start_log(&config)?;
    // Whatever would keep the result from being written is found out before minutes are spent.
    let target = match (args.write, &args.load.config) {
        (false, _) => Target::separate(args.out.clone(), args.force)?,
        (true, Some(file)) => Target::within(file)?,
        (true, None) => return Err(StartError::Config("--write needs --config FILE, the file to change".into())),
    };
    let lines = match &args.lines {
        Some(path) => read_lines(path)?,
        None => built_in_lines(),
    };
    let (sites, workers) = Sites::of(&placement(&config)?.places).map_err(StartError::Config)?;
    let plan = plan(&args, &config, &sites, workers)?;
    let model = open_model(&config)?;
    let seconds = args.seconds_per_step.unwrap_or(if args.quick { 1.0 } else { 5.0 });
    let bench = Bench {
        model: &model,
        config: &config,
        sites: &sites,
        lines: &lines,
        step: Duration::from_secs_f64(seconds),
        devices: &make_devices,
    };
    let mut clients = Clients::new()?;
    let most = bench.step_time() + bench.start_and_end(&plan.current)?;
    announce(&args, &config, lines.len(), plan.most_steps(), most * plan.most_steps() as u32);

    let outcome = clients.search(&plan, &bench)?;
    let summary = Summary {
        outcome: &outcome,
        plan: &plan,
        sites: &sites,
        model: &config.model.source,
        lines: args.lines.as_deref(),
        line_count: lines.len(),
        seconds_per_step: seconds,
    };
    let code = match (outcome.winner, outcome.interrupted) {
        (_, true) => 130,
        (None, _) => 1,
        (Some(_), _) => 0,
    };
    let written = match outcome.winner.filter(|_| !outcome.interrupted) {
        None => None,
        Some(winner) => {
            let settings =
                write::Settings::new(outcome.trials[winner].candidate, &sites, &plan.current, &config.devices);
            target.write(&settings, &summary.comment())?;
            Some(target.path())
        }
    };
    print(&summary, args.format, written)?;
    Ok(ExitCode::from(code))
}

/// What is searched: around the configuration's present settings, with so many `workers` on each device, on the cores that
/// this process may use.
fn plan(args: &TuneArgs, config: &Config, sites: &Sites, workers: usize) -> Result<Plan, StartError> {
    let current = Candidate::of(config, sites, workers);
    // No number of clients may fill the queue, whatever the length of their logs.
    let log = config.scoring.labels.len().max(1) * config.model.max_length.next_multiple_of(16);
    let at_once = current.max_batch_tokens * sites.count() * workers;
    let room = (config.batching.queue_tokens(at_once, log) / log).max(1);
    let most = if sites.are_gpus() { MOST_CLIENTS_OF_GPU * sites.count() } else { MOST_CLIENTS };
    let mut levels: Vec<usize> = match args.concurrency.as_slice() {
        [] => std::iter::successors(Some(1), |n| Some(n * 2))
            .take_while(|n| *n <= room.min(most.min(MOST_CLIENTS_OF_ALL)))
            .collect(),
        chosen => chosen.iter().map(|n| *n as usize).collect(),
    };
    levels.sort_unstable();
    levels.dedup();
    if let Some(n) = levels.iter().find(|n| **n > room) {
        return Err(StartError::Config(format!(
            "--concurrency {n}: batching.max_queue_tokens has room for {room} logs of model.max_length"
        )));
    }
    let effort = Effort { rounds: 2, final_rounds: if args.quick { 5 } else { 7 } };
    Ok(Plan { current, grid: Grid::new(cores(), sites, args.quick), levels, p99_ms: args.p99_ms, effort })
}

fn announce(args: &TuneArgs, config: &Config, lines: usize, steps: usize, most: Duration) {
    let from = match &args.lines {
        Some(path) => format!("{lines} lines of {}", path.display()),
        None => format!("{lines} built-in lines (better your own: --lines FILE)"),
    };
    eprintln!("oddlog: tuning {} on {} cores with {from}; p99 target {} ms", config.model.source, cores(), args.p99_ms);
    eprintln!("oddlog: at most {steps} steps, about {}; Ctrl-C ends early and writes nothing", duration(most));
}

fn duration(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=119 => format!("{} s", seconds + 1),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

/// Where measurements run, and what ends them early.
struct Clients {
    runtime: tokio::runtime::Runtime,
    interrupt: Signal,
}

impl Clients {
    /// From now on Ctrl-C no longer ends the process by itself.
    fn new() -> Result<Self, StartError> {
        let failed = |source| StartError::Io { what: "starting the clients".into(), source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let interrupt = {
            let _context = runtime.enter();
            signal(SignalKind::interrupt()).map_err(failed)?
        };
        Ok(Self { runtime, interrupt })
    }

    /// Runs the search, with a bar on a terminal, until it ends or Ctrl-C.
    fn search(&mut self, plan: &Plan, bench: &Bench) -> Result<Outcome, StartError> {
        let bar = progress_bar(plan.most_steps());
        let mut step = |candidate: &Candidate, clients: usize| -> Result<Run, Halt> {
            let Candidate { instances, intra_op_threads, max_batch_tokens, max_queue_delay_us } = candidate;
            bar.set_message(format!(
                "{instances} x {intra_op_threads} threads, {max_batch_tokens} tokens, {max_queue_delay_us} us, \
                 {clients} clients"
            ));
            let run = self.runtime.block_on(bench.measure(candidate, clients, interrupted(&mut self.interrupt)));
            bar.inc(1);
            run
        };
        let outcome = search(plan, &mut step);
        bar.finish_and_clear();
        outcome
    }
}

async fn interrupted(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending().await
    }
}

fn progress_bar(steps: usize) -> ProgressBar {
    let terminal = io::stderr().is_terminal();
    let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{wide_bar} {pos} of at most {len}, {elapsed}  {msg}")
        .expect("the template is valid");
    ProgressBar::with_draw_target(Some(steps as u64), target).with_style(style)
}

fn print(summary: &Summary, format: Format, written: Option<&Path>) -> Result<(), StartError> {
    let text = match format {
        Format::Text => summary.text(written),
        Format::Json => summary.json(written).to_string() + "\n",
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(StartError::Io { what: "printing the measurements".into(), source: e })
        }
        _ => Ok(()),
    }
}
