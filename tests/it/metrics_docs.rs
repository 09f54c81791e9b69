//! docs/metrics.md is what the code counts: every metric, and every reason that a label may give.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use regex::Regex;

use crate::support::process::root;

fn read(path: &str) -> String {
    let text = fs::read_to_string(root().join(path)).unwrap();
    text.split("#[cfg(test)]").next().unwrap().to_owned()
}

#[test]
fn every_metric_is_described_and_in_the_table() {
    let code = ["", "/describe", "/devices"].map(|part| read(&format!("src/metrics{part}.rs"))).concat();
    let page = read("docs/metrics.md");
    let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let label = Regex::new(r#""(\w+)" =>"#).unwrap();
    for found in Regex::new(r#"(?:counter|gauge|histogram)!\(\s*"(oddlog_\w+)"([^;\n]*)"#).unwrap().captures_iter(&code)
    {
        let of_it = labels.entry(found[1].to_owned()).or_default();
        of_it.extend(label.captures_iter(&found[2]).map(|l| l[1].to_owned()));
    }
    let mut described = BTreeSet::new();
    let describe = Regex::new(r#"describe_(counter|gauge|histogram)!\(\s*"(\w+)",\s*"([^"]*)""#).unwrap();
    for found in describe.captures_iter(&code) {
        let (kind, name, meaning) = (&found[1], &found[2], &found[3]);
        let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` | {kind} | ")));
        let row = row.unwrap_or_else(|| panic!("docs/metrics.md lacks the {kind} {name}"));
        assert!(row.ends_with(&format!(" | {meaning} |")), "docs/metrics.md says of {name}: {row}");
        let shown: BTreeSet<_> = row.split(" | ").nth(2).unwrap().split(", ").map(|l| l.trim_matches('`')).collect();
        let expected: BTreeSet<_> = labels.get(name).into_iter().flatten().map(String::as_str).collect();
        assert_eq!(shown.into_iter().filter(|l| *l != "-").collect::<BTreeSet<_>>(), expected, "labels of {name}");
        described.insert(name.to_owned());
    }
    let counted: BTreeSet<_> = labels.into_keys().collect();
    assert!(counted.len() > 30, "{}", counted.len());
    assert_eq!(described, counted);
    let listed =
        page.lines().filter(|l| [" | counter | ", " | gauge | ", " | histogram | "].iter().any(|k| l.contains(k)));
    assert_eq!(listed.count(), described.len(), "docs/metrics.md lists what is not there");
}

/// Where labels get their values: a file, and the function that names them.
const NAMES: &[(&str, &str)] = &[
    ("src/batching/batch.rs", "fn name("),
    ("src/engine/handle.rs", "fn count("),
    ("src/http/connection.rs", "async fn drive("),
    ("src/http/stream/pump.rs", "fn name("),
    ("src/http/traffic.rs", "fn reason("),
    ("src/metrics.rs", "fn name("),
    ("src/verdicts/mod.rs", "fn name("),
];

#[test]
fn every_reason_is_in_the_page() {
    let page = read("docs/metrics.md");
    let mut values = BTreeSet::new();
    let found = Regex::new(r#"=> (?:return )?"(\w+)""#).unwrap();
    for (file, function) in NAMES {
        let code = read(file);
        let start = code.find(function).unwrap_or_else(|| panic!("{file} has no {function}"));
        let body = &code[start..];
        let body = &body[..body.find("\n}").unwrap()];
        let before = values.len();
        values.extend(found.captures_iter(body).map(|value| value[1].to_owned()));
        assert!(values.len() > before, "{file} names nothing of its own");
    }
    let given = r#"(?:refused\(|turned_away\(|unauthorized\(|too_many\(|map_or\(|reason: )"(\w+)""#;
    let given = Regex::new(given).unwrap();
    for file in ["auth", "batch", "connection", "exchange", "serve", "stream/mod"] {
        let code = read(&format!("src/http/{file}.rs"));
        values.extend(given.captures_iter(&code).map(|value| value[1].to_owned()));
    }
    assert!(
        ["key_rate", "cut_off", "too_many_streams", "header_fields", "too_many_resets"]
            .iter()
            .all(|v| values.contains(*v)),
        "{values:?}"
    );
    let missing: Vec<_> = values.iter().filter(|value| !page.contains(&format!("`{value}`"))).collect();
    assert!(missing.is_empty(), "docs/metrics.md lacks {missing:?}");
}
