//! Streams that end early: clients that leave or stall, the server's end; and real clients.

use std::{
    io::Write,
    net::Shutdown,
    process::{Command, Stdio},
    thread,
};

use serde_json::json;

use super::{Client, PLAIN, STREAM, kinds, some_lines, stream};
use crate::support::{Running, Setup, eventually};

#[test]
fn a_client_that_leaves_takes_its_lines_with_it() {
    let (setup, gate) = Setup::gated();
    let server = setup.serve();
    for query in ["", "?respond=summary"] {
        let mut client = Client::open(&server, query, &[PLAIN]);
        client.send("line\n".repeat(300));
        eventually("the lines are queued", || server.sample("oddlog_queue_jobs", None) > 200.0);
        assert_eq!(server.sample("oddlog_streams_open", None), 1.0);
        client.socket.shutdown(Shutdown::Both).unwrap();
        eventually("the stream is given up", || server.sample("oddlog_streams_open", None) == 0.0);
        gate.send(()).unwrap();
        eventually("nothing is queued", || server.sample("oddlog_queue_jobs", None) == 0.0);
    }
    drop(gate);
    assert!(server.sample("oddlog_dropped_by_client_total", None) > 400.0);
    assert_eq!(stream(&server, "", &[PLAIN], "x").len(), 1);
}

#[test]
fn a_client_that_stalls_is_told_and_the_answer_is_whole() {
    let server = Setup::default().with(|c| c.server.stream_idle_timeout_ms = 300).serve();
    let mut client = Client::open(&server, "", &[PLAIN]);
    client.send("one\ntwo\nthr");
    let entries = client.entries();
    assert_eq!(kinds(&entries), [(1, "scored"), (2, "scored"), (3, "body_timeout")]);
    let mut client = Client::open(&server, "?respond=summary", &[PLAIN]);
    client.send("one\ntwo\nthr");
    assert!(!client.is_ok() && client.head[0].contains("408"), "{:?}", client.head);
}

#[test]
fn at_the_end_of_the_server_accepted_lines_are_answered_and_the_rest_is_named() {
    let (setup, gate) = Setup::gated();
    let mut server = setup.with(|c| c.server.max_stream_lines = 20).serve();
    let mut client = Client::open(&server, "", &[PLAIN]);
    let mut other = Client::open(&server, "?respond=summary", &[PLAIN]);
    let body = some_lines(30).join("\n");
    for client in [&mut client, &mut other] {
        client.send(&body);
    }
    let read = 2.0 * body.len() as f64;
    eventually("both windows are full", || server.sample("oddlog_stream_bytes_total", None) == read);
    let mut probe = server.connect();
    let mut ready = || {
        probe.send("GET", "/readyz", &[], b"");
        let answer = probe.answer();
        // The end may begin between this answer's status and its head.
        answer.status == 200 && !answer.has("connection")
    };
    assert!(ready());
    server.begin_end();
    eventually("the end has begun", || !ready());
    drop(gate);
    let entries = client.entries();
    let (last, accepted) = entries.split_last().unwrap();
    assert_eq!(kinds(accepted), (1..=20).map(|line| (line, "scored")).collect::<Vec<_>>());
    assert_eq!((&last["line"], &last["error"]["type"]), (&json!(21), &json!("draining")));
    assert!(last["error"]["msg"].as_str().unwrap().contains("from line 21 on"), "{last}");
    assert!(!other.is_ok() && other.head[0].contains("503"), "{:?}", other.head);
    assert!(other.head.iter().any(|line| line.starts_with("retry-after: ")));
    drop(other);
    assert!(server.wait_end());
}

/// Runs a script with the server's address in `$URL` and returns what it prints.
fn run(server: &Running, command: &[&str], input: &str) -> String {
    let url = format!("http://{}{STREAM}", server.address);
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .env("URL", &url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writing = thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn curl_reads_while_it_writes_and_python_writes_everything_first() {
    let server = Setup::default().serve();
    let text = some_lines(20_000).join("\n");
    for extra in ["", "-H 'Expect: 100-continue'", "--compressed", "--http2-prior-knowledge"] {
        let script = format!("curl -sS --fail -T - -X POST -H 'content-type: text/plain' {extra} \"$URL\"");
        let out = run(&server, &["sh", "-c", &script], &text);
        assert_eq!(out.lines().count(), 20_000, "{extra}");
        assert!(out.lines().last().unwrap().starts_with("{\"line\":20000,"), "{extra}");
    }
    let script = "import http.client, json, os, sys, urllib.parse\n\
                  url = urllib.parse.urlsplit(os.environ['URL'])\n\
                  connection = http.client.HTTPConnection(url.netloc, timeout=60)\n\
                  body = sys.stdin.buffer.read()\n\
                  connection.request('POST', url.path + '?respond=summary', body, {'Content-Type': 'text/plain'})\n\
                  answer = connection.getresponse()\n\
                  print(answer.status, json.load(answer)['scored'])\n";
    assert_eq!(run(&server, &["python3", "-c", script], &text), "200 20000\n");
}
