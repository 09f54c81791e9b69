//! `oddlog compile` as its user meets it: results that serve, refusals in one line, nothing left behind.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Output},
};

use crate::{
    graph::{change, checkpoint},
    parity::root,
};

fn oddlog(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oddlog"));
    command.current_dir(root()).args(args);
    command
}

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    text(&oddlog(args).output().unwrap())
}

fn text(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// What a cache holds beside remembered checksums, which are written once the files are old enough to be trusted.
fn models(cache: &Path) -> BTreeSet<String> {
    names(cache).into_iter().filter(|name| !name.ends_with(".sha256.json")).collect()
}

fn str(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_result_is_a_model_that_oddlog_runs() {
    let out = tempfile::tempdir().unwrap();
    let dir = out.path().join("fast");
    for precision in ["fp32", "fp32-portable", "int8-portable"] {
        let (code, printed, err) =
            run(&["compile", "tests/data/tiny-deberta", "--precision", precision, "--no-gate", "--out", str(&dir)]);
        assert_eq!((code, printed.trim_end(), err.as_str()), (Some(0), str(&dir), ""));
        let files = ["config.json", "model.onnx", "model.onnx.data", "oddlog.json", "tokenizer.json"];
        assert_eq!(names(&dir), files.map(str::to_owned).into());
        let made: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("oddlog.json")).unwrap()).unwrap();
        assert_eq!((&made["precision"], &made["graph_version"]), (&precision.into(), &4.into()));
        let mut analyze = oddlog(&["analyze", "--model", str(&dir), "kernel panic"]);
        let (code, scored, err) = text(&analyze.env("ODDLOG_MODEL__LEAST_AGREEMENT", "0").output().unwrap());
        assert!(code == Some(0) && scored.contains("kernel panic"), "{err}");
    }
    assert_eq!(names(out.path()), BTreeSet::from(["fast".into()]));
}

#[test]
fn without_out_the_result_stands_beside_the_checkpoint() {
    let parent = tempfile::tempdir().unwrap();
    let source = parent.path().join("my-model");
    fs::rename(checkpoint("odd").keep(), &source).unwrap();
    let output = oddlog(&["compile", "."]).current_dir(&source).output().unwrap();
    let (code, printed, err) = text(&output);
    assert!(code == Some(0) && printed.trim_end().ends_with("my-model-fp32"), "{printed}{err}");
    assert_eq!(names(parent.path()), BTreeSet::from(["my-model".into(), "my-model-fp32".into()]));
}

#[test]
fn a_repository_comes_from_the_hubs_cache() {
    let work = tempfile::tempdir().unwrap();
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let repo = work.path().join("hub/models--owner--tiny");
    fs::create_dir_all(repo.join("snapshots")).unwrap();
    fs::create_dir_all(repo.join("refs")).unwrap();
    fs::write(repo.join("refs/main"), commit).unwrap();
    let source = checkpoint("small");
    let snapshot = repo.join("snapshots").join(commit);
    fs::create_dir(&snapshot).unwrap();
    for name in names(source.path()) {
        fs::copy(source.path().join(&name), snapshot.join(&name)).unwrap();
    }
    let mut command = oddlog(&["compile", "owner/tiny", "--precision", "int8", "--no-gate"]);
    command.current_dir(work.path()).env("HF_HUB_CACHE", work.path().join("hub")).env("HF_HUB_OFFLINE", "1");
    let (code, printed, err) = text(&command.output().unwrap());
    assert_eq!((code, printed.as_str(), err.as_str()), (Some(0), "tiny-int8\n", ""));
    assert!(work.path().join("tiny-int8/model.onnx").is_file());
}

