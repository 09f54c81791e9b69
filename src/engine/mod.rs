//! The engine: the only place that starts device threads. It admits logs, queues them and answers each exactly once.
//!
//! ```text
//! Handle::classify -> tokenise -> admit -> inbox ==> Batcher <- asked by <- device-0 .. device-N
//!         ^                                                                      |
//!         '----------------------------- oneshot Reply --------------------------'
//! ```
//!
//! [`Engine`] owns the only strong end of the inbox, [`Handle`]s are weak: dropping the engine closes the inbox, which
//! drains it and ends the workers. There are no stop flags. It does not know HTTP.

mod admission;
mod handle;
mod worker;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, bounded};

pub use crate::batching::Class;
pub use handle::{Classified, Handle, StageTimes, Timeouts};

use crate::{
    batching::{Batcher, Inbox, Limits},
    classify::{Head, Task},
    config::{Batching, Scoring},
    device::Device,
    error::StartError,
    metrics::Metrics,
    model::{InputTensors, Model},
};
use admission::Admission;
use handle::Shared;
use worker::Worker;

/// Running devices and the queue before them.
pub struct Engine {
    inbox: Arc<Inbox>,
    shared: Arc<Shared>,
    ended: Receiver<()>,
    workers: usize,
}

impl Engine {
    /// Warms up every device with a run, then starts a worker thread for each.
    ///
    /// # Errors
    /// [`StartError::Config`] if the configured labels cannot be used with this model; [`StartError::Device`] if a
    /// device cannot run it.
    pub fn start(
        model: &Model,
        devices: Vec<Box<dyn Device>>,
        scoring: &Scoring,
        batching: &Batching,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let task = Task::configured(scoring, &model.tokenizer)?;
        let limits = Limits {
            max_tokens: batching.max_batch_tokens,
            max_bulk_tokens: batching.bulk_batch_tokens(),
            max_rows: batching.max_batch_rows,
            max_padding: batching.max_padding,
            bulk_share: batching.bulk_share,
            max_delay: Duration::from_micros(batching.max_queue_delay_us),
        };
        let admission = Arc::new(Admission::new(batching, devices.len()));
        let (inbox, batcher) = Batcher::new(admission.max_jobs(), admission.rate().clone(), metrics.clone());
        let batcher = Arc::new(batcher);
        let workers = devices.len();
        let (ending, ended) = bounded(workers);
        for mut device in devices {
            warm_up(device.as_mut(), model, &task)?;
            let name = device.name().to_owned();
            let worker = Worker::new(device, model, batcher.clone(), limits, admission.clone(), metrics.clone());
            let ending = ending.clone();
            thread::Builder::new()
                .name(format!("device-{name}"))
                .spawn(move || {
                    worker.run();
                    // The engine may be gone already; then nobody counts.
                    let _ = ending.try_send(());
                })
                .map_err(|e| StartError::Device { name, reason: format!("its thread cannot be started: {e}") })?;
        }
        let shared = Shared {
            tokenizer: model.tokenizer.clone(),
            head: Head::from(&model.spec),
            default_task: Arc::new(task),
            default_labels: scoring.clone(),
            timeouts: Timeouts::new(batching),
            admission,
            metrics,
        };
        Ok(Self { inbox: Arc::new(inbox), shared: Arc::new(shared), ended, workers })
    }

    /// A handle to classify with. It does not keep the engine alive.
    pub fn handle(&self) -> Handle {
        Handle::new(self.shared.clone(), Arc::downgrade(&self.inbox))
    }

    /// Closes the inbox, lets the devices finish what was accepted, and waits for them at most `bound`.
    /// Returns whether all of them ended.
    pub fn shutdown(self, bound: Duration) -> bool {
        let Self { inbox, ended, workers, .. } = self;
        drop(inbox);
        let until = Instant::now() + bound;
        (0..workers).all(|_| ended.recv_deadline(until).is_ok())
    }
}

/// One run with a log of some length, so that the first request does not pay for it and a broken graph is seen now.
fn warm_up(device: &mut dyn Device, model: &Model, task: &Task) -> Result<(), StartError> {
    let log = model.tokenizer.encode_log("INFO oddlog starts and runs the model once", task.lengths.clone());
    let mut inputs = InputTensors::default();
    inputs.reset(task.rows(), task.longest_pair(&model.tokenizer, log.ids.len()), model.spec.pad_id);
    for hypothesis in task.hypotheses.iter() {
        inputs.push(&model.tokenizer, &log.ids, hypothesis);
    }
    inputs.finish();
    let mut logits = Vec::new();
    let name = device.name().to_owned();
    let fail = |reason: String| StartError::Device { name, reason };
    match device.run(&inputs, &mut logits) {
        Err(e) => Err(fail(format!("the model does not run: {e}"))),
        Ok(()) if logits.iter().any(|z| !z.is_finite()) => {
            Err(fail("the model gives logits that are not finite numbers; its weights are broken".into()))
        }
        Ok(()) => Ok(()),
    }
}
