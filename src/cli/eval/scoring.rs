//! Anomaly scores of the data set's lines from a model, through an engine of its own, with or without a memory before it.

use std::{
    collections::{HashMap, hash_map::Entry},
    io::IsTerminal,
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::questions::Question;
use crate::{
    classify::Task,
    cli::load::make_devices,
    config::{Cache, Config, Scoring},
    engine::{Class, Engine, Handle},
    error::{RequestError, StartError},
    eval::Remembered,
    metrics::Metrics,
    model::Model,
    verdicts::{Outcome, Verdicts},
};

/// Lines scored at once; more would only wait in the queue.
const IN_FLIGHT: usize = 256;

/// A model that answers, and the thread that asks it.
pub struct Asker {
    engine: Engine,
    runtime: tokio::runtime::Runtime,
}

impl Asker {
    /// Starts the model on the configured devices.
    ///
    /// # Errors
    /// [`StartError`] if it cannot be used.
    pub fn start(config: &Config, model: &Model) -> Result<Self, StartError> {
        let devices = make_devices(config, model)?;
        let metrics = Metrics::new().map_err(|e| StartError::Config(e.to_string()))?;
        let mut batching = config.batching.clone();
        // Nobody waits for one line of a data set; a slow machine takes its time.
        batching.request_timeout_ms = batching.request_timeout_ms.max(600_000);
        let engine = Engine::start(model, devices, &config.scoring, &batching, metrics)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| StartError::Io { what: "starting the reader".into(), source })?;
        Ok(Self { engine, runtime })
    }

    /// `scoring` with the labels of `question` in place of the configured ones.
    ///
    /// # Errors
    /// [`StartError::Config`] if they cannot be used.
    pub fn configured(&self, question: &Question, scoring: &Scoring) -> Result<Scoring, StartError> {
        let task = question.task(&self.engine.handle())?;
        Ok(Scoring {
            labels: task.labels.clone(),
            anomaly_label: task.labels[task.anomaly].clone(),
            hypothesis_template: question.template.clone().unwrap_or_else(|| scoring.hypothesis_template.clone()),
            ..scoring.clone()
        })
    }

    /// For each question the anomaly score of each text. A text that stands there several times is scored once.
    ///
    /// # Errors
    /// [`StartError`] if a line cannot be scored.
    pub fn scores(&self, texts: &[&str], questions: &[Question]) -> Result<Vec<Vec<f32>>, StartError> {
        let (distinct, places) = distinct(texts);
        let bar = bar(distinct.len() * questions.len());
        let all = self.runtime.block_on(async {
            let mut all = Vec::with_capacity(questions.len());
            for question in questions {
                let scores = ask(&self.engine.handle(), question, &distinct, &bar).await?;
                all.push(places.iter().map(|place| scores[*place]).collect());
            }
            Ok(all)
        });
        bar.finish_and_clear();
        all
    }

    /// The anomaly score of each text with the configured labels through a fresh memory, all texts in order as one stream
    /// with `at_once` lines in the server; and how they were answered. It is to be asked once: the checks of all times
    /// count.
    ///
    /// # Errors
    /// As [`Asker::scores`].
    pub fn remembered(
        &self,
        texts: &[&str],
        cache: &Cache,
        at_once: usize,
    ) -> Result<(Vec<f32>, Remembered), StartError> {
        let verdicts = Verdicts::new(self.engine.handle(), cache);
        let task = verdicts.handle().default_task();
        let bar = bar(texts.len());
        let answers = texts.iter().map(|text| {
            let answer = verdicts.classify(*text, task, Class::Bulk);
            async { answer.await.map_err(|e| failed(&e, text)).inspect(|_| bar.inc(1)) }
        });
        let answers = stream::iter(answers).buffered(at_once).try_collect::<Vec<_>>();
        let answers = self.runtime.block_on(async {
            let checks = verdicts.check_templates();
            tokio::pin!(checks);
            let answers = tokio::select! {
                answers = answers => answers,
                never = &mut checks => match never {},
            };
            // Checks wait for an idle engine, so most come when there are no more lines.
            let rest = async {
                while verdicts.open_checks() > 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::select! {
                () = rest => answers,
                never = &mut checks => match never {},
            }
        });
        bar.finish_and_clear();
        let (mut scores, mut found) = (Vec::with_capacity(texts.len()), Remembered::default());
        for answer in answers? {
            scores.push(answer.classified.scores[task.anomaly]);
            *match answer.outcome {
                Some(Outcome::Hit) => &mut found.hits,
                Some(Outcome::Joined) => &mut found.joined,
                Some(Outcome::Template) => &mut found.templates,
                Some(Outcome::Miss) | None => &mut found.misses,
            } += 1;
        }
        let checked = |result| {
            let sample = format!("oddlog_template_checks_total{{result=\"{result}\"}}");
            verdicts.handle().metrics().value(&sample).unwrap_or_default() as usize
        };
        found.checks_differ = checked("disagreed");
        found.checks = checked("agreed") + found.checks_differ;
        Ok((scores, found))
    }

    /// Ends the model's threads.
    pub fn end(self) {
        self.engine.shutdown(Duration::from_secs(1));
    }
}

/// The distinct texts in order of their first place, and for each text which of them it is.
fn distinct<'a>(texts: &[&'a str]) -> (Vec<&'a str>, Vec<usize>) {
    let (mut seen, mut distinct) = (HashMap::new(), Vec::new());
    let place = |text: &&'a str| match seen.entry(*text) {
        Entry::Occupied(known) => *known.get(),
        Entry::Vacant(new) => {
            distinct.push(*text);
            *new.insert(distinct.len() - 1)
        }
    };
    let places = texts.iter().map(place).collect();
    (distinct, places)
}

async fn ask(handle: &Handle, question: &Question, texts: &[&str], bar: &ProgressBar) -> Result<Vec<f32>, StartError> {
    let task = question.task(handle)?;
    let task: &Task = &task;
    let answers = texts.iter().copied().map(|text| anomaly_score(handle, task, text, bar));
    stream::iter(answers).buffered(IN_FLIGHT).try_collect().await
}

async fn anomaly_score(handle: &Handle, task: &Task, text: &str, bar: &ProgressBar) -> Result<f32, StartError> {
    let scored = handle.classify(text, task, Class::Bulk).await.map_err(|e| failed(&e, text))?;
    bar.inc(1);
    Ok(scored.scores[task.anomaly])
}

fn failed(error: &RequestError, text: &str) -> StartError {
    StartError::Config(format!("{error} The line: {text:?}"))
}

fn bar(lines: usize) -> ProgressBar {
    let terminal = std::io::stderr().is_terminal();
    let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("scoring {wide_bar} {pos}/{len} lines, {per_sec}, {eta} left");
    ProgressBar::with_draw_target(Some(lines as u64), target).with_style(style.expect("it is valid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_scored_once_and_its_score_goes_to_all_its_places() {
        assert_eq!(distinct(&["b", "a", "b", "c", "a"]), (vec!["b", "a", "c"], vec![0, 1, 0, 2, 1]));
    }
}
