//! What a scan shows: its result on standard output, progress and summary on standard error.

use std::{
    io::{self, BufWriter, IsTerminal, Stdout, Write},
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{
    args::{Format, ScanArgs},
    colour::{Colours, grouped},
    lines::{Lines, Shared},
    rows::Rows,
    tables::{ByTemplate, Top},
};
use crate::scan::{Next, Progress, Scorer, Source, Unscored};

/// Longest time that a line which was printed is kept back.
const FLUSH_EVERY: Duration = Duration::from_millis(100);

/// Bytes of output that are written at once.
const OUT_BYTES: usize = 64 << 10;

/// Records between two looks at the clock for the progress bar.
const RECORDS_A_TICK: u64 = 256;

/// Records without a score that are named; the rest is only counted.
const MOST_NAMED: u64 = 5;

enum Mode {
    Lines(Lines),
    Top(Top),
    ByTemplate(Box<ByTemplate>),
}

/// What a scan came to.
pub struct Outcome {
    /// Whether a record was odd.
    pub found: bool,
    /// Whether an input could not be read, or a record not scored.
    pub failed: bool,
}

/// See the module.
pub struct Show {
    shared: Shared,
    mode: Mode,
    out: BufWriter<Stdout>,
    /// Whether nothing may be kept back, because what comes next may be long in coming.
    at_once: bool,
    flushed: Instant,
    bar: ProgressBar,
    progress: Arc<Progress>,
    quiet: bool,
    started: Instant,
    records: u64,
    odd: u64,
    texts: u64,
    unscored: u64,
    failed: bool,
    broken: Option<io::Error>,
}

impl Show {
    /// For inputs of these names.
    pub fn new(args: &ScanArgs, names: Vec<String>, scorer: &Scorer, progress: Arc<Progress>) -> Self {
        let top = args.top.map(|n| n as usize);
        let rows = Rows::new(args.format);
        let mode = match (args.by_template, top) {
            (true, _) => Mode::ByTemplate(Box::new(ByTemplate::new(rows, top))),
            (false, Some(most)) => Mode::Top(Top::new(rows, most)),
            (false, None) => Mode::Lines(Lines::new(rows, args.context as usize)),
        };
        let bar = match io::stderr().is_terminal() && !args.quiet {
            true => progress_bar(&progress),
            false => ProgressBar::hidden(),
        };
        let at_once = args.follow || io::stdout().is_terminal() || names.contains(&Source::Stdin.name());
        let shared = Shared {
            names,
            labels: scorer.labels().to_vec(),
            threshold: scorer.threshold(),
            colours: Colours::choose(args.color),
            text: args.format == Format::Text,
        };
        let now = Instant::now();
        Self {
            shared,
            mode,
            out: BufWriter::with_capacity(OUT_BYTES, io::stdout()),
            at_once,
            flushed: now,
            bar,
            progress,
            quiet: args.quiet,
            started: now,
            records: 0,
            odd: 0,
            texts: 0,
            unscored: 0,
            failed: false,
            broken: None,
        }
    }

    /// Takes the next record. Breaks when nobody reads the output any more.
    pub fn take(&mut self, next: Next<'_>) -> ControlFlow<()> {
        let judged = match next {
            Next::Failed(source, reason) => {
                self.failed = true;
                let name = &self.shared.names[source];
                self.bar.suspend(|| eprintln!("oddlog: {name}: {reason}"));
                return ControlFlow::Continue(());
            }
            Next::Record(judged) => judged,
        };
        self.records += 1;
        self.texts += u64::from(judged.is_new);
        if self.records.is_multiple_of(RECORDS_A_TICK) {
            self.tick();
        }
        let scored = match judged.scored {
            Ok(scored) => *scored,
            Err(error) => {
                self.failed = true;
                self.unscored += 1;
                if let (true, Unscored::Text(reason)) = (self.unscored <= MOST_NAMED, error) {
                    let (name, line) = (&self.shared.names[judged.source], judged.record.number);
                    self.bar.suspend(|| eprintln!("oddlog: {name}:{line}: {reason}"));
                }
                return ControlFlow::Continue(());
            }
        };
        self.odd += u64::from(scored.is_odd);
        match &mut self.mode {
            Mode::Top(top) => top.take(&judged, scored),
            Mode::ByTemplate(table) => table.take(&judged, scored),
            Mode::Lines(lines) => {
                let written = lines.take(&mut self.out, &self.shared, &judged, scored).and_then(|written| {
                    let due = written && (self.at_once || self.flushed.elapsed() >= FLUSH_EVERY);
                    if due {
                        self.flushed = Instant::now();
                        self.bar.suspend(|| self.out.flush())?;
                    }
                    Ok(())
                });
                if let Err(error) = written {
                    self.broken = Some(error);
                    return ControlFlow::Break(());
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn tick(&mut self) {
        if self.bar.is_hidden() {
            return;
        }
        self.bar.set_position(self.progress.read.load(Relaxed));
        self.bar.set_message(format!("{}/s, {} odd", grouped(self.rate()), grouped(self.odd)));
    }

    fn rate(&self) -> u64 {
        (self.records as f64 / self.started.elapsed().as_secs_f64().max(1e-3)) as u64
    }

    /// Prints what was gathered, and the summary; also of a scan that was interrupted.
    ///
    /// # Errors
    /// If the output cannot be written. A reader that has gone is no error.
    pub fn finish(mut self) -> io::Result<Outcome> {
        self.bar.finish_and_clear();
        let outcome = Outcome { found: self.odd > 0, failed: self.failed };
        let written = match self.broken.take() {
            Some(error) => Err(error),
            None => match &mut self.mode {
                Mode::Lines(_) => Ok(()),
                Mode::Top(top) => top.print(&mut self.out, &self.shared),
                Mode::ByTemplate(table) => table.print(&mut self.out, &self.shared),
            }
            .and_then(|()| self.out.flush()),
        };
        if let Err(error) = written {
            // The buffer must not try again when it is dropped.
            let (_, _) = self.out.into_parts();
            return if error.kind() == io::ErrorKind::BrokenPipe { Ok(outcome) } else { Err(error) };
        }
        if !self.quiet {
            let seconds = self.started.elapsed().as_secs_f64();
            let rate = grouped(self.rate());
            let unscored = match self.unscored {
                0 => String::new(),
                n => format!("; {} without a score", grouped(n)),
            };
            eprintln!(
                "oddlog: {} of {} records are odd at threshold {}; {} distinct texts scored; {seconds:.1} s, {rate} records/s{unscored}",
                grouped(self.odd),
                grouped(self.records),
                self.shared.threshold,
                grouped(self.texts),
            );
        }
        Ok(outcome)
    }
}

fn progress_bar(progress: &Progress) -> ProgressBar {
    let (bar, template) = match progress.total {
        Some(total) => (ProgressBar::new(total), "{wide_bar} {percent}% of {total_bytes}, {msg}, {eta} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} read, {msg}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    bar.with_style(ProgressStyle::with_template(template).expect("it is valid"))
}
