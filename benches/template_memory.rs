//! What the memory of templates saves, and how often its verdicts differ: the policy over a stream whose scores are known.
//!
//! ```sh
//! cargo bench --bench template_memory -- SCORED [PASSES]    # lines "score of the anomaly label<TAB>log"; loadtest/cache.py scores
//! ```
//!
//! For each `cache.max_doubt`: logs and tokens that go to the model, as shares of all; the share of verdicts that equal
//! the model's; of the answers from templates, the share that differs, and what the checks make of it. Logs come one by
//! one, and a check's result is there at once. `ODDLOG_BENCH_MODEL` names another model than the shipped one.

#![allow(missing_docs, clippy::unwrap_used, reason = "a tool for developers")]

use std::{
    collections::{HashMap, HashSet},
    time::SystemTime,
};

use oddlog::{
    classify::Task,
    config::Scoring,
    model::Model,
    templates::Policy,
    verdicts::{Kinds, Use},
};

struct Line {
    log: String,
    score: f32,
    /// Lines with the same number are the same to the model.
    input: usize,
    tokens: usize,
}

#[derive(Default)]
struct Found {
    runs: usize,
    tokens: usize,
    reused: usize,
    wrong: usize,
    checks: usize,
    checks_wrong: usize,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let Some(path) = args.first() else {
        println!("give a file of scored lines; see benches/template_memory.rs");
        return;
    };
    let passes: usize = args.get(1).map_or(1, |passes| passes.parse().unwrap());
    let lines = read(path);
    let all: usize = lines.iter().map(|line| line.tokens).sum();
    println!("{} logs, {passes} passes", lines.len());
    println!("max_doubt  check_share    runs  of tokens  equal verdicts  templates differ  checks say  checks");
    for check_share in [0.0, 0.05, 0.1] {
        for max_doubt in [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5] {
            let found = play(&lines, passes, max_doubt, check_share);
            let logs = (lines.len() * passes) as f64;
            println!(
                "{max_doubt:>9} {check_share:>12} {:>7} {:>9.3}% {:>14.3}% {:>16.3}% {:>10.3}% {:>7}",
                found.runs,
                100.0 * found.tokens as f64 / (all * passes) as f64,
                100.0 * (1.0 - found.wrong as f64 / logs),
                100.0 * found.wrong as f64 / found.reused.max(1) as f64,
                100.0 * found.checks_wrong as f64 / found.checks.max(1) as f64,
                found.checks,
            );
        }
    }
}

fn read(path: &str) -> Vec<Line> {
    let dir = std::env::var("ODDLOG_BENCH_MODEL").unwrap_or_else(|_| "models/oddlog-minilm".into());
    let model = Model::open(dir.as_ref(), 512).unwrap();
    let task = Task::configured(&Scoring::default(), &model.tokenizer).unwrap();
    let mut inputs = HashMap::new();
    let text = std::fs::read_to_string(path).unwrap();
    let line = |line: &str| {
        let (score, log) = line.split_once('\t').unwrap();
        let ids = model.tokenizer.encode_log(log, task.lengths.clone()).ids;
        let tokens = model.tokenizer.pair_lens(ids.len(), &task.hypotheses).sum();
        let next = inputs.len();
        let input = *inputs.entry(ids).or_insert(next);
        Line { log: log.to_owned(), score: score.parse().unwrap(), input, tokens }
    };
    text.lines().map(line).collect()
}

fn play(lines: &[Line], passes: usize, max_doubt: f32, check_share: f64) -> Found {
    let now = SystemTime::now();
    let policy = Policy { boundaries: vec![0.5], max_doubt, ttl_s: u64::MAX };
    let kinds = Kinds::new(policy, check_share, 20_000, 5, now);
    let (mut exact, mut found) = (HashSet::new(), Found::default());
    for line in std::iter::repeat_n(lines, passes).flatten() {
        if exact.contains(&line.input) {
            continue;
        }
        let id = kinds.sight(&line.log, now);
        if let Use::Reuse { score, check, .. } = kinds.decide(id, &line.input, now) {
            let differs = usize::from(!kinds.policy().agree(score, line.score));
            found.reused += 1;
            found.wrong += differs;
            if !check {
                continue;
            }
            found.checks += 1;
            found.checks_wrong += differs;
        }
        found.runs += 1;
        found.tokens += line.tokens;
        exact.insert(line.input);
        kinds.learn(id, &[line.score, 1.0 - line.score], 0, now);
    }
    found
}
