//! Our tokenizers beside the library's own, on real lines: the same ids, and how long a line and the start take, and the
//! memory that stays.
//!
//! Usage: `tokenizer --model DIR --lines FILE [--lengths]`; JSON on standard output, with `--lengths` how many lines have
//! 0, 1, 2, ... tokens. Exit code 1 if any line has other ids.

use std::{
    collections::HashSet,
    hint::black_box,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use oddlog::{memory, model::PairTokenizer};
use tokenizers::pipeline::{EncodeOptions, Override, PipelineToken, PipelineTokenizer};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Args {
    #[arg(long)]
    model: PathBuf,
    #[arg(long)]
    lines: PathBuf,
    /// Counts lines by their number of tokens, and nothing else.
    #[arg(long)]
    lengths: bool,
    /// Given by `cargo bench`; means nothing here.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Anonymous memory of this process in MB, after what is free was given back.
fn own_mb() -> f64 {
    memory::give_back();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim_end_matches("kB").trim().parse::<f64>().ok()).unwrap_or(f64::NAN) / 1024.0
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let made = work();
    (made, started.elapsed())
}

fn library_ids(tokenizer: &PipelineTokenizer, line: &str) -> Vec<u32> {
    let options = EncodeOptions {
        add_special_tokens: false,
        encode_special_tokens: true,
        padding: Override::Off,
        truncation: Override::Off,
    };
    let mut tokens = Vec::new();
    tokenizer.encode_into(line, &options, &mut tokens).expect("the library encodes any text");
    tokens.into_iter().map(PipelineToken::id).collect()
}

fn main() -> ExitCode {
    let args = Args::parse();
    let path = args.model.join("tokenizer.json");
    let text = String::from_utf8_lossy(&std::fs::read(&args.lines).expect("--lines is a file")).into_owned();
    let lines: Vec<&str> = text.lines().collect();

    if args.lengths {
        let own = PairTokenizer::read(&path, 512).expect("it is a tokenizer");
        let mut counts = vec![0usize; 512];
        lines.iter().for_each(|line| counts[own.encode_log(line, 6..=6).ids.len().min(511)] += 1);
        counts.truncate(1 + counts.iter().rposition(|count| *count > 0).unwrap_or_default());
        println!("{}", serde_json::json!(counts));
        return ExitCode::SUCCESS;
    }
    let before = own_mb();
    let (own, own_start) = timed(|| PairTokenizer::read(&path, 1 << 20).expect("it is a tokenizer"));
    let own_memory = own_mb() - before;
    let (own_ids, own_time) = timed(|| lines.iter().map(|line| own.encode_log(line, 0..=0).ids).collect::<Vec<_>>());
    let before = own_mb();
    let (library, library_start) = timed(|| {
        let canonical = tokenizers::canonicalize_file(&path).expect("it is a tokenizer");
        tokenizers::from_json(&canonical).expect("the library reads it")
    });
    let library_memory = own_mb() - before;
    let (library_ids, library_time) =
        timed(|| lines.iter().map(|line| library_ids(&library, line)).collect::<Vec<_>>());

    // Special tokens in a text are ours to replace.
    let json = std::fs::read_to_string(&path).expect("it was read before");
    let json: serde_json::Value = serde_json::from_str(&json).expect("it was read before");
    let added = json["added_tokens"].as_array().into_iter().flatten();
    let mut special: HashSet<u32> = added.filter_map(|t| t["id"].as_u64()?.try_into().ok()).collect();
    let pair = &library.get_post_processor().pair;
    special.extend([&pair.prefix, &pair.infix, &pair.suffix].into_iter().flatten().map(|(token, _)| token.id()));
    let same = |own: &[u32], library: &[u32]| {
        own.len() == library.len() && own.iter().zip(library).all(|(a, b)| a == b || special.contains(b))
    };
    let other = own_ids.iter().zip(&library_ids).filter(|(own, library)| !same(own, library)).count();
    let tokens: usize = own_ids.iter().map(Vec::len).sum();
    let figures = |start: Duration, memory: f64, time: Duration| {
        serde_json::json!({
            "start_ms": start.as_secs_f64() * 1e3,
            "memory_mb": memory,
            "us_per_line": time.as_secs_f64() * 1e6 / lines.len() as f64,
            "tokens_per_second": tokens as f64 / time.as_secs_f64(),
        })
    };
    let found = serde_json::json!({
        "lines": lines.len(),
        "tokens": tokens,
        "lines_with_other_ids": other,
        "oddlog": figures(own_start, own_memory, own_time),
        "library": figures(library_start, library_memory, library_time),
    });
    println!("{found:#}");
    black_box((own_ids, library_ids));
    ExitCode::from(u8::from(other > 0))
}
