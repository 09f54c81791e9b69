//! Scores equal those of transformers' zero-shot pipeline, and do not depend on company or padding. Real ONNX Runtime.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use futures_util::{StreamExt, stream};
use oddlog::{
    config::{Batching, Devices, Scoring},
    device::{
        CPU_RUN_TOKENS, Device,
        onnx::{CpuOptions, OnnxDevice, Runtime},
    },
    engine::{Class, Engine, Fleet, Handle},
    metrics::Metrics,
    model::{
        InputTensors, Model,
        graph::{self, Precision},
    },
};
use serde::Deserialize;

const TOLERANCE: f32 = 1e-4;

#[derive(Deserialize)]
struct Reference {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    labels: Vec<String>,
    hypothesis_template: String,
    multi_label: bool,
    /// One row a line, one score a label.
    scores: Vec<Vec<f32>>,
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The shipped model, or its fp32 twin `model_fp32.onnx`.
pub fn shipped(onnx: &str) -> Model {
    let dir = root().join("models/oddlog-minilm");
    let mut model = Model::open(&dir, 512).unwrap();
    model.files.onnx = dir.join(onnx);
    model
}

/// A real CPU session of one thread.
pub fn onnx_device(model: &Model, max_run_tokens: usize) -> OnnxDevice {
    let runtime = Runtime::load(&Runtime::find("")).unwrap();
    OnnxDevice::cpu(runtime, "cpu:0".into(), model, CpuOptions { intra_op_threads: 1, max_run_tokens }).unwrap()
}

/// Two real CPU sessions.
pub fn two_devices(model: &Model, max_run_tokens: usize) -> Fleet {
    let runtime = Runtime::load(&Runtime::find("")).unwrap();
    let options = CpuOptions { intra_op_threads: 1, max_run_tokens };
    let maker = |index: usize| OnnxDevice::cpu_maker(runtime, format!("cpu:{index}"), model, options);
    Fleet { makers: (0..2).map(maker).collect(), rules: Devices::default() }
}

fn lines() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("tests/data/lines.txt")).unwrap();
    text.strip_suffix('\n').unwrap().split('\n').map(str::to_owned).collect()
}

fn start(model: &Model) -> Engine {
    let batching = Batching::default();
    let devices = two_devices(model, CPU_RUN_TOKENS);
    Engine::start(model, devices, &Scoring::default(), &batching, Metrics::new().unwrap()).unwrap()
}

async fn check(handle: &Handle, lines: &[String], case: &Case) -> f32 {
    let first = case.labels[0].clone();
    let template = Some(case.hypothesis_template.clone());
    let task = handle.task(Some(case.labels.clone()), Some(first), template, Some(case.multi_label)).unwrap();
    assert_eq!(case.scores.len(), lines.len());
    let scored = lines.iter().map(|line| handle.classify(line, &task, Class::Bulk));
    let scored: Vec<_> = stream::iter(scored).buffered(64).collect().await;
    let mut worst = 0f32;
    for ((line, expected), got) in lines.iter().zip(&case.scores).zip(scored) {
        let got = got.unwrap().scores;
        assert_eq!(got.len(), expected.len());
        for (g, e) in got.iter().zip(expected) {
            assert!((g - e).abs() <= TOLERANCE, "{got:?} instead of {expected:?} for {:?}: {line}", case.labels);
            worst = worst.max((g - e).abs());
        }
    }
    worst
}

