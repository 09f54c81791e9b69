//! Every path against the scalar one, bit for bit, and the scalar one against plain f64 arithmetic.

use std::convert::Infallible;

use proptest::prelude::*;

use super::{
    super::tests::{Random, bits, scalar},
    *,
};

/// A layer and sequences for it: q, k and v side by side, as one linear layer gives them.
struct Case {
    heads: usize,
    size: usize,
    keys: Vec<f32>,
    queries: Vec<f32>,
    columns: Vec<i64>,
    qkv: Vec<f32>,
    lengths: Vec<usize>,
    /// Whether positions count.
    disentangled: bool,
}

impl Case {
    fn new(disentangled: bool, heads: usize, size: usize, lengths: &[usize], random: &mut Random) -> Self {
        const LONGEST: usize = 90;
        const SPAN: i64 = 20;
        // Distances have a column each up to 20, and share the outermost ones beyond; two are out of line.
        let mut columns: Vec<i64> = (-89..=90).map(|distance: i64| distance.clamp(-SPAN, SPAN) + SPAN).collect();
        columns.swap(LONGEST - 5, LONGEST + 30);
        let table = heads * size * (2 * SPAN as usize + 1);
        let (keys, queries) = (random.take(table, 1.0), random.take(table, 1.0));
        let qkv = random.take(lengths.iter().sum::<usize>() * 3 * heads * size, 1.5);
        Self { heads, size, keys, queries, columns, qkv, lengths: lengths.to_vec(), disentangled }
    }

    fn attention(&self) -> Attention<'_> {
        if !self.disentangled {
            return Attention::new(self.heads, self.size);
        }
        let positions = Positions { keys: &self.keys, queries: &self.queries, columns: &self.columns };
        Attention::disentangled(self.heads, self.size, positions).expect("the tables fit")
    }

    fn sequences(&self) -> Sequences<'_> {
        let hidden = self.heads * self.size;
        let [q, k, v] = [0, 1, 2].map(|i| Columns { values: &self.qkv, width: 3 * hidden, first: i * hidden });
        Sequences { q, k, v, lengths: &self.lengths }
    }

    fn run(&self, path: Path) -> Vec<f32> {
        run(&self.attention(), path, &self.sequences())
    }
}

fn run(attention: &Attention, path: Path, sequences: &Sequences) -> Vec<f32> {
    let mut y = vec![-1e9; attention.rows(sequences).expect("the sequences fit") * attention.heads * attention.size];
    let inline = |tasks: usize, task: &(dyn Fn(usize) + Sync)| {
        (0..tasks).for_each(task);
        Ok::<(), Infallible>(())
    };
    let Ok(()) = attention.run_parallel(path, sequences, &mut y, inline);
    y
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_paths_give_the_same_bits(
        disentangled: bool, heads in 1..4usize, size in 1..70usize,
        lengths in prop::collection::vec(1..=90usize, 1..4), scale: bool,
        spoilt: Option<prop::sample::Index>, seed: u64
    ) {
        let mut random = Random(seed);
        let mut case = Case::new(disentangled, heads, size, &lengths, &mut random);
        if scale {
            // So large that most weights are next to nothing.
            case.qkv.iter_mut().for_each(|x| *x *= 30.0);
        }
        let place = spoilt.map(|index| index.index(case.qkv.len()));
        if let Some(place) = place {
            case.qkv[place] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX][place % 4];
        }
        let expected = case.run(scalar());
        let numbers = |y: &[f32]| y.iter().map(|y| if y.is_nan() { u32::MAX } else { y.to_bits() }).collect::<Vec<_>>();
        for path in Path::available() {
            prop_assert_eq!(numbers(&case.run(path)), numbers(&expected), "{:?}", path);
        }
        let hidden = heads * size;
        let spoilt_row = place.map(|place| place / (3 * hidden));
        let mut first = 0;
        for length in &lengths {
            let y = &expected[first * hidden..(first + length) * hidden];
            let touched = spoilt_row.is_some_and(|row| (first..first + length).contains(&row));
            prop_assert!(touched || y.iter().all(|y| y.is_finite()));
            first += length;
        }
    }
}

#[test]
fn a_sequence_has_the_same_bits_alone_in_company_on_threads_and_by_its_first_token() {
    let lengths = [31, 90, 1, 16, 17, 48, 64];
    let hidden = 3 * 24;
    let paths = Path::available().into_iter().flat_map(|path| [(path, false), (path, true)]);
    for (path, disentangled) in paths {
        let case = Case::new(disentangled, 3, 24, &lengths, &mut Random(5));
        let together = case.run(path);
        let mut threaded = vec![0.0; together.len()];
        let threads = |tasks: usize, task: &(dyn Fn(usize) + Sync)| {
            std::thread::scope(|scope| {
                for first in 0..2 {
                    scope.spawn(move || (first..tasks).step_by(2).for_each(task));
                }
            });
            Ok::<(), Infallible>(())
        };
        let Ok(()) = case.attention().run_parallel(path, &case.sequences(), &mut threaded, threads);
        assert_eq!(bits(&threaded), bits(&together), "{path:?}");

        let (mut first, mut first_queries, mut first_results) = (0, Vec::new(), Vec::new());
        for length in lengths {
            let qkv = case.qkv[first * 3 * hidden..][..length * 3 * hidden].to_vec();
            first_queries.extend_from_slice(&qkv[..hidden]);
            first_results.extend_from_slice(&together[first * hidden..][..hidden]);
            let Case { heads, size, keys, queries, columns, .. } = &case;
            let (keys, queries, columns) = (keys.clone(), queries.clone(), columns.clone());
            let alone =
                Case { heads: *heads, size: *size, keys, queries, columns, qkv, lengths: vec![length], disentangled };
            assert_eq!(bits(&alone.run(path)), bits(&together[first * hidden..][..length * hidden]), "{path:?}");
            first += length;
        }
        let q = Columns { values: &first_queries, width: hidden, first: 0 };
        let firsts = run(&case.attention(), path, &Sequences { q, ..case.sequences() });
        assert_eq!(bits(&firsts), bits(&first_results), "{path:?}");
    }
}

