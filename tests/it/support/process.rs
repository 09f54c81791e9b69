//! The program as a process of its own.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStderr, Command, Stdio},
};

use serde_json::Value;

/// The top of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The program with a tiny model and nothing of this shell's configuration.
pub fn oddlog(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oddlog"));
    prepared(&mut command).args(args);
    command
}

/// `command`, which starts the program, with the same.
pub fn prepared(command: &mut Command) -> &mut Command {
    command.current_dir(root()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("ODDLOG_MODEL__SOURCE", "tests/data/tiny-deberta")
}

/// A running server on a free port, and its address.
pub fn serve(prepare: impl FnOnce(&mut Command)) -> (Child, String) {
    let mut command = oddlog(&["serve", "--listen", "127.0.0.1:0"]);
    prepare(&mut command);
    start(command)
}

/// Starts a server and waits until it serves.
pub fn start(mut command: Command) -> (Child, String) {
    command.env("ODDLOG_LOG__FORMAT", "json");
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let started = entry_with(&mut log, "address");
    // The rest of the log must not fill the pipe.
    child.stderr = Some(log.into_inner());
    (child, started["fields"]["address"].as_str().unwrap().to_owned())
}

/// Reads the log until an entry has a field of this name.
pub fn entry_with(log: &mut BufReader<ChildStderr>, field: &str) -> Value {
    loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "the log ended before it had {field}");
        let entry: Value = serde_json::from_str(&line).unwrap();
        if !entry["fields"][field].is_null() {
            return entry;
        }
    }
}

/// Sends a signal by name.
pub fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
}
