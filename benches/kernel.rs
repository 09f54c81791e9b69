//! The int8 kernel over the shapes of the models, and attention, one thread. Items are multiply-adds counted as two operations,
//! so that a rate of 700 Gitem/s means 700 GOPS.
//!
//! Weights are as in a model: each run takes the next of several copies, more than the second-level cache holds.

use divan::{Bencher, counter::ItemsCount};
use oddlog::kernel::{
    Activation, Attention, Columns, Linear, Parameters, Path, Positions, QuantisedWeight, Sequences, pack_weight,
    quantise_weight,
};

fn main() {
    divan::main();
}

/// (inputs, outputs, Gelu): the layers of DeBERTa-v3-base and of MiniLM.
const SHAPES: [(usize, usize, bool); 8] = [
    (768, 2304, false),
    (768, 768, false),
    (768, 3072, true),
    (3072, 768, false),
    (384, 1152, false),
    (384, 384, false),
    (384, 1536, true),
    (1536, 384, false),
];

fn bench(bencher: Bencher, rows: usize, shape: usize, path: Path) {
    let (k, n, gelu) = SHAPES[shape];
    let activation = if gelu { Activation::Gelu } else { Activation::None };
    let weight: Vec<f32> = (0..n * k).map(|i| ((i * 7919 % 2003) as f32 - 1001.0) / 9000.0).collect();
    let QuantisedWeight { values, scale, column_sum } = quantise_weight(&weight, n, k);
    let copies = vec![pack_weight(&values, n, k); (32 << 20) / (n * k)];
    let bias = vec![0.1; n];
    let x: Vec<f32> = (0..rows * k).map(|i| ((i * 104_729 % 3001) as f32 - 1500.0) / 500.0).collect();
    let mut y = vec![0.0; rows * n];
    let mut copy = 0;
    bencher.counter(ItemsCount::new(2 * rows * n * k)).bench_local(|| {
        copy = (copy + 1) % copies.len();
        let parameters = Parameters { weight: &copies[copy], scale: &scale, column_sum: &column_sum, bias: &bias };
        Linear::new(k, activation, parameters).expect("the sizes fit").run(path, rows, &x, &mut y);
    });
}

macro_rules! shapes {
    ($($name:ident = $shape:literal),*) => {$(
        #[divan::bench(args = [2, 32, 64, 256, 768])]
        fn $name(bencher: Bencher, rows: usize) {
            bench(bencher, rows, $shape, Path::best());
        }
    )*};
}

shapes! {
    k768_n2304 = 0, k768_n768 = 1, k768_n3072_gelu = 2, k3072_n768 = 3,
    k384_n1152 = 4, k384_n384 = 5, k384_n1536_gelu = 6, k1536_n384 = 7
}

/// Every path of this machine: 64 rows, 768 to 768.
#[divan::bench(args = Path::available())]
fn path(bencher: Bencher, path: Path) {
    bench(bencher, 64, 1, path);
}

/// Attention of DeBERTa-v3-base: 12 heads of 64, 512 columns. Four products of tokens x tokens x head size.
#[divan::bench(args = [(8, 48), (8, 50), (16, 16), (6, 64), (3, 128), (1, 512)])]
fn attention(bencher: Bencher, (sequences, length): (usize, usize)) {
    const HEADS: usize = 12;
    const SIZE: usize = 64;
    const SPAN: i64 = 256;
    const HIDDEN: usize = HEADS * SIZE;
    let numbers = |len: usize| (0..len).map(|i| ((i * 104_729 % 3001) as f32 - 1500.0) / 5000.0).collect::<Vec<_>>();
    let tables: Vec<_> = (0..8).map(|_| numbers(HIDDEN * 2 * SPAN as usize)).collect();
    let columns: Vec<i64> = (-511..=512i64).map(|d| d.clamp(-SPAN, SPAN - 1) + SPAN).collect();
    let (qkv, lengths) = (numbers(sequences * length * 3 * HIDDEN), vec![length; sequences]);
    let part = |i: usize| Columns { values: &qkv, width: 3 * HIDDEN, first: i * HIDDEN };
    let input = Sequences { q: part(0), k: part(1), v: part(2), lengths: &lengths };
    let mut y = vec![0.0; sequences * length * HIDDEN];
    let mut layer = 0;
    bencher.counter(ItemsCount::new(2 * 4 * sequences * length * length * HIDDEN)).bench_local(|| {
        layer = (layer + 2) % tables.len();
        let positions = Positions { keys: &tables[layer], queries: &tables[layer + 1], columns: &columns };
        let attention = Attention::disentangled(HEADS, SIZE, positions).expect("the tables fit");
        let inline = |tasks: usize, task: &(dyn Fn(usize) + Sync)| {
            (0..tasks).for_each(task);
            Ok::<(), std::convert::Infallible>(())
        };
        let Ok(()) = attention.run_parallel(Path::best(), &input, &mut y, inline);
    });
}

/// The same without positions, of MiniLM: 12 heads of 32. Two products of tokens x tokens x head size.
#[divan::bench(args = [(15, 34), (8, 64), (4, 128), (2, 256), (1, 330), (1, 512)])]
fn attention_without_positions(bencher: Bencher, (sequences, length): (usize, usize)) {
    const HEADS: usize = 12;
    const SIZE: usize = 32;
    const HIDDEN: usize = HEADS * SIZE;
    let qkv: Vec<f32> =
        (0..sequences * length * 3 * HIDDEN).map(|i| ((i * 104_729 % 3001) as f32 - 1500.0) / 500.0).collect();
    let lengths = vec![length; sequences];
    let part = |i: usize| Columns { values: &qkv, width: 3 * HIDDEN, first: i * HIDDEN };
    let input = Sequences { q: part(0), k: part(1), v: part(2), lengths: &lengths };
    let mut y = vec![0.0; sequences * length * HIDDEN];
    bencher.counter(ItemsCount::new(2 * 2 * sequences * length * length * HIDDEN)).bench_local(|| {
        let inline = |tasks: usize, task: &(dyn Fn(usize) + Sync)| {
            (0..tasks).for_each(task);
            Ok::<(), std::convert::Infallible>(())
        };
        let Ok(()) = Attention::new(HEADS, SIZE).run_parallel(Path::best(), &input, &mut y, inline);
    });
}
