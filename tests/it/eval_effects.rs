//! `oddlog eval --cache-modes` and `--precisions`: their figures beside scores that `oddlog analyze` gives without any memory.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use crate::support::process::{oddlog, root};

const SHIPPED: &str = "models/oddlog-minilm";

fn run(mut command: Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn eval(args: &[&str], environment: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = oddlog(&["eval"]);
    command.args(args).envs(environment.iter().copied());
    run(command)
}

/// The report of an evaluation that succeeds.
fn report(args: &[&str], environment: &[(&str, &str)]) -> Value {
    let (code, out, err) = eval(&[args, &["--format", "json"]].concat(), environment);
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).unwrap()
}

/// The anomaly scores of `lines`, each from a model run of its own.
fn analyzed(flags: &[&str], lines: &[&str], environment: &[(&str, &str)]) -> Vec<f64> {
    let mut command = oddlog(&["analyze"]);
    command.args(flags).args(lines).envs(environment.iter().copied()).env("ODDLOG_CACHE__MODE", "off");
    let (code, out, err) = run(command);
    assert_eq!(code, 0, "{err}");
    let score = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        let confidence = row["confidence"].as_f64().unwrap();
        if row["is_anomaly"] == true { confidence } else { 1.0 - confidence }
    };
    out.lines().map(score).collect()
}

/// Equal verdicts, largest and mean difference, precision, recall and F1, from the definitions.
fn expected(reference: &[f64], scores: &[f64], truth: &[bool]) -> [f64; 6] {
    let odd = |score: &f64| *score >= 0.5;
    let differences = || reference.iter().zip(scores).map(|(a, b)| (a - b).abs());
    let count =
        |called: bool, is: bool| scores.iter().zip(truth).filter(|(s, t)| odd(s) == called && **t == is).count();
    let (right, false_alarms, missed) =
        (count(true, true) as f64, count(true, false) as f64, count(false, true) as f64);
    let (precision, recall) = (right / (right + false_alarms).max(1.0), right / (right + missed).max(1.0));
    [
        reference.iter().zip(scores).filter(|(a, b)| odd(a) == odd(b)).count() as f64,
        differences().fold(0.0, f64::max),
        differences().sum::<f64>() / scores.len() as f64,
        precision,
        recall,
        2.0 * right / (2.0 * right + false_alarms + missed),
    ]
}

fn check(effect: &Value, name: &str, expected: [f64; 6]) {
    assert_eq!(effect["name"], name);
    let of = |value: &Value| value.as_f64().unwrap();
    let all = &effect["all"];
    let found = [
        of(&effect["equal_verdicts"]),
        of(&effect["largest_difference"]),
        of(&effect["mean_difference"]),
        of(&all["precision"]),
        of(&all["recall"]),
        of(&all["f1"]),
    ];
    for (found, expected) in found.into_iter().zip(expected) {
        assert!((found - expected).abs() < 1e-5, "{effect}: {found}, not {expected}");
    }
    assert!((of(&effect["equal_share"]) - expected[0] / of(&all["lines"])).abs() < 1e-9);
}

/// How the lines were answered: by the model, as the same, by template, checked.
fn answered(effect: &Value) -> [u64; 4] {
    let of = |name: &str| effect["memory"][name].as_u64().unwrap();
    [of("misses"), of("hits") + of("joined"), of("templates"), of("checks")]
}

/// Lines and their truth: 0 and 2 are the same text, 1 and 3 the same tokens; 4, 5 are of the template of 1, and 6 of that of 0.
const LINES: [(&str, bool); 8] = [
    ("ERROR: Database connection timeout after 30s", true),
    ("user 42 logged in from 10.0.0.7", false),
    ("ERROR: Database connection timeout after 30s", true),
    ("user 42 logged in from 10.0.0.99", false),
    ("user 43 logged in from 10.0.0.7", true),
    ("user 977 logged in from 10.0.0.7", false),
    ("ERROR: Database connection timeout after 31s", true),
    ("kernel: EXT4-fs error: reading directory lblock 0", true),
];
/// For each line the one whose score it gets, if templates answer.
const ANSWERED_BY: [usize; 8] = [0, 1, 0, 1, 1, 1, 0, 7];

