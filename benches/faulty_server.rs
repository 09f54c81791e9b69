//! The real server on the real model, with devices that fail when standard input says so, for `loadtest/faults.py`.
//!
//! A fault is a step of the scripted [`FakeDevice`]: each device plays one before its own run. Commands, one a line: `fail`,
//! `out-of-memory`, `panic`, `hang` (ends when terminated) and `stuck` (does not, until `release`) with the number of a device
//! or `all`; `memory N`, tokens that there is memory for. The end of the input ends the server as SIGTERM does.
//!
//! It says `{"address", "poison", "pid"}` on standard output: no token of the given lines is in the word `poison`, and each
//! run that holds its first token fails.
//!
//! Usage: `faulty_server --lines FILE [--model DIR] [--devices N]`; configuration from the environment, as ever

use std::{
    collections::HashSet,
    fs,
    io::{BufRead, stdin},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use clap::Parser;
use crossbeam_channel::{Receiver, Sender, bounded};
use oddlog::{
    config::Config,
    device::{
        CPU_RUN_TOKENS, Device, DeviceError, DeviceMaker, FakeDevice, Terminate,
        fake::Step,
        onnx::{CpuOptions, OnnxDevice, Runtime},
    },
    engine::{Engine, Fleet},
    http::{self, App, Doors},
    metrics::Metrics,
    model::{InputTensors, Model},
    verdicts::Verdicts,
};
use tokio::{net::TcpListener, sync::oneshot};

/// Faults that a device can have before it.
const STEPS: usize = 1024;

#[derive(Parser)]
struct Args {
    #[arg(long, default_value = "models/oddlog-minilm")]
    model: PathBuf,
    #[arg(long)]
    lines: PathBuf,
    #[arg(long, default_value_t = 2)]
    devices: usize,
    /// Given by `cargo bench`; means nothing here.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A device that has its faults before its runs.
struct Faulty {
    faults: Box<dyn Device>,
    real: Box<dyn Device>,
}

impl Device for Faulty {
    fn name(&self) -> &str {
        self.real.name()
    }

    fn run(&mut self, inputs: &InputTensors, logits: &mut Vec<f32>) -> Result<(), DeviceError> {
        self.faults.run(inputs, logits)?;
        self.real.run(inputs, logits)
    }

    fn terminator(&self) -> Option<Arc<dyn Terminate>> {
        Some(Arc::new(Both([&self.faults, &self.real].into_iter().filter_map(|device| device.terminator()).collect())))
    }
}

struct Both(Vec<Arc<dyn Terminate>>);

impl Terminate for Both {
    fn terminate(&self) {
        self.0.iter().for_each(|one| one.terminate());
    }

    fn clear(&self) {
        self.0.iter().for_each(|one| one.clear());
    }
}

/// A word whose first token is in none of the lines, and that token.
fn poison(model: &Model, lines: &str) -> (&'static str, u32) {
    let first = |word: &str| model.tokenizer.encode_log(word, 0..=0).ids.first().copied();
    let used: HashSet<u32> = lines.split_whitespace().flat_map(|w| model.tokenizer.encode_log(w, 0..=0).ids).collect();
    let words = ["zebra", "xylophone", "giraffe", "marmalade", "saxophone", "cathedral", "penguin"];
    let found = words.into_iter().find_map(|word| Some((word, first(word).filter(|id| !used.contains(id))?)));
    found.expect("some word is in no log")
}

/// Where commands go.
struct Faults {
    scripts: Vec<Sender<Step>>,
    memory: Arc<AtomicUsize>,
    held: Vec<Sender<()>>,
}

impl Faults {
    fn obey(&mut self, command: &str) -> Result<(), String> {
        let (what, whom) = command.split_once(' ').unwrap_or((command, "all"));
        match what {
            "release" => self.held.clear(),
            "memory" => self.memory.store(whom.parse().map_err(|e| format!("{command}: {e}"))?, Ordering::SeqCst),
            _ => {
                let chosen = match whom {
                    "all" => &self.scripts[..],
                    number => number
                        .parse()
                        .ok()
                        .and_then(|at: usize| self.scripts.get(at..=at))
                        .ok_or_else(|| format!("{command}: no such device"))?,
                };
                for script in chosen {
                    let step = match what {
                        "fail" => Step::Fail,
                        "out-of-memory" => Step::OutOfMemory,
                        "panic" => Step::Panic,
                        "hang" => Step::Hang,
                        "stuck" => {
                            let (release, until) = bounded(0);
                            self.held.push(release);
                            Step::Wait(until)
                        }
                        _ => return Err(format!("{command} is no fault")),
                    };
                    script.try_send(step).map_err(|e| format!("{command}: {e}"))?;
                }
            }
        }
        Ok(())
    }
}

fn faulty_maker(
    (name, poison): (String, u32),
    script: Receiver<Step>,
    memory: Arc<AtomicUsize>,
    mut real: DeviceMaker,
) -> DeviceMaker {
    let fake =
        FakeDevice::new(name.clone(), 2).scripted(script).failing_on(poison).with_memory(memory).packing(real.packs);
    let (mut faults, packs) = (fake.maker(), real.packs);
    DeviceMaker::new(name, move || Ok(Faulty { faults: faults.make()?, real: real.make()? })).packing(packs)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let config = Config::load(None, serde_json::json!({}))?;
    let model = Model::open(&args.model, config.model.max_length)?;
    let (word, token) = poison(&model, &fs::read_to_string(&args.lines)?);
    let runtime = Runtime::load(&Runtime::find(&config.devices.onnxruntime))?;
    let options = CpuOptions { intra_op_threads: 1, max_run_tokens: config.batching.batch_tokens(CPU_RUN_TOKENS) };
    let mut faults = Faults { scripts: Vec::new(), memory: Arc::new(AtomicUsize::new(usize::MAX)), held: Vec::new() };
    let mut makers = Vec::new();
    for number in 0..args.devices {
        let (send, script) = bounded(STEPS);
        faults.scripts.push(send);
        let name = format!("faulty:{number}");
        let real = OnnxDevice::cpu_maker(runtime, name.clone(), &model, options);
        makers.push(faulty_maker((name, token), script, faults.memory.clone(), real));
    }
    let fleet = Fleet { makers, rules: config.devices.clone() };
    let engine = Engine::start(&model, fleet, &config.scoring, &config.batching, Metrics::new()?)?;
    let bound = Duration::from_millis(config.server.shutdown_timeout_ms);
    let (stop, stopped) = oneshot::channel::<()>();
    let listening = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let answered = listening.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        println!("{}", serde_json::json!({ "address": address, "poison": word, "pid": std::process::id() }));
        let app = Arc::new(App::new(Verdicts::new(engine.handle(), &config.cache), config.server, "faulty".into())?);
        thread::Builder::new().name("commands".into()).spawn(move || {
            for command in stdin().lock().lines().map_while(Result::ok) {
                if let Err(error) = faults.obey(&command) {
                    eprintln!("{error}");
                }
            }
            // Whoever is stuck is let go before the end.
            drop(faults);
            let _ = stop.send(());
        })?;
        let served = http::serve(Doors::from(listener), app, async {
            let _ = stopped.await;
        });
        Ok::<_, Box<dyn std::error::Error>>(served.await)
    })?;
    let drained = engine.shutdown(bound);
    println!("{}", serde_json::json!({ "answered": answered, "drained": drained }));
    Ok(())
}
