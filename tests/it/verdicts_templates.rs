//! The memory of templates around an engine whose device judges by words: who is answered by whom, and what is checked.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};
use futures_util::future::join_all;
use oddlog::{
    config::{Batching, Cache, CacheMode, Devices, Scoring},
    device::{Device, DeviceError, DeviceMaker},
    engine::{Class, Engine, Fleet},
    error::RequestError,
    metrics::Metrics,
    model::InputTensors,
    templates::{Miner, Settings},
    verdicts::{Answer, Outcome, Verdicts},
};
use serde_json::json;
use tokio::task::{JoinHandle, yield_now};

use crate::support::{PANIC, POISON, Setup, eventually, server::tiny_model};

/// A log with "poison" is an anomaly, one with "panic" nearly, all others are not. Each run but the first waits for its cue,
/// whether it fails; it runs freely where there is nobody to give any.
struct Judge {
    cues: Receiver<bool>,
    is_tried: bool,
}

impl Device for Judge {
    fn name(&self) -> &str {
        "judge"
    }

    fn run(&mut self, inputs: &InputTensors, logits: &mut Vec<f32>) -> Result<(), DeviceError> {
        if !std::mem::take(&mut self.is_tried) && self.cues.recv() == Ok(false) {
            self.is_tried = true;
            return Err(DeviceError::Failed("it was told to".into()));
        }
        logits.clear();
        for row in 0..inputs.rows {
            let ids = &inputs.input_ids[row * inputs.len..][..inputs.len];
            let holds = |id: u32| ids.contains(&i64::from(id));
            let odd = if holds(POISON) {
                2.0
            } else if holds(PANIC) {
                -0.05
            } else {
                -2.0
            };
            // A log's rows are those of "anomaly" and "normal".
            logits.extend([if row % 2 == 0 { odd } else { 0.0 }; 2]);
        }
        Ok(())
    }
}

fn judge() -> (DeviceMaker, Sender<bool>) {
    let (cue, cues) = bounded(4096);
    (DeviceMaker::new("judge".into(), move || Ok(Judge { cues: cues.clone(), is_tried: true })), cue)
}

fn by_template() -> Cache {
    Cache { mode: CacheMode::Template, check_share: 0.0, ..Cache::default() }
}

/// One log a batch, the judge, and a memory before it.
struct Court {
    verdicts: Verdicts,
    cues: Option<Sender<bool>>,
    _engine: Engine,
}

impl Court {
    /// The device waits for cues until [`Court::open`].
    fn closed(cache: &Cache) -> Self {
        let (maker, cue) = judge();
        let fleet = Fleet { makers: vec![maker], rules: Devices { run_timeout_ms: 600_000, ..Devices::default() } };
        let batching = Batching { max_batch_rows: 2, ..Batching::default() };
        let engine =
            Engine::start(&tiny_model(512), fleet, &Scoring::default(), &batching, Metrics::new().unwrap()).unwrap();
        Self { verdicts: Verdicts::new(engine.handle(), cache), cues: Some(cue), _engine: engine }
    }

    fn new(cache: &Cache) -> Self {
        Self { cues: None, ..Self::closed(cache) }
    }

    fn open(&mut self) {
        self.cues = None;
    }

    fn cue(&self, fine: bool) {
        self.cues.as_ref().unwrap().send(fine).unwrap();
    }

    fn spawn(&self, log: String, class: Class, within: Duration) -> JoinHandle<Result<Answer, RequestError>> {
        let verdicts = self.verdicts.clone();
        tokio::spawn(async move {
            let task = verdicts.handle().default_task();
            verdicts.classify_by(&log, task, class, Instant::now() + within).await
        })
    }

    async fn ask(&self, log: &str) -> Outcome {
        let task = self.verdicts.handle().default_task();
        self.verdicts.classify(log, task, Class::Interactive).await.unwrap().outcome.unwrap()
    }