#[test]
fn a_bad_checkpoint_is_one_line_and_leaves_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("out");
    let refused = |source: &Path| {
        let (code, printed, err) = run(&["compile", str(source), "--out", str(&out)]);
        assert_eq!((code, printed.as_str(), err.lines().count()), (Some(2), "", 1), "{err}");
        assert_eq!(names(parent.path()), BTreeSet::new(), "{err}");
        err
    };
    let with = |spoil: &dyn Fn(&Path)| {
        let dir = checkpoint("small");
        spoil(dir.path());
        refused(dir.path())
    };
    let config = |from: &'static str, to: &'static str| {
        move |dir: &Path| {
            let path = dir.join("config.json");
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains(from));
            fs::write(path, text.replace(from, to)).unwrap();
        }
    };
    let last = "deberta.encoder.layer.0.output.dense.weight";
    let nan = with(&|dir| change(dir, last, |bytes| bytes[40..44].copy_from_slice(&f32::NAN.to_le_bytes())));
    assert!(nan.contains(last) && nan.contains("NaN at place 10"), "{nan}");
    let missing = with(&config("\"num_hidden_layers\": 1", "\"num_hidden_layers\": 2"));
    assert!(missing.contains("deberta.encoder.layer.1") && missing.contains("is missing"), "{missing}");
    let shape = with(&config("\"vocab_size\": 200", "\"vocab_size\": 201"));
    assert!(shape.contains("word_embeddings.weight") && shape.contains("[200, 48]") && shape.contains("[201, 48]"));
    let labels = with(&config("\"1\": \"not_entailment\"", "\"1\": \"neutral\", \"2\": \"x\""));
    assert!(labels.contains("classifier.weight"), "{labels}");
    let other = with(&config("\"model_type\": \"deberta-v2\"", "\"model_type\": \"modernbert\""));
    assert!(other.contains("modernbert"), "{other}");
    let cut = with(&|dir| {
        let path = dir.join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
    });
    assert!(cut.contains("model.safetensors") && cut.contains("complete"), "{cut}");
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        let error = with(&|dir| fs::remove_file(dir.join(file)).unwrap());
        assert!(error.contains(file), "{error}");
    }
    let error = refused(&parent.path().join("nowhere"));
    assert!(error.contains("no such directory"), "{error}");
}

/// A limit on the size of files stands in for a full disk: the write fails in the middle of the weights.
#[test]
fn a_failed_write_leaves_the_old_model_and_nothing_else() {
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("out");
    let limited = |prepare: &str| {
        let script = format!("{prepare} ulimit -f 40; exec \"$0\" compile tests/data/graph-source --out \"$1\"");
        let source = checkpoint("small");
        let script = script.replace("tests/data/graph-source", str(source.path()));
        let arguments = ["-c", &script, env!("CARGO_BIN_EXE_oddlog"), str(&out)];
        Command::new("bash").args(arguments).current_dir(root()).output().unwrap()
    };
    // With the signal ignored the write returns an error, as on a full disk.
    let full = || {
        let (code, printed, err) = text(&limited("trap '' XFSZ;"));
        assert_eq!((code, printed.as_str(), err.lines().count()), (Some(2), "", 1), "{err}");
        assert!(err.contains("model.onnx.data") && err.contains("File too large"), "{err}");
    };
    full();
    assert_eq!(names(parent.path()), BTreeSet::new());
    // With it the process dies in the middle, as in a crash.
    let killed = limited("");
    assert!(killed.status.signal().is_some(), "{killed:?}");
    assert!(!out.exists());
    assert_eq!(names(parent.path()).len(), 1);
    // The next one removes what the crash left.
    let source = checkpoint("odd");
    assert_eq!(run(&["compile", str(source.path()), "--out", str(&out)]).0, Some(0));
    assert_eq!(names(parent.path()), BTreeSet::from(["out".into()]));
    let before = fs::read(out.join("model.onnx.data")).unwrap();
    full();
    assert_eq!(names(parent.path()), BTreeSet::from(["out".into()]));
    assert_eq!(fs::read(out.join("model.onnx.data")).unwrap(), before);
}

#[test]
fn a_folder_of_someone_else_is_kept() {
    let source = checkpoint("odd");
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("letter.txt");
    fs::write(&file, "dear").unwrap();
    let args = ["compile", str(source.path()), "--out", str(out.path())];
    let (code, _, err) = run(&args);
    assert!(code == Some(2) && err.contains("--force"), "{err}");
    assert!(file.exists());
    assert_eq!(run(&[&args[..], &["--force"]].concat()).0, Some(0));
    assert!(!file.exists() && out.path().join("model.onnx").exists());
    let (code, _, err) = run(&["compile", str(source.path()), "--force", "--out", str(source.path())]);
    assert!(code == Some(2) && err.contains("holds what is to be compiled"), "{err}");
}