/// Holds the model in `dir` to reference scores of transformers.
pub async fn holds_to_the_reference(dir: &str, onnx: &str, reference: &str) {
    let mut model = Model::open(&root().join(dir), 512).unwrap();
    model.files.onnx = root().join(dir).join(onnx);
    let file = File::open(root().join("tests/data").join(reference)).unwrap();
    let reference: Reference = serde_json::from_reader(GzDecoder::new(file)).unwrap();
    let (engine, lines) = (start(&model), lines());
    assert!(lines.len() >= 200 && reference.cases.len() >= 4);
    let mut worst = 0f32;
    for case in &reference.cases {
        worst = worst.max(check(&engine.handle(), &lines, case).await);
    }
    println!("{dir}: largest difference {worst:e} over {} lines x {} cases", lines.len(), reference.cases.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_deberta_export_scores_as_the_pipeline_does() {
    holds_to_the_reference("tests/data/tiny-deberta", "model.onnx", "reference_tiny-deberta.json.gz").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_three_class_bert_with_token_types_scores_as_the_pipeline_does() {
    holds_to_the_reference("tests/data/tiny-bert3", "model.onnx", "reference_tiny-bert3.json.gz").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_models_fp32_twin_scores_as_the_pipeline_does() {
    holds_to_the_reference("models/oddlog-minilm", "model_fp32.onnx", "reference_shipped.json.gz").await;
}

/// Logits of each group of lines run together, at `extra` tokens more padding than needed.
fn logits(
    device: &mut OnnxDevice,
    model: &Model,
    groups: &[&[usize]],
    lines: &[String],
    extra: usize,
) -> Vec<Vec<u32>> {
    let hypotheses = ["This example is anomaly.", "This example is normal."];
    let hypotheses = hypotheses.map(|h| model.tokenizer.encode_hypothesis(h).unwrap());
    let lengths = hypotheses.iter().map(Vec::len);
    let (shortest, longest) = (lengths.clone().min().unwrap(), lengths.max().unwrap());
    let mut bits = vec![Vec::new(); lines.len()];
    let (mut inputs, mut out) = (InputTensors::default(), Vec::new());
    for group in groups {
        let logs: Vec<_> =
            group.iter().map(|i| model.tokenizer.encode_log(&lines[*i], shortest..=longest).ids).collect();
        let len = logs.iter().map(|l| model.tokenizer.pair_len(l.len(), longest)).max().unwrap();
        inputs.reset(2 * group.len(), (len + extra).min(512), model.spec.pad_id);
        for log in &logs {
            hypotheses.iter().for_each(|h| inputs.push(&model.tokenizer, log, h));
        }
        inputs.finish();
        device.run(&inputs, &mut out).unwrap();
        for (row, i) in group.iter().enumerate() {
            bits[*i] = out[row * 4..row * 4 + 4].iter().map(|z| z.to_bits()).collect();
        }
    }
    bits
}

#[test]
fn the_shipped_model_gives_a_log_the_same_bits_in_any_company() {
    let model = shipped("model.onnx");
    let mut device = onnx_device(&model, 8192);
    // A long line would pad its whole group to its length: two of them are enough.
    let (short, long): (Vec<_>, Vec<_>) = lines().into_iter().partition(|line| line.len() < 200);
    let lines: Vec<String> = short.into_iter().step_by(2).chain(long.into_iter().take(2)).collect();
    assert!(lines.len() > 80);
    let order: Vec<usize> = (0..lines.len()).map(|i| i * 83 % lines.len()).collect();
    let alone: Vec<&[usize]> = order.chunks(1).collect();
    let expected = logits(&mut device, &model, &alone, &lines, 0);
    assert!(expected.iter().all(|bits| bits.len() == 4));
    for (size, extra) in [(1, 8), (2, 0), (3, 32), (8, 8), (17, 16)] {
        let groups: Vec<&[usize]> = order.chunks(size).collect();
        let got = logits(&mut device, &model, &groups, &lines, extra);
        let other = (0..lines.len()).find(|i| got[*i] != expected[*i]);
        assert!(other.is_none(), "groups of {size}, padding +{extra}: line {other:?} has other bits");
    }
    let mut sliced = onnx_device(&model, 64);
    assert_eq!(logits(&mut sliced, &model, &order.chunks(9).collect::<Vec<_>>(), &lines, 0), expected);
}

/// `benches/invariance.rs` asks the same of graphs of the true size.
#[test]
fn a_compiled_model_gives_a_log_the_same_bits_in_random_batches() {
    let out = tempfile::tempdir().unwrap();
    let (mut lines, mut random) = (lines(), fastrand::Rng::with_seed(11));
    // A longer line would pad every batch that it falls into to its length.
    lines.retain(|line| line.len() < 300);
    assert!(lines.len() > 200);
    for precision in [Precision::Fp32, Precision::Int8, Precision::Fp16] {
        let dir = out.path().join(precision.name());
        graph::compile(&root().join("tests/data/tiny-deberta"), &dir, precision, false, &mut |_| {}).unwrap();
        let model = Model::open(&dir, 512).unwrap();
        let mut device = onnx_device(&model, 8192);
        let mut order: Vec<usize> = (0..lines.len()).collect();
        let expected = logits(&mut device, &model, &order.chunks(1).collect::<Vec<_>>(), &lines, 0);
        for extra in [0, 8, 48] {
            random.shuffle(&mut order);
            let (mut groups, mut rest) = (Vec::new(), order.as_slice());
            while !rest.is_empty() {
                let (group, others) = rest.split_at(random.usize(2..=64).min(rest.len()));
                groups.push(group);
                rest = others;
            }
            let got = logits(&mut device, &model, &groups, &lines, extra);
            let other = (0..lines.len()).find(|i| got[*i] != expected[*i]);
            assert!(other.is_none(), "{precision}, padding +{extra}: line {other:?} has other bits");
        }
    }
}
