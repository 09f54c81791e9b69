//! The memory of verdicts around an engine with a scripted device: who is remembered, who joins whom, who runs.

mod stage;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use oddlog::{
    config::{Batching, Cache, CacheMode},
    engine::{Class, StageTimes},
    error::RequestError,
    verdicts::{Answer, Outcome},
};
use proptest::prelude::*;
use tokio::task::yield_now;

use crate::parity::shipped;
use stage::{Run, Stage, one_log_a_batch, outcome, settle, until};

#[tokio::test]
async fn a_thousand_twins_of_a_new_line_cost_one_run() {
    for class in [Class::Interactive, Class::Bulk] {
        let mut stage = Stage::usual();
        let twins: Vec<_> = (0..1000).map(|_| stage.spawn("a new line", class, None)).collect();
        settle().await;
        stage.open();
        let answers: Vec<Answer> = join_all(twins).await.into_iter().map(|twin| twin.unwrap().unwrap()).collect();
        assert!(answers.iter().all(|answer| answer.classified.scores == answers[0].classified.scores));
        let count = |outcome| answers.iter().filter(|answer| answer.outcome == Some(outcome)).count();
        assert_eq!((count(Outcome::Miss), count(Outcome::Joined)), (1, 999));
        assert_eq!(stage.batches(), 1.0);
        assert_eq!(stage.metric("oddlog_cache_logs_total", "joined"), 999.0);
        assert_eq!(outcome(stage.ask("a new line").await), Some(Outcome::Hit));
        assert_eq!(stage.batches(), 1.0);
    }
}

#[tokio::test]
async fn whoever_follows_survives_that_the_leader_hangs_up_or_fails() {
    for run in [Run::Fine, Run::Fails, Run::Panics] {
        let mut stage = Stage::usual();
        let leader = stage.spawn("a new line", Class::Interactive, None);
        until(|| stage.batches() == 1.0).await;
        let followers: Vec<_> = (0..10).map(|_| stage.spawn("a new line", Class::Interactive, None)).collect();
        settle().await;
        if run == Run::Fine {
            // Its run ends in nothing.
            leader.abort();
            assert!(leader.await.unwrap_err().is_cancelled());
            stage.cue(run);
        } else {
            stage.cue(run);
            assert_eq!(leader.await.unwrap(), Err(RequestError::Inference));
        }
        stage.open();
        let outcomes: Vec<_> = join_all(followers).await.into_iter().map(|twin| outcome(twin.unwrap())).collect();
        assert_eq!(outcomes.iter().filter(|o| **o == Some(Outcome::Miss)).count(), 1, "{run:?}");
        assert_eq!(outcomes.iter().filter(|o| **o == Some(Outcome::Joined)).count(), 9, "{run:?}");
        assert_eq!(stage.batches(), 2.0);
    }
}

#[tokio::test]
async fn each_keeps_its_own_deadline() {
    let mut stage = Stage::usual();
    let other = stage.spawn("something else", Class::Interactive, None);
    until(|| stage.batches() == 1.0).await;
    let leader = stage.spawn("a new line", Class::Interactive, None);
    settle().await;
    let follower = stage.spawn("a new line", Class::Interactive, None);
    let late = stage.spawn("a new line", Class::Interactive, Some(Instant::now()));
    assert_eq!(late.await.unwrap(), Err(RequestError::DeadlineExceeded), "it does not wait for the leader");
    assert!(!leader.is_finished() && !follower.is_finished());
    // A leader that expires behind the other line leaves the lead to its follower.
    leader.abort();
    let expired = stage.spawn("another line", Class::Interactive, Some(Instant::now()));
    let heir = stage.spawn("another line", Class::Interactive, None);
    assert_eq!(expired.await.unwrap(), Err(RequestError::DeadlineExceeded));
    assert!(!heir.is_finished());
    stage.open();
    assert_eq!(outcome(heir.await.unwrap()), Some(Outcome::Miss));
    assert_eq!(outcome(follower.await.unwrap()), Some(Outcome::Miss));
    assert_eq!(outcome(other.await.unwrap()), Some(Outcome::Miss));
}

#[tokio::test]
async fn errors_are_not_remembered() {
    let mut stage = Stage::usual();
    stage.cue(Run::Fails);
    stage.cue(Run::Panics);
    for _ in 0..2 {
        assert_eq!(stage.ask("a new line").await, Err(RequestError::Inference));
    }
    stage.open();
    assert_eq!(outcome(stage.ask("a new line").await), Some(Outcome::Miss));
    assert_eq!(outcome(stage.ask("a new line").await), Some(Outcome::Hit));
}

