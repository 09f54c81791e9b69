//! The shipped model is held to the challenge set, with the regex baseline beside it, and its int8 form to its fp32 twin.

use std::{collections::BTreeMap, fs};

use oddlog::{
    config::{Batching, Scoring},
    device::CPU_RUN_TOKENS,
    engine::{Class, Engine},
    metrics::Metrics,
};

use super::parity::{root, shipped, two_devices};

/// The 11 stems of the baseline; see models/challenge/README.md.
const STEMS: [&str; 11] =
    ["error", "fail", "exception", "fatal", "panic", "critical", "denied", "timeout", "refused", "abort", "corrupt"];

/// Share of the pairs whose anomaly must have the higher score, and of their lines that must be right at 0.5.
const PAIRS_IN_ORDER: f32 = 0.84;
const PAIRS_RIGHT: f32 = 0.69;

/// Rows of a tab-separated file without its header.
fn rows(file: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join("models/challenge").join(file)).unwrap();
    text.lines().skip(1).map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

fn start(onnx: &str) -> Engine {
    let model = shipped(onnx);
    let batching = Batching::default();
    let devices = two_devices(&model, CPU_RUN_TOKENS);
    Engine::start(&model, devices, &Scoring::default(), &batching, Metrics::new().unwrap()).unwrap()
}

/// Scores of every text for `labels`.
async fn scores(engine: &Engine, texts: &[&str], labels: Option<Vec<String>>) -> Vec<Vec<f32>> {
    let handle = engine.handle();
    let task = handle.task(labels, None, None, None).unwrap();
    let all = texts.iter().map(|text| handle.classify(text, &task, Class::Bulk));
    futures_util::future::join_all(all).await.into_iter().map(|r| r.unwrap().scores).collect()
}

#[derive(Default)]
struct Confusion {
    hits: f32,
    misses: f32,
    false_alarms: f32,
    calm: f32,
}

impl Confusion {
    fn add(&mut self, is_anomaly: bool, said: bool) {
        match (is_anomaly, said) {
            (true, true) => self.hits += 1.0,
            (true, false) => self.misses += 1.0,
            (false, true) => self.false_alarms += 1.0,
            (false, false) => self.calm += 1.0,
        }
    }

    fn f1(&self) -> f32 {
        2.0 * self.hits / (2.0 * self.hits + self.misses + self.false_alarms).max(1.0)
    }

    fn accuracy(&self) -> f32 {
        (self.hits + self.calm) / (self.hits + self.calm + self.misses + self.false_alarms)
    }
}

