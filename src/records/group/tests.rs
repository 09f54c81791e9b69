//! Records of real traces, and the bounds.

use proptest::prelude::*;

use super::*;

fn records_of(text: &[u8], chunk: usize, limits: Limits, raw: bool) -> Vec<Record> {
    let (mut grouper, mut all) = (Grouper::new(limits, raw), Vec::new());
    for part in text.chunks(chunk) {
        grouper.push(part.to_vec());
        while let Some(record) = grouper.next_record() {
            all.push(record.clone());
        }
    }
    while let Some(record) = grouper.finish() {
        all.push(record.clone());
    }
    all
}

/// Each record in the expected text ends with a line `---`.
fn check(marked: &str) {
    let expected: Vec<&str> = marked.split("---\n").map(|r| r.trim_matches('\n')).filter(|r| !r.is_empty()).collect();
    let text = marked.replace("---\n", "");
    for chunk in [1, 7, 4096] {
        let records = records_of(text.as_bytes(), chunk, Limits::default(), false);
        assert_eq!(records.iter().map(|r| r.text.as_str()).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn java() {
    check(
        "2024-05-02 10:00:00,000 ERROR [main] c.e.Foo: it broke\n\
         java.lang.IllegalStateException: no\n\
         \tat c.e.Foo.bar(Foo.java:1)\n\
         Caused by: java.io.IOException: disk\n\
         \t... 12 more\n---\n\
         2024-05-02 10:00:01,000 INFO [main] c.e.Foo: fine\n---\n\
         Exception in thread \"main\" java.lang.OutOfMemoryError: Java heap space\n\
         \tat c.e.Foo.main(Foo.java:7)\n---\n\
         a line of its own\n---\n",
    );
}

#[test]
fn python() {
    check(
        "2024-05-02 10:00:00,000 ERROR it broke\n\
         Traceback (most recent call last):\n  File \"a.py\", line 1, in f\n    g()\nValueError: no\n\
         \nDuring handling of the above exception, another exception occurred:\n\
         \nTraceback (most recent call last):\n  File \"a.py\", line 3, in <module>\nKeyError: 'x'\n---\n\
         Traceback (most recent call last):\n  File \"b.py\", line 1, in <module>\nKeyError: 'y'\n---\n\
         next line\n---\n",
    );
}

#[test]
fn go_and_rust() {
    check(
        "panic: runtime error: index out of range [5] with length 3\n\
         \ngoroutine 1 [running]:\nmain.main()\n\t/tmp/x.go:8 +0x1d\nexit status 2\n---\n\
         2024/05/02 10:00:00 next\n---\n\
         thread 'main' panicked at src/main.rs:4:5:\nindex out of bounds\nstack backtrace:\n   0: std::panicking\n\
         note: run with `RUST_BACKTRACE=1`\n---\n\
         another line\n---\n",
    );
}

#[test]
fn indented_lines_and_blocks() {
    check(
        "config: {\n  a: 1\n}\n---\nnext\n  more of it\n---\n  2024-05-02 10:00:00 INFO indented but timed\n---\n\n\nx\n---\n",
    );
    let records = records_of(b"a\n  b\n", 9, Limits::default(), true);
    assert_eq!(records.iter().map(|r| r.text.as_str()).collect::<Vec<_>>(), ["a", "  b"]);
}

#[test]
fn a_record_is_bounded_and_knows_its_line() {
    let limits = Limits { line_bytes: 8, lines: 3, bytes: 20 };
    let text = format!("\n\nhead\n{}0123456789\nend", " x\n".repeat(7));
    let records = records_of(text.as_bytes(), 5, limits, false);
    let seen: Vec<(u64, u32, u64)> = records.iter().map(|r| (r.number, r.lines, r.cut)).collect();
    assert_eq!(seen, [(3, 3, 0), (6, 3, 0), (9, 2, 0), (11, 1, 2), (12, 1, 0)]);
    let torn = records_of(b"0123456789", 3, limits, false);
    assert_eq!((torn[0].text.as_str(), torn[0].cut, torn.len()), ("01234567", 2, 1));
}

#[test]
fn a_pause_gives_the_record_out_but_no_half_line() {
    let mut grouper = Grouper::new(Limits::default(), false);
    grouper.push(b"first\nsec".to_vec());
    assert!(grouper.next_record().is_none());
    assert!(grouper.flush().is_none());
    grouper.push(b"ond\n".to_vec());
    assert_eq!(grouper.next_record().map(|r| r.text.clone()), Some("first".into()));
    assert!(grouper.next_record().is_none());
    assert_eq!(grouper.flush().map(|r| (r.text.clone(), r.number)), Some(("second".into(), 2)));
    assert!(grouper.flush().is_none() && grouper.finish().is_none());
}

proptest! {
    #[test]
    fn every_line_that_is_not_blank_is_in_one_record(
        lines in proptest::collection::vec(proptest::sample::select(vec![
            "", "a", "  b", "\tat c", "Traceback (most recent call last):", "ValueError: x", "panic: y", "goroutine 1:",
            "f()", "2024-05-02 10:00:00 INFO z", "Caused by: q", "{", "}", "thread 'm' panicked at s:1:", " ",
        ]), 0..40),
        chunk in 1usize..50,
        raw in any::<bool>(),
    ) {
        let text: String = lines.iter().map(|l| format!("{l}\n")).collect();
        let limits = Limits { line_bytes: 100, lines: 6, bytes: 90 };
        let records = records_of(text.as_bytes(), chunk, limits, raw);
        prop_assert_eq!(&records, &records_of(text.as_bytes(), 4096, limits, raw));
        let given: Vec<&str> = lines.iter().copied().filter(|l| !l.trim().is_empty()).collect();
        let back: Vec<&str> = records.iter().flat_map(|r| r.text.split('\n')).filter(|l| !l.trim().is_empty()).collect();
        prop_assert_eq!(back, given);
        for record in &records {
            prop_assert_eq!(record.text.split('\n').count(), record.lines as usize);
            prop_assert_eq!(lines[record.number as usize - 1], record.text.split('\n').next().expect("it is there"));
            prop_assert!(record.lines <= limits.lines);
        }
    }
}
