//! What runs on a GPU, and how: ONNX Runtime's real CUDA provider on a runtime that computes nothing, in processes of their
//! own. It places operators, chooses kernels, copies and takes memory as on a GPU, and its words for faults are the real ones.
//!
//! They run where the CUDA build is, as those of `cuda`.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::PathBuf,
    process::{Child, Command},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    fake_cuda,
    process::{oddlog, serve, signal},
};

/// A GPU, a model in 16 bits, and what is told of them.
struct Scene {
    folder: TempDir,
    model: PathBuf,
    trace: PathBuf,
}

impl Scene {
    /// `None` where the CUDA build is not.
    fn new() -> Option<Self> {
        let folder = fake_cuda::runtime()?;
        let (model, trace) = (folder.path().join("model"), folder.path().join("trace"));
        let mut compile = oddlog(&["compile", "tests/data/tiny-deberta", "--precision", "fp16", "--no-gate", "--out"]);
        assert!(compile.arg(&model).output().unwrap().status.success());
        Some(Self { folder, model, trace })
    }

    /// Lets `command` use them. The weights are random, and nobody compares what they say.
    fn on<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        fake_cuda::on(self.folder.path(), command);
        command.env("ODDLOG_MODEL__SOURCE", &self.model).env("FAKE_CUDA_TRACE", &self.trace);
        command.env("ODDLOG_MODEL__LEAST_FP16_AGREEMENT", "0").env("ODDLOG_CACHE__MODE", "off");
        command.env("ODDLOG_BATCHING__MAX_BATCH_TOKENS", "8192").env("ODDLOG_BATCHING__MAX_BATCH_ROWS", "512")
    }

    /// A server with `devices`.
    fn serve(&self, devices: &str, settings: &[(&str, &str)]) -> Server {
        let _ = fs::remove_file(&self.trace);
        let (child, address) = serve(|command| {
            _ = self.on(command).env("ODDLOG_DEVICES__DEVICES", devices).envs(settings.iter().copied());
        });
        Server { child, address }
    }

    fn lines(&self) -> Vec<String> {
        fs::read_to_string(&self.trace).unwrap().lines().map(str::to_owned).collect()
    }
}

struct Server {
    child: Child,
    address: String,
}

impl Server {
    /// The results of a batch call.
    fn batch(&self, logs: &[String]) -> Vec<Value> {
        let url = format!("http://{}/api/v1/analyze/batch", self.address);
        let body = json!({ "logs": logs }).to_string();
        let mut answer = ureq::post(url).header("content-type", "application/json").send(&body).unwrap();
        let answer: Value = serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
        answer["results"].as_array().unwrap().clone()
    }

    fn get(&self, path: &str) -> String {
        ureq::get(format!("http://{}{path}", self.address)).call().unwrap().body_mut().read_to_string().unwrap()
    }

    /// Ends it in order, and gives what it logged since it served.
    fn end(mut self) -> String {
        signal(&self.child, "TERM");
        let log = io::read_to_string(self.child.stderr.take().unwrap()).unwrap();
        assert!(self.child.wait().unwrap().success());
        log
    }
}

/// `count` logs of up to `words` words each, the same for the same seed.
fn logs(seed: u64, count: usize, words: usize) -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let word = |random: &mut fastrand::Rng| ["error", "disk", "10.0.0.1", "usb", "failed", "kernel"][random.usize(..6)];
    let mut log = || (0..random.usize(1..=words)).map(|_| word(&mut random)).collect::<Vec<_>>().join(" ");
    (0..count).map(|_| log()).collect()
}

/// Bytes of the GPU's memory that were used after each change.
fn memory(lines: &[String]) -> Vec<u64> {
    let of_gpu = lines.iter().filter(|line| line.starts_with("take 0 ") || line.starts_with("give 0 "));
    of_gpu.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect()
}

/// How many lines begin with `start` and hold `part`.
fn count(lines: &[String], start: &str, part: &str) -> usize {
    lines.iter().filter(|line| line.starts_with(start) && line.contains(part)).count()
}

