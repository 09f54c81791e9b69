//! `oddlog.Attention` and `oddlog.DisentangledAttention` in real ONNX Runtime: broken graphs and inputs are errors that name
//! the fault, and the next run is as if nothing had been.

use std::fs;

use oddlog::device::onnx::{CpuOptions, Runtime};
use ort::{
    session::{Session, SessionInputValue},
    value::Tensor,
};
use proto::{
    Attribute::{self, Float, Int, Ints},
    Element::{self, F16, F32, I32, I64},
    GraphProto,
};

/// What compiled graphs are encoded with.
#[allow(dead_code)]
#[path = "../../src/model/graph/proto.rs"]
mod proto;

const HEADS: usize = 2;
const SIZE: usize = 3;
const HIDDEN: usize = HEADS * SIZE;
/// Columns of the position tables.
const COLUMNS: usize = 5;
/// Longest sequence that these know.
const LONGEST: usize = 4;

const ATTRIBUTES: [Attribute<'static>; 2] = [Int("heads", HEADS as i64), Int("size", SIZE as i64)];
const TYPES: [(&str, Element); 6] =
    [("q", F32), ("kv", F32), ("mask", I64), ("keys", F32), ("queries", F32), ("columns", I64)];

/// A graph of one node with the inputs of `declared` and the outputs `y`, then `y2` and so on. The graph declares no shapes,
/// so that the operator sees whatever comes.
fn open(
    operator: &str,
    declared: &[(&str, Element)],
    wired: &[&str],
    attributes: &[Attribute<'_>],
    outputs: &[&str],
) -> ort::Result<Session> {
    let mut graph = GraphProto::default();
    declared.iter().for_each(|(name, element)| graph.input(name, *element, &[]));
    graph.node(("oddlog", operator), "attend", wired, outputs, attributes);
    graph.output("y", F32, "rows", HIDDEN);
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("model.onnx");
    fs::write(&place, graph.model(&[("", 20), ("oddlog", 1)], &[]).bytes()).unwrap();
    let runtime = Runtime::load(&Runtime::find("")).unwrap();
    runtime.open(&place, CpuOptions { intra_op_threads: 1, max_run_tokens: 1 })
}

fn whole(operator: &str) -> Session {
    let (count, attributes) = if operator == "Attention" { (3, &ATTRIBUTES[..]) } else { (6, &[][..]) };
    let wired: Vec<&str> = TYPES[..count].iter().map(|(name, _)| *name).collect();
    open(operator, &TYPES[..count], &wired, attributes, &["y"]).unwrap()
}

#[derive(Clone)]
enum Values {
    F32(Vec<f32>),
    I64(Vec<i64>),
}

#[derive(Clone)]
struct Input {
    shape: Vec<usize>,
    values: Values,
}

/// Numbers between -1 and 1, which differ.
fn floats(shape: &[usize]) -> Input {
    let len = shape.iter().product();
    let values = (0..len).map(|i| ((i * 7919 + len) % 2003) as f32 / 1001.0 - 1.0).collect();
    Input { shape: shape.to_vec(), values: Values::F32(values) }
}

fn ints(shape: &[usize], values: &[i64]) -> Input {
    assert_eq!(shape.iter().product::<usize>(), values.len());
    Input { shape: shape.to_vec(), values: Values::I64(values.to_vec()) }
}

/// Sequences of 3 tokens and of 1.
fn inputs(operator: &str) -> Vec<Input> {
    let mut all = vec![floats(&[4, HIDDEN]), floats(&[4, 2 * HIDDEN]), ints(&[2, 4], &[1, 1, 1, 0, 1, 0, 0, 0])];
    if operator != "Attention" {
        let table = floats(&[HEADS, SIZE, COLUMNS]);
        all.extend([table.clone(), table, ints(&[2 * LONGEST], &[0, 1, 2, 3, 4, 4, 3, 2])]);
    }
    all
}

fn run(session: &mut Session, inputs: &[Input]) -> ort::Result<(Vec<i64>, Vec<f32>)> {
    let named = inputs.iter().zip(TYPES).map(|(input, (name, _))| {
        let shape = input.shape.clone();
        let value: SessionInputValue = match input.values.clone() {
            Values::F32(values) => Tensor::from_array((shape, values)).unwrap().into(),
            Values::I64(values) => Tensor::from_array((shape, values)).unwrap().into(),
        };
        (name, value)
    });
    let outputs = session.run(named.collect::<Vec<_>>())?;
    let (shape, y) = outputs["y"].try_extract_tensor::<f32>()?;
    Ok((shape.to_vec(), y.to_vec()))
}

/// What `Attention` must give, in double precision.
fn expected(q: &[f32], kv: &[f32], lengths: &[usize]) -> Vec<f64> {
    let mut y = vec![0.0; q.len()];
    let mut first = 0;
    for length in lengths {
        for head in 0..HEADS {
            let at = |row: usize, d: usize| row * 2 * HIDDEN + head * SIZE + d;
            for i in first..first + length {
                let query = &q[i * HIDDEN + head * SIZE..][..SIZE];
                let score =
                    |j: usize| (0..SIZE).map(|d| f64::from(query[d]) * f64::from(kv[at(j, d)])).sum::<f64>().exp();
                let sum: f64 = (first..first + length).map(score).sum();
                for d in 0..SIZE {
                    let weighed = |j: usize| score(j) * f64::from(kv[at(j, d) + HIDDEN]);
                    y[i * HIDDEN + head * SIZE + d] = (first..first + length).map(weighed).sum::<f64>() / sum;
                }
            }
        }
        first += length;
    }
    y
}

#[test]
fn attention_gives_what_its_definition_says() {
    let all = inputs("Attention");
    let (shape, y) = run(&mut whole("Attention"), &all).unwrap();
    assert_eq!(shape, [4, HIDDEN as i64]);
    let (Values::F32(q), Values::F32(kv)) = (&all[0].values, &all[1].values) else { unreachable!() };
    for (i, (y, e)) in y.iter().zip(expected(q, kv, &[3, 1])).enumerate() {
        assert!((f64::from(*y) - e).abs() < 1e-6, "{i}: {y} instead of {e}");
    }
    let firsts = vec![Input { shape: vec![2, HIDDEN], values: Values::F32([&q[..HIDDEN], &q[3 * HIDDEN..]].concat()) }];
    let (shape, of_firsts) = run(&mut whole("Attention"), &[firsts, all[1..].to_vec()].concat()).unwrap();
    assert_eq!(shape, [2, HIDDEN as i64]);
    assert_eq!(of_firsts, [&y[..HIDDEN], &y[3 * HIDDEN..]].concat(), "each sequence's first token alone");
}

#[test]
fn a_broken_node_is_an_error_when_the_session_opens() {
    let names = ["q", "kv", "mask"];
    let attend = |wired: &[&str], attributes: &[Attribute<'_>]| open("Attention", &TYPES, wired, attributes, &["y"]);
    let [heads, size] = ATTRIBUTES;
    for (what, opened, fault) in [
        ("no inputs", attend(&[], &ATTRIBUTES), "attend"),
        ("two inputs", attend(&names[..2], &ATTRIBUTES), "attend"),
        ("four inputs", attend(&["q", "kv", "mask", "keys"], &ATTRIBUTES), "attend"),
        ("an unknown input", attend(&["q", "kv", "nobody"], &ATTRIBUTES), "nobody"),
        ("two outputs", open("Attention", &TYPES, &names, &ATTRIBUTES, &["y", "z"]), "attend"),
        ("no heads", attend(&names, &[size]), "heads must be 1 to 16384, not None"),
        ("no size", attend(&names, &[heads]), "size must be 1 to 16384, not None"),
        ("0 heads", attend(&names, &[Int("heads", 0), size]), "heads must be 1 to 16384, not Some(0)"),
        ("-1 heads", attend(&names, &[Int("heads", -1), size]), "heads must be 1 to 16384, not Some(-1)"),
        ("most", attend(&names, &[heads, Int("size", i64::MAX)]), "size must be 1 to 16384"),
        ("a fraction", attend(&names, &[Float("heads", 2.0), size]), "heads must be 1 to 16384"),
        ("a list", attend(&names, &[heads, Ints("size", &[3])]), "size must be 1 to 16384"),
        (
            "five inputs",
            open("DisentangledAttention", &TYPES, &["q", "kv", "mask", "keys", "queries"], &[], &["y"]),
            "attend",
        ),
    ] {
        let error = opened.err().unwrap_or_else(|| panic!("{what} opens"));
        assert!(error.message().contains(fault), "{what}: {error}");
    }
    for (input, element, fault) in
        [(0, F16, "tensor(float16)"), (0, I64, "tensor(int64)"), (1, I32, "tensor(int32)"), (2, F32, "tensor(float)")]
    {
        let mut declared = TYPES;
        declared[input].1 = element;
        let opened = open("Attention", &declared[..3], &names, &ATTRIBUTES, &["y"]);
        let error = opened.err().unwrap_or_else(|| panic!("input {input} of {fault} opens"));
        assert!(error.message().contains(fault) && error.message().contains("Attention"), "{error}");
    }
}

#[test]
fn an_input_that_is_left_out_is_an_error() {
    for wired in [["", "kv", "mask"], ["q", "", "mask"], ["q", "kv", ""]] {
        let opened = open("Attention", &TYPES[..3], &wired, &ATTRIBUTES, &["y"]);
        let error = opened.and_then(|mut session| run(&mut session, &inputs("Attention"))).map(|_| ()).unwrap_err();
        assert!(error.message().contains("attend"), "{wired:?}: {error}");
    }
}

/// Each change makes a run fail with its message, and the runs between give the same bits as ever.
fn refuses(operator: &str, changes: &[(usize, Input, &str)]) {
    let mut session = whole(operator);
    let good = inputs(operator);
    let before = run(&mut session, &good).unwrap();
    for (at, input, fault) in changes {
        let mut broken = good.clone();
        broken[*at] = input.clone();
        let error = run(&mut session, &broken).map(|_| ()).expect_err(fault);
        assert!(error.message().contains(fault), "{fault}: {error}");
        assert_eq!(run(&mut session, &good).unwrap(), before, "after {fault}");
    }
}

#[test]
fn broken_inputs_of_attention_are_errors_and_the_next_run_works() {
    let rows = "tokens in 2 sequences with heads of 6 in all do not fit it";
    refuses(
        "Attention",
        &[
            (0, floats(&[4 * HIDDEN]), "q must be [rows, columns], not [24]"),
            (0, floats(&[1, 4, HIDDEN]), "q must be [rows, columns], not [1, 4, 6]"),
            (0, floats(&[]), "q must be [rows, columns], not []"),
            (1, floats(&[1, 4, 2 * HIDDEN]), "kv must be [rows, columns], not [1, 4, 12]"),
            (2, ints(&[4], &[1, 1, 1, 1]), "mask must be [sequences, length], not [4]"),
            (2, ints(&[1, 2, 4], &[1, 1, 1, 0, 1, 0, 0, 0]), "mask must be [sequences, length], not [1, 2, 4]"),
            (2, ints(&[], &[1]), "mask must be [sequences, length], not []"),
            (0, ints(&[4, HIDDEN], &[1; 4 * HIDDEN]), "int64"),
            (2, floats(&[2, 4]), "float"),
            // Heads that do not divide, or are too wide.
            (0, floats(&[4, HIDDEN - 1]), rows),
            (0, floats(&[4, 0]), rows),
            (1, floats(&[4, 2 * HIDDEN - 1]), "kv must have at least 12 columns, not 11"),
            (1, floats(&[4, 0]), "kv must have at least 12 columns, not 0"),
            // Tokens that do not add up.
            (0, floats(&[3, HIDDEN]), "`q` is [3, 6]; 4 tokens in 2 sequences"),
            (0, floats(&[0, HIDDEN]), "`q` is [0, 6]; 4 tokens in 2 sequences"),
            (1, floats(&[3, 2 * HIDDEN]), "`k` is [3, 12]; 4 tokens in 2 sequences"),
            (1, floats(&[5, 2 * HIDDEN]), "`k` is [5, 12]; 4 tokens in 2 sequences"),
            (1, floats(&[0, 2 * HIDDEN]), "`k` is [0, 12]; 4 tokens in 2 sequences"),
            (2, ints(&[2, 4], &[1, 1, 1, 1, 1, 0, 0, 0]), "5 tokens in 2 sequences"),
            (2, ints(&[2, 1], &[1, 1]), "2 tokens in 2 sequences"),
            (2, ints(&[1, 3], &[1, 1, 1]), "3 tokens in 1 sequences"),
            (2, ints(&[0, 4], &[]), "0 tokens in 0 sequences"),
            // Masks that are none.
            (2, ints(&[2, 4], &[1, 1, 1, 1, 0, 0, 0, 0]), "row 1 of the mask has no ones"),
            (2, ints(&[2, 4], &[0; 8]), "row 0 of the mask has no ones"),
            (2, ints(&[3, 0], &[]), "with a length of at least 1, not [3, 0]"),
            (2, ints(&[2, 4], &[1, 0, 1, 1, 1, 0, 0, 0]), "row 0 of the mask is not ones followed by zeros"),
            (2, ints(&[2, 4], &[1, 1, 1, 0, 2, 0, 0, 0]), "row 1 of the mask is not ones followed by zeros"),
            (2, ints(&[2, 4], &[1, 1, 1, 0, -1, 0, 0, 0]), "row 1 of the mask is not ones followed by zeros"),
            (2, ints(&[2, 4], &[1, 1, 1, i64::MIN, 1, 0, 0, 0]), "row 0 of the mask is not ones followed by zeros"),
        ],
    );
}

#[test]
fn broken_inputs_of_disentangled_attention_are_errors_and_the_next_run_works() {
    let columns = [0, 1, 2, 3, 4, 4, 3, 2];
    let with = |column: i64| ints(&[8], &[&[column], &columns[1..]].concat());
    refuses(
        "DisentangledAttention",
        &[
            (0, floats(&[2, 2, HIDDEN]), "q must be [rows, columns], not [2, 2, 6]"),
            (2, ints(&[2, 4], &[1, 1, 1, 1, 0, 0, 0, 0]), "row 1 of the mask has no ones"),
            (2, ints(&[1, 5], &[1; 5]), "a sequence has 5 tokens; there must be 1 to 4"),
            (3, floats(&[HIDDEN, COLUMNS]), "keys must be [heads, head size, columns], not [6, 5]"),
            (3, floats(&[HEADS, SIZE, 0]), "`keys` has 0 values; that is no table of 2 heads of 3"),
            (3, floats(&[0, SIZE, COLUMNS]), "`keys` has 0 values; that is no table of 0 heads of 3"),
            (3, floats(&[HEADS, SIZE + 1, COLUMNS]), "`queries` has 30 values; that is no table of 2 heads of 4"),
            (4, floats(&[HEADS, SIZE, COLUMNS - 1]), "`queries` has 24 values; that is no table of 2 heads of 3"),
            (5, with(COLUMNS as i64), "`columns` holds 5, and the tables have 5 columns"),
            (5, with(-1), "`columns` holds -1, and the tables have 5 columns"),
            (5, ints(&[5], &columns[..5]), "a sequence has 3 tokens; there must be 1 to 2"),
            (5, ints(&[0], &[]), "there must be 1 to 0"),
        ],
    );
}

#[test]
fn no_sequences_give_no_rows() {
    let none = [floats(&[0, HIDDEN]), floats(&[0, 2 * HIDDEN]), ints(&[0, 4], &[])];
    let mut session = whole("Attention");
    assert_eq!(run(&mut session, &none).unwrap(), (vec![0, HIDDEN as i64], Vec::new()));
    run(&mut session, &inputs("Attention")).unwrap();
}
