//! `oddlog eval`: how good the verdicts are on a labelled data set.

mod effects;
mod print;
mod questions;
mod scoring;
mod threshold;

use std::{fs, io, io::Write, path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::{
    Format,
    config_file::failed,
    load::{LoadArgs, open_model, start_log},
};
use crate::{
    config::{Config, Scoring},
    error::StartError,
    eval::{Comparison, Dataset, Example, Names, Page, Subject, html, level_score, pattern_score, summarise},
    fidelity::Agreement,
};
use effects::{Precision, Precisions};
use print::Report;
use questions::Question;
use scoring::Asker;
use threshold::Place;

/// Measure how good the verdicts are on lines whose truth is known
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  oddlog eval labelled.csv
  oddlog eval labelled.jsonl --text-column message --label-column severity --anomalous error,fatal --html report.html
  oddlog eval labelled.tsv --group service --template 'This example is {}.' --template 'This log line reports {}.'
  oddlog eval labelled.csv --labels 'a failure,routine' --labels 'anomaly,normal'
  oddlog eval labelled.csv --model my-deberta --precision int8 --beside my-deberta --beside-precision fp32
  oddlog eval labelled.csv --cache-modes --precisions --html report.html
  oddlog eval labelled.csv --config config.toml --write-threshold --source nginx

The data set is a CSV, TSV, JSON lines or Excel (.xlsx) file with a text and a label column. Labels such as 1, true and
anomaly mean an anomaly, 0, false, normal and LogHub's - a normal line; others are named with --anomalous.
Beside the model stand a regular expression for alarm words and the level that a line prints.
--cache-modes and --precisions ask the first template and labels again, to see what each setting does to the verdicts.

Exit codes: 0, or 2 for an error.")]
pub struct EvalArgs {
    /// Labelled lines: .csv, .tsv, .jsonl or .xlsx
    #[arg(value_name = "DATASET")]
    dataset: PathBuf,
    #[command(flatten)]
    load: LoadArgs,
    /// Column with the log line; without it the first of text, log_message, message, log, line, ...
    #[arg(long, value_name = "NAME")]
    text_column: Option<String>,
    /// Column with the truth; without it the first of label, is_anomaly, anomaly, ...
    #[arg(long, value_name = "NAME")]
    label_column: Option<String>,
    /// Column to report groups by
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Labels that mean an anomaly, separated by commas; all others then mean a normal line
    #[arg(long, value_delimiter = ',', value_name = "LABEL,...")]
    anomalous: Vec<String>,
    /// Score from which a line is an anomaly, 0 to 1; without it the configured one
    #[arg(long, value_name = "SCORE", value_parser = super::analyze::parse_threshold)]
    threshold: Option<f32>,
    /// Hypothesis to ask with, {} for the label; several are compared
    #[arg(long, value_name = "TEXT")]
    template: Vec<String>,
    /// Candidate labels, separated by commas; given several times, the sets are compared
    #[arg(long, value_name = "LABEL,...")]
    labels: Vec<String>,
    /// The label that counts as the anomaly, where a set has it; otherwise the configured one, or the set's first
    #[arg(long, value_name = "LABEL")]
    anomaly_label: Option<String>,
    /// Model to compare with, which is asked the same
    #[arg(long, value_name = "DIR|REPO")]
    beside: Option<String>,
    /// Arithmetic of that model, if it comes as weights
    #[arg(long, value_name = "PRECISION", requires = "beside")]
    beside_precision: Option<String>,
    /// Compare the memories: the lines in order through cache.mode off, exact and template
    #[arg(long)]
    cache_modes: bool,
    /// Compare arithmetics, the first one as the truth; without a list single precision and 8 bits, or 16 on a GPU
    #[arg(long, value_name = "PRECISION,...", value_enum, value_delimiter = ',', num_args = 0.., require_equals = true)]
    precisions: Option<Vec<Precision>>,
    /// Write a page with tables, pictures and the worst mistakes
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Put the threshold with the best F1 into the file given by --config
    #[arg(long)]
    write_threshold: bool,
    /// Put it there for requests with this `source` alone, as scoring.thresholds.<SOURCE>
    #[arg(long, value_name = "SOURCE", requires = "write_threshold", value_parser = threshold::source)]
    source: Option<String>,
    /// How to print the figures
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Scores the data set and tells how well.
///
/// # Errors
/// [`StartError`] if the data set or the model cannot be used, or a file cannot be written.
pub fn run(args: EvalArgs) -> Result<ExitCode, StartError> {
    let mut config = args.load.config(json!({}))?;
    if std::env::var_os("ODDLOG_LOG__LEVEL").is_none() && args.load.config.is_none() {
        config.log.level = "warn".into();
    }
    start_log(&config)?;
    // Whatever would keep the result from being written is found out before the model runs.
    let place = match (args.write_threshold, &args.load.config) {
        (false, _) => None,
        (true, Some(file)) => Some(Place::within(file, args.source.as_deref())?),
        (true, None) => {
            return Err(StartError::Config("--write-threshold needs --config FILE, the file to change".into()));
        }
    };
    let names = Names {
        text: args.text_column.clone(),
        label: args.label_column.clone(),
        group: args.group.clone(),
        anomalous: args.anomalous.clone(),
    };
    let dataset = Dataset::read(&args.dataset, &names)?;
    let questions = questions::of(&args.template, &args.labels, args.anomaly_label.as_deref());
    let threshold = args.threshold.unwrap_or(config.scoring.threshold);
    let Found { subjects, agreement, comparisons } = evaluate(&args, &config, &dataset, &questions, threshold)?;

    let name = args.dataset.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if let Some(path) = &args.html {
        let page = html(&Page { name: &name, dataset: &dataset, subjects: &subjects, comparisons: &comparisons.all() });
        fs::write(path, page).map_err(failed("writing", path))?;
    }
    let written = match place {
        None => None,
        Some(place) => {
            let best = subjects[0].summary.best_threshold.ok_or_else(|| {
                StartError::Config("no threshold was written: the data set has no anomalous line".into())
            })?;
            place.write(best as f32)?;
            Some(place)
        }
    };
    let report = Report { dataset: &name, skipped: dataset.skipped, subjects: &subjects, agreement, comparisons };
    let text = match args.format {
        Format::Json => report.json(),
        Format::Text => report.text(),
    };
    writeln!(io::stdout(), "{text}")
        .map_err(|source| StartError::Io { what: "printing the figures".into(), source })?;
    if let Some(path) = &args.html {
        eprintln!("oddlog: the page is in {}", path.display());
    }
    if let Some(place) = written {
        eprintln!("oddlog: {place}");
    }
    Ok(ExitCode::SUCCESS)
}

/// What was found out.
struct Found {
    /// The configured model's first question first.
    subjects: Vec<Subject>,
    /// Its verdicts beside the other model's.
    agreement: Option<Agreement>,
    comparisons: Comparisons,
}

/// What settings do to the verdicts, where that was asked for.
#[derive(Default)]
struct Comparisons {
    cache_modes: Option<Comparison>,
    precisions: Option<Comparison>,
}

impl Comparisons {
    fn all(&self) -> Vec<&Comparison> {
        self.cache_modes.iter().chain(&self.precisions).collect()
    }
}

fn evaluate(
    args: &EvalArgs,
    config: &Config,
    dataset: &Dataset,
    questions: &[Question],
    threshold: f32,
) -> Result<Found, StartError> {
    let texts = dataset.texts();
    // What is missing is told before the long work.
    let precisions = args.precisions.as_ref().map(|list| Precisions::open(config, list)).transpose()?;
    let asker = Asker::start(config, &open_model(config)?)?;
    let scores = asker.scores(&texts, questions)?;
    let scoring = Scoring { threshold, ..asker.configured(&questions[0], &config.scoring)? };
    asker.end();
    let named = |question: &Question| match questions.len() {
        1 => "model".to_owned(),
        _ => question.to_string(),
    };
    let subject = |name: String, scores: Vec<f64>, threshold: f64, pictured| {
        subject(name, scores, threshold, pictured, &dataset.examples)
    };
    let at = f64::from(threshold);
    let mut subjects: Vec<Subject> =
        questions.iter().zip(&scores).map(|(q, s)| subject(named(q), widened(s), at, true)).collect();
    let mut agreement = None;
    if let Some(source) = &args.beside {
        let flags = LoadArgs {
            config: args.load.config.clone(),
            model: Some(source.clone()),
            precision: args.beside_precision.clone(),
            device: args.load.device.clone(),
        };
        let config = flags.config(json!({}))?;
        let asker = Asker::start(&config, &open_model(&config)?)?;
        let beside = asker.scores(&texts, &questions[..1])?;
        asker.end();
        agreement = Some(Agreement::between(&beside[0], &scores[0], threshold));
        let precision = args.beside_precision.as_ref().map(|p| format!(" in {p}")).unwrap_or_default();
        subjects.push(subject(format!("{source}{precision}"), widened(&beside[0]), at, true));
    }
    for (name, score) in [("alarm words", pattern_score as fn(&str) -> f64), ("printed level", level_score)] {
        subjects.push(subject(name.into(), texts.iter().copied().map(score).collect(), 0.5, false));
    }
    let mut comparisons = Comparisons::default();
    if args.cache_modes {
        comparisons.cache_modes = Some(effects::of_cache_modes(config, scoring, dataset, &subjects[0].scores)?);
    }
    if let Some(precisions) = precisions {
        comparisons.precisions = Some(precisions.compare(&questions[0], dataset, at)?);
    }
    Ok(Found { subjects, agreement, comparisons })
}

fn widened(scores: &[f32]) -> Vec<f64> {
    scores.iter().copied().map(f64::from).collect()
}

fn subject(name: String, scores: Vec<f64>, threshold: f64, pictured: bool, examples: &[Example]) -> Subject {
    let of = |wanted: Option<&str>| -> Vec<(f64, bool)> {
        let kept = scores.iter().zip(examples).filter(|(_, e)| wanted.is_none() || e.group.as_deref() == wanted);
        kept.map(|(score, e)| (*score, e.anomalous)).collect()
    };
    let names: std::collections::BTreeSet<&str> = examples.iter().filter_map(|e| e.group.as_deref()).collect();
    let groups = names.into_iter().map(|name| (name.to_owned(), summarise(&of(Some(name)), threshold))).collect();
    Subject { name, summary: summarise(&of(None), threshold), groups, scores, pictured }
}
