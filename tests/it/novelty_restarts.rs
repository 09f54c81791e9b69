//! Templates that outlive processes: ends, kills in the middle of a write, full disks, broken snapshots.

use std::{
    fs,
    io::{BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::SystemTime,
};

use oddlog::{config::Templates, metrics::Metrics, novelty::Novelty};
use serde_json::Value;

use crate::support::{
    PATIENCE, eventually,
    process::{entry_with, oddlog, prepared, serve, signal, start},
};

fn learning<'c>(command: &'c mut Command, dir: &Path) -> &'c mut Command {
    command.env("ODDLOG_DEVICES__DEVICES", "[\"fake\"]").env("ODDLOG_TEMPLATES__ENABLED", "true");
    command.env("ODDLOG_TEMPLATES__SNAPSHOT_DIR", dir).env("ODDLOG_TEMPLATES__MAX_TEMPLATES", "50000");
    command.env("ODDLOG_TEMPLATES__SNAPSHOT_INTERVAL_S", "1")
}

fn begin(dir: &Path) -> (Child, String) {
    serve(|command| {
        learning(command, dir);
    })
}

fn end(mut child: Child) {
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Sends one log; its template's count.
fn count(address: &str, log: &str) -> u64 {
    let answer = ureq::post(format!("http://{address}/api/v1/analyze/batch?detail=template"))
        .send(serde_json::json!({ "logs": [log] }).to_string())
        .unwrap();
    let answer: Value = serde_json::from_str(&answer.into_body().read_to_string().unwrap()).unwrap();
    answer["results"][0]["count"].as_u64().unwrap()
}

fn metrics(address: &str) -> String {
    ureq::get(format!("http://{address}/metrics")).call().unwrap().into_body().read_to_string().unwrap()
}

fn unfinished(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|e| e == "tmp")).collect()
}

/// The n-th of many words that masks leave alone.
fn word(n: usize) -> String {
    (0..6).map(|place| char::from(b'a' + (n / 16usize.pow(place) % 16) as u8)).collect()
}

#[test]
fn counts_go_on_after_a_restart_in_the_middle_of_a_stream() {
    let dir = tempfile::tempdir().unwrap();
    let lines = |from: usize, to: usize| (from..to).map(|n| format!("disk {n} full\n")).collect::<String>();
    let (child, address) = begin(dir.path());
    let mut socket = TcpStream::connect(&address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let part = lines(1, 51);
    let head = "POST /api/v1/analyze/stream?detail=template HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\n\
                transfer-encoding: chunked\r\n\r\n";
    socket.write_all(format!("{head}{:x}\r\n{part}\r\n", part.len()).as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("\"line\":50,") {
        let mut some = [0; 4096];
        let read = socket.read(&mut some).unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend(&some[..read]);
    }
    signal(&child, "TERM");
    socket.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.contains("\"line\":51,\"error\":{\"type\":\"draining\""), "{answer}");
    assert!(answer.contains("\"count\":50,"), "{answer}");
    let mut child = child;
    assert_eq!(child.wait().unwrap().code(), Some(0));

    let (child, address) = begin(dir.path());
    let rest = ureq::post(format!("http://{address}/api/v1/analyze/stream?detail=template"))
        .header("content-type", "text/plain")
        .send(lines(51, 101))
        .unwrap();
    let rest = rest.into_body().read_to_string().unwrap();
    let counts: Vec<u64> = rest
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|entry| if entry["first_seen"] == false { entry["count"].as_u64().unwrap() } else { 0 })
        .collect();
    assert_eq!(counts, (51..=100).collect::<Vec<u64>>());
    end(child);
}

#[test]
fn a_kill_in_the_middle_of_a_write_loses_what_came_since_the_last_snapshot_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut known = 1;
    {
        let snapshot_dir = dir.path().to_str().unwrap().to_owned();
        let config = Templates { snapshot_dir, max_templates: 50_000, ..Templates::default() };
        let novelty = Novelty::open(&config, Metrics::new().unwrap().templates(), SystemTime::now()).unwrap();
        novelty.observe("disk 1 full", SystemTime::now());
        (0..40_000).for_each(|n| drop(novelty.observe(&word(n), SystemTime::now())));
        novelty.save(SystemTime::now());
    }
    let mut caught = 0;
    for _ in 0..20 {
        let (mut child, address) = begin(dir.path());
        assert_eq!(count(&address, "disk 2 full"), known + 1, "what was on disk is there, and nothing else");
        assert_eq!(count(&address, "disk 3 full"), known + 2);
        eventually("a snapshot is being written", || !unfinished(dir.path()).is_empty());
        child.kill().unwrap();
        child.wait().unwrap();
        match unfinished(dir.path()).is_empty() {
            // It was done before the kill came.
            true => known += 2,
            false => caught += 1,
        }
        if caught == 2 {
            break;
        }
    }
    assert_eq!(caught, 2, "the kill came too late again and again");
    let (child, address) = begin(dir.path());
    assert_eq!(count(&address, "disk 4 full"), known + 1);
    assert!(metrics(&address).contains("oddlog_templates 40001"));
    end(child);
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["templates.snapshot"], "nothing is left of what was cut off");
}

