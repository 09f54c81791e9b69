//! What the README shows is what happens: every example is run, every key of config.toml is in its table.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use super::support::process::{prepared, root, start};

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

/// The contents of the fenced blocks of one language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned()).collect()
}

fn sh(script: &str, dir: &Path) -> (bool, String) {
    let output = Command::new("sh").args(["-ec", script]).current_dir(dir).stderr(Stdio::inherit()).output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn every_example_runs() {
    let oddlog = env!("CARGO_BIN_EXE_oddlog");
    let mut server = Command::new(oddlog);
    prepared(&mut server).args(["serve", "--listen", "127.0.0.1:0"]).env_remove("ODDLOG_MODEL__SOURCE");
    // Its outputs are pipes of ours: if this test fails, no orphan keeps the log of all tests open.
    let (mut server, address) = start(server);

    let dir = tempfile::tempdir().unwrap();
    for name in ["app.log", "deploy.log"] {
        fs::write(dir.path().join(name), "deploy finished in 12 s\nkernel panic - not syncing\n").unwrap();
    }
    let text = readme();
    let (mut curls, mut commands) = (Vec::new(), 0);
    for block in blocks(&text, "sh") {
        if block.contains("curl") {
            let (ok, out) = sh(&block.replace("127.0.0.1:8000", &address), dir.path());
            assert!(ok, "{block}");
            curls.push(
                serde_json::from_str::<serde_json::Value>(&out).unwrap_or_else(|e| panic!("{e}: {block}: {out}")),
            );
        } else if block.contains("target/release/oddlog analyze") {
            let (ok, out) = sh(&block.replace("target/release/oddlog", oddlog), dir.path());
            assert!(ok && out.contains("look at it") && out.contains("is_anomaly"), "{block}: {out}");
            commands += 1;
        }
    }
    assert_eq!(server.kill().and_then(|()| server.wait()).map(|_| ()).ok(), Some(()));
    assert!(curls.len() >= 2 && commands == 1);

    let shown: serde_json::Value = serde_json::from_str(&blocks(&text, "json")[0]).unwrap();
    let got = &curls[0];
    for key in ["log_message", "label", "is_anomaly", "threshold"] {
        assert_eq!(shown[key], got[key], "{key}");
    }
    let difference = shown["confidence"].as_f64().unwrap() - got["confidence"].as_f64().unwrap();
    assert!(
        difference.abs() < 0.01,
        "the README shows {} and the server says {}",
        shown["confidence"],
        got["confidence"]
    );
    let results = curls[1]["results"].as_array().unwrap();
    assert!(results.len() == 3 && results[2]["error"].is_object(), "{results:?}");
}

#[test]
fn the_table_has_every_key() {
    let (text, mut section) = (readme(), String::new());
    for line in fs::read_to_string(root().join("config.toml")).unwrap().lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.split(']').next()) {
            section = name.to_owned();
        } else if let Some((key, rest)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            let default = rest.split("  #").next().unwrap().split(" #").next().unwrap().trim();
            let row = format!("| `{section}.{key}` | `{default}` |");
            assert!(text.contains(&row), "README.md lacks {row}");
        }
    }
}
