//! Which graph of a model is run. Beside its own one a model may bring twins: the same weights in operators that every ONNX
//! Runtime has. It does not know how any of them is made.

use std::path::PathBuf;

use crate::{config::ModelPrecision, kernel, model::ModelFiles};

const FP32: &str = "model_fp32.onnx";
const INT8: &str = "model_int8.onnx";

/// What runs a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runner {
    /// A processor whose vectors oddlog's own operators use.
    Vectors,
    /// An x86 processor without such vectors: ONNX Runtime's products of 8 bits may saturate there.
    X86,
    /// A processor of another kind.
    Other,
    /// GPUs, and processors beside them, for all devices run one graph.
    Gpu,
}

impl Runner {
    /// This machine.
    pub fn here(has_gpu: bool) -> Self {
        match kernel::Path::best().has_vectors() {
            _ if has_gpu => Self::Gpu,
            true => Self::Vectors,
            false if cfg!(target_arch = "x86_64") => Self::X86,
            false => Self::Other,
        }
    }
}

/// The graph to run, of those that the model brings:
///
/// | precision | vectors | x86 without | other processors | GPUs |
/// |---|---|---|---|---|
/// | `int8` | its own | its own | `model_int8.onnx` | (refused before) |
/// | `fp32` | `model_fp32.onnx` | `model_fp32.onnx` | `model_fp32.onnx` | `model_fp32.onnx` |
/// | `auto` and others | its own | `model_fp32.onnx` | `model_int8.onnx` | `model_fp32.onnx` |
///
/// Its own one where the twin is missing. Without vectors oddlog's operators are plain Rust, and ONNX Runtime is 25 times as fast
/// in single precision, and faster in 8 bits where these do not saturate. GPUs have no kernels for the 8 bits of these graphs.
pub fn graph(files: &ModelFiles, runner: Runner, precision: ModelPrecision) -> PathBuf {
    let twin = match (precision, runner) {
        (ModelPrecision::Fp32, _) | (_, Runner::Gpu) => Some(FP32),
        (ModelPrecision::Int8, Runner::X86) | (_, Runner::Vectors) => None,
        (_, Runner::X86) => Some(FP32),
        (_, Runner::Other) => Some(INT8),
    };
    twin.and_then(|name| beside(files, name)).unwrap_or_else(|| files.onnx.clone())
}

/// Whether the model's own graph, in 8 bits, has a twin in single precision.
pub fn has_fp32(files: &ModelFiles) -> bool {
    beside(files, FP32).is_some()
}

fn beside(files: &ModelFiles, name: &str) -> Option<PathBuf> {
    Some(files.onnx.with_file_name(name)).filter(|graph| graph.is_file())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    const RUNNERS: [Runner; 4] = [Runner::Vectors, Runner::X86, Runner::Other, Runner::Gpu];

    fn model(dir: &Path, graphs: &[&str]) -> ModelFiles {
        for name in graphs.iter().chain(&["model.onnx", "tokenizer.json", "config.json"]) {
            fs::write(dir.join(name), "").expect("it is written");
        }
        ModelFiles::find(dir).expect("it is there")
    }

    fn name(files: &ModelFiles, runner: Runner, precision: ModelPrecision) -> String {
        graph(files, runner, precision).file_name().expect("it has one").to_str().expect("it is text").to_owned()
    }

    #[test]
    fn each_runner_has_its_graph_in_each_precision() {
        let dir = tempfile::tempdir().expect("it is there");
        let files = model(dir.path(), &[FP32, INT8]);
        assert!(has_fp32(&files));
        for (precision, expected) in [
            (ModelPrecision::Auto, ["model.onnx", FP32, INT8, FP32]),
            (ModelPrecision::Onnx, ["model.onnx", FP32, INT8, FP32]),
            (ModelPrecision::Fp32, [FP32; 4]),
        ] {
            assert_eq!(RUNNERS.map(|runner| name(&files, runner, precision)), expected, "{precision:?}");
        }
        let on_processors = RUNNERS[..3].iter().map(|runner| name(&files, *runner, ModelPrecision::Int8));
        assert_eq!(on_processors.collect::<Vec<_>>(), ["model.onnx", "model.onnx", INT8]);
    }

    #[test]
    fn a_model_without_the_twin_runs_its_own_graph() {
        for (twins, auto) in [
            (&[][..], ["model.onnx"; 4]),
            (&[FP32], ["model.onnx", FP32, "model.onnx", FP32]),
            (&[INT8], ["model.onnx", "model.onnx", INT8, "model.onnx"]),
        ] {
            let dir = tempfile::tempdir().expect("it is there");
            let files = model(dir.path(), twins);
            assert_eq!(has_fp32(&files), twins == [FP32]);
            assert_eq!(RUNNERS.map(|runner| name(&files, runner, ModelPrecision::Auto)), auto, "{twins:?}");
        }
    }

    #[test]
    fn a_gpu_decides_for_all_devices() {
        assert_eq!(Runner::here(true), Runner::Gpu);
        let vectors = kernel::Path::best().has_vectors();
        assert_eq!(Runner::here(false) == Runner::Vectors, vectors);
    }
}
