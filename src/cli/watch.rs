//! Compiling as a user sees it, on standard error: a bar on a terminal; elsewhere a line for each step, where asked for.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::compiled::Step;

/// Turns steps into something to look at.
pub struct Watch {
    bar: ProgressBar,
    /// Whether each step is told in a line.
    lines: bool,
    /// The step that is shown.
    shown: String,
}

impl Watch {
    /// One for this process's standard error; `lines` where nobody may see the bar.
    pub fn new(lines: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {elapsed}").expect("it is valid");
        Self {
            bar: ProgressBar::with_draw_target(Some(0), target).with_style(style),
            lines: lines && !terminal,
            shown: String::new(),
        }
    }

    /// Shows one report.
    pub fn report(&mut self, step: Step) {
        let (what, done, total) = match step {
            Step::Compiling(precision, done, total) => (format!("compiling to {precision}"), done, total),
            Step::Comparing(done, total) => ("comparing with single precision".into(), done, total),
            Step::Preparing => ("preparing for this machine".into(), 0, 0),
        };
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
        if what != self.shown {
            self.bar.set_message(what.clone());
            if self.lines {
                eprintln!("oddlog: {what}");
            }
            self.shown = what;
        }
    }

    /// Takes the bar away.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}
