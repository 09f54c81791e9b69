//! The flags of `oddlog scan`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::super::{analyze::parse_threshold, load::LoadArgs};

/// Find the odd records in log files: grep that needs no pattern
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  oddlog scan /var/log/syslog
  oddlog scan app.log app.log.1.gz app.log.2.zst --context 2
  zcat big.gz | oddlog scan - | head
  oddlog scan --follow /var/log/app/current.log
  oddlog scan --top 20 app.log                    the oddest messages, each once
  oddlog scan --by-template --top 30 app.log      what kinds of messages there are, the oddest first
  oddlog scan --format csv app.log > odd.csv
  oddlog scan --server http://10.0.0.5:8000 app.log

Compressed files (gzip, zstd) are told by their content. Stack traces and indented lines are one record with the line
before them. The model reads level, program and message of a record, without times, hosts and process numbers, and each
text once; --raw gives it every line as it is.

Exit codes: 0, or with --fail-on-anomaly 1 if a record is odd; 2 if an input could not be read or scored; 130 after Ctrl-C,
which prints the summary so far.")]
pub struct ScanArgs {
    /// Files to scan; - is standard input, which is also read without any
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub load: LoadArgs,
    /// Score from which a record is odd, 0 to 1
    #[arg(long, value_name = "SCORE", value_parser = parse_threshold)]
    pub threshold: Option<f32>,
    /// Candidate labels, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "LABEL,...")]
    pub labels: Option<Vec<String>>,
    /// The label that counts as the anomaly; without it the configured one, or the first of --labels
    #[arg(long, value_name = "LABEL")]
    pub anomaly_label: Option<String>,
    /// Print the N oddest messages at the end, each once; with --by-template the first N rows
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub top: Option<u32>,
    /// Print N records before and after each odd one, too
    #[arg(long, short = 'C', value_name = "N", default_value_t = 0, conflicts_with_all = ["top", "by_template"],
          value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub context: u32,
    /// Print a table of the kinds of messages at the end
    #[arg(long)]
    pub by_template: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Go on reading as files grow, through rotation, until Ctrl-C
    #[arg(long, short = 'f', requires = "files")]
    pub follow: bool,
    /// With --follow: begin where the files end now
    #[arg(long, requires = "follow")]
    pub from_end: bool,
    /// Every line a record of its own, read by the model as it is
    #[arg(long)]
    pub raw: bool,
    /// Ask a running server instead of loading the model
    #[arg(long, value_name = "URL", conflicts_with_all = ["model", "precision", "device"])]
    pub server: Option<String>,
    /// File with the server's bearer key
    #[arg(long, value_name = "FILE", requires = "server")]
    pub api_key_file: Option<PathBuf>,
    /// Exit with 1 if a record is odd
    #[arg(long)]
    pub fail_on_anomaly: bool,
    /// When to print in colour
    #[arg(long, value_enum, default_value_t = When::Auto, value_name = "WHEN")]
    pub color: When,
    /// No summary and no progress on standard error
    #[arg(long, short)]
    pub quiet: bool,
}

/// How the result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// One JSON object a line
    Json,
    /// With a header
    Csv,
}

/// When something is done that suits a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}
