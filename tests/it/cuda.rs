//! What is told where no GPU can be used: by ONNX Runtime's real builds, in processes of their own.
//!
//! The CUDA build is big and not fetched for tests; where it is (`GPU_LIBS`, or what `make cuda` fetched), its tests
//! run, and `make test-cuda` fetches it. Drivers that we do not have are a small C library.

use std::{fs, io::BufReader, os::unix::fs::symlink, path::Path, process::Command};

use oddlog::device::driver;
use tempfile::TempDir;

use crate::support::{
    fake_cuda,
    process::{entry_with, oddlog},
};

/// How `analyze` on this device ends: its code and what it says.
fn on_device(device: &str, prepare: impl FnOnce(&mut Command)) -> (i32, String) {
    let mut command = oddlog(&["analyze", "--device", device, "a line"]);
    prepare(&mut command);
    let output = command.output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn refused(device: &str, prepare: impl FnOnce(&mut Command)) -> String {
    let (code, told) = on_device(device, prepare);
    assert_eq!(code, 2, "{told}");
    assert!(told.contains(&format!("device {device}: ")), "{told}");
    told
}

fn says(told: &str, parts: &[&str]) {
    for part in parts {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
}

#[test]
fn the_cpu_build_says_how_to_get_the_other_one() {
    let told = refused("cuda:0", |_| {});
    says(&told, &["is built without CUDA", "make serve DEVICE=cuda"]);
    says(&refused("cuda", |_| {}), &["is built without CUDA"]);
    says(&refused("cuda:x", |_| {}), &["is not known", "cuda:0"]);
}

#[test]
fn eight_bits_are_refused_for_a_gpu() {
    let told = refused("cuda:0", |c| _ = c.env("ODDLOG_MODEL__PRECISION", "int8"));
    says(&told, &["8 bits are for CPUs", "fp32"]);
}

#[test]
fn auto_says_why_it_takes_the_cpu_in_log_metrics_and_devices() {
    let driver = fake_cuda::driver();
    let mut command = oddlog(&["serve", "--listen", "127.0.0.1:0", "--device", "auto"]);
    command.env("LD_LIBRARY_PATH", driver.path()).env("ODDLOG_LOG__FORMAT", "json");
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let why = entry_with(&mut log, "message");
    let text = why["fields"]["message"].as_str().unwrap();
    says(text, &["\"auto\" takes the CPU", "is built without CUDA", "make serve DEVICE=cuda"]);
    assert_eq!(why["level"], "WARN");
    let serves = entry_with(&mut log, "address");
    says(serves["fields"]["devices"].as_str().unwrap(), &["cpu:0 (CPU, 1 thread(s))"]);
    let address = serves["fields"]["address"].as_str().unwrap();
    let metrics = ureq::get(format!("http://{address}/metrics")).call().unwrap().body_mut().read_to_string().unwrap();
    let info = metrics.lines().find(|line| line.starts_with("oddlog_device_info{") && line.contains("\"cpu:0\""));
    says(info.unwrap(), &["about=\"CPU, 1 thread(s)\""]);
    let devices = ureq::get(format!("http://{address}/api/v1/devices")).call().unwrap().body_mut().read_to_string();
    let devices: serde_json::Value = serde_json::from_str(&devices.unwrap()).unwrap();
    let auto = devices["auto_takes"].as_str().unwrap();
    says(auto, &["the CPU, because", "is built without CUDA", "make serve DEVICE=cuda"]);
    assert!(!auto.contains("libonnxruntime"), "no path: {auto}");
    assert_eq!((&devices["devices"][0]["name"], &devices["devices"][0]["state"]), (&"cpu:0".into(), &"up".into()));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The CUDA build's libraries but those whose names begin with `without`.
fn parts(of: &Path, without: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(of).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if without.is_empty() || !name.starts_with(without) {
            symlink(&path, dir.path().join(name)).unwrap();
        }
    }
    dir
}

#[test]
fn the_cuda_build_names_what_is_missing() {
    let Some(build) = fake_cuda::build() else { return };
    let (driver, library) = (fake_cuda::driver(), |dir: &Path| dir.join("libonnxruntime.so"));
    let with = |dir: &Path, faults: &[(&str, &str)]| {
        let (library, driver, faults) = (library(dir), driver.path().to_owned(), faults.to_owned());
        let set: Vec<(String, String)> = faults.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        move |c: &mut Command| _ = c.env("ORT_DYLIB_PATH", library).env("LD_LIBRARY_PATH", driver).envs(set)
    };
    for file in ["libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10", "libcudart.so.13", "libcudnn.so.9"] {
        let dir = parts(&build, file);
        says(&refused("cuda:0", with(dir.path(), &[])), &[file, "make cuda", "cuda.libraries"]);
    }
    let told = refused("cuda:0", with(parts(&build, "libcudnn_ops").path(), &[]));
    says(&told, &["libcudnn_ops.so.9"]);
    let elsewhere = parts(&build, "libcu");
    let found = [("ODDLOG_CUDA__LIBRARIES", build.to_str().unwrap()), ("FAKE_CUDA_GPUS", "0")];
    says(&refused("cuda:0", with(elsewhere.path(), &found)), &["the driver shows no GPU"]);
    says(&refused("cuda:3", with(&build, &[])), &["there is no GPU 3: 1 can be seen"]);
    let old = refused("cuda:0", with(&build, &[("FAKE_CUDA_VERSION", "12040")]));
    says(&old, &["driver is too old", "CUDA up to 12.4", "580"]);
    let broken = refused("cuda:0", with(&build, &[("FAKE_CUDA_INIT", "803")]));
    says(&broken, &["does not start", "error 803", "restart the machine"]);
    if !driver::is_there() {
        let told = refused("cuda:0", |c| _ = c.env("ORT_DYLIB_PATH", library(&build)));
        says(&told, &["there is no NVIDIA driver", "docker run --gpus all"]);
    }
    // A GPU that runs nothing: by name an error, and no reason for `auto` to give up.
    says(&refused("cuda:0", with(&build, &[])), &["CUDA does not work here"]);
    let (code, told) = on_device("auto", with(&build, &[]));
    assert_eq!(code, 0, "{told}");
    says(&told, &["takes the CPU, because GPU 0 (Fake GPU) is not used"]);
}
