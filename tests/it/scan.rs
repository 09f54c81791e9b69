//! `oddlog scan` as its user meets it: files of all kinds, pipes, rotation, signals, servers. A real process each time.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use serde_json::Value;

use crate::support::{Setup, process::prepared};

fn scan(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oddlog"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).arg("scan").args(args);
    command.env("ODDLOG_MODEL__SOURCE", "tests/data/tiny-deberta");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(args: &[&str]) -> (i32, String, String) {
    feed(scan(args), b"")
}

fn feed(mut command: Command, input: &[u8]) -> (i32, String, String) {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().unwrap()
    });
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn rows(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

/// All records are odd at threshold 0: what was read is what comes out.
const ALL: [&str; 4] = ["--threshold", "0", "--format", "json"];

const LOG: &str = "2024-05-02 10:00:00,000 ERROR [main] c.e.Foo: it broke\n\
    java.io.IOException: disk\n\tat c.e.Foo.bar(Foo.java:1)\n\
    2024-05-02 10:00:01,000 INFO [main] c.e.Foo: fine\n\
    2024-05-02 10:00:02,000 INFO [main] c.e.Foo: fine\n";

#[test]
fn files_are_read_by_their_content_and_records_kept_together() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let two = [gzip(b"member one\n"), gzip(b"member two\n")].concat();
    let files = [
        file("plain.log", LOG.as_bytes()),
        file("odd-name", &two),
        file("no.txt", &zstd::encode_all(&b"of a frame\r\nnot \xff utf-8\n\0\0nul"[..], 1).unwrap()),
    ];
    let args: Vec<&str> = ALL.into_iter().chain(files.iter().map(String::as_str)).collect();
    let (code, out, err) = run(&args);
    let rows = rows(&out);
    let seen: Vec<(&str, u64, &str)> = rows
        .iter()
        .map(|r| (r["source"].as_str().unwrap(), r["line"].as_u64().unwrap(), r["message"].as_str().unwrap()))
        .collect();
    let [plain, members, frame] = [0, 1, 2].map(|i| files[i].as_str());
    let expected = [
        (plain, 1, "ERROR c.e.Foo: it broke java.io.IOException: disk"),
        (plain, 4, "INFO c.e.Foo: fine"),
        (plain, 5, "INFO c.e.Foo: fine"),
        (members, 1, "member one"),
        (members, 2, "member two"),
        (frame, 1, "of a frame"),
        (frame, 2, "not \u{fffd} utf-8"),
        (frame, 3, "nul"),
    ];
    assert_eq!((code, seen.as_slice()), (0, &expected[..]), "{err}");
    assert_eq!((&rows[0]["lines"], rows[1]["score"] == rows[2]["score"]), (&3.into(), true));
    assert!(err.contains("8 of 8 records are odd at threshold 0; 7 distinct texts scored"), "{err}");
    let (_, out, _) = run(&[&ALL[..], &["--raw", &files[0]]].concat());
    assert_eq!(out.lines().count(), 5);
}

#[test]
fn scripts_are_told_what_was_found_and_what_could_not_be_read() {
    let flags = ["--fail-on-anomaly", "--quiet", "--threshold"];
    let code = |threshold| feed(scan(&[&flags[..], &[threshold]].concat()), b"some line\n");
    assert_eq!((code("0").0, code("1").0), (1, 0));
    assert_eq!(code("0").2, "");
    let dir = tempfile::tempdir().unwrap();
    let (torn, fine) = (dir.path().join("torn.gz"), dir.path().join("fine.log"));
    let whole = gzip("a line of text\n".repeat(4000).as_bytes());
    fs::write(&torn, &whole[..whole.len() - 8]).unwrap();
    fs::write(&fine, "fine\n").unwrap();
    let (code, out, err) = run(&[&ALL[..], &["/no/such.log", torn.to_str().unwrap(), fine.to_str().unwrap()]].concat());
    assert!(code == 2 && err.contains("/no/such.log: No such file") && err.contains("torn.gz: "), "{code} {err}");
    assert!(out.ends_with("\"message\":\"fine\"}\n") && !err.contains("panicked"), "{out}");
    let (code, _, err) = run(&["--server", "http://127.0.0.1:1", "-"]);
    assert!(code == 2 && err.contains("127.0.0.1:1"), "{code} {err}");
}