/// Sends one log; how it was answered.
fn outcome(address: &str, log: &str) -> String {
    let body = serde_json::json!({ "log_message": log }).to_string();
    let answer = ureq::post(format!("http://{address}/api/v1/analyze")).send(body).unwrap();
    answer.headers()["x-oddlog-cache"].to_str().unwrap().to_owned()
}

#[test]
fn trust_in_templates_survives_a_restart_but_not_another_question() {
    let dir = tempfile::tempdir().unwrap();
    let judging = |threshold: &str, template: &str| {
        serve(|command| {
            learning(command, dir.path()).env("ODDLOG_CACHE__MODE", "template").env("ODDLOG_CACHE__CHECK_SHARE", "0");
            command.env("ODDLOG_SCORING__THRESHOLD", threshold).env("ODDLOG_SCORING__HYPOTHESIS_TEMPLATE", template);
        })
    };
    let usual = "This example is {}.";
    let log = |kind: usize, n: usize| format!("{} of disk {n} ended", word(7919 * kind));
    let (child, address) = judging("0.5", usual);
    // The device's scores are as good as random: not every template is trusted after one of them.
    let trusted: Vec<usize> = (1..40)
        .filter(|kind| {
            assert_eq!(outcome(&address, &log(*kind, 1)), "miss");
            outcome(&address, &log(*kind, 2)) == "template"
        })
        .collect();
    assert!(trusted.len() > 3, "{trusted:?}");
    end(child);
    let all = |address: &str, n: usize| -> Vec<String> {
        trusted.iter().map(|kind| outcome(address, &log(*kind, n))).collect()
    };
    let (child, address) = judging("0.5", usual);
    assert!(all(&address, 3).iter().all(|outcome| outcome == "template"));
    assert_eq!(count(&address, &log(trusted[0], 4)), 4, "there is one miner: it counts for both");
    end(child);
    for (n, threshold, template) in [(5, "0.55", usual), (6, "0.5", usual), (7, "0.5", "This is {}.")] {
        let (child, address) = judging(threshold, template);
        assert!(all(&address, n).iter().all(|outcome| outcome == "miss"), "{threshold} {template}");
        end(child);
    }
    // A snapshot that was changed is trusted in nothing.
    let (child, address) = judging("0.5", usual);
    all(&address, 8);
    end(child);
    let path = dir.path().join("templates.snapshot");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (child, address) = judging("0.5", usual);
    assert!(all(&address, 9).iter().all(|outcome| outcome == "miss"));
    assert_eq!(count(&address, &log(trusted[0], 10)), 2);
    end(child);
}

#[test]
fn a_full_disk_is_counted_and_the_server_lives() {
    let dir = tempfile::tempdir().unwrap();
    // No file may become larger than a block, and writing on is an error instead of a signal.
    let script = "trap '' XFSZ; ulimit -f 1; exec \"$0\" serve --listen 127.0.0.1:0";
    let mut command = Command::new("sh");
    learning(prepared(&mut command), dir.path()).args(["-c", script, env!("CARGO_BIN_EXE_oddlog")]);
    let (child, address) = start(command);
    for n in 0..40 {
        let logs: Vec<String> = (0..50).map(|i| word(7919 * (50 * n + i))).collect();
        let body = serde_json::json!({ "logs": logs }).to_string();
        ureq::post(format!("http://{address}/api/v1/analyze/batch")).send(body).unwrap();
    }
    eventually("a snapshot fails", || {
        metrics(&address).lines().any(|line| {
            line.strip_prefix("oddlog_template_snapshots_total{result=\"failed\"} ").is_some_and(|n| n != "0")
        })
    });
    assert!(count(&address, "disk 1 full") == 1 && count(&address, "disk 1 full") == 2);
    end(child);
    assert!(unfinished(dir.path()).is_empty());
    assert!(!dir.path().join("templates.snapshot").exists());
}

#[test]
fn a_broken_snapshot_is_set_aside_and_a_folder_that_cannot_be_written_ends_the_start() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("templates.snapshot"), "oddlog templates 9\nof tomorrow").unwrap();
    let mut command = oddlog(&["serve", "--listen", "127.0.0.1:0"]);
    learning(&mut command, dir.path()).env("ODDLOG_LOG__FORMAT", "json");
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let warning = entry_with(&mut log, "aside");
    assert_eq!(warning["level"], "WARN", "{warning}");
    assert!(warning["fields"]["reason"].as_str().unwrap().contains("version 9"), "{warning}");
    let aside = PathBuf::from(warning["fields"]["aside"].as_str().unwrap());
    assert_eq!(fs::read_to_string(aside).unwrap(), "oddlog templates 9\nof tomorrow");
    entry_with(&mut log, "address");
    let rest = thread::spawn(move || drop(log.read_to_end(&mut Vec::new())));
    end(child);
    rest.join().unwrap();

    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let mut command = oddlog(&["serve", "--listen", "127.0.0.1:0"]);
    let output = learning(&mut command, &file).stdout(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("templates.snapshot_dir") && said.contains("cannot be written"), "{said}");
}
