//! `oddlog.QuantLinear` in real ONNX Runtime: it gives what numpy computed, and refuses broken graphs.

use std::{fs::File, path::PathBuf};

use oddlog::device::onnx::{CpuOptions, Runtime};
use ort::{session::Session, value::TensorRef};
use serde::Deserialize;

use crate::parity::root;

/// Written by `tests/data/make_quant_linear.py`.
#[derive(Deserialize)]
struct Case {
    shape: [usize; 3],
    x: Vec<f32>,
    y: Vec<f32>,
}

fn data(name: &str) -> PathBuf {
    root().join("tests/data/quant_linear").join(name)
}

fn case() -> Case {
    serde_json::from_reader(File::open(data("case.json")).unwrap()).unwrap()
}

fn open(name: &str, intra_op_threads: usize) -> ort::Result<Session> {
    let runtime = Runtime::load(&Runtime::find("")).unwrap();
    runtime.open(&data(name), CpuOptions { intra_op_threads, max_run_tokens: 1 })
}

fn run(session: &mut Session, shape: [usize; 3], x: &[f32]) -> Vec<f32> {
    let outputs = session.run(ort::inputs! { "x" => TensorRef::from_array_view((shape, x)).unwrap() }).unwrap();
    let (y_shape, y) = outputs["y"].try_extract_tensor::<f32>().unwrap();
    assert_eq!(y_shape[..], [shape[0] as i64, shape[1] as i64, 5]);
    y.to_vec()
}

#[test]
fn quant_linear_gives_what_numpy_computed() {
    let case = case();
    assert_eq!((case.x.len(), case.y.len()), (132, 30));
    for threads in [1, 2] {
        let mut session = open("model.onnx", threads).unwrap();
        assert_eq!(session.outputs()[0].dtype().tensor_shape().unwrap()[..], [-1, -1, 5]);
        let y = run(&mut session, case.shape, &case.x);
        let scale = case.y.iter().fold(0f32, |m, y| m.max(y.abs()));
        for (row, (y, expected)) in y.chunks(5).zip(case.y.chunks(5)).enumerate() {
            let largest = expected.iter().fold(1f32, |m, y| m.max(y.abs()));
            for (y, e) in y.iter().zip(expected) {
                // A step of the second layer's activations may turn on the last bit of the first layer's Gelu.
                assert!((y - e).abs() <= 1e-5 * largest, "row {row}: {y} instead of {e}");
            }
        }
        assert!(scale > 100.0, "the case has a row of large values");
    }
}

#[test]
fn rows_have_the_same_bits_alone_and_on_two_threads() {
    let (mut one, mut two) = (open("model.onnx", 1).unwrap(), open("model.onnx", 2).unwrap());
    let [_, _, k] = case().shape;
    let rows = 700;
    let x: Vec<f32> = (0..rows * k).map(|i| ((i * 7919 % 2003) as f32 - 1000.0) / 300.0).collect();
    let bits = |y: Vec<f32>| y.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let together = bits(run(&mut one, [7, rows / 7, k], &x));
    assert_eq!(bits(run(&mut two, [rows, 1, k], &x)), together);
    for row in [0, 1, 350, 699] {
        let alone = bits(run(&mut one, [1, 1, k], &x[row * k..][..k]));
        assert_eq!(alone, together[row * 5..][..5], "row {row}");
    }
}

#[test]
fn what_follows_may_cut_dimensions_without_a_name() {
    let case = case();
    let whole = run(&mut open("model.onnx", 1).unwrap(), case.shape, &case.x);
    let mut sliced = open("sliced.onnx", 1).unwrap();
    let x = TensorRef::from_array_view((case.shape, &case.x[..])).unwrap();
    let outputs = sliced.run(ort::inputs! { "x" => x }).unwrap();
    let (shape, y) = outputs["y"].try_extract_tensor::<f32>().unwrap();
    let [batch, length, _] = case.shape;
    assert_eq!(shape[..], [batch as i64, 1, 5]);
    for (first, sequence) in y.chunks(5).zip(whole.chunks(length * 5)) {
        assert_eq!(first, &sequence[..5]);
    }
}

#[test]
fn no_rows_give_no_rows_and_a_nan_stays_in_its_row() {
    let mut session = open("model.onnx", 1).unwrap();
    let mut case = case();
    assert!(run(&mut session, [0, 3, case.shape[2]], &[]).is_empty());
    let before = run(&mut session, case.shape, &case.x);
    case.x[0] = f32::NAN;
    let after = run(&mut session, case.shape, &case.x);
    assert!(after[..5].iter().all(|y| y.is_nan()));
    assert_eq!(after[5..], before[5..]);
}

#[test]
fn a_broken_node_is_an_error_that_names_the_fault() {
    for (name, fault) in [
        ("k", "weight must be [3, 7, 16, 4] for K = 26 and N = 37, not [3, 6, 16, 4]"),
        ("weight", "weight must be [3, 6, 16, 4] for K = 22 and N = 37, not [3, 6, 4, 16]"),
        ("scale", "scale must be [N] as bias is, [37], not [36]"),
        ("column_sum", "column_sum must be [N] as bias is, [37], not [37, 1]"),
        ("missing", "QuantLinear"),
        ("type", "tensor(int64)"),
        ("activation", "activation 7 is unknown"),
    ] {
        let error = open(&format!("broken_{name}.onnx"), 1).err().unwrap_or_else(|| panic!("{name} loads"));
        assert!(error.message().contains(fault), "{name}: {error}");
    }
    let mut late = open("broken_late.onnx", 1).unwrap();
    let mut attempt = |shape: [usize; 3]| {
        let x = vec![1f32; shape.iter().product()];
        late.run(ort::inputs! { "x" => TensorRef::from_array_view((shape, &x[..])).unwrap() }).map(|_| ())
    };
    let error = attempt([1, 2, 8]).unwrap_err();
    assert!(error.message().contains("weight must be [3, 2, 16, 4]"), "{error}");
    assert!(attempt([1, 2, 0]).is_err());
    attempt([1, 2, 22]).unwrap();
}