#[tokio::test]
async fn a_hit_costs_no_permit_and_no_place_in_the_queue() {
    let batching = Batching { max_queue_tokens: 32, ..one_log_a_batch() };
    let mut stage = Stage::new(&batching, &Cache::default());
    stage.cue(Run::Fine);
    let known = stage.ask("x").await.unwrap();
    // The device gives the permit back a moment after the answer.
    let running = loop {
        let asked = stage.spawn("y", Class::Interactive, None);
        settle().await;
        if !asked.is_finished() {
            break asked;
        }
        assert!(matches!(asked.await.unwrap(), Err(RequestError::Overloaded { .. })));
    };
    until(|| stage.batches() == 2.0).await;
    assert!(matches!(stage.ask("z").await, Err(RequestError::Overloaded { .. })), "the queue is full");
    for (text, by_tokens) in [("x", true), ("X", true), ("x", false), ("X", false)] {
        let hit = stage.ask(text).await.unwrap();
        let times = hit.classified.times;
        assert_eq!(times != StageTimes::default(), by_tokens, "once found, a text is known without its tokens");
        let times = StageTimes { tokenization: Duration::ZERO, ..times };
        assert_eq!((hit.outcome, times), (Some(Outcome::Hit), StageTimes::default()));
        assert_eq!(hit.classified.scores, known.classified.scores);
    }
    let joined = stage.spawn("Y", Class::Interactive, None);
    settle().await;
    stage.open();
    let joined = joined.await.unwrap().unwrap();
    assert_eq!(joined.outcome, Some(Outcome::Joined), "nor does who joins");
    assert_eq!(joined.classified.times.inference, Duration::ZERO);
    assert!(running.await.unwrap().is_ok());
    let later = loop {
        match stage.ask("z").await {
            Err(RequestError::Overloaded { .. }) => yield_now().await,
            other => break other,
        }
    };
    assert_eq!(outcome(later), Some(Outcome::Miss), "a refusal is not remembered");
}

#[tokio::test]
async fn a_single_request_does_not_wait_for_its_twin_in_a_batch_call() {
    let batching = Batching { max_bulk_tokens: 32, ..one_log_a_batch() };
    let mut stage = Stage::new(&batching, &Cache::default());
    let first = stage.spawn("x", Class::Bulk, None);
    until(|| stage.batches() == 1.0).await;
    let bulk = stage.spawn("y", Class::Bulk, None); // it waits until the first one is done
    settle().await;
    let single = stage.spawn("y", Class::Interactive, None);
    until(|| stage.metric("oddlog_queue_jobs", "") == 1.0).await;
    stage.cue(Run::Fine);
    stage.cue(Run::Fine);
    assert_eq!(outcome(single.await.unwrap()), Some(Outcome::Miss));
    assert!(!bulk.is_finished());
    stage.open();
    assert_eq!(outcome(bulk.await.unwrap()), Some(Outcome::Miss));
    assert_eq!(outcome(first.await.unwrap()), Some(Outcome::Miss));
    assert_eq!(stage.batches(), 3.0, "one run a class");
}

#[tokio::test]
async fn other_questions_have_other_answers() {
    let mut stage = Stage::usual();
    stage.open();
    let handle = stage.verdicts.handle().clone();
    let labels = |a: &str, b: &str| Some(vec![a.to_owned(), b.to_owned()]);
    let tasks = [
        handle.default_task().clone(),
        handle.task(labels("normal", "anomaly"), None, None, None).unwrap(),
        handle.task(labels("anomaly", "error"), None, None, None).unwrap(),
        handle.task(None, None, Some("It is {}.".into()), None).unwrap(),
        handle.task(None, None, None, Some(true)).unwrap(),
    ];
    let mut scores: Vec<Vec<f32>> = Vec::new();
    for task in &tasks {
        let asked = stage.verdicts.classify("request 7 took 9 ms", task, Class::Bulk).await.unwrap();
        assert_eq!(asked.outcome, Some(Outcome::Miss));
        let direct = handle.classify("request 7 took 9 ms", task, Class::Bulk).await.unwrap();
        assert_eq!(asked.classified.scores, direct.scores);
        scores.push(direct.scores);
    }
    for (task, scores) in tasks.iter().zip(&scores) {
        let again = stage.verdicts.classify("request 7 took 9 ms", task, Class::Interactive).await.unwrap();
        assert_eq!((again.outcome, &again.classified.scores), (Some(Outcome::Hit), scores));
    }
    let same = handle.task(None, Some("normal".into()), None, None).unwrap();
    let again = stage.verdicts.classify("request 7 took 9 ms", &same, Class::Bulk).await;
    assert_eq!(outcome(again), Some(Outcome::Hit), "which label is the anomaly does not change scores");
}

