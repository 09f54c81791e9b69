//! `oddlog tune`: real runs with short steps, with the tiny model and with the fake device.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use crossbeam_channel::{bounded, never};
use oddlog::{
    config::{Config, Devices},
    device::{Device, DeviceError, DeviceMaker, FakeDevice, Place},
    engine::Fleet,
    model::{InputTensors, Model},
    tuning::{Bench, Candidate, Halt, Run, Sites},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `oddlog tune` with a tiny model in the folder `dir`, in short steps.
fn tune(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oddlog"));
    command.current_dir(dir).args(["tune", "--quick"]).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("ODDLOG_MODEL__SOURCE", root().join("tests/data/tiny-deberta"));
    command
}

fn finish(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn run(dir: &Path, args: &[&str]) -> (i32, String, String) {
    finish(tune(dir, args).output().unwrap())
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_real_run_prints_a_table_and_writes_what_the_server_reads() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(root().join("tests/data/lines.txt"), dir.path().join("app.log")).unwrap();
    let args = ["--lines", "app.log", "--seconds-per-step", "0.05", "--p99-ms", "10000"];
    let (code, out, err) = run(dir.path(), &args);
    assert_eq!(code, 0, "{out}{err}");
    assert!(err.contains("lines of app.log") && err.contains("at most"), "{err}");
    assert!(out.contains("instances") && out.contains("present") && out.contains("oddlog.tuned.toml"), "{out}");
    assert_eq!(files(dir.path()), ["app.log", "oddlog.tuned.toml"]);
    let text = fs::read_to_string(dir.path().join("oddlog.tuned.toml")).unwrap();
    assert!(text.starts_with("# oddlog tune: ") && text.contains("logs/s") && text.contains("app.log"), "{text}");
    let keys: Vec<&str> = text.lines().filter_map(|l| Some(l.split_once(" = ")?.0)).collect();
    assert_eq!(keys, ["devices", "intra_op_threads", "max_batch_tokens", "max_queue_delay_us"], "{text}");

    let mut analyze = Command::new(env!("CARGO_BIN_EXE_oddlog"));
    analyze.args(["analyze", "--config", "oddlog.tuned.toml", "x"]).current_dir(dir.path());
    analyze.env("ODDLOG_MODEL__SOURCE", root().join("tests/data/tiny-deberta"));
    assert!(analyze.output().unwrap().status.success());
}

#[test]
fn json_has_every_figure_and_a_write_keeps_the_rest_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("my.toml");
    let mine =
        "# mine\n[batching]\nmax_batch_rows = 32 # few\nmax_batch_tokens = 96\n\n[devices]\ndevices = [\"fake\"]\n";
    fs::write(&file, mine).unwrap();
    let args =
        ["--config", "my.toml", "--write", "--format", "json", "--seconds-per-step", "0.05", "--concurrency", "8,2"];
    let (code, out, err) = run(dir.path(), &args);
    assert_eq!(code, 0, "{out}{err}");
    assert!(err.contains("built-in lines"), "{err}");
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    let trials = json["trials"].as_array().unwrap();
    assert_eq!(trials[0]["settings"]["max_batch_tokens"], 96);
    // A machine that stalls for a whole step shows one without an answer; that one is over the target.
    for trial in trials.iter().filter(|t| t["verdict"] != "over_target") {
        assert!([2, 8].contains(&trial["clients"].as_u64().unwrap()));
        let run = &trial["median"];
        let of = |key: &str| run[key].as_f64().unwrap();
        assert!(of("logs_per_s") > 0.0 && of("p50_ms") > 0.0 && of("p99_ms") >= of("p50_ms"), "{trial}");
    }
    let winner = &trials[json["winner"].as_u64().unwrap() as usize]["settings"];
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("# mine\n[batching]\nmax_batch_rows = 32 # few\n"), "{text}");
    let config = Config::load(Some(&file), serde_json::json!({})).unwrap();
    assert_eq!(winner["max_batch_tokens"], config.batching.max_batch_tokens);
    assert_eq!(winner["max_queue_delay_us"], config.batching.max_queue_delay_us);
    assert_eq!(winner["instances"], config.devices.devices.len());
    assert_eq!(config.batching.max_batch_rows, 32);
    assert_eq!(files(dir.path()), ["my.toml"]);
}

#[test]
fn a_target_out_of_reach_is_told_with_exit_code_1_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--device", "fake", "--p99-ms", "0.000001", "--seconds-per-step", "0.02"];
    let (code, out, err) = run(dir.path(), &args);
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.contains("Nothing meets p99") && out.contains("over target") && out.contains("would do"), "{out}");
    assert!(files(dir.path()).is_empty());
}

#[test]
fn ctrl_c_prints_the_table_so_far_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = tune(dir.path(), &["--device", "fake", "--seconds-per-step", "600"]).spawn().unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("Ctrl-C") {
        line.clear();
        assert!(err.read_line(&mut line).unwrap() > 0);
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(out.contains("instances") && out.contains("Interrupted"), "{out}");
    assert!(files(dir.path()).is_empty());
}