#[test]
fn a_graph_of_16_bits_stays_on_the_gpu_and_its_operators_are_fused() {
    let Some(scene) = Scene::new() else { return };
    let output = scene.on(&mut oddlog(&["analyze", "--device", "cuda:0", "disk failure on node 7"])).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = scene.lines();
    // The probe's run, the first one and the log's; nothing else comes back.
    let ends: Vec<usize> =
        lines.iter().enumerate().filter(|(_, line)| line.starts_with("copy out")).map(|(at, _)| at).collect();
    assert_eq!(ends.len(), 3, "{ends:?}");
    let run = &lines[ends[1] + 1..=ends[2]];
    // Ids and mask go there, and nothing else.
    assert_eq!(count(run, "copy in ", ""), 2, "{run:#?}");
    // Two layers: in the inner one attention is one kernel, in the last one the first token asks alone.
    assert_eq!(count(run, "kernel", "attention_kernel_batched"), 1);
    assert_eq!(count(run, "kernel", "SkipLayerNorm"), 4);
    assert_eq!(count(run, "kernel", "BiasGelu"), 2);
    assert_eq!(count(run, "kernel", "VariadicElementWiseNoBroadcast"), 1);
    // Heads are read out of queries and keys by the product itself: in the inner layer only its bias changes places, and before it
    // the places of distances.
    let (inner, _) = run.split_at(run.iter().position(|line| line.contains("attention_kernel_batched")).unwrap());
    assert_eq!(count(inner, "kernel", "Transpose"), 2);
    assert!(count(run, "kernel", "") <= 48, "{} kernels", count(run, "kernel", ""));
}

#[test]
fn memory_of_a_gpu_that_runs_out_costs_no_answer() {
    let Some(scene) = Scene::new() else { return };
    let calls: Vec<_> = (0..8).map(|seed| logs(seed, 120, 200)).collect();
    let most = |settings: &[(&str, &str)]| {
        let server = scene.serve("[\"cuda:0\"]", settings);
        for call in &calls {
            let results = server.batch(call);
            let errors: Vec<_> = results.iter().filter(|result| !result["label"].is_string()).collect();
            if !errors.is_empty() {
                panic!("{settings:?}: {} errors, as {}\n{}", errors.len(), errors[0], server.end());
            }
        }
        let metrics = server.get("/metrics");
        let shrinks = metrics.lines().find(|line| line.starts_with("oddlog_device_budget_shrinks_total"));
        let shrinks: f64 = shrinks.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap());
        server.end();
        let lines = scene.lines();
        (*memory(&lines).iter().max().unwrap(), shrinks, count(&lines, "refuse", ""))
    };
    // Enough for the longest log alone, and not for a batch.
    const LITTLE: u64 = 64 << 20;
    let (all, shrinks, refused) = most(&[]);
    assert!((shrinks, refused) == (0.0, 0) && all > LITTLE, "{all}");
    // Somebody else has the rest.
    let taken = [("FAKE_CUDA_MEMORY", &*LITTLE.to_string()), ("ODDLOG_CUDA__MEMORY_LIMIT_MB", "4096")];
    let (less, shrinks, refused) = most(&taken);
    assert!(less <= LITTLE && shrinks > 0.0 && refused > 0, "{less} of {all}, {shrinks}, {refused}");
    // ONNX Runtime's arena has a limit of its own.
    let (less, shrinks, refused) = most(&[("ODDLOG_CUDA__MEMORY_LIMIT_MB", &(LITTLE >> 20).to_string())]);
    assert!(less < all && shrinks > 0.0 && refused == 0, "{less} of {all}, {shrinks}, {refused}");
}

#[test]
fn random_shapes_make_no_memory_grow() {
    let Some(scene) = Scene::new() else { return };
    let server = scene.serve("[\"cuda:0\", \"cuda:0\"]", &[]);
    let mut random = fastrand::Rng::with_seed(7);
    let mut call = |seed| {
        let (count, words) = (1 + random.usize(..120), 1 + random.usize(..300));
        assert_eq!(server.batch(&logs(seed, count, words)).len(), count);
    };
    // The largest there can be, then any.
    (0..4).for_each(|seed| assert_eq!(server.batch(&logs(seed, 250, 600)).len(), 250));
    (0..150).for_each(&mut call);
    let before = *memory(&scene.lines()).iter().max().unwrap();
    (150..300).for_each(&mut call);
    let after = *memory(&scene.lines()).iter().max().unwrap();
    assert_eq!(before, after);
    server.end();
}

#[test]
fn with_fixed_shapes_no_request_takes_memory() {
    let Some(scene) = Scene::new() else { return };
    let server = scene.serve("[\"cuda:0\"]", &[("ODDLOG_BATCHING__FIXED_SHAPES", "true")]);
    let before = scene.lines().len();
    for seed in 0..40 {
        server.batch(&logs(seed, 1 + 7 * seed as usize, 5 + 10 * seed as usize));
    }
    let lines = scene.lines();
    assert!(count(&lines[before..], "copy out", "") >= 40);
    assert_eq!(count(&lines[before..], "take", ""), 0);
    server.end();
}

