//! The command line: one file a command, each thin.

mod analyze;
mod compile;
mod config_file;
mod download;
mod eval;
mod fetch;
mod load;
mod scan;
mod serve;
mod signals;
mod sockets;
mod tune;
mod twins;
mod verify;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// oddlog finds the odd lines in logs.
#[derive(Debug, Parser)]
#[command(name = "oddlog", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Analyze(analyze::AnalyzeArgs),
    Compile(compile::CompileArgs),
    Eval(eval::EvalArgs),
    Fetch(fetch::FetchArgs),
    Scan(scan::ScanArgs),
    Serve(serve::ServeArgs),
    Tune(tune::TuneArgs),
    Verify(verify::VerifyArgs),
}

/// How a command prints its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// One JSON object
    Json,
}

/// Runs the command line of this process. Exit code 2 means an error, told on standard error.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Analyze(args) => analyze::run(args),
        Command::Compile(args) => compile::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Fetch(args) => fetch::run(args),
        Command::Scan(args) => scan::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Tune(args) => tune::run(args),
        Command::Verify(args) => verify::run(args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("oddlog: {error}");
            ExitCode::from(2)
        }
    }
}
