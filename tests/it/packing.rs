//! Graphs that put the tokens of all rows one behind the other: lengths do not matter to what runs together, only tokens do.

use std::{collections::BTreeSet, time::Duration};

use crossbeam_channel::{Receiver, Sender, bounded};
use futures_util::future::join_all;
use oddlog::{
    config::{Batching, Devices, Scoring},
    device::{Device, DeviceError, DeviceMaker},
    engine::{Classified, Engine, Fleet, Handle},
    metrics::Metrics,
    model::{InputTensors, Model, tensors::length_multiple},
};

use crate::{
    engine::{batches, classify, fake, metric, model, spawn, until},
    parity::{onnx_device, shipped, two_devices},
};

/// A device that waits for a word before each run.
struct Gated {
    device: Box<dyn Device>,
    gate: Receiver<()>,
}

impl Device for Gated {
    fn name(&self) -> &str {
        self.device.name()
    }

    fn run(&mut self, inputs: &InputTensors, logits: &mut Vec<f32>) -> Result<(), DeviceError> {
        // A closed gate stands open.
        let _ = self.gate.recv();
        self.device.run(inputs, logits)
    }
}

/// The first run of all has its word already.
fn gated(mut maker: DeviceMaker) -> (DeviceMaker, Sender<()>) {
    let (open, gate) = bounded(64);
    open.send(()).unwrap();
    let packs = maker.packs;
    let make = move || Ok(Gated { device: maker.make()?, gate: gate.clone() });
    (DeviceMaker::new("gated".into(), make).packing(packs), open)
}

fn start(model: &Model, makers: Vec<DeviceMaker>, batching: &Batching) -> Engine {
    // To be held at a gate is no hang.
    let fleet = Fleet { makers, rules: Devices { run_timeout_ms: 600_000, ..Devices::default() } };
    Engine::start(model, fleet, &Scoring::default(), batching, Metrics::new().unwrap()).unwrap()
}

/// Short and long ones in turn, from one word to hundreds of tokens.
fn unlike() -> Vec<String> {
    let long = |i: usize| format!("unit {i} failed{}", " and was started again".repeat(i * i % 47));
    (0..24).map(|i| if i % 2 == 0 { format!("ok {i}") } else { long(i) }).collect()
}

/// Tokens of all pairs that the lines make.
fn tokens(model: &Model, handle: &Handle, lines: &[String]) -> usize {
    let task = handle.default_task();
    let of = |line: &String| model.tokenizer.encode_log(line, task.lengths.clone()).ids.len();
    lines.iter().map(|line| model.tokenizer.pair_lens(of(line), &task.hypotheses).sum::<usize>()).sum()
}

/// The lines in one batch behind another log, as they came; and the handle.
async fn together(model: &Model, maker: DeviceMaker, lines: &[String]) -> (Vec<Classified>, Handle) {
    let (maker, open) = gated(maker);
    let batching = Batching { max_batch_tokens: 16_384, max_queue_wait_ms: 600_000, ..Batching::default() };
    let engine = start(model, vec![maker], &batching);
    let handle = engine.handle();
    let first = spawn(&handle, &["it holds the device".to_owned()]);
    until(|| batches(&handle) == 1.0).await;
    let waiting = spawn(&handle, lines);
    until(|| metric(&handle, "oddlog_queue_jobs") == lines.len() as f64).await;
    drop(open);
    let answers = join_all(first.into_iter().chain(waiting)).await.into_iter().skip(1);
    let answers = answers.map(|answer| answer.unwrap().unwrap()).collect();
    assert!(engine.shutdown(Duration::from_secs(30)));
    (answers, handle)
}

#[tokio::test(flavor = "multi_thread")]
async fn unlike_lengths_run_in_one_batch_with_the_bits_that_they_have_alone() {
    let (model, lines) = (shipped("model.onnx"), unlike());
    let maker = two_devices(&model, 16_384).makers.remove(0);
    assert!(maker.packs);
    let (answers, handle) = together(&model, maker, &lines).await;
    let alone = start(&model, two_devices(&model, 512).makers, &Batching::default());
    let all = tokens(&model, &handle, &lines);
    for (line, got) in lines.iter().zip(answers) {
        let run = got.times.run.unwrap();
        assert_eq!((run.jobs, run.rows, run.tokens), (lines.len(), 2 * lines.len(), all), "{line}");
        let bits = |scores: Vec<f32>| scores.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(got.scores), bits(classify(&alone.handle(), line).await.unwrap().scores), "{line}");
    }
    assert_eq!(metric(&handle, "oddlog_batch_padding_ratio_sum"), 0.0);
    let first = tokens(&model, &handle, &["it holds the device".to_owned()]);
    assert_eq!(metric(&handle, "oddlog_batch_tokens_sum"), (first + all) as f64);
}

/// The same lines do not run together where they would be padded.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_pads_takes_like_lengths_together() {
    let (model, lines) = (model(), unlike());
    let mut most = Vec::new();
    for packs in [true, false] {
        let (answers, handle) = together(&model, fake().packing(packs).maker(), &lines).await;
        let padding = metric(&handle, "oddlog_batch_padding_ratio_sum");
        assert_eq!(padding == 0.0, packs, "{padding}");
        most.push(answers.into_iter().map(|got| got.times.run.unwrap().jobs).max().unwrap());
    }
    assert!(most[0] == lines.len() && most[1] < lines.len(), "{most:?}");
}

/// One queue is before all devices: one that pads makes all pad.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_packed_only_where_all_devices_pack() {
    let (model, lines) = (model(), unlike());
    let fixed = |fixed_shapes| Batching { fixed_shapes, ..Batching::default() };
    for (packs, batching, packed) in [
        (vec![true, true], fixed(false), true),
        (vec![true, false], fixed(false), false),
        (vec![true], fixed(true), false),
    ] {
        let (tell, told) = bounded(4096);
        let makers = packs.iter().map(|packs| fake().packing(*packs).telling(tell.clone()).maker()).collect();
        let engine = start(&model, makers, &batching);
        let handle = engine.handle();
        join_all(lines.iter().map(|line| classify(&handle, line))).await.into_iter().for_each(|got| drop(got.unwrap()));
        let lens: BTreeSet<usize> = told.try_iter().map(|(_, len)| len).collect();
        assert_eq!(lens.iter().any(|len| len % length_multiple() != 0), packed, "{packs:?}: {lens:?}");
    }
}

/// What exceeds a session's tokens is cut between rows, and no bit changes by it.
#[test]
fn slices_of_a_run_change_no_bit() {
    let model = shipped("model.onnx");
    let hypothesis = model.tokenizer.encode_hypothesis("This example is normal.").unwrap();
    let logs: Vec<_> = unlike().iter().map(|line| model.tokenizer.encode_log(line, 9..=9).ids).collect();
    let mut whole = onnx_device(&model, usize::MAX);
    for most in [1, 60, 333] {
        let (mut device, mut inputs) = (onnx_device(&model, most), InputTensors::default());
        for count in [1, 2, 3, 7, 24] {
            let longest = logs[..count].iter().map(|log| model.tokenizer.pair_len(log.len(), hypothesis.len())).max();
            inputs.reset_to((count.max(2), longest.unwrap()), model.spec.pad_id);
            logs[..count].iter().for_each(|log| inputs.push(&model.tokenizer, log, &hypothesis));
            inputs.finish();
            let run = |device: &mut dyn Device| {
                let mut logits = Vec::new();
                device.run(&inputs, &mut logits).unwrap();
                logits.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            assert_eq!(run(&mut device), run(&mut whole), "{count} rows in slices of {most} tokens");
        }
    }
}
