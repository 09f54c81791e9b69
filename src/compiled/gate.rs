//! The gate: 8 and 16 bits serve only if their verdicts are those of single precision.

use std::path::Path;

use super::Note;
use crate::{
    classify::Task,
    config,
    device::onnx::{CpuOptions, OnnxDevice, Runtime},
    error::StartError,
    fidelity::{Agreement, Company, Scorer},
    model::{Model, graph::Precision},
};

/// Padded tokens in one run of the comparison.
const RUN_TOKENS: usize = 1024;

/// How precisions are compared.
#[derive(Clone, Copy)]
pub struct Gate<'a> {
    /// Logs.
    pub samples: &'a [String],
    /// What is asked of each, for a model.
    pub ask: &'a dyn Fn(&Model) -> Result<Task, StartError>,
    /// Score from which a log is an anomaly.
    pub threshold: f32,
}

/// Scores the samples with the models in two directories, single precision first, and compares them. `done` is told how
/// many scores there are, and how many there will be.
///
/// # Errors
/// [`StartError`] if a model cannot be opened or run.
pub fn compare_with_fp32(
    runtime: Runtime,
    fp32: &Path,
    other: &Path,
    gate: Gate,
    done: &mut dyn FnMut(usize, usize),
) -> Result<Agreement, StartError> {
    let Gate { samples, ask, threshold } = gate;
    let mut scores = Vec::with_capacity(2);
    for (round, dir) in [fp32, other].into_iter().enumerate() {
        let model = Model::open(dir, usize::MAX)?;
        let mut device = OnnxDevice::cpu(runtime, "cpu".into(), &model, all_cores())?;
        let task = ask(&model)?;
        let mut scorer = Scorer::new(&model, &task, &mut device);
        let mut told = |ready: usize| done(round * samples.len() + ready, 2 * samples.len());
        let result = scorer.anomaly_scores(samples, Company::Near(RUN_TOKENS), &mut told);
        scores.push(result.map_err(|e| StartError::Model { path: dir.to_owned(), reason: e.to_string() })?);
    }
    Ok(Agreement::between(&scores[0], &scores[1], threshold))
}

/// One session that uses the whole machine.
pub fn all_cores() -> CpuOptions {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    CpuOptions { intra_op_threads: cores, max_run_tokens: RUN_TOKENS }
}

/// Whether the model in `dir`, which brings no weights, is one that was compiled to `precision`.
///
/// # Errors
/// [`StartError::Model`] if it is not, or nobody knows.
pub fn made_as(dir: &Path, precision: Precision) -> Result<(), StartError> {
    match Note::read(dir)? {
        Some(note) if note.precision == precision.name() => Ok(()),
        note => {
            let is = note
                .map_or_else(|| "the precision of its graph is its own".into(), |n| format!("it is {}", n.precision));
            let reason = format!(
                "it has no model.safetensors to compile to {precision}, and {is}. Leave model.precision at \"auto\", or \
                 give a model with weights"
            );
            Err(StartError::Model { path: dir.to_owned(), reason })
        }
    }
}

/// Share of equal verdicts, 0 to 1, that a model of this precision needs to serve.
pub fn least_agreement(rules: &config::Model, precision: &str) -> f64 {
    if precision.starts_with("fp16") { rules.least_fp16_agreement } else { rules.least_agreement }
}

/// Whether the model in `dir` may serve: one in 8 or 16 bits needs a measured agreement of [`least_agreement`].
///
/// # Errors
/// [`StartError::Model`] says how far it is off and what may be done.
pub fn check(dir: &Path, rules: &config::Model) -> Result<(), StartError> {
    let Some(note) = Note::read(dir)? else { return Ok(()) };
    if !note.is_gated() {
        return Ok(());
    }
    let least = least_agreement(rules, &note.precision);
    let key = match note.precision.starts_with("fp16") {
        true => "model.least_fp16_agreement",
        false => "model.least_agreement",
    };
    let reason = match note.agreement {
        Some(agreement) if agreement.share() >= least => return Ok(()),
        Some(agreement) => format!(
            "its verdicts in {} are not close enough to single precision's: {agreement}; {key} asks \
             for {} %. Serve it with model.precision = \"fp32\", or lower {key}",
            note.precision,
            least * 100.0
        ),
        None if least <= 0.0 => return Ok(()),
        None => format!(
            "nobody has compared its {} with single precision. Compile it again without --no-gate, or set \
             {key} = 0",
            note.precision
        ),
    };
    Err(StartError::Model { path: dir.to_owned(), reason })
}
