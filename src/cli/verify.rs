//! `oddlog verify`: whether a model keeps its word on this machine.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{
    Format,
    load::{LoadArgs, load_runtime, open_any_model, start_log},
    watch::Watch,
};
use crate::{
    classify::Task,
    compiled::{Build, Gate, Note, Step, all_cores, build, compare_with_fp32, least_agreement},
    config::{Config, Scoring},
    device::{
        DeviceError,
        onnx::{OnnxDevice, Runtime},
    },
    error::StartError,
    fidelity::{Company, Golden, Scorer, golden_of, read_samples, shipped_samples},
    model::{Model, graph::Precision},
};

/// Check that a model keeps its word on this machine
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  oddlog verify
  oddlog verify --model MoritzLaurer/deberta-v3-base-zeroshot-v2.0
  oddlog verify --model ./my-deberta-int8 --samples yesterday.log --format json

Checks: the same bits for a log alone, in company and at other padding; the verdicts of a compiled model in 8 or 16 bits beside
single precision's (if its checkpoint is still there); known scores, for the model that they belong to.

Exit codes: 0 if every check that could be made passed, 1 if one failed, 2 for an error.")]
pub struct VerifyArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Logs to check with, one a line; without it those that oddlog ships
    #[arg(long, value_name = "FILE")]
    samples: Option<PathBuf>,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// One check's outcome.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    /// `None` if it could not be made.
    passed: Option<bool>,
    detail: String,
}

/// Makes the checks.
///
/// # Errors
/// [`StartError`] if the model cannot be opened or run.
pub fn run(args: VerifyArgs) -> Result<ExitCode, StartError> {
    let config = args.load.config(json!({}))?;
    start_log(&config)?;
    let samples = match &args.samples {
        Some(path) => read_samples(path)?,
        None => shipped_samples(),
    };
    let model = open_any_model(&config)?;
    let runtime = load_runtime(&config)?;
    let asked = Task::configured(&config.scoring, &model.tokenizer)?;
    let mut checks = vec![same_bits(runtime, &model, &asked, &samples)?];
    checks.extend(agreement(runtime, &model, &config, &samples)?);
    checks.push(golden(runtime, &model, &config)?);
    let failed = checks.iter().any(|check| check.passed == Some(false));
    let text = match args.format {
        Format::Json => {
            let report = json!({ "model": config.model.source, "passed": !failed, "checks": checks });
            format!("{report:#}")
        }
        Format::Text => checks.iter().map(line).collect::<Vec<_>>().join("\n"),
    };
    writeln!(io::stdout(), "{text}").map_err(|source| StartError::Io { what: "printing the result".into(), source })?;
    Ok(ExitCode::from(u8::from(failed)))
}

fn line(check: &Check) -> String {
    let outcome = match check.passed {
        Some(true) => "ok",
        Some(false) => "FAILED",
        None => "not made",
    };
    format!("{:10} {outcome:8} {}", check.name, check.detail)
}

/// Every log alone, among any others, and at the padding that those bring.
fn same_bits(runtime: Runtime, model: &Model, task: &Task, samples: &[String]) -> Result<Check, StartError> {
    let failed = |e: DeviceError| StartError::Model {
        path: model.files.onnx.clone(),
        reason: format!("the model does not run: {e}"),
    };
    let mut device = OnnxDevice::cpu(runtime, "cpu".into(), model, all_cores())?;
    let mut scorer = Scorer::new(model, task, &mut device);
    let alone = scorer.logits(samples, Company::Alone, &mut |_| ()).map_err(failed)?;
    let mut other = 0;
    for company in [Company::Mixed(3), Company::Mixed(8), Company::Near(1024)] {
        let logits = scorer.logits(samples, company, &mut |_| ()).map_err(failed)?;
        other += alone.iter().zip(&logits).filter(|(a, b)| bits(a) != bits(b)).count();
    }
    let detail = format!("{other} of {} logits of logs in company have other bits than alone", 3 * samples.len());
    Ok(Check { name: "company", passed: Some(other == 0), detail })
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|z| z.to_bits()).collect()
}

/// 8 or 16 bits beside single precision, for a model that oddlog compiled to them.
fn agreement(
    runtime: Runtime,
    model: &Model,
    config: &Config,
    samples: &[String],
) -> Result<Option<Check>, StartError> {
    let name = "agreement";
    let Some(note) = Note::read(&model.files.dir)?.filter(Note::is_gated) else {
        return Ok(None);
    };
    let checkpoint = note.checkpoint.map(PathBuf::from).filter(|dir| dir.join("model.safetensors").is_file());
    let Some(checkpoint) = checkpoint else {
        let detail = "the checkpoint it was compiled from is not there any more".into();
        return Ok(Some(Check { name, passed: None, detail }));
    };
    // On the same disk, where there was room for a model before.
    let beside = model.files.dir.parent().unwrap_or(&model.files.dir);
    let work = tempfile::tempdir_in(beside)
        .map_err(|source| StartError::Io { what: format!("making a folder in {}", beside.display()), source })?;
    let least = least_agreement(&config.model, &note.precision);
    let mut watch = Watch::new(false);
    let mut made = |precision: Precision| {
        let place = work.path().join(precision.name());
        let wanted =
            Build { checkpoint: &checkpoint, place: &place, precision, force: false, prepare: false, gate: None };
        build(&wanted, || Ok(runtime), &mut |step| watch.report(step)).map(|_| place)
    };
    let fp32 = made(Precision::Fp32)?;
    let tried = match note.precision == Precision::Fp16.name() {
        true => made(Precision::Fp16.on_processors())?,
        false => model.files.dir.clone(),
    };
    let ask = |model: &Model| Task::configured(&config.scoring, &model.tokenizer);
    let told = &mut |done, total| watch.report(Step::Comparing(done, total));
    let gate = Gate { samples, ask: &ask, threshold: config.scoring.threshold };
    let agreement = compare_with_fp32(runtime, &fp32, &tried, gate, told);
    watch.finish();
    let agreement = agreement?;
    let passed = Some(agreement.share() >= least);
    Ok(Some(Check { name, passed, detail: agreement.to_string() }))
}

/// Known scores.
fn golden(runtime: Runtime, model: &Model, config: &Config) -> Result<Check, StartError> {
    let (name, known): (_, &[Golden]) = ("golden", golden_of(&config.model.source));
    if known.is_empty() {
        return Ok(Check { name, passed: None, detail: "no scores are known for this model".into() });
    }
    let mut device = OnnxDevice::cpu(runtime, "cpu".into(), model, all_cores())?;
    let asked = Task::configured(&Scoring::default(), &model.tokenizer)?;
    let logs: Vec<String> = known.iter().map(|golden| golden.log.to_owned()).collect();
    let scores = Scorer::new(model, &asked, &mut device)
        .anomaly_scores(&logs, Company::Alone, &mut |_| ())
        .map_err(|e| StartError::Model { path: model.files.onnx.clone(), reason: e.to_string() })?;
    let off = known.iter().zip(&scores).map(|(golden, score)| ((golden.score - score).abs(), golden.tolerance));
    let passed = off.clone().all(|(off, tolerance)| off <= tolerance);
    let largest = off.map(|(off, _)| off).fold(0.0, f32::max);
    let detail = format!("{} known scores, the farthest off by {largest:.5}", known.len());
    Ok(Check { name, passed: Some(passed), detail })
}
