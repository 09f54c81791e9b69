//! ONNX Runtime's real CUDA build on libraries of CUDA that have no GPU behind them (`tests/fake_cuda`).

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::process::root;

/// ONNX Runtime's CUDA build, if it is on this machine.
pub fn build() -> Option<PathBuf> {
    let fetched = root().join(".ort/cuda");
    let dir = std::env::var_os("GPU_LIBS").map_or(fetched, |dir| root().join(dir));
    dir.join("libonnxruntime.so").is_file().then_some(dir)
}

/// A folder with a driver that claims what the environment says.
pub fn driver() -> TempDir {
    built("driver")
}

/// A folder with ONNX Runtime's CUDA build and all that it loads, none of which computes anything; `None` without the build.
pub fn runtime() -> Option<TempDir> {
    let (build, dir) = (build()?, built("all"));
    for entry in fs::read_dir(build).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("libonnxruntime") {
            symlink(&path, dir.path().join(name)).unwrap();
        }
    }
    Some(dir)
}

/// Lets `command` run on what is in `folder`.
pub fn on(folder: &Path, command: &mut Command) {
    command.env("ORT_DYLIB_PATH", folder.join("libonnxruntime.so")).env("LD_LIBRARY_PATH", folder);
}

fn built(which: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut build = Command::new(root().join("tests/fake_cuda/build.sh"));
    assert!(build.arg(dir.path()).arg(which).status().unwrap().success());
    dir
}
