//! What memories and lower precisions do to the verdicts: the same lines again, in each mode and in each arithmetic.

use std::fmt;

use clap::ValueEnum;

use super::{questions::Question, scoring::Asker, widened};
use crate::{
    cli::load::{InPrecision, open_in_precision, open_model, placement},
    config::{Cache, CacheMode, Config, ModelPrecision, Scoring},
    error::StartError,
    eval::{Comparison, Dataset, Effect, Remembered},
};

/// An arithmetic to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// Single precision
    Fp32,
    /// 16 bits: for GPUs
    Fp16,
    /// 8 bits: for CPUs
    Int8,
}

impl Precision {
    fn of_model(self) -> ModelPrecision {
        match self {
            Self::Fp32 => ModelPrecision::Fp32,
            Self::Fp16 => ModelPrecision::Fp16,
            Self::Int8 => ModelPrecision::Int8,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
        })
    }
}

/// The lines in the data set's order, as one stream through a fresh memory of each mode that keeps any, beside the scores
/// `without` one. `scoring` has the labels of these and the threshold of the verdicts.
///
/// # Errors
/// [`StartError`] if the model cannot be used or a line cannot be scored.
pub fn of_cache_modes(
    config: &Config,
    scoring: Scoring,
    dataset: &Dataset,
    without: &[f64],
) -> Result<Comparison, StartError> {
    let config = Config { scoring, ..config.clone() };
    let (texts, at) = (dataset.texts(), f64::from(config.scoring.threshold));
    let all = Remembered { misses: texts.len(), ..Remembered::default() };
    let mut effects = vec![Effect::between("off", without, without, &dataset.examples, at).answered(all)];
    let model = open_model(&config)?;
    for (name, mode) in [("exact", CacheMode::Exact), ("template", CacheMode::Template)] {
        let cache = Cache { mode, ..config.cache.clone() };
        // An engine for each, because what one has counted stays.
        let asker = Asker::start(&config, &model)?;
        let (scores, memory) = asker.remembered(&texts, &cache, config.server.max_stream_lines)?;
        asker.end();
        effects.push(Effect::between(name, without, &widened(&scores), &dataset.examples, at).answered(memory));
    }
    let note = format!(
        "Each mode began with an empty memory and read the lines in the file's order, {} at once, as a stream does. \
         Differences are from the scores of \"off\", which asks the model about every line. Checks of templates count as \
         lines to the model.",
        config.server.max_stream_lines
    );
    Ok(Comparison { title: "Memory", note, effects })
}

/// A model in several arithmetics.
pub struct Precisions(Vec<(Precision, InPrecision)>);

impl Precisions {
    /// Opens the configured model in each of `list`. Without any these are single precision and what is served on devices
    /// like the configured ones.
    ///
    /// # Errors
    /// [`StartError`] if the model does not come in one of them or cannot be used.
    pub fn open(config: &Config, list: &[Precision]) -> Result<Self, StartError> {
        let served = if placement(config)?.has_gpu() { Precision::Fp16 } else { Precision::Int8 };
        let list = if list.is_empty() { &[Precision::Fp32, served] } else { list };
        let open = |precision: &Precision| Ok((*precision, open_in_precision(config, precision.of_model())?));
        list.iter().map(open).collect::<Result<_, StartError>>().map(Self)
    }

    /// The lines in each arithmetic, beside the first one's scores.
    ///
    /// # Errors
    /// [`StartError`] if a model does not run or a line cannot be scored.
    pub fn compare(self, question: &Question, dataset: &Dataset, threshold: f64) -> Result<Comparison, StartError> {
        let (texts, question) = (dataset.texts(), std::slice::from_ref(question));
        let (mut reference, mut effects, mut twins) = (None, Vec::new(), false);
        for (precision, InPrecision { config, model, is_twin }) in &self.0 {
            let asker = Asker::start(config, model)?;
            let scores: Vec<f64> = asker.scores(&texts, question)?.iter().flat_map(|scores| widened(scores)).collect();
            asker.end();
            twins |= *is_twin;
            let name = precision.to_string();
            let reference = reference.get_or_insert_with(|| (name.clone(), scores.clone()));
            effects.push(Effect::between(&name, &reference.1, &scores, &dataset.examples, threshold));
        }
        let first = reference.map(|(name, _)| name).unwrap_or_default();
        let mut note = format!("Differences are from the scores in {first}.");
        if twins {
            note.push_str(
                " This model has no weights in single precision: its fp32 graph computes with the same 8-bit weights, so \
                 that the difference is that of the arithmetic alone.",
            );
        }
        Ok(Comparison { title: "Arithmetic", note, effects })
    }
}
