//! What the model reads of a record: who speaks, how loud, and the message; no times, hosts, processes and frames.
//!
//! Two records that differ only in what is left out are the same text, so the model is asked once for both.

use super::{
    group::Record,
    prefix::{Prefix, recognise},
    trace,
};

/// Most bytes of a text. No model reads more tokens than these have.
const MOST_BYTES: usize = 4096;

/// Writes what the model reads of `record` into `text`.
///
/// With a prefix it is `LEVEL source: message`, in the spelling of the record; single letters (Android, glog) become
/// words. Of a record of several lines the frames of stack traces are left out.
pub fn model_text(record: &Record, text: &mut String) {
    write(&record.text, &record.prefix, text);
}

/// As [`model_text`], for a log that is a record already, however many lines it has.
pub fn log_text(log: &str, text: &mut String) {
    let first_end = memchr::memchr(b'\n', log.as_bytes()).unwrap_or(log.len());
    write(log, &recognise(&log[..first_end]), text);
}

fn write(log: &str, prefix: &Prefix, text: &mut String) {
    text.clear();
    let first_end = memchr::memchr(b'\n', log.as_bytes()).unwrap_or(log.len());
    let (first, rest) = log.split_at(first_end);
    if let Some(level) = prefix.level.clone() {
        text.push_str(level_word(&first[level]));
        text.push(' ');
    }
    if let Some(source) = prefix.source.clone() {
        text.push_str(&first[source]);
        text.push_str(": ");
    }
    add(text, first[prefix.len..].trim_end());
    let mut source_of_frame = false;
    for line in rest.lines() {
        if text.len() >= MOST_BYTES {
            break;
        }
        // Python prints the source line below its frame.
        let skipped = std::mem::replace(&mut source_of_frame, line.trim_start().starts_with("File \""));
        let is_source = skipped && line.starts_with("    ");
        if !(line.trim().is_empty() || is_source || trace::is_frame(line)) {
            text.push(' ');
            add(text, line.trim());
        }
    }
    let mut end = text.len().min(MOST_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

/// Adds `part`; NULs, which a crash leaves in files, become blanks.
fn add(text: &mut String, part: &str) {
    let part = &part[..part.floor_char_boundary(MOST_BYTES)];
    match memchr::memchr(0, part.as_bytes()) {
        None => text.push_str(part),
        Some(_) => text.push_str(part.replace('\0', " ").trim()),
    }
}

fn level_word(level: &str) -> &str {
    match level {
        "V" => "VERBOSE",
        "D" => "DEBUG",
        "I" => "INFO",
        "W" | "#" => "WARN",
        "E" => "ERROR",
        "F" => "FATAL",
        word => word,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::recognise, *};

    fn check(record: &str, expected: &str) {
        let prefix = recognise(record.split('\n').next().unwrap());
        let mut text = "old".to_owned();
        model_text(&Record { text: record.into(), prefix, number: 1, lines: 1, cut: 0 }, &mut text);
        assert_eq!(text, expected);
        log_text(record, &mut text);
        assert_eq!(text, expected);
    }

    #[test]
    fn level_source_and_message() {
        check("plain line ", "plain line");
        check("Dec 10 06:55:46 LabSZ sshd[24200]: bad  password", "sshd: bad  password");
        check("03-17 16:13:38.811  1702  2395 W Window: slow", "WARN Window: slow");
        check("2024-05-02 06:11:40 ERROR disk\0full", "ERROR disk full");
    }

    #[test]
    fn exceptions_stay_and_frames_go() {
        check(
            "2024-05-02 06:11:40 ERROR c.e.Foo: broke\njava.io.IOException: disk\n\tat c.e.Foo(Foo.java:1)\n\t... 3 more\nCaused by: x.Y: z",
            "ERROR c.e.Foo: broke java.io.IOException: disk Caused by: x.Y: z",
        );
        check(
            "Traceback (most recent call last):\n  File \"a.py\", line 1, in f\n    g()\nValueError: no",
            "Traceback (most recent call last): ValueError: no",
        );
        check("panic: x\n\ngoroutine 1 [running]:\n\t/tmp/x.go:8 +0x1d", "panic: x");
        check("deploy failed:\n  image not found", "deploy failed: image not found");
    }

    #[test]
    fn it_is_bounded_at_a_character() {
        let long = format!("a{}", "é".repeat(5000));
        let mut text = String::new();
        model_text(&Record { text: long, ..Record::default() }, &mut text);
        assert_eq!(text.len(), MOST_BYTES - 1);
    }
}