fn written(dir: &Path, lines: &[(&str, bool)]) -> String {
    let path = dir.join("set.csv");
    let rows = lines.iter().map(|(text, odd)| format!("{text},{}\n", u8::from(*odd)));
    fs::write(&path, format!("text,label\n{}", rows.collect::<String>())).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn each_memory_is_set_beside_none() {
    let dir = tempfile::tempdir().unwrap();
    let (set, page) = (written(dir.path(), &LINES), dir.path().join("page.html"));
    let (texts, truth): (Vec<&str>, Vec<bool>) = LINES.iter().copied().unzip();
    let scores = analyzed(&["--model", SHIPPED], &texts, &[]);
    let by_template = ANSWERED_BY.map(|line| scores[line]);
    assert!(by_template != scores[..] && scores[1] == scores[3], "{scores:?}");

    let args = [set.as_str(), "--model", SHIPPED, "--cache-modes", "--html", page.to_str().unwrap()];
    let one_by_one = [("ODDLOG_CACHE__CHECK_SHARE", "0"), ("ODDLOG_SERVER__MAX_STREAM_LINES", "1")];
    let report = report(&args, &one_by_one);
    let modes = report["cache_modes"].as_array().unwrap();
    assert_eq!(modes.len(), 3);
    check(&modes[0], "off", expected(&scores, &scores, &truth));
    check(&modes[1], "exact", expected(&scores, &scores, &truth));
    check(&modes[2], "template", expected(&scores, &by_template, &truth));
    assert_eq!(answered(&modes[0]), [8, 0, 0, 0]);
    assert_eq!(answered(&modes[1]), [6, 2, 0, 0]);
    assert_eq!(answered(&modes[2]), [3, 2, 3, 0]);
    let page = fs::read_to_string(&page).unwrap();
    assert!(page.contains("<h2>Memory</h2>") && page.contains("<td>3<small>37.50 %</small></td>"), "{page}");

    // As a stream has them in the server together, the members of a template wait for the first one.
    let (code, out, err) = eval(&args[..4], &one_by_one[..1]);
    let row = |name: &str| out.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{out} {err}"));
    assert!(code == 0 && row("exact ").contains(" 6 (75.00 %) ") && row("template").contains(" 3 (37.50 %) "), "{out}");
}

#[test]
fn the_question_and_the_threshold_are_those_of_the_verdicts() {
    let dir = tempfile::tempdir().unwrap();
    let lines: Vec<(&str, bool)> = LINES.to_vec();
    let set = written(dir.path(), &lines);
    let texts: Vec<&str> = lines.iter().map(|(text, _)| *text).collect();
    // Labels of the request's own, which the server would not answer by template.
    let labels = ["--labels", "a security threat,a failed connection", "--model", SHIPPED];
    let scores = analyzed(&[&labels[..], &["--anomaly-label", "a failed connection"]].concat(), &texts, &[]);
    let args = [&[set.as_str(), "--cache-modes", "--anomaly-label", "a failed connection"], &labels[..]].concat();
    let found = report(&args, &[("ODDLOG_CACHE__CHECK_SHARE", "0")]);
    let truth: Vec<bool> = lines.iter().map(|(_, odd)| *odd).collect();
    check(&found["cache_modes"][0], "off", expected(&scores, &scores, &truth));
    assert!(found["cache_modes"][2]["memory"]["templates"].as_u64() >= Some(2), "{found}");
    // At a threshold that is the very score of a template's first member nothing is certain.
    let at = analyzed(&["--model", SHIPPED], &texts[1..2], &[])[0].to_string();
    let args = [set.as_str(), "--model", SHIPPED, "--cache-modes", "--threshold", &at];
    let near = report(&args, &[("ODDLOG_CACHE__CHECK_SHARE", "0")]);
    assert_eq!(answered(&near["cache_modes"][2])[0], 5, "{near}");
}

#[test]
fn checks_are_lines_to_the_model() {
    let dir = tempfile::tempdir().unwrap();
    // Whatever comes last gives the checks their time.
    let others = ["shutting down the pump", "backup written to tape", "certificate expires tomorrow", "fan at 0 RPM"];
    let lines: Vec<(&str, bool)> = LINES.into_iter().chain(others.map(|text| (text, false))).collect();
    let set = written(dir.path(), &lines);
    let all = [("ODDLOG_CACHE__CHECK_SHARE", "1"), ("ODDLOG_SERVER__MAX_STREAM_LINES", "1")];
    let report = report(&[&set, "--model", SHIPPED, "--cache-modes", "--device", "cpu"], &all);
    assert_eq!(answered(&report["cache_modes"][2]), [7, 2, 3, 3], "{report}");
    assert_eq!(report["cache_modes"][2]["memory"]["checks_differ"], 0);
}

#[test]
fn a_checkpoint_is_compared_in_each_arithmetic() {
    let dir = tempfile::tempdir().unwrap();
    let set = written(dir.path(), &LINES);
    let cache = dir.path().join("cache");
    let environment = [("ODDLOG_MODEL__CACHE", cache.to_str().unwrap()), ("ODDLOG_MODEL__LEAST_AGREEMENT", "0")];
    let (texts, truth): (Vec<&str>, Vec<bool>) = LINES.iter().copied().unzip();
    let [fp32, int8] = ["fp32", "int8"].map(|precision| analyzed(&["--precision", precision], &texts, &environment));
    assert_ne!(fp32, int8);
    let found = report(&[&set, "--precisions"], &environment);
    assert_eq!(found["cache_modes"], Value::Null);
    let precisions = found["precisions"].as_array().unwrap();
    assert_eq!(precisions.len(), 2);
    check(&precisions[0], "fp32", expected(&fp32, &fp32, &truth));
    check(&precisions[1], "int8", expected(&fp32, &int8, &truth));
    assert_eq!(precisions[1]["memory"], Value::Null);
    // The first one named is the reference.
    let found = report(&[&set, "--precisions=int8,fp32"], &environment);
    check(&found["precisions"][1], "fp32", expected(&int8, &fp32, &truth));
}

#[test]
fn a_graph_and_its_twin_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    let set = written(dir.path(), &LINES);
    let twin = dir.path().join("twin");
    fs::create_dir(&twin).unwrap();
    let files = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.onnx.data"];
    for (from, to) in files.map(|name| (name, name)).into_iter().chain([("model_fp32.onnx", "model.onnx")]) {
        fs::copy(root().join(SHIPPED).join(from), twin.join(to)).unwrap();
    }
    let (texts, truth): (Vec<&str>, Vec<bool>) = LINES.iter().copied().unzip();
    let [int8, fp32] = [SHIPPED, twin.to_str().unwrap()].map(|model| analyzed(&["--model", model], &texts, &[]));
    assert_ne!(int8, fp32);
    let args = [set.as_str(), "--model", SHIPPED, "--precisions"];
    let found = report(&args, &[]);
    check(&found["precisions"][0], "fp32", expected(&fp32, &fp32, &truth));
    check(&found["precisions"][1], "int8", expected(&fp32, &int8, &truth));
    let (_, out, err) = eval(&args, &[]);
    assert!(out.contains("same 8-bit weights"), "{out} {err}");
}

#[test]
fn a_model_in_one_arithmetic_alone_is_told_before_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let set = written(dir.path(), &LINES);
    let graph = dir.path().join("graph");
    fs::create_dir(&graph).unwrap();
    for name in ["config.json", "tokenizer.json", "model.onnx"] {
        fs::copy(root().join("tests/data/tiny-deberta").join(name), graph.join(name)).unwrap();
    }
    for (args, told) in [
        (&["--model", graph.to_str().unwrap(), "--precisions"][..], "no model.safetensors to compile to fp32"),
        (&["--model", "tests/data/tiny-bert3", "--precisions"][..], "only \"deberta-v2\" can be compiled"),
        (&["--model", SHIPPED, "--precisions=fp16,int8"][..], "no model.safetensors"),
        (&["--precisions=int16"][..], "int16"),
    ] {
        let (code, out, err) = eval(&[&[set.as_str()], args].concat(), &[]);
        assert!(code == 2 && out.is_empty() && err.contains(told), "{args:?}: {code} {err}");
    }
}