#[test]
fn the_scalar_path_is_what_plain_arithmetic_says() {
    for disentangled in [false, true] {
        is_plain_arithmetic(&Case::new(disentangled, 2, 20, &[40, 7], &mut Random(9)));
    }
}

fn is_plain_arithmetic(case: &Case) {
    let (y, width) = (case.run(scalar()), case.columns.iter().max().expect("there are columns") + 1);
    let (hidden, known) = (40, case.columns.len() / 2);
    let at = |row: usize, part: usize, column: usize| f64::from(case.qkv[row * 3 * hidden + part * hidden + column]);
    for head in 0..2 {
        let column = |d: usize| head * 20 + d;
        let table = |table: &[f32], i: usize, j: usize, d: usize| {
            f64::from(table[column(d) * width as usize + case.columns[known - 1 + j - i] as usize])
        };
        for (first, tokens) in [(0, 40), (40, 7)] {
            for i in 0..tokens {
                let score = |j: usize| -> f64 {
                    (0..20)
                        .map(|d| {
                            let (q, k) = (at(first + i, 0, column(d)), at(first + j, 1, column(d)));
                            if !case.disentangled {
                                return q * k;
                            }
                            q * k + q * table(&case.keys, i, j, d) + k * table(&case.queries, i, j, d)
                        })
                        .sum()
                };
                let weights: Vec<f64> = (0..tokens).map(|j| score(j).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for d in 0..20 {
                    let mixed = weights.iter().enumerate().map(|(j, w)| w * at(first + j, 2, column(d)));
                    let (expected, y) = (mixed.sum::<f64>() / sum, y[(first + i) * hidden + column(d)]);
                    assert!((f64::from(y) - expected).abs() < 1e-5, "{y} instead of {expected}");
                }
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let case = Case::new(true, 2, 8, &[5, 90], &mut Random(1));
    let whole = Positions { keys: &case.keys, queries: &case.queries, columns: &case.columns };
    let fails = |positions| Attention::disentangled(2, 8, positions).expect_err("it must not fit");
    assert!(matches!(fails(Positions { keys: &[], ..whole }), AttentionError::Table { name: "keys", len: 0, .. }));
    let short = Positions { queries: &case.queries[1..], ..whole };
    assert!(matches!(fails(short), AttentionError::Table { name: "queries", .. }));
    assert_eq!(fails(Positions { columns: &[0, 41], ..whole }), AttentionError::Column(41, 41));
    assert_eq!(fails(Positions { columns: &[-1], ..whole }), AttentionError::Column(-1, 41));

    let (attention, sequences) = (case.attention(), case.sequences());
    assert_eq!(attention.rows(&sequences), Ok(95));
    let lengths = |lengths| attention.rows(&Sequences { lengths, ..sequences });
    assert_eq!(lengths(&[4, 91]), Err(AttentionError::Length(91, 90)));
    assert_eq!(lengths(&[0, 95]), Err(AttentionError::Length(0, 90)));
    assert!(matches!(lengths(&[5, 89]), Err(AttentionError::Rows { name: "q", rows: 95, tokens: 94, .. })));
    // Without positions any length will do.
    let plain = Attention::new(2, 8);
    assert_eq!(plain.rows(&Sequences { lengths: &[4, 91], ..sequences }), Ok(95));
    assert_eq!(plain.rows(&Sequences { lengths: &[0, 95], ..sequences }), Err(AttentionError::Length(0, usize::MAX)));
    let k = Columns { first: 33, ..sequences.k };
    assert!(matches!(attention.rows(&Sequences { k, ..sequences }), Err(AttentionError::Rows { name: "k", .. })));
    let v = Columns { values: &case.qkv[1..], ..sequences.v };
    assert!(matches!(attention.rows(&Sequences { v, ..sequences }), Err(AttentionError::Rows { name: "v", .. })));
    let none = Columns { values: &[], width: 16, first: 0 };
    assert_eq!(attention.rows(&Sequences { q: none, k: none, v: none, lengths: &[] }), Ok(0));
    assert!(run(&attention, Path::best(), &Sequences { q: none, k: none, v: none, lengths: &[] }).is_empty());
}
