//! What clients see of templates: details beside verdicts, and the listing.

use oddlog::device::FakeDevice;
use serde_json::{Value, json};

use crate::support::{Answer, POISON, Running, Setup};

const BATCH: &str = "/api/v1/analyze/batch";
const STREAM: &str = "/api/v1/analyze/stream";
const LIST: &str = "/api/v1/templates";

fn learning(setup: Setup) -> Setup {
    setup.with(|config| config.templates.enabled = true)
}

fn batch(server: &Running, query: &str, logs: Value) -> Answer {
    server.post(&format!("{BATCH}{query}"), json!({ "logs": logs }).to_string())
}

fn stream(server: &Running, query: &str, lines: &str) -> Vec<Value> {
    let url = format!("http://{}{STREAM}{query}", server.address);
    let answer = ureq::post(url).header("content-type", "text/plain").send(lines).unwrap();
    let text = answer.into_body().read_to_string().unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What is told of an entry's template.
fn told(entry: &Value) -> (&str, bool, u64, f64) {
    assert_eq!(entry["template_id"].as_str().unwrap().len(), 16, "{entry}");
    let number = |name: &str| entry[name].as_f64().unwrap();
    let first = entry["first_seen"].as_bool().unwrap();
    (entry["template"].as_str().unwrap(), first, number("count") as u64, number("novelty"))
}

fn keys(entry: &Value) -> Vec<&str> {
    entry.as_object().unwrap().keys().map(String::as_str).collect()
}

fn listed(server: &Running, query: &str) -> Vec<String> {
    let answer = server.get(&format!("{LIST}{query}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let page = answer.json();
    page["templates"].as_array().unwrap().iter().map(|t| t["template"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn details_stand_beside_verdicts_in_the_order_of_the_lines() {
    let server = learning(Setup::default()).serve();
    let entries = stream(&server, "?detail=template", "disk 7 full\ndisk 8 full\n\nlink up\ndisk 9 full");
    let expected = [
        ("disk <num> full", true, 1, 1.0),
        ("disk <num> full", false, 2, 0.0),
        ("link up", true, 1, 1.0),
        ("disk <num> full", false, 3, 1.0 - 3f64.ln() / 4f64.ln()),
    ];
    for (entry, (template, first, count, novelty)) in entries.iter().zip(expected) {
        let got = told(entry);
        assert_eq!((got.0, got.1, got.2), (template, first, count));
        assert!((got.3 - novelty).abs() < 1e-6, "{entry}");
        assert!(entry["label"].is_string() && entry["scores"].is_object(), "{entry}");
    }
    assert_eq!(entries.len(), 4);
    assert_eq!((&entries[0]["template_id"], &entries[2]["line"]), (&entries[3]["template_id"], &json!(4)));

    // Another route goes on with the same counts; a log that cannot be read is of no template.
    let results = batch(&server, "?detail=template", json!(["2024-05-02 06:11:40,123 disk 5 full", 5, "disk 6 full"]));
    let results = results.json()["results"].clone();
    assert_eq!((told(&results[0]).2, told(&results[2]).2), (4, 5));
    assert_eq!(keys(&results[1]), ["error"]);
}

#[test]
fn a_thousand_lines_are_counted_one_by_one_in_their_order() {
    let server = learning(Setup::default()).serve();
    let lines: String = (0..1000).map(|n| format!("{} {n}\n", ["a", "b"][n % 2])).collect();
    let entries = stream(&server, "?detail=template", &lines);
    for (n, entry) in entries.iter().enumerate() {
        assert_eq!((entry["line"].as_u64().unwrap(), told(entry).2), (n as u64 + 1, n as u64 / 2 + 1));
    }
    assert_eq!(entries.len(), 1000);
}

#[test]
fn without_the_parameter_answers_are_as_they_were_and_the_logs_are_learned_all_the_same() {
    let (plain, server) = (Setup::default().serve(), learning(Setup::default()).serve());
    let both = |ask: &dyn Fn(&Running) -> String| assert_eq!(ask(&plain), ask(&server));
    both(&|server| {
        server.post("/api/v1/analyze", json!({ "log_message": "disk 7 full" }).to_string()).text().to_owned()
    });
    both(&|server| batch(server, "", json!(["disk 7 full", "", 3])).text().to_owned());
    both(&|server| batch(server, "?detail=none&other=1", json!(["disk 7 full"])).text().to_owned());
    both(&|server| format!("{:?}", stream(server, "", "disk 7 full\n")));
    assert_eq!(server.get(LIST).json()["templates"][0]["count"], 4);
}

#[test]
fn what_is_not_learned_cannot_be_asked_for() {
    let server = Setup::default().serve();
    for answer in
        [batch(&server, "?detail=template", json!(["x"])), server.post(&format!("{STREAM}?detail=template"), "\"x\"\n")]
    {
        let problem = &answer.json()["detail"][0];
        assert_eq!((answer.status, &problem["loc"]), (422, &json!(["query", "detail"])), "{problem}");
        assert!(problem["msg"].as_str().unwrap().contains("templates.enabled"), "{problem}");
    }
    let answer = batch(&server, "?detail=all", json!(["x"]));
    assert_eq!((answer.status, &answer.json()["detail"][0]["input"]), (422, &json!("all")));
    let answer = server.get(LIST);
    assert_eq!(answer.status, 404);
    assert!(answer.json()["detail"].as_str().unwrap().contains("templates.enabled"), "{}", answer.text());
    assert!(!server.get("/metrics").text().contains("\noddlog_templates "), "there is no book");
}

#[test]
fn a_log_that_fails_is_of_a_template_and_has_no_verdict() {
    let server = learning(Setup::device(FakeDevice::new("fake:0", 2).failing_on(POISON))).serve();
    let results = batch(&server, "?detail=template", json!(["poison", "a", "poison"])).json()["results"].clone();
    assert_eq!(keys(&results[0]), ["count", "error", "first_seen", "novelty", "template", "template_id"]);
    assert_eq!((told(&results[2]).0, told(&results[2]).2), ("poison", 2));
    let page = server.get(&format!("{LIST}?order=asc&sort=anomalies")).json();
    let poison = page["templates"].as_array().unwrap().iter().find(|t| t["template"] == "poison").unwrap();
    assert_eq!((&poison["verdict"], &poison["score"], &poison["count"]), (&Value::Null, &Value::Null, &json!(2)));
}

#[test]
fn the_listing_has_verdicts_counts_and_times_in_pages() {
    let server = learning(Setup::default()).serve();
    let call = |body: Value| assert_eq!(server.post(BATCH, body.to_string()).status, 200);
    call(json!({ "logs": ["a", "a", "a", "b", "c", "c"], "threshold": 0 }));
    call(json!({ "logs": ["b", "c"], "threshold": 1 }));
    // Verdicts of other questions say nothing about a template.
    call(json!({ "logs": ["a"], "labels": ["x", "y"], "threshold": 1 }));

    let page = server.get(LIST).json();
    assert_eq!(
        (&page["total"], &page["seen"], &page["offset"], &page["limit"]),
        (&json!(3), &json!(9), &json!(0), &json!(100))
    );
    let rows = page["templates"].as_array().unwrap();
    let row = |at: usize| {
        let name = |key: &str| rows[at][key].as_str().unwrap_or("none").to_owned();
        let number = |key: &str| rows[at][key].as_u64().unwrap();
        (name("template"), name("verdict"), number("count"), number("anomalies"), number("normals"))
    };
    assert_eq!(row(0), ("a".into(), "anomaly".into(), 4, 3, 0));
    assert_eq!(row(1), ("c".into(), "mixed".into(), 3, 2, 1));
    assert_eq!(row(2), ("b".into(), "mixed".into(), 2, 1, 1));
    for row in rows {
        let (score, rate) = (row["score"].as_f64().unwrap(), row["rate"].as_f64().unwrap());
        assert!((0.0..=1.0).contains(&score) && rate > 0.0 && rate <= 4.0 / 600.0 + 1e-6, "{row}");
        let time = |key: &str| row[key].as_str().unwrap().to_owned();
        assert!(time("first_seen") <= time("last_seen") && time("first_seen").ends_with('Z'), "{row}");
        assert!(page["since"].as_str().unwrap() <= &*time("first_seen"));
    }
    assert_eq!(listed(&server, "?limit=2"), ["a", "c"]);
    assert_eq!(listed(&server, "?limit=2&offset=2"), ["b"]);
    assert_eq!(listed(&server, "?order=asc&limit=1"), ["b"]);
    assert_eq!(listed(&server, "?sort=anomalies&limit=1"), ["a"]);
    assert_eq!(listed(&server, "?offset=3").len(), 0);
    for (query, name) in
        [("?limit=0", "limit"), ("?limit=1001", "limit"), ("?sort=age", "sort"), ("?offset=x", "offset")]
    {
        let answer = server.get(&format!("{LIST}{query}"));
        assert_eq!((answer.status, &answer.json()["detail"][0]["loc"]), (422, &json!(["query", name])), "{query}");
    }
    assert_eq!(server.post(LIST, "{}").status, 405);
    let text = server.get("/metrics");
    for line in ["oddlog_templates 3", "oddlog_templates_first_seen_total 3", "oddlog_templates_forgotten_total 0"] {
        assert!(text.text().contains(line), "{line} in {}", text.text());
    }
}

#[test]
fn templates_are_for_those_who_may_send_logs() {
    let setup = learning(Setup::default()).with(|config| config.server.api_keys.0 = vec!["one".into()]);
    let server = setup.serve();
    assert_eq!(server.get(LIST).status, 401);
    assert_eq!(server.call("GET", LIST, &[("authorization", "Bearer one")], b"").status, 200);
}

#[test]
fn the_book_is_bounded() {
    let server = learning(Setup::default()).with(|config| config.templates.max_templates = 50).serve();
    let letter = |n: usize| char::from(b'a' + n as u8);
    let lines: String = (0..400).map(|n| format!("{}{}\n", letter(n / 20), letter(n % 20))).collect();
    assert_eq!(stream(&server, "?respond=summary", &lines)[0]["scored"], 400);
    let page = server.get(LIST).json();
    assert_eq!((&page["total"], &page["seen"], &page["forgotten"]), (&json!(50), &json!(400), &json!(350)));
}