#[test]
fn order_context_top_and_templates() {
    let input: String = (0..3000).map(|i| format!("line {}\n", i % 700)).collect();
    let (code, out, err) = feed(scan(&ALL), input.as_bytes());
    let numbers: Vec<u64> = rows(&out).iter().map(|r| r["line"].as_u64().unwrap()).collect();
    assert_eq!((code, numbers), (0, (1..=3000).collect()), "{err}");
    assert!(err.contains("700 distinct texts scored"), "{err}");

    // A threshold between the scores of the records makes some of them odd.
    let scores: Vec<f64> = rows(&out)[..700].iter().map(|r| r["score"].as_f64().unwrap()).collect();
    let highest = scores.iter().copied().fold(0.0, f64::max);
    let at = scores.iter().position(|s| *s == highest).unwrap() as u64 + 1;
    let threshold = format!("{highest}");
    let few: String = (0..700).map(|i| format!("line {i}\n")).collect();
    let (_, out, _) = feed(scan(&["--threshold", &threshold, "--context", "1", "--color", "never"]), few.as_bytes());
    let expected = |n: u64| {
        let mark = if scores[n as usize - 1] >= highest { ':' } else { '-' };
        out.lines().any(|l| l.ends_with(&format!(" {n}{mark}line {}", n - 1)))
    };
    assert!(out.lines().any(|l| l.ends_with(&format!(" {at}:line {}", at - 1))), "{out}");
    assert!((at == 1 || expected(at - 1)) && (at == 700 || expected(at + 1)), "{at} {out}");

    let (_, out, _) = feed(scan(&["--top", "3", "--format", "json"]), input.as_bytes());
    let top = rows(&out);
    assert_eq!((top.len(), top[0]["score"].as_f64()), (3, Some(highest)));
    assert!(top[0]["count"].as_u64() >= Some(4) && top[0]["score"].as_f64() >= top[2]["score"].as_f64());

    let (_, out, _) = feed(scan(&["--by-template", "--format", "csv"]), b"user 1 in\nuser 22 in\nother thing\n");
    assert!(out.starts_with("template_id,count,odd,verdict,score,template,source,line,example\n"), "{out}");
    assert!(out.contains(",user <num> in,") && out.lines().count() == 3, "{out}");
    let (_, out, _) = feed(scan(&["--by-template", "--color", "always"]), b"user 1 in\n\x1b[2J evil\n");
    assert!(out.contains("user <num> in") && out.contains(" [2J evil") && !out.contains("\x1b[2J"), "{out}");
}

#[test]
fn it_ends_quietly_when_its_reader_does() {
    let mut child = scan(&["--threshold", "0", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    stdin.write_all(b"one\n").unwrap();
    // It comes although the next line, which might belong to it, does not.
    out.read_line(&mut first).unwrap();
    assert!(first.ends_with(" 1:one\n"), "{first}");
    drop(out);
    // It may end before it has read everything.
    let _ = stdin.write_all("and more\n".repeat(50_000).as_bytes());
    drop(stdin);
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(0), ""));
}

#[test]
fn a_result_at_the_end_that_nobody_reads_is_no_error() {
    for flags in [&["--top", "2"][..], &["--by-template"], &["--top", "2", "--format", "csv"]] {
        let mut child = scan(&[flags, &["-"]].concat()).stdin(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take().unwrap());
        child.stdin.take().unwrap().write_all(b"one\ntwo\n").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{flags:?}");
    }
}

#[test]
fn it_stands_in_a_pipeline_before_head() {
    let dir = tempfile::tempdir().unwrap();
    let input: String = (0..50_000).map(|i| format!("request {} was refused\n", i % 500)).collect();
    fs::write(dir.path().join("big.gz"), gzip(input.as_bytes())).unwrap();
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(
        "zcat \"$DIR/big.gz\" | { \"$ODDLOG\" scan --threshold 0 - 2>\"$DIR/err\"; echo $? >\"$DIR/code\"; } | head -n 3",
    );
    shell.env("DIR", dir.path()).env("ODDLOG", env!("CARGO_BIN_EXE_oddlog"));
    let shell = prepared(&mut shell).output().unwrap();
    let out = String::from_utf8(shell.stdout).unwrap();
    let ends: Vec<&str> = out.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(ends, ["1:request 0 was refused", "2:request 1 was refused", "3:request 2 was refused"]);
    let told = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!((told("code").as_str(), told("err").as_str(), shell.stderr.as_slice()), ("0\n", "", &b""[..]));
}

