//! Snapshots on disk: what goes on, what is set aside, what fails.

use std::{fs, path::Path, time::Duration};

use super::*;
use crate::metrics::Metrics;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn config(dir: &Path) -> Templates {
    Templates { enabled: true, snapshot_dir: dir.to_str().expect("it is there").to_owned(), ..Templates::default() }
}

fn open(dir: &Path) -> Novelty {
    Novelty::open(&config(dir), Metrics::new().expect("it is there").templates(), NOW).expect("it is there")
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .expect("it is there")
        .map(|entry| entry.expect("it is there").file_name().into_string().expect("it is there"))
        .collect();
    names.sort();
    names
}

#[test]
fn prefixes_do_not_count_and_ids_are_those_of_a_scan() {
    let dir = tempfile::tempdir().expect("it is there");
    let novelty = open(dir.path());
    let first = novelty.observe("Dec 10 06:55:46 LabSZ sshd[24200]: bad password for root", NOW);
    let second = novelty.observe("Dec 11 07:00:00 other sshd[7]: bad password for root", NOW);
    assert_eq!((&*second.template, second.id, second.count), ("sshd: bad password for root", first.id, 2));
    let trace = "2024-05-02 06:11:40 ERROR c.e.Foo: broke\njava.io.IOException: disk\n\tat c.e.Foo(Foo.java:1)";
    assert_eq!(&*novelty.observe(trace, NOW).template, "ERROR c.e.Foo: broke java.io.IOException: disk");
}

#[test]
fn a_snapshot_is_there_again_and_only_changes_are_written() {
    let dir = tempfile::tempdir().expect("it is there");
    let novelty = open(dir.path());
    novelty.save(NOW);
    assert!(names(dir.path()).is_empty(), "nothing has changed");
    let seen = novelty.observe("disk 7 full", NOW);
    novelty.note_verdict(seen.id, true, 0.75);
    novelty.save(NOW);
    let file = fs::read(dir.path().join("templates.snapshot")).expect("it is there");
    assert_eq!(names(dir.path()), ["templates.snapshot"]);
    novelty.save(NOW + Duration::from_secs(9));
    assert_eq!(fs::read(dir.path().join("templates.snapshot")).expect("it is there"), file);
    let keeper = novelty.keeper.as_ref().expect("it is there");
    assert_eq!(keeper.age(NOW + Duration::from_secs(10)), Duration::from_secs(1), "all was on disk a second ago");

    let again = open(dir.path());
    let listing = Listing { limit: 9, ..Listing::default() };
    assert_eq!(again.page(listing, NOW), novelty.page(listing, NOW));
    let sighting = again.observe("disk 8 full", NOW);
    assert_eq!((sighting.id, sighting.first_seen, sighting.count), (seen.id, false, 2));
}

#[test]
fn what_cannot_be_used_is_set_aside_and_what_was_left_half_is_removed() {
    let good = tempfile::tempdir().expect("it is there");
    let novelty = open(good.path());
    novelty.observe("disk full", NOW);
    novelty.save(NOW);
    let whole = fs::read(good.path().join("templates.snapshot")).expect("it is there");
    let mut newer = whole.clone();
    newer["oddlog templates ".len()] = b'9';
    let mut flipped = whole.clone();
    let middle = whole.len() / 2;
    flipped[middle] ^= 1;
    let empty_content = [&b"oddlog templates 1\n"[..], &[7; 5]].concat();
    let cases: [(&[u8], &str); 6] = [
        (b"", "no snapshot"),
        (b"something else", "no snapshot"),
        (&newer, "version 9"),
        (&flipped, "checksum"),
        (&whole[..whole.len() - 1], "checksum"),
        (&empty_content, "checksum"),
    ];
    for (bytes, reason) in cases {
        let dir = tempfile::tempdir().expect("it is there");
        let path = dir.path().join("templates.snapshot");
        fs::write(&path, bytes).expect("it is there");
        fs::write(dir.path().join("templates.snapshot.123456.tmp"), "half").expect("it is there");
        let said = file::read(&path).unwrap_err().to_string();
        assert!(said.contains(reason), "{said} lacks {reason}");
        let novelty = open(dir.path());
        assert!(novelty.observe("disk full", NOW).first_seen);
        assert_eq!(names(dir.path()), ["templates.snapshot.0.aside"]);
        assert_eq!(fs::read(dir.path().join("templates.snapshot.0.aside")).expect("it is there"), bytes);
        novelty.save(NOW);
        assert!(!open(dir.path()).observe("disk full", NOW).first_seen);
    }
}

