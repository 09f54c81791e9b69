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
    let dir = tempfile::tempdir().unwrap();
    library(dir.path(), "libcuda.so.1", "driver.c", &[]);
    dir
}

/// A folder with ONNX Runtime's CUDA build and all that it loads, none of which computes anything; `None` without the build.
pub fn runtime() -> Option<TempDir> {
    let (build, dir) = (build()?, driver());
    library(dir.path(), "libcudart.so.13", "runtime.c", &[]);
    let place = format!("-L{}", dir.path().display());
    for name in ["libcublas.so.13", "libcublasLt.so.13", "libcurand.so.10"] {
        library(dir.path(), name, "blas.c", &[&place, "-l:libcudart.so.13"]);
    }
    for name in ["libcudnn.so.9", "libcudnn_graph.so.9", "libcudnn_ops.so.9"] {
        library(dir.path(), name, "cudnn.c", &[]);
    }
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

/// Compiles a library with symbols of the version that importers ask for, which is its name.
fn library(dir: &Path, name: &str, source: &str, flags: &[&str]) {
    let versions = dir.join("versions");
    fs::write(&versions, format!("{name} {{ global: *; }};\n")).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"]).arg(dir.join(name));
    compiler.arg(root().join("tests/fake_cuda").join(source));
    compiler.arg(format!("-Wl,-soname,{name},--version-script,{}", versions.display())).args(flags);
    assert!(compiler.status().unwrap().success(), "{name}");
    fs::remove_file(versions).unwrap();
}