#[tokio::test]
async fn what_was_cut_says_so_again_and_of_what_is_huge_only_the_tokens_are_remembered() {
    let mut stage = Stage::usual();
    stage.open();
    let long = "a b c ".repeat(1000);
    for expected in [Outcome::Miss, Outcome::Hit] {
        let answer = stage.ask(&long).await.unwrap();
        assert_eq!((answer.outcome, answer.classified.truncated), (Some(expected), true));
    }
    assert_eq!(stage.metric("oddlog_truncated_logs_total", ""), 2.0);
    let entries = || {
        stage.verdicts.gauge();
        stage.metric("oddlog_cache_entries", "")
    };
    assert_eq!(entries(), 2.0, "its tokens and, since it came again, its text");
    assert!(stage.metric("oddlog_cache_bytes", "") > long.len() as f64);
    let huge = "c b a ".repeat(20_000);
    for expected in [Outcome::Miss, Outcome::Hit, Outcome::Hit] {
        assert_eq!(outcome(stage.ask(&huge).await), Some(expected));
    }
    assert_eq!(entries(), 3.0);
    let other_end = long.clone() + "c";
    assert_eq!(outcome(stage.ask(&other_end).await), Some(Outcome::Hit), "the model does not read that far");
    let other_front = "c ".to_owned() + &long;
    assert_eq!(outcome(stage.ask(&other_front).await), Some(Outcome::Miss));
}

#[tokio::test]
async fn texts_that_the_model_reads_alike_share_a_run() {
    for class in [Class::Interactive, Class::Bulk] {
        let mut stage = Stage::usual();
        let alike = ["disk full", "Disk Full", " DISK\tfull "];
        let ids = stage.ids("disk full").await;
        for text in alike {
            assert_eq!(stage.ids(text).await, ids);
        }
        assert_ne!(stage.ids("disk fool").await, ids);
        let twins: Vec<_> = (0..300).map(|i| stage.spawn(alike[i % 2], class, None)).collect();
        let other = stage.spawn("disk fool", class, None);
        settle().await;
        stage.open();
        let outcomes: Vec<_> = join_all(twins).await.into_iter().map(|twin| outcome(twin.unwrap())).collect();
        assert_eq!(outcomes.iter().filter(|o| **o == Some(Outcome::Miss)).count(), 1);
        assert_eq!(outcomes.iter().filter(|o| **o == Some(Outcome::Joined)).count(), 299);
        let (other, third) = (other.await.unwrap().unwrap(), stage.ask(alike[2]).await.unwrap());
        assert_eq!((other.outcome, third.outcome), (Some(Outcome::Miss), Some(Outcome::Hit)));
        assert_ne!(other.classified.scores, third.classified.scores);
        assert_eq!(stage.batches(), 2.0);
        stage.verdicts.gauge();
        assert_eq!(stage.metric("oddlog_cache_entries", ""), 2.0 + 3.0, "two inputs, and three texts met since");
    }
}

#[tokio::test]
async fn what_the_shipped_model_masks_is_one_log() {
    let mut stage = Stage::with(&shipped("model.onnx"), &one_log_a_batch(), &Cache::default());
    stage.open();
    let log = |time: &str, peer: &str| format!("{time} ERROR proxy: upstream {peer} timed out");
    let first = stage.ask(&log("2026-11-25T12:34:56.789Z", "10.0.0.17")).await.unwrap();
    let second = stage.ask(&log("2026-11-26T01:02:03.004Z", "192.168.7.9")).await.unwrap();
    assert_eq!((first.outcome, second.outcome), (Some(Outcome::Miss), Some(Outcome::Hit)));
    assert_eq!(first.classified.scores, second.classified.scores);
    let other = stage.ask(&log("2026-11-25T12:34:56.789Z", "database")).await;
    assert_eq!(outcome(other), Some(Outcome::Miss));
    assert_eq!(stage.batches(), 2.0);
}

#[tokio::test]
async fn a_log_that_was_cut_is_not_the_whole_one_of_the_same_tokens() {
    let mut stage = Stage::usual();
    stage.open();
    let handle = stage.verdicts.handle().clone();
    let task = handle.task(Some(vec!["error".into()]), None, None, None).unwrap();
    let room = handle.encode(&"a ".repeat(1000), &task).await.log.ids.len();
    let (whole, cut) = ("a ".repeat(room), "a ".repeat(room + 1));
    assert_eq!(handle.encode(&whole, &task).await.log.ids, handle.encode(&cut, &task).await.log.ids);
    for expected in [Outcome::Miss, Outcome::Hit, Outcome::Hit] {
        for (text, truncated) in [(&whole, false), (&cut, true)] {
            let answer = stage.verdicts.classify(text, &task, Class::Bulk).await.unwrap();
            assert_eq!((answer.outcome, answer.classified.truncated), (Some(expected), truncated));
        }
    }
}

