//! Downloads as a user sees them, on standard error: a bar on a terminal, a line for every tenth elsewhere.

use std::{io::IsTerminal, path::PathBuf};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    error::StartError,
    model::{
        graph,
        hub::{Hub, HubError, Progress, RepoId, Weights, human},
    },
};

/// Turns progress reports into something to look at.
pub struct Reporter {
    bar: ProgressBar,
    lines: Option<Lines>,
}

impl Reporter {
    /// One for this process's standard error; a `quiet` one shows nothing.
    pub fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal && !quiet { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
            .expect("the template is valid");
        let bar = ProgressBar::with_draw_target(Some(0), target).with_style(style);
        Self { bar, lines: (!terminal && !quiet).then(Lines::default) }
    }

    /// Shows one report.
    pub fn report(&mut self, progress: &Progress<'_>) {
        if let Some(lines) = &mut self.lines {
            if let Some(line) = lines.line(progress) {
                eprintln!("oddlog: {line}");
            }
            return;
        }
        match progress {
            Progress::Bytes { file, done, total } => {
                self.bar.set_length(*total);
                self.bar.set_message((*file).to_owned());
                self.bar.set_position(*done);
            }
            Progress::Verifying { file } => self.bar.set_message(format!("verifying {file}")),
            other => self.bar.println(format!("oddlog: {}", sentence(other))),
        }
    }

    /// Takes the bar away.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}

/// Which reports are worth a line in a log.
#[derive(Default)]
struct Lines {
    /// Tenths of the whole that have been shown.
    shown: u64,
}

impl Lines {
    fn line(&mut self, progress: &Progress<'_>) -> Option<String> {
        match progress {
            Progress::Bytes { file, done, total } => {
                let tenths = if *total == 0 { 10 } else { u128::from(*done) * 10 / u128::from(*total) };
                let tenths = u64::try_from(tenths).unwrap_or(10);
                if tenths <= self.shown {
                    return None;
                }
                self.shown = tenths;
                Some(format!("{} % of {} ({file})", tenths * 10, human(*total)))
            }
            Progress::Verifying { .. } => None,
            other => Some(sentence(other)),
        }
    }
}

/// A report in words.
fn sentence(progress: &Progress<'_>) -> String {
    match progress {
        Progress::Bytes { file, done, total } => format!("{file}: {} of {}", human(*done), human(*total)),
        Progress::Verifying { file } => format!("verifying {file}"),
        Progress::Retry { what, reason, wait } => {
            format!("{what}: {}; trying again in {:.1} s", reason.brief(), wait.as_secs_f64())
        }
        Progress::LockHeld { file, lock } => {
            format!("{file}: waiting for another process that downloads it ({})", lock.display())
        }
        Progress::Damaged { file } => format!("{file}: the copy in the cache was damaged and has been removed"),
        Progress::CacheUsed { reason } => format!("using the copy in the cache: {}", reason.brief()),
    }
}

/// The folder of a hub repository with a model whose weights have the form `weights`: from the cache if it is complete
/// there, else fetched now.
///
/// # Errors
/// [`StartError::Download`] says why the model cannot be had and what to do.
pub fn model_folder(repo: &RepoId, weights: Weights) -> Result<PathBuf, StartError> {
    let failed = |e: HubError| StartError::Download(e.to_string());
    let hub = Hub::from_env(None).map_err(failed)?;
    if let Some(folder) = hub.cached(repo, weights) {
        return Ok(folder);
    }
    let mut reporter = Reporter::new(false);
    let outcome = hub.fetch(repo, weights, &mut |progress| reporter.report(&progress));
    reporter.finish();
    outcome.map_err(failed)
}

/// The folder of a hub repository in the form that serves best: weights to compile for a model that can be compiled,
/// else its ONNX graph. What the cache has already is taken.
///
/// # Errors
/// As [`model_folder`].
pub fn best_model_folder(repo: &RepoId) -> Result<PathBuf, StartError> {
    let failed = |e: HubError| StartError::Download(e.to_string());
    let hub = Hub::from_env(None).map_err(failed)?;
    let weights = hub.cached(repo, Weights::Safetensors).filter(|folder| graph::covers(folder));
    if let Some(folder) = weights.or_else(|| hub.cached(repo, Weights::Onnx)) {
        return Ok(folder);
    }
    let mut reporter = Reporter::new(false);
    let outcome = fetch_best(&hub, repo, &mut |progress| reporter.report(&progress));
    reporter.finish();
    outcome.map_err(failed)
}

/// Fetches a repository in the form that serves best.
///
/// # Errors
/// As [`Hub::fetch`].
pub fn fetch_best(hub: &Hub, repo: &RepoId, progress: &mut dyn FnMut(Progress<'_>)) -> Result<PathBuf, HubError> {
    // The small files are not worth a bar.
    let quiet = &mut |report: Progress<'_>| {
        if !matches!(report, Progress::Bytes { .. }) {
            progress(report);
        }
    };
    let companions = hub.fetch(repo, Weights::Companions, quiet)?;
    if !graph::covers(&companions) {
        return hub.fetch(repo, Weights::Onnx, progress);
    }
    match hub.fetch(repo, Weights::Safetensors, progress) {
        Err(HubError::MissingFile { .. }) => hub.fetch(repo, Weights::Onnx, progress),
        Err(HubError::Offline { .. }) if hub.cached(repo, Weights::Onnx).is_some() => {
            hub.fetch(repo, Weights::Onnx, progress)
        }
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_gets_a_line_for_each_tenth_and_none_twice() {
        let mut lines = Lines::default();
        let mut shown = Vec::new();
        for done in (0..=1000).chain(500..=1000) {
            shown.extend(lines.line(&Progress::Bytes { file: "model.onnx", done, total: 1000 }));
        }
        assert_eq!(shown.len(), 10);
        assert_eq!(shown[0], "10 % of 1.0 kB (model.onnx)");
        assert_eq!(shown[9], "100 % of 1.0 kB (model.onnx)");
        assert_eq!(lines.line(&Progress::Verifying { file: "model.onnx" }), None);
        assert!(lines.line(&Progress::Damaged { file: "model.onnx" }).unwrap().contains("removed"));
    }

    #[test]
    fn sizes_of_any_kind_do_not_upset_the_count() {
        let mut lines = Lines::default();
        assert!(lines.line(&Progress::Bytes { file: "f", done: u64::MAX, total: u64::MAX }).is_some());
        assert_eq!(
            Lines::default().line(&Progress::Bytes { file: "f", done: 0, total: 0 }).unwrap(),
            "100 % of 0 bytes (f)"
        );
    }
}
