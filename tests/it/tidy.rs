//! The house rules that a text search can see.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Room -> floor. `use crate::x` may only go down; rooms of one floor are blind to each other.
const FLOORS: &[(&str, u32)] = &[
    ("cli", 9),
    ("http", 8),
    ("verdicts", 7),
    ("tuning", 7),
    ("scan", 7),
    ("telemetry", 7),
    ("engine", 6),
    ("compiled", 6),
    ("novelty", 6),
    ("fidelity", 5),
    ("batching", 4),
    ("device", 4),
    ("classify", 3),
    ("model", 2),
    ("kernel", 1),
    ("eval", 1),
    ("config", 1),
    ("records", 0),
    ("templates", 0),
    ("error", 0),
    ("memory", 0),
    ("metrics", 0),
];
const LONGEST: usize = 400;

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn each_source(mut check: impl FnMut(&str, &str)) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    assert!(files.len() > 20);
    for file in files {
        let name = file.strip_prefix(root.join("src")).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        check(&name, code);
    }
}

fn floor(room: &str) -> Option<u32> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

#[test]
fn imports_only_go_down() {
    each_source(|name, code| {
        let room = name.split(['/', '.']).next().unwrap();
        let Some(own) = floor(room) else { return };
        let flat = code.split_whitespace().collect::<String>();
        for part in flat.split("crate::").skip(1) {
            // `use crate::{a::X, b::Y}` or `crate::a::X`: every name that is a room's.
            let until = part.find(';').unwrap_or(part.len());
            let names: Vec<&str> = match part.strip_prefix('{') {
                Some(list) => list[..until - 1].split([',', '{', '}', ':']).collect(),
                None => part.split(|c: char| !c.is_alphanumeric() && c != '_').take(1).collect(),
            };
            for used in names {
                if let Some(theirs) = floor(used) {
                    assert!(used == room || theirs < own, "{name} (floor {own}) uses {used} (floor {theirs})");
                }
            }
        }
    });
}

#[test]
fn every_file_has_a_door_and_is_short() {
    each_source(|name, code| {
        assert!(code.starts_with("//!"), "{name} does not say what it is");
        let lines = code.lines().count();
        assert!(lines <= LONGEST, "{name} has {lines} lines; split it by idea");
    });
}

#[test]
fn what_must_be_absent_is_absent() {
    each_source(|name, code| {
        // Tests in a file of their own are tests, too.
        if name.ends_with("/tests.rs") || name.contains("/tests/") {
            return;
        }
        let absent = |what: &str, allowed: &[&str]| {
            assert!(
                !code.contains(what) || allowed.iter().any(|a| name.starts_with(a)),
                "{name} must not contain `{what}`"
            );
        };
        absent("ort::", &["device/onnx", "device/custom_op"]);
        let unsafe_code =
            ["kernel/mod.rs", "main.rs", "memory.rs", "model/graph/weights.rs", "device/driver.rs", "device/onnx"];
        absent("allow(unsafe_code", &unsafe_code);
        absent("hyper::", &["http/"]);
        absent("opentelemetry", &["telemetry/"]);
        absent("thread::spawn", &[]);
        // The reader of a scan blocks in files and pipes; its calls to a server block, too.
        absent("thread::Builder", &["engine/", "scan/input.rs"]);
        // Snapshots are written to disks that may be slow.
        absent("spawn_blocking", &["scan/client.rs", "cli/signals.rs", "novelty/mod.rs"]);
        absent("tokio::spawn", &["http/", "cli/signals.rs"]);
        absent("unbounded", &["lib.rs"]);
        let clocks = [
            "engine/",
            "http/",
            "batching/batcher.rs",
            "batching/idle.rs",
            "cli/",
            "model/hub",
            "tuning/bench.rs",
            "verdicts/checks.rs",
            "verdicts/memory.rs",
            "verdicts/mod.rs",
            "telemetry/",
            "verdicts/templates.rs",
        ];
        absent("Instant::now", &clocks);
        absent(".unwrap()", &[]);
    });
}
