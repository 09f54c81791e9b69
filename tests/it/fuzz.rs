//! The fuzz targets over their seeds and over mutations of these: a bounded run of what `cargo fuzz` runs at length.

use std::{fs, path::Path};

/// Mutated inputs for each target.
const MUTATIONS: usize = 1500;

#[path = "../../fuzz/src/targets.rs"]
mod targets;

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut seeds: Vec<Vec<u8>> = fs::read_dir(dir).unwrap().map(|e| fs::read(e.unwrap().path()).unwrap()).collect();
    seeds.sort();
    assert!(seeds.len() >= 5, "{target} has {} seeds", seeds.len());
    seeds
}

fn run(target: &str, check: impl Fn(&[u8])) {
    let (seeds, mut random) = (seeds(target), fastrand::Rng::with_seed(0x0dd));
    seeds.iter().for_each(|seed| check(seed));
    for _ in 0..MUTATIONS {
        check(&mutated(&seeds, &mut random));
    }
}

/// A seed with a few bytes changed, dropped, doubled or taken from another seed.
fn mutated(seeds: &[Vec<u8>], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut input = random.choice(seeds).unwrap().clone();
    for _ in 0..random.usize(1..6) {
        let at = random.usize(0..=input.len());
        let end = random.usize(at..=input.len().min(at + 24));
        let piece = match random.u8(0..6) {
            0 => vec![random.u8(..)],
            1 => random.choice(&b"\0\r\n\"\\{}[],:\xff\xed\xa0 \x7f%"[..]).map(|byte| vec![*byte]).unwrap(),
            2 => input[at..end].repeat(random.usize(2..40)),
            3 => Vec::new(),
            4 => b"\\ud800".to_vec(),
            _ => {
                let other = random.choice(seeds).unwrap();
                let from = random.usize(0..=other.len());
                other[from..random.usize(from..=other.len())].to_vec()
            }
        };
        input.splice(at..end, piece);
    }
    input.truncate(16 << 10);
    input
}

#[test]
fn bodies() {
    run("body", targets::body);
}

#[test]
fn lines() {
    run("lines", targets::lines);
}

#[test]
fn heads() {
    run("head", targets::head);
}

#[test]
fn texts() {
    run("text", targets::text);
}

#[test]
fn templates() {
    run("templates", targets::templates);
}

#[test]
fn configurations() {
    run("config", targets::config);
}