/// The share of (anomaly, normal) pairs in the right order; ties count half.
fn auroc(scored: &[(bool, f32)]) -> f32 {
    let of = |kind| scored.iter().filter(move |(is, _)| *is == kind).map(|(_, p)| *p);
    let pairs = of(true).flat_map(|a| of(false).map(move |n| (a, n)));
    let (wins, total) = pairs.fold((0.0, 0.0), |(wins, total), (a, n)| {
        (wins + if a > n { 1.0 } else { f32::from(u8::from(a == n)) / 2.0 }, total + 1.0)
    });
    wins / total
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_model_passes_its_challenge() {
    let rows = rows("challenge.tsv");
    assert!(rows.len() >= 300);
    let texts: Vec<&str> = rows.iter().map(|row| row[2].as_str()).collect();
    let int8 = scores(&start("model.onnx"), &texts, None).await;
    let fp32 = scores(&start("model_fp32.onnx"), &texts, None).await;
    let mut groups: BTreeMap<&str, (Confusion, Confusion)> = BTreeMap::new();
    let mut all = (Confusion::default(), Confusion::default());
    let (mut scored, mut flips) = (Vec::new(), 0);
    for ((row, int8), fp32) in rows.iter().zip(&int8).zip(&fp32) {
        let is_anomaly = row[0] == "anomaly";
        let said = int8[0] >= 0.5;
        let lower = row[2].to_lowercase();
        let stem = STEMS.iter().any(|stem| lower.contains(stem));
        let group = groups.entry(&row[1]).or_default();
        for (model, regex) in [group, &mut all] {
            model.add(is_anomaly, said);
            regex.add(is_anomaly, stem);
        }
        scored.push((is_anomaly, int8[0]));
        flips += usize::from(said != (fp32[0] >= 0.5));
    }
    for (name, (model, regex)) in &groups {
        println!(
            "{name:10} accuracy {:.3} (regex {:.3}), F1 {:.3} ({:.3})",
            model.accuracy(),
            regex.accuracy(),
            model.f1(),
            regex.f1()
        );
    }
    let (model, regex) = &all;
    let (auroc, flips) = (auroc(&scored), flips as f32 / rows.len() as f32);
    println!(
        "all: F1 {:.3} (regex {:.3}), accuracy {:.3} ({:.3}), AUROC {auroc:.3}, int8 flips {flips:.4}",
        model.f1(),
        regex.f1(),
        model.accuracy(),
        regex.accuracy()
    );
    assert!(model.f1() >= 0.87 && auroc >= 0.94 && model.accuracy() >= 0.87, "F1 {}, AUROC {auroc}", model.f1());
    assert!(model.f1() > regex.f1() && model.accuracy() > regex.accuracy(), "the regex is better");
    assert!(flips <= 0.02, "int8 flips {flips} of the verdicts");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_reads_what_decides_between_two_lines_that_are_alike() {
    let rows = rows("pairs.tsv");
    let texts: Vec<&str> = rows.iter().map(|row| row[2].as_str()).collect();
    let scores = scores(&start("model.onnx"), &texts, None).await;
    let mut groups: BTreeMap<&str, (f32, Confusion)> = BTreeMap::new();
    let mut all = Confusion::default();
    for (rows, scores) in rows.chunks(2).zip(scores.chunks(2)) {
        assert_eq!([&rows[0][0], &rows[1][0], &rows[0][1]], ["anomaly", "normal", &rows[1][1]]);
        let (bad, calm) = (scores[0][0], scores[1][0]);
        let (right, confusion) = groups.entry(&rows[0][1]).or_default();
        *right += f32::from(u8::from(bad > calm));
        for confusion in [confusion, &mut all] {
            confusion.add(true, bad >= 0.5);
            confusion.add(false, calm >= 0.5);
        }
    }
    let mut in_order = 0.0;
    for (name, (right, confusion)) in &groups {
        let pairs = confusion.hits + confusion.misses;
        println!("{name:13} right order {:.3} of {pairs} pairs, accuracy {:.3}", right / pairs, confusion.accuracy());
        in_order += right;
    }
    let in_order = in_order / (rows.len() / 2) as f32;
    println!("all: right order {in_order:.3}, accuracy {:.3}, F1 {:.3}", all.accuracy(), all.f1());
    assert!(in_order >= PAIRS_IN_ORDER && all.accuracy() >= PAIRS_RIGHT, "{in_order}, {}", all.accuracy());
}

#[tokio::test(flavor = "multi_thread")]
async fn its_8_bits_are_the_same_in_operators_that_every_onnxruntime_has() {
    let rows = rows("challenge.tsv");
    let texts: Vec<&str> = rows.iter().map(|row| row[2].as_str()).collect();
    let own = scores(&start("model.onnx"), &texts, None).await;
    let portable = scores(&start("model_int8.onnx"), &texts, None).await;
    let off: Vec<f32> = own.iter().zip(&portable).map(|(own, portable)| (own[0] - portable[0]).abs()).collect();
    let flips = own.iter().zip(&portable).filter(|(own, portable)| (own[0] >= 0.5) != (portable[0] >= 0.5)).count();
    let mean = off.iter().sum::<f32>() / off.len() as f32;
    println!(
        "{flips} flips, scores differ by {mean} on average and {} at most",
        off.iter().copied().fold(0.0, f32::max)
    );
    // Another order of sums moves a number to the next of 255 steps here and there.
    assert!(flips <= 4 && mean < 0.004, "{flips} flips, {mean}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_model_tells_topics_apart() {
    let rows = rows("topics.tsv");
    let mut topics: Vec<String> = rows.iter().map(|row| row[0].clone()).collect();
    topics.sort();
    topics.dedup();
    assert_eq!(topics.len(), 6);
    let texts: Vec<&str> = rows.iter().map(|row| row[1].as_str()).collect();
    let scores = scores(&start("model.onnx"), &texts, Some(topics.clone())).await;
    let right = rows.iter().zip(&scores).filter(|(row, scores)| {
        let best = (0..6).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap();
        topics[best] == row[0]
    });
    let share = right.count() as f32 / rows.len() as f32;
    println!("{share:.3} of {} lines get the right one of 6 topics", rows.len());
    assert!(share >= 0.85, "{share}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_lines_everyone_tries_are_right() {
    let lines = ["ERROR: Database connection timeout after 30s", "user 42 logged in from 10.0.0.7"];
    let scores = scores(&start("model.onnx"), &lines, None).await;
    assert!(scores[0][0] > 0.8 && scores[1][0] < 0.2, "{scores:?}");
}
