//! The engine: the only place that starts device threads. It admits logs, queues them and answers each exactly once.
//!
//! ```text
//! Handle::classify -> tokenise -> admit -> inbox ==> Batcher <- asked by <- device-0 .. device-N <- watchdog
//!         ^                                                                      |
//!         '----------------------------- oneshot Reply --------------------------'
//! ```
//!
//! [`Engine`] owns the only strong end of the inbox, [`Handle`]s are weak: dropping the engine closes the inbox, which
//! drains it and ends the workers. There are no stop flags. It does not know HTTP.

mod admission;
mod aside;
mod backoff;
mod budget;
mod crew;
mod handle;
mod health;
mod pace;
mod slot;
mod vitals;
mod watchdog;
mod worker;

use std::{
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::AtomicUsize},
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};

pub use crate::batching::{Class, CloseReason, JobRun};
pub use handle::{Classified, Encoded, Handle, StageTimes, Timeouts};
pub use vitals::{DeviceState, Fault};

use crate::{
    batching::{Batcher, Costs, Desk, Inbox},
    classify::{Head, Task},
    config::{Batching, Devices, Scoring},
    device::{CPU_RUN_TOKENS, Device, DeviceMaker},
    error::StartError,
    metrics::Metrics,
    model::{
        InputTensors, Model, Padding, Shapes,
        tensors::{MIN_ROWS, length_multiple},
    },
};
use admission::Admission;
use aside::Aside;
use crew::Crew;
use handle::Shared;
use health::Health;
use pace::Pace;
use slot::Slot;
use watchdog::Watchdog;
use worker::Worker;

/// The devices that an engine works with.
pub struct Fleet {
    /// How each of them is made.
    pub makers: Vec<DeviceMaker>,
    /// What happens when they fail.
    pub rules: Devices,
}

/// Running devices and the queue before them.
pub struct Engine {
    inbox: Arc<Inbox>,
    shared: Arc<Shared>,
    /// Its end wakes devices that wait to be made anew.
    _closing: Sender<Infallible>,
    ended: Receiver<()>,
    threads: usize,
}

impl Engine {
    /// Makes every device and warms it up with a run, then starts a worker thread for each, and one that watches them.
    ///
    /// # Errors
    /// [`StartError::Config`] if the configured labels cannot be used with this model; [`StartError::Device`] if a
    /// device cannot run it; what makes the devices may say more.
    pub fn start(
        model: &Model,
        fleet: Fleet,
        scoring: &Scoring,
        batching: &Batching,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let Fleet { makers, rules } = fleet;
        let task = Task::configured(scoring, &model.tokenizer)?;
        let padding = padding(model, &makers, scoring, batching);
        let at_once = makers.iter().map(|maker| batching.batch_tokens(maker.run_tokens)).sum();
        let longest = scoring.max_labels * model.tokenizer.max_length();
        let admission = Arc::new(Admission::new(batching, at_once, (padding.least(), longest)));
        let health = Arc::new(Health::new(&rules, &makers, Instant::now()));
        let desk = Desk::new(makers.len(), padding.is_free());
        let (inbox, batcher) = Batcher::new(admission.max_jobs(), desk, admission.rate().clone(), metrics.clone());
        let threads = makers.len() + 1;
        let (ending, ended) = bounded(threads);
        let (changing, changed) = bounded(1);
        let (keep_open, closing) = bounded(0);
        let crew = Arc::new(Crew {
            batcher,
            batching: batching.clone(),
            target_run: Duration::from_millis(batching.target_run_ms),
            tokenizer: model.tokenizer.clone(),
            pad_id: model.spec.pad_id,
            classes: model.spec.classes,
            first_run: first_run(model, &task, &padding),
            padding: padding.clone(),
            admission: admission.clone(),
            metrics: metrics.clone(),
            health: health.clone(),
            rules,
            closing,
            working: AtomicUsize::new(makers.len()),
            ended: ending,
            changed: changing,
        });
        let engine = Self {
            inbox: Arc::new(inbox),
            shared: Arc::new(Shared {
                tokenizer: model.tokenizer.clone(),
                head: Head::from(&model.spec),
                default_task: Arc::new(task),
                default_labels: scoring.clone(),
                timeouts: Timeouts::new(batching),
                padding,
                admission,
                health,
                metrics,
                aside: Aside::default(),
            }),
            _closing: keep_open,
            ended,
            threads,
        };
        let made = makers.into_iter().enumerate().map(|(seat, maker)| make(seat, maker, &crew));
        let made = made.collect::<Result<Vec<_>, _>>()?;
        let slots = made.iter().map(|(slot, _)| slot.clone()).collect();
        for (slot, device) in made {
            Worker::new(crew.clone(), slot.clone(), device).start().map_err(no_thread(&slot.name))?;
        }
        let watchdog = Watchdog { crew, slots, changed };
        thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || watchdog.run())
            .map_err(no_thread("that watches the others"))?;
        Ok(engine)
    }

    /// A handle to classify with. It does not keep the engine alive.
    pub fn handle(&self) -> Handle {
        Handle::new(self.shared.clone(), Arc::downgrade(&self.inbox))
    }

    /// Closes the inbox, lets the devices finish what was accepted, and waits for them at most `bound`.
    /// Returns whether all of them ended.
    pub fn shutdown(self, bound: Duration) -> bool {
        let Self { inbox, ended, threads, _closing, .. } = self;
        drop((inbox, _closing));
        let until = Instant::now() + bound;
        (0..threads).all(|_| ended.recv_deadline(until).is_ok())
    }
}