/// Whatever fails on it fails at once: it must not get the more logs for that.
#[test]
fn a_gpu_that_breaks_is_told_and_the_others_go_on() {
    let Some(scene) = Scene::new() else { return };
    let server = scene.serve("[\"cuda:0\", \"cpu\"]", &[("FAKE_CUDA_FAULT", "3000")]);
    let mut outcomes = HashMap::new();
    for seed in 0..200 {
        for result in server.batch(&logs(seed, 20, 10)) {
            let outcome = result["error"]["type"].as_str().unwrap_or("scored").to_owned();
            *outcomes.entry(outcome).or_insert(0) += 1;
        }
    }
    let devices: Value = serde_json::from_str(&server.get("/api/v1/devices")).unwrap();
    let (gpu, cpu) = (&devices["devices"][0], &devices["devices"][1]);
    assert_eq!((&gpu["state"], &cpu["state"]), (&"down".into(), &"up".into()), "{devices}");
    assert!(gpu["runs"].as_u64() > Some(10) && cpu["runs"].as_u64() > Some(10), "{devices}");
    // What was in the run that broke it, or waited for its second half.
    let refused = outcomes.get("unavailable").copied().unwrap_or_default();
    assert!(refused <= 20 && outcomes["scored"] + refused == 4000, "{outcomes:?}");
    server.end();
}

#[test]
fn a_gpu_that_breaks_alone_says_what_to_do() {
    let Some(scene) = Scene::new() else { return };
    let server =
        scene.serve("[\"cuda:0\"]", &[("FAKE_CUDA_FAULT", "2000"), ("ODDLOG_DEVICES__REBUILD_BACKOFF_MS", "1")]);
    let outcome = |seed| server.batch(&logs(seed, 1, 10))[0]["error"]["type"].as_str().map(str::to_owned);
    let first = (0..500).find_map(outcome).unwrap();
    assert_eq!(first, "unavailable");
    let address = server.address.clone();
    let ready = ureq::get(format!("http://{address}/readyz")).config().http_status_as_error(false).build().call();
    assert_eq!(ready.unwrap().status(), 503);
    let log = server.end();
    let told = ["the device is broken", "illegal memory access", "Restart oddlog", "dmesg"];
    assert!(told.iter().all(|part| log.contains(part)), "{log}");
    assert!(!log.contains("E:onnxruntime"), "{log}");
}

#[test]
fn without_cudnn_a_model_that_needs_it_says_so() {
    let Some(scene) = Scene::new() else { return };
    for name in ["libcudnn.so.9", "libcudnn_graph.so.9", "libcudnn_ops.so.9"] {
        fs::remove_file(scene.folder.path().join(name)).unwrap();
    }
    let mut command = oddlog(&["analyze", "--device", "cuda:0", "x"]);
    let output = scene.on(&mut command).env("ODDLOG_CUDA__CUDNN", "false").output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("needs cuDNN: set cuda.cudnn = true") && told.lines().count() == 1, "{told}");
}

#[test]
fn tune_takes_every_gpu_that_auto_means() {
    let Some(scene) = Scene::new() else { return };
    let out = scene.folder.path().join("tuned.toml");
    let args = ["--quick", "--seconds-per-step", "0.05", "--p99-ms", "60000", "--concurrency", "2", "--format", "json"];
    let mut tune = oddlog(&["tune"]);
    scene.on(tune.args(args).arg("--out").arg(&out)).env("FAKE_CUDA_GPUS", "2");
    // What it tunes must not be given.
    let output = tune.env_remove("ODDLOG_BATCHING__MAX_BATCH_TOKENS").output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {told}"));
    assert!(output.status.success() && found["device"] == "cuda:0, cuda:1", "{found} {told}");
    // Workers on each, with no threads to divide.
    let tried: Vec<&Value> = found["trials"].as_array().unwrap().iter().map(|trial| &trial["settings"]).collect();
    let workers: HashSet<u64> = tried.iter().map(|candidate| candidate["instances"].as_u64().unwrap()).collect();
    assert_eq!(workers, HashSet::from([1, 2, 4]), "{found}");
    assert!(tried.iter().all(|candidate| candidate["intra_op_threads"] == 1), "{found}");
    let text = fs::read_to_string(&out).unwrap();
    assert!(text.contains("devices = [\"auto\"]") || text.contains("\"cuda:1\""), "{text}");
}
