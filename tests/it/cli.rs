//! The program as its user meets it: exit codes, pipes, signals, wrong flags, bad libraries. A real process each time.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read, Write},
    process::{Command, Output, Stdio},
};

use crate::support::process::{oddlog, root, serve, signal};

fn run(args: &[&str]) -> (i32, String, String) {
    finish(oddlog(args).output().unwrap())
}

fn finish(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn feed(mut command: Command, input: &[u8]) -> (i32, String, String) {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    finish(child.wait_with_output().unwrap())
}

#[test]
fn analyze_prints_json_lines_in_a_pipe_in_the_order_given() {
    let (code, out, _) = run(&["analyze", "first line", "second line"]);
    assert_eq!(code, 0);
    let rows: Vec<serde_json::Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(rows.len(), 2);
    assert_eq!((&rows[0]["log_message"], &rows[1]["log_message"]), (&"first line".into(), &"second line".into()));
    assert_eq!(rows[0]["threshold"], 0.5);
    let input: String = (0..3000).map(|i| format!("line {i}\r\n\n")).collect();
    let (code, out, _) = feed(oddlog(&["analyze"]), input.as_bytes());
    assert_eq!((code, out.lines().count()), (0, 3000));
    for (i, line) in out.lines().enumerate() {
        assert_eq!(serde_json::from_str::<serde_json::Value>(line).unwrap()["log_message"], format!("line {i}"));
    }
    let (code, out, _) = feed(oddlog(&["analyze"]), b"not \xff utf-8\nno newline at the end");
    assert_eq!((code, out.lines().count()), (0, 2));
}

#[test]
fn analyze_tells_scripts_what_it_found() {
    let flags = ["analyze", "--fail-on-anomaly", "--threshold"];
    let code = |threshold| run(&[&flags[..], &[threshold, "some line"]].concat()).0;
    assert_eq!((code("0"), code("1")), (1, 0));
    let (code, _, err) = run(&["analyze", "--threshold", "7", "x"]);
    assert!(code == 2 && err.contains("from 0 to 1"), "{err}");
    let (code, _, err) = run(&["analyze", "--labels", "a,b", "--anomaly-label", "c", "x"]);
    assert!(code == 2 && err.contains("must be one of the labels"), "{err}");
    let (code, out, _) = run(&["analyze", "--labels", "a storm,calm", "x"]);
    assert!(code == 0 && (out.contains(r#""label":"a storm""#) || out.contains(r#""label":"calm""#)), "{out}");
}

#[test]
fn analyze_ends_quietly_when_its_reader_does() {
    let mut child = oddlog(&["analyze"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut first = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    stdin.write_all(b"one\n").unwrap();
    out.read_line(&mut first).unwrap();
    drop(out);
    // It may end before it has read everything.
    let _ = stdin.write_all("and more\n".repeat(5000).as_bytes());
    drop(stdin);
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(0), ""));
}

#[test]
fn what_is_wrong_is_said_with_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.toml");
    fs::write(&file, "[batching]\nmax_batch_token = 1\n").unwrap();
    let cases: [(&[&str], &str); 6] = [
        (&["serve", "--no-such-flag"], "--no-such-flag"),
        (&["serve", "--config", "/no/such.toml"], "/no/such.toml"),
        (&["serve", "--config", file.to_str().unwrap()], "did you mean `max_batch_tokens`"),
        (&["serve", "--model", "/no/such/model"], "no such directory"),
        (&["serve", "--device", "abacus"], "abacus"),
        (&["serve", "--listen", "203.0.113.1:1"], "203.0.113.1:1"),
    ];
    for (args, expected) in cases {
        let (code, _, err) = run(args);
        assert!(code == 2 && err.contains(expected) && !err.contains("panicked"), "{args:?}: {code} {err}");
    }
}

#[test]
fn a_model_directory_that_is_none_is_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["model.onnx", "tokenizer.json", "config.json"] {
        fs::copy(root().join("tests/data/tiny-deberta").join(file), dir.path().join(file)).unwrap();
    }
    let refused = |expected: &str| {
        let (code, _, err) = run(&["analyze", "--model", dir.path().to_str().unwrap(), "x"]);
        assert!(code == 2 && err.contains(expected) && err.lines().count() == 1, "{expected}: {code} {err}");
    };
    let whole = fs::read(dir.path().join("model.onnx")).unwrap();
    fs::write(dir.path().join("model.onnx"), &whole[..whole.len() / 2]).unwrap();
    refused("no usable ONNX model");
    fs::write(dir.path().join("model.onnx"), &whole).unwrap();
    fs::write(dir.path().join("config.json"), r#"{"id2label": {"0": "POSITIVE", "1": "NEGATIVE"}}"#).unwrap();
    refused("NEGATIVE, POSITIVE");
    let three = r#"{"id2label": {"0": "entailment", "1": "neutral", "2": "contradiction"}}"#;
    fs::write(dir.path().join("config.json"), three).unwrap();
    refused("shape");
    fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
    refused("tokenizer");
}

#[test]
fn a_bad_runtime_library_says_what_to_run() {
    let dir = tempfile::tempdir().unwrap();
    let garbage = dir.path().join("garbage.so");
    fs::write(&garbage, "no library").unwrap();
    // A library with the right door but an old version behind it.
    let source = dir.path().join("old.c");
    fs::write(
        &source,
        "typedef struct { const void *(*api)(unsigned); const char *(*version)(void); } Base;\n\
         static const void *api(unsigned v) { (void)v; return 0; }\n\
         static const char *version(void) { return \"1.10.0\"; }\n\
         static const Base base = { api, version };\n\
         const Base *OrtGetApiBase(void) { return &base; }\n",
    )
    .unwrap();
    let old = dir.path().join("old.so");
    assert!(Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&old, &source]).status().unwrap().success());
    for (library, expected) in
        [(dir.path().join("missing.so"), "make onnxruntime"), (garbage, "cannot be loaded"), (old, "1.10")]
    {
        let (code, _, err) = finish(oddlog(&["analyze", "x"]).env("ORT_DYLIB_PATH", &library).output().unwrap());
        assert!(code == 2 && err.contains(expected) && err.contains("make onnxruntime"), "{code} {err}");
        assert!(!err.contains("panicked"), "{err}");
    }
}

#[test]
fn no_telemetry_file_or_thread_appears() {
    let home = tempfile::tempdir().unwrap();
    let (mut child, address) = serve(|command| {
        command.env("HOME", home.path()).env_remove("ORT_DISABLE_TELEMETRY").env_remove("XDG_CACHE_HOME");
    });
    let answer = ureq::post(format!("http://{address}/api/v1/analyze"))
        .header("content-type", "application/json")
        .send(r#"{"log_message": "disk full"}"#)
        .unwrap();
    assert_eq!(answer.status(), 200);
    let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
    let names: BTreeSet<String> = tasks
        .map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap().trim().to_owned())
        .filter(|name| !["oddlog", "http", "watchdog"].contains(&name.as_str()) && !name.starts_with("device-cpu:"))
        .collect();
    assert_eq!(names, BTreeSet::new(), "threads that are not ours");
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(left.is_empty(), "files in the home directory: {left:?}");
}

#[test]
fn both_signals_end_the_server_with_exit_code_0() {
    for name in ["TERM", "INT"] {
        let (mut child, address) = serve(|_| {});
        assert_eq!(ureq::get(format!("http://{address}/metrics")).call().unwrap().status(), 200);
        signal(&child, name);
        assert_eq!(child.wait().unwrap().code(), Some(0), "{name}");
    }
}

#[test]
fn a_taken_port_is_named() {
    let (mut child, address) = serve(|_| {});
    let (code, _, err) = run(&["serve", "--listen", &address]);
    assert!(code == 2 && err.contains(&address), "{code} {err}");
    signal(&child, "TERM");
    child.wait().unwrap();
}
