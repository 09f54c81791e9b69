//! CUDA's and cuDNN's libraries, loaded before ONNX Runtime asks for them by name: what is loaded already is not looked
//! for, so nobody has to set `LD_LIBRARY_PATH`.

use std::path::{Path, PathBuf};

use super::super::driver;

/// What is loaded, the needed before those that need them. The version is the end of the file's name.
const IN_ORDER: &[&str] = &[
    "libcudart",
    "libcublasLt",
    "libcublas",
    "libcurand",
    "libnvrtc",
    "libcudnn_graph",
    "libcudnn_ops",
    "libcudnn_heuristic",
    "libcudnn_adv",
    "libcudnn_cnn",
    "libcudnn_ext",
    "libcudnn_engines_precompiled",
    "libcudnn_engines_runtime_compiled",
    "libcudnn_engines_tensor_ir",
    "libcudnn",
    "libnvinfer",
    "libnvonnxparser",
];

/// Those of cuDNN that ONNX Runtime cannot do without. It asks for them late, in the middle of a run.
const CUDNN: &[&str] = &["libcudnn_graph.so.9", "libcudnn_ops.so.9", "libcudnn.so.9"];

/// Loads what is there in `folders`, and keeps it for good. What cannot be loaded, and why, may explain what whoever needs
/// it says then.
pub(super) fn preload(folders: &[PathBuf]) -> Vec<(String, String)> {
    let mut failures = Vec::new();
    let files: Vec<PathBuf> = folders.iter().flat_map(|folder| files(folder)).collect();
    for stem in IN_ORDER {
        let of_stem = |path: &&PathBuf| name(path).strip_prefix(stem).is_some_and(|rest| rest.starts_with(".so."));
        if let Some(path) = files.iter().find(of_stem)
            && let Err(error) = ort::util::preload_dylib(path)
        {
            failures.push((name(path).to_owned(), driver::reason(&error)));
        }
    }
    failures
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// Which of cuDNN's libraries is neither loaded nor where the system looks.
pub(super) fn missing_of_cudnn() -> Option<&'static str> {
    CUDNN.iter().copied().find(|name| ort::util::preload_dylib(*name).is_err())
}

/// Where the libraries may be: in `configured`, or beside ONNX Runtime's `library`, or, where that lies in a Python
/// environment, where NVIDIA's packages put them.
pub(super) fn folders(configured: &str, library: &Path) -> Vec<PathBuf> {
    if !configured.is_empty() {
        return vec![configured.into()];
    }
    let own = library.parent().map(Path::to_owned);
    let packages = own.iter().filter(|dir| dir.ends_with("onnxruntime/capi")).filter_map(|dir| dir.ancestors().nth(2));
    let of_packages = packages.flat_map(|dir| ["nvidia/cu13/lib", "nvidia/cudnn/lib"].map(|name| dir.join(name)));
    own.iter().cloned().chain(of_packages.collect::<Vec<_>>()).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    // Of two versions the newer one.
    files.sort_unstable_by(|a, b| b.cmp(a));
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_looked_for_where_they_may_be() {
        let places = |configured, library| -> Vec<String> {
            folders(configured, Path::new(library)).iter().map(|p| p.display().to_string()).collect()
        };
        assert_eq!(places("/opt/cuda", "/a/libonnxruntime.so"), ["/opt/cuda"]);
        assert_eq!(places("", "/a/libonnxruntime.so"), ["/a"]);
        let of_python = places("", "/v/site-packages/onnxruntime/capi/libonnxruntime.so.1");
        let expected = ["onnxruntime/capi", "nvidia/cu13/lib", "nvidia/cudnn/lib"];
        assert_eq!(of_python, expected.map(|name| format!("/v/site-packages/{name}")));
    }
}
