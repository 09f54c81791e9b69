//! What `oddlog tune` says of its measurements: a table, JSON, the comment in the file it writes.

use std::{fmt::Write, path::Path, time::SystemTime};

use serde_json::{Value, json};

use crate::{
    cli::load::cores,
    tuning::{Gain, Outcome, Plan, Run, Sites, Trial, Verdict},
};

/// Answers in a step below which its p99 is little more than its slowest answer.
const FEW_ANSWERS: usize = 100;

/// The outcome and what it rests on.
pub struct Summary<'a> {
    pub outcome: &'a Outcome,
    pub plan: &'a Plan,
    pub sites: &'a Sites,
    pub model: &'a str,
    /// The user's file; `None` means the built-in lines.
    pub lines: Option<&'a Path>,
    pub line_count: usize,
    pub seconds_per_step: f64,
}

impl Summary<'_> {
    /// The table and what follows from it.
    pub fn text(&self, written: Option<&Path>) -> String {
        let head = ["instances", "threads", "batch tokens", "delay us", "clients", "logs/s", "p50 ms", "p99 ms"];
        let head = head.into_iter().chain(["vs present", "verdict"]).map(str::to_owned).collect();
        let mut rows: Vec<Vec<String>> = vec![head];
        rows.extend(self.outcome.trials.iter().enumerate().map(|(i, trial)| self.row(i, trial)));
        let widths: Vec<usize> =
            (0..rows[0].len()).map(|c| rows.iter().map(|row| row[c].len()).max().unwrap_or_default()).collect();
        let mut text = String::new();
        for row in rows {
            let (verdict, figures) = row.split_last().expect("a row has cells");
            let mut line: String =
                figures.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}  ")).collect();
            line.push_str(verdict);
            let _ = writeln!(text, "{}", line.trim_end());
        }
        let _ = writeln!(text, "\n{}", self.sentence());
        if self.few_answers() {
            let _ = writeln!(
                text,
                "Some steps had under {FEW_ANSWERS} answers; a longer --seconds-per-step makes p99 surer."
            );
        }
        if let Some(path) = written {
            let _ = writeln!(text, "Written to {}.", path.display());
        }
        text
    }

    fn row(&self, index: usize, trial: &Trial) -> Vec<String> {
        let (c, run) = (&trial.candidate, trial.median());
        let clients = self.plan.levels[trial.level];
        let numbers = [c.instances, c.intra_op_threads, c.max_batch_tokens].map(|n| n.to_string());
        let ratio = if index == 0 { None } else { trial.ratio() };
        let rest = [
            c.max_queue_delay_us.to_string(),
            clients.to_string(),
            number(run.logs_per_s),
            number(run.p50_ms),
            number(run.p99_ms),
            ratio.map_or_else(|| "-".into(), percent),
            self.verdict(index).into(),
        ];
        numbers.into_iter().chain(rest).collect()
    }

    fn verdict(&self, index: usize) -> &'static str {
        match self.outcome.verdict(index, self.plan.p99_ms) {
            Verdict::Best => "best",
            Verdict::OverTarget if index == 0 => "present, over target",
            Verdict::OverTarget => "over target",
            Verdict::Current if self.outcome.winner == Some(0) => "present, stays",
            Verdict::Current => "present",
            Verdict::WithinNoise => "inside the noise",
            Verdict::Beaten => "",
        }
    }

    /// What was found and how sure that is, in one sentence or two.
    fn sentence(&self) -> String {
        let Outcome { trials, winner, finalist, interrupted } = self.outcome;
        let target = self.plan.p99_ms;
        match (winner, finalist) {
            _ if *interrupted => "Interrupted: nothing is written.".into(),
            (None, _) => {
                let near = trials.iter().map(|t| t.median().p99_ms).fold(f64::INFINITY, f64::min);
                match near.is_finite() {
                    true => format!(
                        "Nothing meets p99 <= {target} ms. The nearest had {} ms: --p99-ms {} would do.",
                        number(near),
                        (near * 1.2).ceil()
                    ),
                    false => "Nothing was answered within a step: --seconds-per-step must be longer.".into(),
                }
            }
            (Some(0), None) => "The present settings stay: nothing else served more in the rounds.".into(),
            (Some(0), Some((_, gain))) => {
                format!("The present settings stay: {} is not surely better.", in_final(gain))
            }
            (Some(_), Some((_, gain))) if gain.is_sure() => {
                format!("Better than the present settings: {}.", in_final(gain))
            }
            (Some(_), _) => format!("The present settings miss p99 <= {target} ms, the best ones keep it."),
        }
    }

    fn few_answers(&self) -> bool {
        self.outcome.trials.iter().any(|t| t.runs.iter().any(|run| run.answers < FEW_ANSWERS))
    }

    /// Everything for programs. A figure that is not there is null.
    pub fn json(&self, written: Option<&Path>) -> Value {
        let trial = |(index, trial): (usize, &Trial)| {
            json!({
                "settings": trial.candidate,
                "clients": self.plan.levels[trial.level],
                "median": trial.median(),
                "runs": trial.runs,
                "ratio_to_present": trial.ratio(),
                "verdict": self.outcome.verdict(index, self.plan.p99_ms),
            })
        };
        let finalist = self.outcome.finalist.as_ref();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "machine": machine(),
            "cores": cores(),
            "device": self.sites.to_string(),
            "model": self.model,
            "lines": self.lines,
            "line_count": self.line_count,
            "seconds_per_step": self.seconds_per_step,
            "p99_target_ms": self.plan.p99_ms,
            "trials": self.outcome.trials.iter().enumerate().map(trial).collect::<Vec<_>>(),
            "final": finalist.map(|(index, gain)| json!({ "trial": index, "gain": gain })),
            "winner": self.outcome.winner,
            "interrupted": self.outcome.interrupted,
            "written": written,
        })
    }

    /// What the file should remember: when, where, with what, how fast.
    pub fn comment(&self) -> Vec<String> {
        let lines = match self.lines {
            Some(path) => format!("{} lines of {}", self.line_count, path.display()),
            None => format!("{} built-in lines", self.line_count),
        };
        let date = httpdate::fmt_http_date(SystemTime::now());
        let mut comment = vec![
            format!("[devices] devices, intra_op_threads; [batching] max_batch_tokens, max_queue_delay_us; {date}"),
            format!("{} on {} cores of {}; {lines}", self.model, cores(), machine()),
        ];
        if let Some(trial) = self.outcome.winner.map(|winner| &self.outcome.trials[winner]) {
            let Run { logs_per_s, p50_ms, p99_ms, .. } = trial.median();
            comment.push(format!(
                "{} logs/s, p50 {} ms, p99 {} ms (target {} ms) with {} clients",
                number(logs_per_s),
                number(p50_ms),
                number(p99_ms),
                self.plan.p99_ms,
                self.plan.levels[trial.level]
            ));
        }
        comment.push(self.sentence());
        // A path may hold anything; a comment must end where its line ends.
        comment.iter().map(|line| line.replace(char::is_control, " ")).collect()
    }
}

fn in_final(gain: &Gain) -> String {
    let Gain { ratio, low, high, rounds } = gain;
    format!("{} in {rounds} rounds side by side (likely {} to {})", percent(*ratio), percent(*low), percent(*high))
}

fn percent(ratio: f64) -> String {
    match ((ratio - 1.0) * 100.0).round() {
        0.0 => "+0 %".into(),
        percent => format!("{percent:+} %"),
    }
}

/// Three digits that count, a dash for what is not there.
fn number(value: f64) -> String {
    match value {
        v if !v.is_finite() => "-".into(),
        v if v < 10.0 => format!("{v:.2}"),
        v if v < 100.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

/// The processor's name, as far as the system tells it.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| std::env::consts::ARCH.into(), |(_, name)| name.trim().into())
}