#[test]
fn what_cannot_work_is_said_before_anything_is_measured() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("empty.log"), "\n  \n").unwrap();
    fs::write(dir.path().join("mine.toml"), "[log]\nlevel = \"warn\"\n").unwrap();
    let cases: [(&[&str], &str); 9] = [
        (&["--lines", "none.log"], "none.log"),
        (&["--lines", "empty.log"], "not blank"),
        (&["--write"], "--config"),
        (&["--out", "mine.toml"], "--force"),
        (&["--out", "x.toml", "--write"], "cannot be used with"),
        (&["--p99-ms=-3"], "above 0"),
        (&["--concurrency", "0"], "0"),
        (&["--concurrency", "4000"], "max_queue_tokens"),
        (&["--device", "cpu", "--device", "fake"], "several kinds"),
    ];
    for (args, expected) in cases {
        let (code, _, err) = run(dir.path(), args);
        assert!(code == 2 && err.contains(expected) && !err.contains("steps, about"), "{args:?}: {code} {err}");
    }
    let hidden = tune(dir.path(), &[]).env("ODDLOG_BATCHING__MAX_BATCH_TOKENS", "64").output().unwrap();
    let (code, _, err) = finish(hidden);
    assert!(code == 2 && err.contains("ODDLOG_BATCHING__MAX_BATCH_TOKENS"), "{err}");
    assert_eq!(files(dir.path()), ["empty.log", "mine.toml"]);
}

#[test]
fn as_many_workers_as_the_affinity_allows() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap();
    let first: String = allowed.trim().chars().take_while(char::is_ascii_digit).collect();
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new("taskset")
        .args(["-c", &first, env!("CARGO_BIN_EXE_oddlog"), "tune", "--quick", "--seconds-per-step", "0.01"])
        .args(["--format", "json", "--concurrency", "1"])
        .env("ODDLOG_MODEL__SOURCE", root().join("tests/data/tiny-deberta"))
        .current_dir(dir.path())
        .output()
        .unwrap();
    let (_, out, err) = finish(output);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    assert_eq!((&json["cores"], &json["trials"][0]["settings"]["instances"]), (&1.into(), &1.into()));
}

/// A fake device whose runs take a known time.
#[derive(Clone)]
struct Slow(FakeDevice, Duration);

impl Device for Slow {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn run(&mut self, inputs: &InputTensors, logits: &mut Vec<f32>) -> Result<(), DeviceError> {
        // Waits for what never comes.
        let _ = never::<()>().recv_timeout(self.1);
        self.0.run(inputs, logits)
    }
}

#[test]
fn a_measurement_is_what_the_device_takes() {
    const RUN: Duration = Duration::from_millis(20);
    let model = Model::open(&root().join("tests/data/tiny-deberta"), 512).unwrap();
    let config = Config::default();
    let devices = |config: &Config, model: &Model| {
        let device = |name: &String| {
            let slow = Slow(FakeDevice::new(name, model.spec.classes), RUN);
            DeviceMaker::new(name.clone(), move || Ok(slow.clone()))
        };
        let makers = config.devices.devices.iter().map(device).collect();
        Ok(Fleet { makers, rules: config.devices.clone() })
    };
    let lines = ["a line".to_owned(), "and another one".to_owned()];
    let step = Duration::from_secs(1);
    let (sites, _) = Sites::of(&[Place::Fake]).unwrap();
    let bench = Bench { model: &model, config: &config, sites: &sites, lines: &lines, step, devices: &devices };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let measure = |instances: usize, clients: usize| -> Run {
        let candidate = Candidate { instances, ..Candidate::of(&config, &sites, 1) };
        runtime.block_on(bench.measure(&candidate, clients, std::future::pending())).unwrap()
    };
    // A lone client cannot be served faster than the device runs, nor can two devices by two clients.
    let (one, two) = (measure(1, 1), measure(2, 2));
    assert!(one.p50_ms >= 20.0 && one.logs_per_s <= 51.0 && one.answers > 5, "{one:?}");
    assert!(two.p50_ms >= 20.0 && two.logs_per_s <= 102.0, "{two:?}");
    // Eight clients share a run.
    let eight = measure(1, 8);
    assert!(eight.logs_per_s > 2.0 * one.logs_per_s && eight.p50_ms < 4.0 * one.p50_ms, "{one:?} {eight:?}");

    let (gate, tokens) = bounded(1);
    gate.send(()).unwrap();
    let stuck = |_: &Config, model: &Model| {
        let stuck = FakeDevice::new("stuck", model.spec.classes).gated(tokens.clone());
        Ok(Fleet { makers: vec![stuck.maker()], rules: Devices::default() })
    };
    let bench = Bench { devices: &stuck, ..bench };
    let halted = runtime.block_on(bench.measure(&Candidate::of(&config, &sites, 1), 4, std::future::ready(())));
    assert!(matches!(halted, Err(Halt::Interrupted)));
}