/// The random weights of tests/data/tiny-deberta lose too many verdicts in 8 bits to pass the gate.
#[test]
fn eight_bits_that_disagree_are_told_and_not_served() {
    let out = tempfile::tempdir().unwrap();
    let dir = out.path().join("fast");
    let compile = |more: &[&str]| {
        let args = ["compile", "tests/data/tiny-deberta", "--precision", "int8", "--out", str(&dir)];
        run(&[&args[..], more].concat())
    };
    let (code, printed, err) = compile(&[]);
    assert_eq!((code, printed.trim_end()), (Some(1), str(&dir)), "{err}");
    assert!(err.contains("478 verdicts equal") && err.contains("asks for 99 %"), "{err}");
    let (code, _, err) = run(&["analyze", "--model", str(&dir), "x"]);
    assert!(code == Some(2) && err.contains("not close enough") && err.contains("least_agreement"), "{err}");
    let told_to = |least: &str| {
        let mut command = oddlog(&["analyze", "--model", str(&dir), "x"]);
        command.env("ODDLOG_MODEL__LEAST_AGREEMENT", least).output().unwrap().status.code()
    };
    assert_eq!((told_to("0.5"), told_to("0.99")), (Some(0), Some(2)));

    let samples = out.path().join("samples");
    fs::write(&samples, "disk failure\n\nuser logged in\n").unwrap();
    let (_, _, err) = compile(&["--samples", str(&samples)]);
    assert!(err.contains("of 2 verdicts equal"), "{err}");
    assert_eq!(compile(&["--samples", "/no/such/file"]).0, Some(2));
    assert_eq!(compile(&["--no-gate"]).0, Some(0));
    let (code, _, err) = run(&["analyze", "--model", str(&dir), "x"]);
    assert!(code == Some(2) && err.contains("nobody has compared"), "{err}");
}

#[test]
fn weights_are_compiled_once_and_kept_in_the_cache() {
    let work = tempfile::tempdir().unwrap();
    // Without its own graph, only weights are left to serve.
    let checkpoint = work.path().join("model");
    fs::create_dir(&checkpoint).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(root().join("tests/data/tiny-deberta").join(name), checkpoint.join(name)).unwrap();
    }
    let cache = work.path().join("cache");
    let analyze = |more: &[&str]| {
        let mut command = oddlog(&[&["analyze", "--model", str(&checkpoint)], more, &["disk failure"]].concat());
        text(&command.env("ODDLOG_MODEL__CACHE", &cache).output().unwrap())
    };
    let fp32 = |printed: &str| serde_json::from_str::<serde_json::Value>(printed).unwrap()["confidence"].clone();
    let (code, stock, _) = run(&["analyze", "--model", "tests/data/tiny-deberta", "disk failure"]);
    assert_eq!(code, Some(0));
    let (code, printed, err) = analyze(&[]);
    assert!(code == Some(0) && err.contains("not close enough") && err.contains("compiling to fp32"), "{err}");
    let difference = fp32(&printed).as_f64().unwrap() - fp32(&stock).as_f64().unwrap();
    assert!(difference.abs() < 1e-5, "{printed}{stock}");
    let made = models(&cache);
    assert_eq!(made.len(), 2, "{made:?}");
    assert!(made.iter().any(|name| name.contains("-int8-")) && made.iter().any(|name| name.contains("-fp32-")));

    let (code, again, err) = analyze(&[]);
    assert!((code, &again) == (Some(0), &printed) && !err.contains("compiling"), "{err}");
    let (code, again, err) = analyze(&["--precision", "fp32"]);
    assert_eq!((code, &again, err.as_str()), (Some(0), &printed, ""));
    let (code, _, err) = analyze(&["--precision", "int8"]);
    assert!(code == Some(2) && err.contains("not close enough") && !err.contains("compiling"), "{err}");
    let (code, _, err) = analyze(&["--precision", "onnx"]);
    assert!(code == Some(2) && err.contains("model.onnx"), "{err}");
    assert_eq!(models(&cache), made);

    // Another configuration beside the same weights is another model, and so are other weights.
    let config = checkpoint.join("config.json");
    fs::write(&config, fs::read_to_string(&config).unwrap() + "\n").unwrap();
    let (_, _, err) = analyze(&["--precision", "fp32"]);
    assert!(err.contains("compiling to fp32"), "{err}");
    let weights = checkpoint.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1 << 6;
    fs::write(&weights, bytes).unwrap();
    let (_, _, err) = analyze(&["--precision", "fp32"]);
    assert!(err.contains("compiling to fp32"), "{err}");
}