#[tokio::test]
async fn off_is_off() {
    let mut stage = Stage::new(&one_log_a_batch(), &Cache { mode: CacheMode::Off, ..Cache::default() });
    stage.open();
    for runs in 1..=3 {
        assert_eq!(outcome(stage.ask("x").await), None);
        assert_eq!(stage.batches(), f64::from(runs));
    }
}

#[tokio::test]
async fn who_shuts_down_answers_nothing_from_memory_either() {
    let mut stage = Stage::usual();
    stage.open();
    assert_eq!(outcome(stage.ask("x").await), Some(Outcome::Miss));
    let Stage { verdicts, engine, .. } = stage;
    assert!(tokio::task::spawn_blocking(move || engine.shutdown(Duration::from_secs(30))).await.unwrap());
    let answer = verdicts.classify("x", verdicts.handle().default_task(), Class::Interactive).await;
    assert_eq!(answer, Err(RequestError::Draining));
    assert!(verdicts.handle().metrics().render().contains(r#"oddlog_refused_total{reason="draining"} 1"#));
}

#[derive(Debug, Clone)]
enum Step {
    /// Line, class, and whether its time is over already.
    Arrive(usize, bool, bool),
    HangUp(prop::sample::Index),
    Cue(u8),
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..LINES.len(), any::<bool>(), prop::bool::weighted(0.15)).prop_map(|(l, c, e)| Step::Arrive(l, c, e)),
        1 => any::<prop::sample::Index>().prop_map(Step::HangUp),
        3 => (0u8..4).prop_map(Step::Cue),
        3 => Just(Step::Settle),
    ]
}

/// The last one reads as the first.
const LINES: [&str; 4] = ["disk full", "request 7 took 9 ms", "all is well", "Disk  FULL"];
const INPUTS: usize = 3;

async fn play(steps: Vec<Step>, expected: &[Vec<f32>]) {
    let mut stage = Stage::usual();
    let mut running = Vec::new();
    let (mut faults, mut hung_up) = (0, 0);
    for step in steps {
        match step {
            Step::Arrive(line, bulk, over) => {
                let class = if bulk { Class::Bulk } else { Class::Interactive };
                let asked = stage.spawn(LINES[line], class, over.then(Instant::now));
                running.push((line, over, asked));
            }
            Step::HangUp(who) if !running.is_empty() => {
                let (.., asked) = running.swap_remove(who.index(running.len()));
                asked.abort();
                let _ = asked.await; // it may have been answered already
                hung_up += 1;
            }
            Step::HangUp(_) => {}
            Step::Cue(kind) => {
                let run = [Run::Fine, Run::Fine, Run::Fails, Run::Panics][usize::from(kind)];
                faults += usize::from(run != Run::Fine);
                stage.cue(run);
            }
            Step::Settle => settle().await,
        }
    }
    stage.open();
    let mut failed = 0;
    for (line, over, asked) in running {
        match asked.await.expect("nobody is lost") {
            Ok(answer) => assert_eq!(answer.classified.scores, expected[line]),
            Err(RequestError::Inference) => failed += 1,
            Err(RequestError::DeadlineExceeded) => assert!(over, "only whose own time is over"),
            Err(other) => panic!("{other}"),
        }
    }
    assert!(failed <= faults, "{failed} failed of {faults} faults: a follower had its leader's");
    let most = 2 * INPUTS + faults + hung_up;
    assert!(stage.batches() <= most as f64, "{} runs, {most} with a reason", stage.batches());
    while stage.untaken.try_recv().is_ok() {}
    for (line, scores) in LINES.iter().zip(expected) {
        assert_eq!(&stage.ask(line).await.unwrap().classified.scores, scores);
    }
    // What was given up goes when the device looks, which nobody here waits for.
    let until = Instant::now() + Duration::from_secs(20);
    while stage.metric("oddlog_queue_jobs", "") != 0.0 && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(stage.metric("oddlog_queue_jobs", ""), 0.0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everyone_is_answered_once_and_rightly(steps in prop::collection::vec(step(), 0..60)) {
        let runtime = Arc::new(tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());
        runtime.block_on(async {
            let mut alone = Stage::new(&one_log_a_batch(), &Cache { mode: CacheMode::Off, ..Cache::default() });
            alone.open();
            let mut expected = Vec::new();
            for line in LINES {
                expected.push(alone.ask(line).await.unwrap().classified.scores);
            }
            play(steps, &expected).await;
        });
    }
}