#[test]
fn a_snapshot_that_lies_is_refused_by_the_book() {
    let dir = tempfile::tempdir().expect("it is there");
    let book = Book::new(Settings::default(), 0);
    let mut json = serde_json::to_value(book.snapshot()).expect("it is there");
    json["miner"]["templates"] = serde_json::json!([{ "id": 1, "text": "x", "count": 1, "last": 99 }]);
    file::write(dir.path(), &serde_json::from_value(json).expect("it is there")).expect("it is there");
    open(dir.path());
    assert_eq!(names(dir.path()), ["templates.snapshot.0.aside"]);
}

#[test]
fn a_folder_that_cannot_be_written_ends_the_start_and_one_that_goes_away_is_no_end() {
    let dir = tempfile::tempdir().expect("it is there");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("it is there");
    let error = Novelty::open(&config(&file), Metrics::new().expect("it is there").templates(), NOW)
        .err()
        .expect("it is there")
        .to_string();
    assert!(error.contains("templates.snapshot_dir") && error.contains("cannot be written"), "{error}");
    let as_directory = dir.path().join("templates.snapshot");
    fs::create_dir(&as_directory).expect("it is there");
    assert!(Novelty::open(&config(dir.path()), Metrics::new().expect("it is there").templates(), NOW).is_err());

    let metrics = Metrics::new().expect("it is there");
    let gone = dir.path().join("a/b");
    let novelty = Novelty::open(&config(&gone), metrics.templates(), NOW).expect("it is there");
    novelty.observe("disk full", NOW);
    fs::remove_dir_all(&gone).expect("it is there");
    novelty.save(NOW);
    novelty.save(NOW);
    fs::create_dir(&gone).expect("it is there");
    novelty.save(NOW);
    novelty.gauge(NOW + Duration::from_secs(5));
    let text = metrics.render();
    for line in [
        "oddlog_template_snapshots_total{result=\"failed\"} 2",
        "oddlog_template_snapshots_total{result=\"written\"} 1",
        "oddlog_template_snapshot_age_seconds 5",
        "oddlog_templates 1",
        "oddlog_templates_first_seen_total 1",
        "oddlog_templates_forgotten_total 0",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[test]
fn a_snapshot_of_the_first_version_goes_on() {
    let dir = tempfile::tempdir().expect("it is there");
    let record = r#"{"first_ms":1000,"last_ms":5000,"rate":0.01,"tally":{"anomalies":1,"normals":2,"score":0.25}}"#;
    let template = r#"{"id":77,"text":"sshd: deleted blk_-<num> blk_<num>","count":3,"last":3}"#;
    let json = format!(
        r#"{{"miner":{{"version":1,"seen":3,"templates":[{template}]}},"records":[[77,{record}]],"since_ms":900,"forgotten":0}}"#
    );
    let mut bytes = b"oddlog templates 1\n".to_vec();
    bytes.extend(zstd::encode_all(json.as_bytes(), 1).expect("it is packed"));
    let sum = <sha2::Sha256 as sha2::Digest>::digest(&bytes);
    bytes.extend(sum);
    fs::write(file::place(dir.path()), bytes).expect("it is written");
    let novelty = open(dir.path());
    let sighting = novelty.observe("Dec 10 06:55:46 LabSZ sshd[24200]: deleted blk_1 blk_-2 blk_3", NOW);
    assert_eq!((sighting.id, sighting.count), (TemplateId(77), 4));
    novelty.save(NOW);
    assert!(fs::read(file::place(dir.path())).expect("it is there").starts_with(b"oddlog templates 2\n"));
    assert_eq!(names(dir.path()), ["templates.snapshot"]);
}
