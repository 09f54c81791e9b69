//! Anomaly scores of the data set's lines from a model, through an engine of its own.

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
    cli::load::{make_devices, open_model},
    config::Config,
    engine::{Class, Engine, Handle},
    error::{RequestError, StartError},
    metrics::Metrics,
};

/// Lines scored at once; more would only wait in the queue.
const IN_FLIGHT: usize = 256;

/// For each question the anomaly score of each text. A text that stands there several times is scored once.
///
/// # Errors
/// [`StartError`] if the model cannot be used or a line cannot be scored.
pub fn scores(config: &Config, texts: &[&str], questions: &[Question]) -> Result<Vec<Vec<f32>>, StartError> {
    let model = open_model(config)?;
    let devices = make_devices(config, &model)?;
    let metrics = Metrics::new().map_err(|e| StartError::Config(e.to_string()))?;
    let mut batching = config.batching.clone();
    // Nobody waits for one line of a data set; a slow machine takes its time.
    batching.request_timeout_ms = batching.request_timeout_ms.max(600_000);
    let engine = Engine::start(&model, devices, &config.scoring, &batching, metrics)?;
    let (distinct, places) = distinct(texts);
    let bar = bar(distinct.len() * questions.len());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| StartError::Io { what: "starting the reader".into(), source })?;
    let all = runtime.block_on(async {
        let mut all = Vec::with_capacity(questions.len());
        for question in questions {
            let scores = ask(&engine.handle(), question, &distinct, &bar).await?;
            all.push(places.iter().map(|place| scores[*place]).collect());
        }
        Ok(all)
    });
    bar.finish_and_clear();
    engine.shutdown(Duration::from_secs(1));
    all
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
    let Question { template, labels, anomaly_label } = question.clone();
    let unusable = |e: RequestError| StartError::Config(e.to_string());
    let task = handle.task(labels, anomaly_label, template, None).map_err(unusable)?;
    let task: &Task = &task;
    let answers = texts.iter().copied().map(|text| anomaly_score(handle, task, text, bar));
    stream::iter(answers).buffered(IN_FLIGHT).try_collect().await
}

async fn anomaly_score(handle: &Handle, task: &Task, text: &str, bar: &ProgressBar) -> Result<f32, StartError> {
    let failed = |e: RequestError| StartError::Config(format!("{e} The line: {text:?}"));
    let scored = handle.classify(text, task, Class::Bulk).await.map_err(failed)?;
    bar.inc(1);
    Ok(scored.scores[task.anomaly])
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