    fn metric(&self, name: &str, label: &str) -> f64 {
        self.verdicts.gauge();
        let text = self.verdicts.handle().metrics().render();
        let of_it = |l: &&str| l.split([' ', '{']).next() == Some(name) && l.contains(label);
        text.lines().filter(of_it).filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    fn runs(&self) -> f64 {
        self.metric("oddlog_batches_total", "")
    }
}

const LONG: Duration = Duration::from_secs(60);

/// Lets every other task of a single thread run until it waits for something.
async fn settle() {
    for _ in 0..64 {
        yield_now().await;
    }
}

#[tokio::test]
async fn members_of_a_trusted_template_are_not_scored() {
    let court = Court::new(&by_template());
    assert_eq!(court.ask("request 1 from user a started").await, Outcome::Miss);
    for log in ["request 2 from user a started", "request 77 from user b started"] {
        assert_eq!(court.ask(log).await, Outcome::Template, "{log}");
    }
    assert_eq!(court.ask("2026-11-25T10:00:00Z request 3 from user c started").await, Outcome::Template);
    assert_eq!(court.ask("request 1 from user a started").await, Outcome::Hit, "the same log comes first");
    assert_eq!(court.ask("disk 1 full").await, Outcome::Miss, "another template");
    assert_eq!(court.runs(), 2.0);
    assert_eq!(court.metric("oddlog_cache_logs_total", "template"), 3.0);
    assert_eq!(court.metric("oddlog_template_trust", "trusted"), 2.0);
    let task = court.verdicts.handle().default_task();
    let scores = |log: &'static str| court.verdicts.classify(log, task, Class::Bulk);
    let (known, reused) = (scores("disk 1 full").await.unwrap(), scores("disk 2 full").await.unwrap());
    assert_eq!(known.classified.scores, reused.classified.scores);
    assert_eq!((known.outcome, reused.outcome), (Some(Outcome::Hit), Some(Outcome::Template)));
    assert!(reused.classified.times.inference.is_zero());
}

#[tokio::test]
async fn only_where_it_is_asked_for() {
    let court = Court::new(&Cache::default());
    for n in 0..3 {
        assert_eq!(court.ask(&format!("request {n} from user a started")).await, Outcome::Miss);
    }
    assert_eq!(court.runs(), 3.0);
}

#[tokio::test]
async fn near_the_threshold_more_members_are_scored() {
    let court = Court::new(&Cache { max_doubt: 0.3, ..by_template() });
    let mut outcomes = Vec::new();
    for n in 0..6 {
        outcomes.push(court.ask(&format!("panic {n} from user a started")).await);
    }
    let scored = outcomes.iter().filter(|outcome| **outcome == Outcome::Miss).count();
    assert!((2..6).contains(&scored), "{outcomes:?}");
    assert!(outcomes[..scored].iter().all(|outcome| *outcome == Outcome::Miss), "{outcomes:?}");
}

#[tokio::test]
async fn a_burst_of_a_new_kind_costs_one_run() {
    for class in [Class::Interactive, Class::Bulk] {
        let mut court = Court::closed(&by_template());
        let logs = (0..300).map(|n| format!("request {n} from user a started"));
        let burst: Vec<_> = logs.map(|log| court.spawn(log, class, LONG)).collect();
        settle().await;
        court.open();
        let outcomes: Vec<_> = join_all(burst).await.into_iter().map(|one| one.unwrap().unwrap().outcome).collect();
        let count = |which| outcomes.iter().filter(|outcome| **outcome == Some(which)).count();
        assert_eq!((count(Outcome::Miss), count(Outcome::Template)), (1, 299));
        assert_eq!(court.runs(), 1.0);
    }
}

#[tokio::test]
async fn the_lead_passes_on_and_everyone_keeps_a_deadline() {
    let mut court = Court::closed(&by_template());
    let log = |n: u32| format!("request {n} from user a started");
    let leader = court.spawn(log(0), Class::Bulk, LONG);
    settle().await;
    let late = court.spawn(log(1), Class::Bulk, Duration::ZERO);
    let followers: Vec<_> = (2..12).map(|n| court.spawn(log(n), Class::Bulk, LONG)).collect();
    settle().await;
    assert_eq!(late.await.unwrap(), Err(RequestError::DeadlineExceeded));
    // The leader fails for itself, the next one hangs up, the third is scored.
    court.cue(false);
    assert_eq!(leader.await.unwrap(), Err(RequestError::Inference));
    settle().await;
    followers[0].abort();
    court.open();
    let outcomes: Vec<_> = join_all(followers).await.into_iter().filter_map(|one| one.ok()?.unwrap().outcome).collect();
    assert_eq!(outcomes.len(), 9);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::Miss).count(), 1, "{outcomes:?}");
    assert_eq!(court.metric("oddlog_cache_logs_total", "template"), 8.0);
}