/// A scan that follows, and its next message.
struct Following {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Following {
    fn start(args: &[&str]) -> Self {
        let mut child = scan(&[&ALL[..], &["--follow"], args].concat()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    fn next(&mut self) -> (String, u64) {
        let mut line = String::new();
        assert!(self.out.read_line(&mut line).unwrap() > 0, "it ended");
        let row: Value = serde_json::from_str(&line).unwrap();
        (row["text"].as_str().unwrap().to_owned(), row["line"].as_u64().unwrap())
    }

    /// Ctrl-C; its exit code and what it said.
    fn interrupt(mut self) -> (i32, String) {
        interrupt(&self.child);
        let mut err = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (self.child.wait().unwrap().code().unwrap(), err)
    }
}

fn interrupt(child: &Child) {
    assert!(Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap().success());
}

fn append(path: &Path, text: &str) {
    fs::OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn following_goes_on_through_rotation_until_ctrl_c() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("app.log"), dir.path().join("other.log"));
    append(&path, "first\n");
    append(&other, "");
    let mut following = Following::start(&[path.to_str().unwrap(), other.to_str().unwrap()]);
    assert_eq!(following.next(), ("first".into(), 1));
    append(&path, "second\n  of two lines\n");
    assert_eq!(following.next(), ("second\n  of two lines".into(), 2));
    append(&other, "elsewhere\n");
    assert_eq!(following.next(), ("elsewhere".into(), 1));
    fs::rename(&path, dir.path().join("app.log.1")).unwrap();
    append(&path, "renamed\n");
    assert_eq!(following.next(), ("renamed".into(), 1));
    fs::copy(&path, dir.path().join("app.log.2")).unwrap();
    fs::write(&path, "cut\n").unwrap();
    assert_eq!(following.next(), ("cut".into(), 1));
    let (code, err) = following.interrupt();
    assert!(code == 130 && err.contains("5 of 5 records are odd"), "{code} {err}");

    append(&path, "old\n");
    let compressed = dir.path().join("x.gz");
    fs::write(&compressed, gzip(b"x\n")).unwrap();
    let (code, _, err) = run(&["--follow", compressed.to_str().unwrap()]);
    assert!(code == 2 && err.contains("cannot be followed"), "{code} {err}");
}

/// Ctrl-C while the input is still open: exit code, what was still to be read, and what it said.
fn interrupted(mut child: Child, mut out: impl Read) -> (i32, String, String) {
    interrupt(&child);
    let (mut rest, mut err) = (String::new(), String::new());
    out.read_to_string(&mut rest).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    (child.wait().unwrap().code().unwrap(), rest, err.replace(',', ""))
}

#[test]
fn ctrl_c_prints_the_table_and_the_summary_so_far() {
    for (flag, message) in [("--by-template", "user <num> in"), ("--top=3", "user 1 in")] {
        let mut child = scan(&[flag, "--format", "json", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // What waits anywhere, in the pipe, as chunks and for the first score, is less than half of this: once it is
        // written, records have been taken.
        stdin.write_all("user 1 in\n".repeat(200_000).as_bytes()).unwrap();
        let out = child.stdout.take().unwrap();
        let (code, out, err) = interrupted(child, out);
        drop(stdin);
        let table = rows(&out);
        assert!(code == 130 && table.len() == 1 && out.contains(message), "{code} {out} {err}");
        let count = table[0]["count"].as_u64().unwrap();
        assert!((1..200_000).contains(&count) && err.contains(&format!(" of {count} records are odd")), "{out} {err}");
    }
}

#[test]
fn ctrl_c_leaves_no_line_out_that_was_found() {
    let mut child = scan(&["--threshold", "0", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    stdin.write_all(b"first\nsecond\n").unwrap();
    for (number, text) in [(1, "first"), (2, "second")] {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert!(line.ends_with(&format!(" {number}:{text}\n")), "{line}");
    }
    let (code, rest, err) = interrupted(child, out);
    drop(stdin);
    assert!(code == 130 && rest.is_empty() && err.contains("2 of 2 records are odd"), "{code} {rest} {err}");
}

#[test]
fn a_running_server_is_asked_in_batches() {
    let server = Setup::default().with(|config| config.server.max_batch_logs = 100).serve();
    let url = format!("http://{}", server.address);
    let input: String = (0..2000).map(|i| format!("line {i}\n")).collect();
    let (code, out, err) = feed(scan(&[&ALL[..], &["--server", &url, "-"]].concat()), input.as_bytes());
    assert_eq!(code, 0, "{err}");
    let rows = rows(&out);
    assert_eq!(rows.len(), 2000);
    for (i, row) in rows.iter().enumerate() {
        assert_eq!((&row["message"], &row["label"]), (&format!("line {i}").into(), &"anomaly".into()));
        assert_eq!(row["score"], row["confidence"]);
    }
    // The server's own threshold, and scores of the anomaly label where another one is returned.
    let (_, out, err) = feed(scan(&["--server", &url, "--top", "2000", "--format", "json"]), input.as_bytes());
    assert!(err.contains("at threshold 0.5"), "{err}");
    for row in self::rows(&out) {
        let (score, confidence) = (row["score"].as_f64().unwrap(), row["confidence"].as_f64().unwrap());
        let anomaly = row["is_anomaly"].as_bool().unwrap();
        assert!(
            anomaly == (score >= 0.5) && (score - if anomaly { confidence } else { 1.0 - confidence }).abs() < 1e-6
        );
    }
    let (code, _, err) = feed(scan(&["--server", &url, "--labels", "a,a", "-"]), b"x\n");
    assert!(code == 2 && err.contains("twice"), "{code} {err}");
}
