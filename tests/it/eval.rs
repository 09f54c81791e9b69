//! `oddlog eval`: its figures beside scikit-learn's, and the command as its user meets it.

use std::{fs, path::Path, process::Command};

use oddlog::{
    config::Config,
    eval::{Confusion, Dataset, Names, summarise},
};
use serde_json::{Value, json};

fn data() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/eval")
}

#[test]
fn figures_are_those_of_scikit_learn() {
    let cases: Vec<Value> = serde_json::from_slice(&fs::read(data().join("sklearn.json")).unwrap()).unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let list = |name: &str| case[name].as_array().unwrap().clone();
        let scores = list("scores").into_iter().map(|score| score.as_f64().unwrap());
        let truth = list("truth").into_iter().map(|anomalous| anomalous.as_bool().unwrap());
        let scored: Vec<(f64, bool)> = scores.zip(truth).collect();
        let expected = &case["figures"];
        let summary = summarise(&scored, expected["threshold"].as_f64().unwrap());
        let found = json!(summary);
        for name in ["precision", "recall", "f1", "accuracy", "auroc", "average_precision", "best_f1", "best_threshold"]
        {
            let (found, expected) = (found[name].as_f64().unwrap(), expected[name].as_f64().unwrap());
            assert!((found - expected).abs() < 1e-6, "{name}: {found}, not {expected}");
        }
        let Confusion { true_positives, false_positives, false_negatives, true_negatives } = summary.confusion;
        assert_eq!(json!([true_positives, false_positives, false_negatives, true_negatives]), expected["confusion"],);
    }
}

#[test]
fn a_workbook_is_read() {
    let found = Dataset::read(&data().join("labelled.xlsx"), &Names::default()).unwrap();
    assert_eq!((found.examples.len(), found.skipped), (2, 1));
    assert!(found.examples[0].text.starts_with("kernel panic") && found.examples[0].anomalous);
    assert!(!found.examples[1].anomalous);
}

/// Runs `oddlog eval` with a tiny model.
fn eval(args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oddlog"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).arg("eval").args(args);
    let output = command.env("ODDLOG_MODEL__SOURCE", "tests/data/tiny-deberta").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_data_set_gives_figures_a_page_and_a_threshold() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (set, page, config) = (path("set.csv"), path("page.html"), path("my.toml"));
    fs::write(&set, "service,text,label\nweb,disk failure on sda,1\nweb,user logged in,0\ndb,ok,0\ndb,panic,1\n")
        .unwrap();
    fs::write(&config, "# mine\n[scoring]\nthreshold = 0.9 # for now\n").unwrap();
    let (code, out, err) = eval(&[
        &set,
        "--group",
        "service",
        "--template",
        "This is {}.",
        "--template",
        "It tells of {}.",
        "--labels",
        "bad,good",
        "--beside",
        "tests/data/tiny-bert3",
        "--html",
        &page,
        "--config",
        &config,
        "--write-threshold",
        "--source",
        "web",
        "--format",
        "json",
    ]);
    assert_eq!(code, 0, "{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    let names: Vec<&str> = report["subjects"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names[..2], ["This is {}. (bad / good)", "It tells of {}. (bad / good)"]);
    assert_eq!(names[2..], ["tests/data/tiny-bert3", "alarm words", "printed level"]);
    let words = &report["subjects"][3];
    assert_eq!((&words["all"]["recall"], &words["all"]["precision"]), (&json!(1.0), &json!(1.0)));
    assert_eq!(words["groups"]["db"]["lines"], 2);
    assert_eq!(report["beside"]["logs"], 4);
    let best = report["subjects"][0]["all"]["best_threshold"].as_f64().unwrap();
    let written = Config::load(Some(Path::new(&config)), json!({})).unwrap().scoring;
    assert_eq!(written.thresholds["web"], best as f32);
    assert!(written.threshold == 0.9 && fs::read_to_string(&config).unwrap().contains("# for now"));
    let page = fs::read_to_string(&page).unwrap();
    assert!(page.contains("set.csv") && page.contains("This is {}.") && page.contains("<svg"));

    let (code, out, _) = eval(&[&set]);
    assert_eq!(code, 0);
    assert!(out.starts_with("set.csv: 4 lines, 2 anomalous\n") && out.contains("alarm words"), "{out}");
}

#[test]
fn what_cannot_be_evaluated_is_told_before_the_model_runs() {
    let dir = tempfile::tempdir().unwrap();
    let set = dir.path().join("set.tsv");
    fs::write(&set, "text\tlabel\nx\tmaybe\n").unwrap();
    let set = set.to_str().unwrap();
    for (args, told) in [
        (&["/no/such.csv"][..], "/no/such.csv"),
        (&[set][..], "--anomalous"),
        (&[set, "--write-threshold"][..], "--config FILE"),
        (&[set, "--source", "web"][..], "--write-threshold"),
        (&[set, "--threshold", "2"][..], "from 0 to 1"),
    ] {
        let (code, out, err) = eval(args);
        assert!(code == 2 && out.is_empty() && err.contains(told), "{args:?}: {code} {err}");
    }
}