#[tokio::test]
async fn disagreement_that_a_check_finds_stops_the_reuse() {
    let court = Court::new(&Cache { check_share: 1.0, ..by_template() });
    let story = async {
        assert_eq!(court.ask("user 1 after the user started from disk").await, Outcome::Miss);
        let mut checks = 0.0;
        for n in 0..40 {
            // The word at which members differ decides; to the template they are alike.
            let word = if n % 2 == 0 { "poison" } else { "user" };
            if court.ask(&format!("user {n} after the {word} started from disk")).await == Outcome::Template {
                checks += 1.0;
                while court.metric("oddlog_template_checks_total", "") < checks {
                    yield_now().await;
                }
            }
        }
        checks
    };
    let checks = tokio::select! {
        checks = story => checks,
        _ = court.verdicts.check_templates() => unreachable!("it does not end"),
    };
    assert_eq!(court.metric("oddlog_template_trust", "volatile"), 1.0);
    assert_eq!(court.ask("user 99 after the user started from disk").await, Outcome::Miss);
    let differed = court.metric("oddlog_template_checks_total", "disagreed");
    assert!(checks < 10.0 && differed >= 1.0, "{checks} checks, {differed} differed");
    assert_eq!(court.metric("oddlog_template_disagreement_ratio", ""), differed / checks);
    // What was checked is known exactly.
    assert_eq!(court.ask("user 0 after the poison started from disk").await, Outcome::Hit);
}

#[tokio::test]
async fn checks_hold_nobody_up_and_are_dropped_when_there_are_too_many() {
    let court = Court::new(&Cache { check_share: 1.0, ..by_template() });
    assert_eq!(court.ask("request 0 from user a started").await, Outcome::Miss);
    // Nobody makes them.
    for n in 1..=2200 {
        assert_eq!(court.ask(&format!("request {n} from user a started")).await, Outcome::Template);
    }
    let dropped = court.metric("oddlog_template_checks_total", "dropped");
    assert!((100.0..2200.0).contains(&dropped), "{dropped}");
    assert_eq!(court.runs(), 1.0);
    let long = format!("request 1 from user b started{}", " ".repeat(5000));
    assert_eq!(court.ask(&long).await, Outcome::Template);
    assert_eq!(court.metric("oddlog_template_checks_total", "dropped"), dropped + 1.0, "too long to be kept");
    let all_made = async {
        while court.metric("oddlog_template_checks_total", "agreed") < 2200.0 - dropped {
            yield_now().await;
        }
    };
    tokio::select! {
        () = all_made => {}
        _ = court.verdicts.check_templates() => unreachable!("it does not end"),
    }
    assert_eq!(court.metric("oddlog_template_disagreement_ratio", ""), 0.0);
}