/// What runs are padded to. One queue is before all devices: padding is free if it is so for all of them, and else the largest
/// multiple that any of them wants holds for all.
fn padding(model: &Model, makers: &[DeviceMaker], scoring: &Scoring, batching: &Batching) -> Padding {
    if batching.fixed_shapes {
        let tokens = makers.iter().map(|maker| batching.batch_tokens(maker.run_tokens)).max().unwrap_or(CPU_RUN_TOKENS);
        let rows = batching.batch_rows(tokens).max(scoring.max_labels);
        return Padding::Shapes(Shapes::new(tokens, rows, model.tokenizer.max_length()));
    }
    if !makers.is_empty() && makers.iter().all(|maker| maker.packs) {
        return Padding::Free;
    }
    let multiples = makers.iter().map(|maker| maker.length_multiple);
    Padding::Multiple(multiples.max().unwrap_or_else(length_multiple))
}

/// What a device runs first: a log of some length, so that the first request does not pay for it and a broken graph is
/// seen at once.
fn first_run(model: &Model, task: &Task, padding: &Padding) -> InputTensors {
    let log = model.tokenizer.encode_log("INFO oddlog starts and runs the model once", task.lengths.clone());
    let mut inputs = InputTensors::default();
    let (rows, longest) = (task.rows(), task.longest_pair(&model.tokenizer, log.ids.len()));
    inputs.reset_to(padding.fit(rows, longest), model.spec.pad_id);
    for hypothesis in task.hypotheses.iter() {
        inputs.push(&model.tokenizer, &log.ids, hypothesis);
    }
    inputs.finish();
    inputs
}

/// A device that ran once, and the slot for it and those after it.
fn make(seat: usize, mut maker: DeviceMaker, crew: &Crew) -> Result<(Arc<Slot>, Box<dyn Device>), StartError> {
    let mut device = maker.make()?;
    crew.metrics.device_runs_on(&maker.name, &maker.about);
    let fail = |reason: String| StartError::Device { name: maker.name.clone(), reason };
    let (mut logits, started) = (Vec::new(), Instant::now());
    match catch_unwind(AssertUnwindSafe(|| device.run(&crew.first_run, &mut logits))) {
        Err(_) => return Err(fail("it panics when it runs the model".into())),
        Ok(Err(e)) => return Err(fail(format!("the model does not run: {e}"))),
        Ok(Ok(())) if logits.iter().any(|z| !z.is_finite()) => {
            return Err(fail("the model gives logits that are not finite numbers; its weights are broken".into()));
        }
        Ok(Ok(())) => {}
    }
    let now = Instant::now();
    let most = crew.limits(maker.run_tokens).max_tokens;
    let costs = warm_up(device.as_mut(), crew, most).map_err(fail)?;
    crew.health.succeeded(Instant::now());
    let pace = Pace::new(crew.padding.tokens(&crew.first_run), now - started, now);
    Ok((Arc::new(Slot::new(seat, maker, device.as_ref(), (pace, costs), crew)), device))
}

/// Runs every fixed shape that a run of at most so many tokens can have, so that no request waits for a device to get to know it:
/// once to get to know it, and once more to learn what it costs then.
fn warm_up(device: &mut dyn Device, crew: &Crew, most: usize) -> Result<Costs, String> {
    let mut costs = Costs::default();
    let Padding::Shapes(shapes) = &crew.padding else { return Ok(costs) };
    let (mut all, started, mut logits) = (shapes.all(), Instant::now(), Vec::new());
    // Rows are padded to a power of two.
    all.retain(|(rows, len)| rows * len < 2 * most || *rows == MIN_ROWS);
    let (runs, told) = (2 * all.len(), all.len().div_ceil(2));
    for (done, (rows, len)) in all.iter().chain(&all).copied().enumerate() {
        if done % told == 0 {
            tracing::info!(device = device.name(), done, of = runs, "warming up the fixed shapes");
        }
        let (inputs, began) = (crew.first_run.stretched((rows, len)), Instant::now());
        match catch_unwind(AssertUnwindSafe(|| device.run(&inputs, &mut logits))) {
            Ok(Ok(())) if done < all.len() => {}
            Ok(Ok(())) => drop(costs.observe(rows * len, len, began.elapsed())),
            Ok(Err(e)) => {
                return Err(format!(
                    "it does not run {rows} rows of {len} tokens: {e}; lower batching.max_batch_tokens"
                ));
            }
            Err(_) => return Err(format!("it panics when it runs {rows} rows of {len} tokens")),
        }
    }
    tracing::info!(device = device.name(), shapes = all.len(), time = ?started.elapsed(), "the fixed shapes are warm");
    Ok(costs)
}

fn no_thread(name: &str) -> impl FnOnce(std::io::Error) -> StartError {
    let name = name.to_owned();
    move |e| StartError::Device { name, reason: format!("its thread cannot be started: {e}") }
}
