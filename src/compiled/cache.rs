//! Compiled models that `serve` made for itself, under a key of everything that they depend on.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use sha2::{Digest, Sha256};

use super::{
    Build, Gate, Note, Step, build,
    checksum::{self, hex},
    gate::least_agreement,
};
use crate::{
    config,
    device::onnx::Runtime,
    error::StartError,
    model::graph::{GRAPH_VERSION, Precision},
};

/// Where compiled models are kept.
#[derive(Debug, Clone)]
pub struct Cache(pub PathBuf);

/// Which precision is to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// This one if its verdicts are those of single precision, else single precision.
    Best(Precision),
    /// This one.
    Only(Precision),
}

impl Wanted {
    /// What serves best on devices of these kinds, as `devices.devices` names them: 16 bits where a GPU is among them,
    /// for those run on every device, else 8 bits, which only processors have operators for.
    pub fn best_on<'a>(kinds: impl IntoIterator<Item = &'a str>) -> Self {
        let gpu = kinds.into_iter().any(|kind| kind.split(':').next() == Some("cuda"));
        Self::Best(if gpu { Precision::Fp16 } else { Precision::Int8 })
    }
}

impl Cache {
    /// `configured` if not empty, else `oddlog` in the user's cache folder.
    ///
    /// # Errors
    /// [`StartError::Config`] if there is no such folder either.
    pub fn find(configured: &str) -> Result<Self, StartError> {
        if !configured.is_empty() {
            return Ok(Self(configured.into()));
        }
        let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let user = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
        let none = || StartError::Config("neither HOME nor XDG_CACHE_HOME is set; set model.cache to a folder".into());
        Ok(Self(user.ok_or_else(none)?.join("oddlog")))
    }

    /// What a checkpoint holds, as a checksum of its files' checksums.
    fn content(&self, checkpoint: &Path) -> Result<String, StartError> {
        let mut all = Sha256::new();
        all.update(checksum::remembered(&checkpoint.join("model.safetensors"), &self.0, SystemTime::now())?);
        for name in ["config.json", "tokenizer.json"] {
            all.update(checksum::of(&checkpoint.join(name))?);
        }
        Ok(hex(&all.finalize()))
    }

    /// The place of a checkpoint's compiled form.
    fn place(&self, content: &str, precision: Precision, runtime: Runtime) -> PathBuf {
        let machine = format!("{}\n{}", runtime.build(), processor_features());
        let machine = hex(&Sha256::digest(machine.as_bytes()));
        self.0.join(format!("{}-{precision}-g{GRAPH_VERSION}-{}", &content[..16], &machine[..8]))
    }
}

/// The compiled form of `checkpoint` to serve: from the cache, or made now.
///
/// # Errors
/// [`StartError`] if it cannot be made. Whether its verdicts agree well enough is for [`super::check`] to say, unless
/// [`Wanted::Best`] leaves a choice.
pub fn cached(
    cache: &Cache,
    checkpoint: &Path,
    (wanted, rules): (Wanted, &config::Model),
    gate: Gate,
    runtime: Runtime,
    report: &mut dyn FnMut(Step),
) -> Result<PathBuf, StartError> {
    std::fs::create_dir_all(&cache.0)
        .map_err(|source| StartError::Io { what: format!("making the cache {}", cache.0.display()), source })?;
    let content = cache.content(checkpoint)?;
    let mut obtain = |precision: Precision| {
        let place = cache.place(&content, precision, runtime);
        if Note::read(&place)?.is_none() {
            // What is for GPUs is not prepared for this processor.
            let prepare = !matches!(precision, Precision::Fp16 | Precision::Fp32Portable);
            let wanted = Build { checkpoint, place: &place, precision, force: false, prepare, gate: Some(gate) };
            build(&wanted, || Ok(runtime), report)?;
        }
        Ok(place)
    };
    match wanted {
        Wanted::Only(precision) => obtain(precision),
        Wanted::Best(precision) => {
            let place = obtain(precision)?;
            let least = least_agreement(rules, precision.name());
            let agreement = Note::read(&place)?.and_then(|note| note.agreement);
            match agreement {
                Some(agreement) if agreement.share() < least => {
                    tracing::warn!(%agreement, "{precision} is not close enough to single precision, which serves instead");
                    // oddlog's own operators are for processors.
                    obtain(if precision == Precision::Fp16 { Precision::Fp32Portable } else { Precision::Fp32 })
                }
                _ => Ok(place),
            }
        }
    }
}

/// The processor's features, as Linux lists them: ONNX Runtime packs weights for some of them, AMX among others.
fn processor_features() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let listed = text.lines().find(|line| line.starts_with("flags") || line.starts_with("Features"));
    format!("{} {}", std::env::consts::ARCH, listed.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_take_sixteen_bits_and_processors_eight() {
        for (kinds, precision) in [
            (&["cpu", "cpu"][..], Precision::Int8),
            (&["cuda:0"], Precision::Fp16),
            (&["cpu", "cuda"], Precision::Fp16),
            (&["fake"], Precision::Int8),
        ] {
            assert_eq!(Wanted::best_on(kinds.iter().copied()), Wanted::Best(precision), "{kinds:?}");
        }
    }
}
