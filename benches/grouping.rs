//! How well the template miner groups messages: grouping accuracy on LogHub's samples, and its speed.
//!
//! ```sh
//! git clone --depth 1 https://github.com/logpai/loghub
//! cargo bench --bench grouping -- loghub/*/*_2k.log_structured.csv
//! ```
//!
//! Grouping accuracy, as in "Tools and Benchmarks for Automated Log Parsing" (Zhu et al., ICSE-SEIP 2019): the share of
//! messages whose group, as a set of messages, is that of the labels. Settings are the built-in ones for every sample.

#![allow(missing_docs, clippy::unwrap_used, reason = "a tool for developers")]

use std::{collections::HashMap, time::Instant};

use oddlog::templates::{Miner, Settings, TemplateId};

fn main() {
    let files: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if files.is_empty() {
        println!("give LogHub's *_structured.csv files; see benches/grouping.rs");
        return;
    }
    println!(
        "{:<14} {:>8} {:>9} {:>9} {:>9} {:>11}",
        "sample", "messages", "templates", "labelled", "accuracy", "messages/s"
    );
    let mut sum = 0.0;
    for file in &files {
        let mut reader = csv::Reader::from_path(file).unwrap();
        let headers = reader.headers().unwrap().clone();
        let column = |name: &str| headers.iter().position(|h| h == name).unwrap();
        let (content, event) = (column("Content"), column("EventId"));
        let rows: Vec<(String, String)> = reader
            .records()
            .map(|row| row.map(|row| (row[content].to_owned(), row[event].to_owned())).unwrap())
            .collect();
        let mut miner = Miner::new(Settings::default());
        let started = Instant::now();
        let found: Vec<TemplateId> = rows.iter().map(|(message, _)| miner.add(message).id).collect();
        let rate = rows.len() as f64 / started.elapsed().as_secs_f64();

        let (mut of_found, mut of_event, mut of_both) = (HashMap::new(), HashMap::new(), HashMap::new());
        for (id, (_, event)) in found.iter().zip(&rows) {
            *of_found.entry(id).or_insert(0u32) += 1;
            *of_event.entry(event).or_insert(0u32) += 1;
            *of_both.entry((id, event)).or_insert(0u32) += 1;
        }
        let right: u32 = of_both
            .iter()
            .filter(|((id, event), n)| of_found[id] == **n && of_event[event] == **n)
            .map(|(_, n)| n)
            .sum();
        let accuracy = f64::from(right) / rows.len() as f64;
        sum += accuracy;
        let name = file.rsplit('/').next().unwrap().split('_').next().unwrap();
        println!(
            "{name:<14} {:>8} {:>9} {:>9} {accuracy:>9.3} {rate:>11.0}",
            rows.len(),
            of_found.len(),
            of_event.len()
        );
    }
    println!("{:<14} {:>38.3}", "mean", sum / files.len() as f64);
}