#[tokio::test]
async fn checks_are_made_when_the_engine_is_idle_or_has_not_been_for_long() {
    let mut court = Court::closed(&Cache { check_share: 1.0, ..by_template() });
    let first = court.spawn("request 0 from user a started".into(), Class::Bulk, LONG);
    court.cue(true);
    assert_eq!(first.await.unwrap().unwrap().outcome, Some(Outcome::Miss));
    let other = court.spawn("disk 1 full".into(), Class::Bulk, LONG);
    while court.runs() < 2.0 {
        yield_now().await;
    }
    let verdicts = court.verdicts.clone();
    let started = Instant::now();
    for n in 1..=3 {
        assert_eq!(court.ask(&format!("request {n} from user a started")).await, Outcome::Template);
    }
    let story = async {
        settle().await;
        assert_eq!(court.metric("oddlog_queue_jobs", ""), 0.0, "the device is busy with the other log");
        while court.metric("oddlog_queue_jobs", "") == 0.0 {
            yield_now().await;
        }
        assert!(started.elapsed() >= Duration::from_millis(400), "{:?}", started.elapsed());
        assert_eq!(court.metric("oddlog_queue_jobs", ""), 1.0, "one at a time");
        court.open();
        while court.metric("oddlog_template_checks_total", "agreed") < 3.0 {
            yield_now().await;
        }
    };
    tokio::select! {
        () = story => {}
        _ = verdicts.check_templates() => unreachable!("it does not end"),
    }
    assert_eq!(other.await.unwrap().unwrap().outcome, Some(Outcome::Miss));
}

#[test]
fn a_client_sees_which_answers_are_templates() {
    let (maker, _) = judge();
    let setup = Setup { devices: vec![maker], ..Setup::default() };
    let server = setup.with(|config| config.cache = Cache { check_share: 1.0, ..by_template() }).serve();
    let analyze = |body: serde_json::Value| server.post("/api/v1/analyze", body.to_string());
    let log = |n: u32| json!({ "log_message": format!("request {n} from user a started") });
    let (first, second) = (analyze(log(1)), analyze(log(2)));
    assert_eq!((first.header("x-oddlog-cache"), second.header("x-oddlog-cache")), ("miss", "template"));
    assert_eq!(first.json()["confidence"], second.json()["confidence"]);
    assert_eq!(second.json()["log_message"], "request 2 from user a started");
    // The server makes the checks.
    eventually("the check is made", || {
        server.sample("oddlog_template_checks_total", Some(("result", "agreed"))) == 1.0
    });
    assert_eq!(analyze(log(2)).header("x-oddlog-cache"), "hit");
    let mut strict = log(3);
    strict["threshold"] = json!(0.75);
    assert_eq!(analyze(strict).header("x-oddlog-cache"), "miss", "scores are judged for configured thresholds alone");
    let batch = |body: serde_json::Value| server.post("/api/v1/analyze/batch", body.to_string());
    let logs = json!(["request 4 from user a started", "request 1 from user a started", "disk full"]);
    let answer = batch(json!({ "logs": logs }));
    assert_eq!(answer.header("x-oddlog-cache"), "hit=1, joined=0, miss=1, template=1");
    let answer = batch(json!({ "logs": ["request 5 from user a started"], "labels": ["error", "normal"] }));
    assert_eq!(answer.header("x-oddlog-cache"), "hit=0, joined=0, miss=1", "other labels are another question");
}

#[test]
fn lines_of_the_challenge_set_with_other_labels_are_of_other_templates() {
    let set = concat!(env!("CARGO_MANIFEST_DIR"), "/models/challenge/challenge.tsv");
    let set = std::fs::read_to_string(set).unwrap();
    let mut miner = Miner::new(Settings::default());
    let (mut labels, mut objects) = (HashMap::new(), 0);
    for line in set.lines().skip(1) {
        let mut fields = line.split('\t');
        let (label, text) = (fields.next().unwrap(), fields.nth(1).unwrap());
        let own = labels.entry(miner.add(text).id).or_insert((label, text));
        assert_eq!(own.0, label, "{} | {text}", own.1);
        objects += usize::from(text.contains("{\""));
    }
    assert!(objects > 10, "{objects}");
}