#[test]
fn verify_tells_what_holds() {
    let out = tempfile::tempdir().unwrap();
    let (code, printed, err) = run(&["verify"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(printed.contains("company    ok       0 of 1434") && printed.contains("golden     not made"), "{printed}");

    let dir = out.path().join("fast");
    let args = ["compile", "tests/data/tiny-deberta", "--precision", "int8", "--no-gate", "--out", str(&dir)];
    assert_eq!(run(&args).0, Some(0));
    let (code, printed, err) = run(&["verify", "--model", str(&dir), "--format", "json"]);
    assert_eq!(code, Some(1), "{err}");
    let report: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(report["passed"], false);
    let outcomes: Vec<_> =
        report["checks"].as_array().unwrap().iter().map(|check| (&check["name"], &check["passed"])).collect();
    let expected = [("company", Some(true)), ("agreement", Some(false)), ("golden", None)];
    for (outcome, expected) in outcomes.iter().zip(expected) {
        assert_eq!((outcome.0.as_str().unwrap(), outcome.1.as_bool()), expected);
    }
    assert_eq!(names(out.path()), BTreeSet::from(["fast".into()]));
}

/// A checkpoint whose word embeddings are as in tests/data/tiny-deberta, with one bias of its first layer at `value`.
fn with_bias(value: f32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(root().join("tests/data/tiny-deberta").join(name), dir.path().join(name)).unwrap();
    }
    change(dir.path(), "deberta.encoder.layer.0.output.dense.bias", |bytes| {
        bytes[..4].copy_from_slice(&value.to_le_bytes());
    });
    dir
}

#[test]
fn sixteen_bits_are_compared_and_served() {
    // Weights are random: with this bias no score is so near the threshold that 16 bits turn the verdict.
    let source = with_bias(-2.0);
    let out = tempfile::tempdir().unwrap();
    let dir = out.path().join("fast");
    let (code, printed, err) = run(&["compile", str(source.path()), "--precision", "fp16", "--out", str(&dir)]);
    assert_eq!((code, printed.trim_end()), (Some(0), str(&dir)), "{err}");
    assert!(err.contains("fp16 beside fp32: ") && err.contains("of 478 verdicts equal"), "{err}");
    assert_eq!(names(out.path()), BTreeSet::from(["fast".into()]));
    let files = ["config.json", "model.onnx", "model.onnx.data", "oddlog.json", "tokenizer.json"];
    assert_eq!(names(&dir), files.map(str::to_owned).into());
    let (code, printed, err) = run(&["verify", "--model", str(&dir)]);
    assert!(
        code == Some(0) && printed.contains("company    ok") && printed.contains("agreement  ok"),
        "{printed}{err}"
    );

    // From the weights, through the cache; the second time nothing is compiled.
    let cache = out.path().join("cache");
    for compiles in [true, false] {
        let mut command = oddlog(&["analyze", "--model", str(source.path()), "--precision", "fp16", "disk failure"]);
        let (code, _, err) = text(&command.env("ODDLOG_MODEL__CACHE", &cache).output().unwrap());
        assert_eq!((code, err.contains("compiling to fp16")), (Some(0), compiles), "{err}");
    }
    let made = models(&cache);
    assert!(made.len() == 1 && made.first().unwrap().contains("-fp16-g"), "{made:?}");
    // It is for GPUs: nothing is prepared for this processor.
    assert_eq!(names(&cache.join(made.first().unwrap())), files.map(str::to_owned).into());
}

#[test]
fn what_sixteen_bits_cannot_hold_is_told() {
    let out = tempfile::tempdir().unwrap();
    let dir = out.path().join("fast");
    let compile = |bias: f32| run(&["compile", str(with_bias(bias).path()), "--precision", "fp16", "--out", str(&dir)]);
    let (code, printed, err) = compile(1e5);
    assert_eq!((code, printed.as_str(), err.lines().count()), (Some(2), "", 1), "{err}");
    assert!(err.contains("\"deberta.encoder.layer.0.output.dense.bias\" has the value 100000 at place 0"), "{err}");
    assert_eq!(names(out.path()), BTreeSet::new());
    // A bias that just fits makes sums that do not: with that, no verdict is worth anything, and the gate sees it.
    let (code, _, err) = compile(65504.0);
    assert!(code == Some(1) && err.contains("99.5 %"), "{err}");
    let (code, _, err) = run(&["analyze", "--model", str(&dir), "x"]);
    assert!(code == Some(2) && err.contains("not close enough") && err.contains("least_fp16_agreement"), "{err}");
    let analyze =
        |key: &str| oddlog(&["analyze", "--model", str(&dir), "x"]).env(key, "0").output().unwrap().status.code();
    assert_eq!(analyze("ODDLOG_MODEL__LEAST_AGREEMENT"), Some(2));
    assert_ne!(analyze("ODDLOG_MODEL__LEAST_FP16_AGREEMENT"), Some(2));
}

#[test]
fn a_precision_that_cannot_be_had_is_refused() {
    let (code, _, err) = run(&["analyze", "--precision", "fp32", "x"]);
    assert!(code == Some(2) && err.contains("no model.safetensors") && err.contains("\"auto\""), "{err}");
    let out = tempfile::tempdir().unwrap();
    let dir = out.path().join("fast");
    assert_eq!(run(&["compile", "tests/data/tiny-deberta", "--out", str(&dir)]).0, Some(0));
    assert_eq!(run(&["analyze", "--model", str(&dir), "--precision", "fp32", "x"]).0, Some(0));
    let (code, _, err) = run(&["analyze", "--model", str(&dir), "--precision", "int8", "x"]);
    assert!(code == Some(2) && err.contains("it is fp32"), "{err}");
}
