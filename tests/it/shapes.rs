//! Fixed shapes: every run has one of few, all are run before the first request, and no score changes.

use std::{collections::BTreeSet, time::Duration};

use crossbeam_channel::bounded;
use futures_util::future::join_all;
use oddlog::{
    config::{Batching, Devices, Scoring},
    device::{Device, DeviceMaker, FakeDevice},
    engine::{Engine, Fleet},
    error::StartError,
    metrics::Metrics,
    model::{InputTensors, Model, Shapes, tensors::length_multiple},
};

use crate::{
    engine::{classify, fake, lines, metric, model},
    parity::{onnx_device, root},
};

fn fixed() -> Batching {
    Batching { max_batch_tokens: 1024, max_batch_rows: 16, fixed_shapes: true, ..Batching::default() }
}

fn start(model: &Model, makers: Vec<DeviceMaker>, batching: &Batching) -> Result<Engine, StartError> {
    let fleet = Fleet { makers, rules: Devices::default() };
    Engine::start(model, fleet, &Scoring::default(), batching, Metrics::new().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_run_has_a_shape_that_was_run_before() {
    let (model, (tell, told)) = (model(), bounded(4096));
    let engine = start(&model, vec![fake().telling(tell).maker()], &fixed()).unwrap();
    let shapes = Shapes::new(1024, 32, 512).all();
    let first: Vec<_> = told.try_iter().collect();
    assert_eq!(first[1..], [&shapes[..], &shapes].concat(), "each twice, before anything is served");
    let known: BTreeSet<_> = first.into_iter().collect();
    assert_eq!(known.len(), shapes.len(), "the first run has one of them, too");

    let handle = engine.handle();
    let mut logs = lines(300);
    logs.extend((0..60).map(|i| format!("line {i}{}", " goes on and on".repeat(5 * i % 131))));
    let answers = join_all(logs.iter().map(|log| classify(&handle, log))).await;
    let runs: Vec<_> = told.try_iter().collect();
    let different: BTreeSet<_> = runs.iter().copied().collect();
    assert!(runs.len() > 40 && different.len() > 8, "{different:?}");
    assert!(different.is_subset(&known), "{:?}", different.difference(&known));

    let any = start(&model, vec![fake().maker()], &Batching { fixed_shapes: false, ..fixed() }).unwrap();
    for (log, answer) in logs.iter().zip(answers) {
        assert_eq!(answer.unwrap().scores, classify(&any.handle(), log).await.unwrap().scores);
    }
}

#[test]
fn a_shape_that_does_not_run_is_told_at_the_start() {
    let memory = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(700));
    // Two rows for each log.
    let first = Shapes::new(1024, 32, 512).all().into_iter().find(|(rows, len)| rows * len > 700);
    let (rows, len) = first.unwrap();
    let error = start(&model(), vec![fake().with_memory(memory).maker()], &fixed()).err().unwrap().to_string();
    assert!(error.contains(&format!("does not run {rows} rows of {len} tokens: out of memory")), "{error}");
    assert!(error.contains("lower batching.max_batch_tokens"), "{error}");
}

/// One queue is before all devices, so a log is padded as the most demanding of them wants it.
#[tokio::test(flavor = "multi_thread")]
async fn lengths_are_multiples_that_every_device_wants() {
    let (model, logs) = (model(), lines(60));
    let mut scores = Vec::new();
    for (multiples, expected) in [(vec![4], 4), (vec![4, 32], 32), (vec![], length_multiple())] {
        let (tell, told) = bounded(4096);
        let maker = |name: &str| FakeDevice::new(name, 2).telling(tell.clone()).maker();
        let mut makers: Vec<_> = multiples.iter().map(|n| maker(&format!("fake:{n}")).padding_to(*n)).collect();
        if makers.is_empty() {
            makers.push(maker("fake:cpu"));
        }
        let engine = start(&model, makers, &Batching::default()).unwrap();
        let handle = engine.handle();
        let answers = join_all(logs.iter().map(|log| classify(&handle, log))).await;
        scores.push(answers.into_iter().map(|answer| answer.unwrap().scores).collect::<Vec<_>>());
        // No further than to the next one: some length is no multiple of twice that.
        let lens: BTreeSet<_> = told.try_iter().map(|(_, len)| len).collect();
        assert!(lens.iter().all(|len| len % expected == 0), "{lens:?} of {expected}");
        assert!(lens.iter().any(|len| len % (2 * expected) != 0), "{lens:?} of {expected}");
    }
    assert!(scores[0] == scores[1] && scores[0] == scores[2]);
}

/// What the warm-up has shown is known before the first request.
#[test]
fn what_fixed_shapes_cost_is_known_at_the_start() {
    let slow = fake().taking(Duration::from_micros(200), Duration::from_micros(2));
    let engine = start(&model(), vec![slow.maker()], &fixed()).unwrap();
    let handle = engine.handle();
    let cost = |of| metric(&handle, &format!("oddlog_device_cost_seconds{{device=\"fake:0\",of=\"{of}\"}}"));
    // Of 1,000 tokens in rows of 64: never less than the device takes, but for what the fit leaves over.
    let run = cost("run") + cost("kilotoken") + 0.064 * cost("megapair");
    assert!(run > 0.9 * 2.2e-3, "{run}");
}

/// Rows and tokens that a shape adds change no bit of a log's logits.
#[test]
fn padding_to_a_shape_changes_no_bit() {
    let model = Model::open(&root().join("models/oddlog-minilm"), 512).unwrap();
    let mut device = onnx_device(&model, 1024);
    let shapes = Shapes::new(1024, 64, 512);
    let logs: Vec<_> = lines(60).iter().map(|line| model.tokenizer.encode_log(line, 9..=9).ids).collect();
    let hypothesis = model.tokenizer.encode_hypothesis("This example is normal.").unwrap();
    let (mut grew, mut inputs) = (0, InputTensors::default());
    for size in [1, 2, 3, 5, 9, 20] {
        for group in logs.chunks(size) {
            let longest = group.iter().map(|log| model.tokenizer.pair_len(log.len(), hypothesis.len())).max().unwrap();
            let mut run = |shape: (usize, usize)| {
                inputs.reset_to(shape, model.spec.pad_id);
                group.iter().for_each(|log| inputs.push(&model.tokenizer, log, &hypothesis));
                inputs.finish();
                let mut logits = Vec::new();
                device.run(&inputs, &mut logits).unwrap();
                logits.iter().map(|z| z.to_bits()).collect::<Vec<_>>()
            };
            let shape = shapes.fit(group.len(), longest);
            let plain = (group.len().max(2), InputTensors::padded_len(longest));
            grew += usize::from(shape.0 > plain.0 && shape.1 >= plain.1);
            assert_eq!(run(shape), run(plain), "{plain:?} in {shape:?}");
        }
    }
    assert!(grew > 20);
}
