//! The engine that the tests of the memory play on: one log a batch, and a device that waits for its cues.

use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use oddlog::{
    config::{Batching, Cache, Devices, Scoring},
    device::{Device, DeviceError, DeviceMaker, FakeDevice},
    engine::{Class, Engine, Fleet},
    error::RequestError,
    metrics::Metrics,
    model::{InputTensors, Model},
    verdicts::{Answer, Outcome, Verdicts},
};
use tokio::task::{JoinHandle, yield_now};

use crate::support::server::tiny_model;

/// What a device does in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    Fine,
    Fails,
    Panics,
}

/// A fake device that waits for its cue before each run but those that try it; freely fine once there is nobody to give any.
struct Scripted {
    inner: FakeDevice,
    cues: Receiver<Run>,
    is_tried: bool,
}

impl Device for Scripted {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn run(&mut self, inputs: &InputTensors, logits: &mut Vec<f32>) -> Result<(), DeviceError> {
        // The engine tries each device before it takes it, also one made anew after a panic, and after a run that failed.
        if std::mem::take(&mut self.is_tried) {
            return self.inner.run(inputs, logits);
        }
        match self.cues.recv().unwrap_or(Run::Fine) {
            Run::Fine => self.inner.run(inputs, logits),
            Run::Fails => {
                self.is_tried = true;
                Err(DeviceError::Failed("it was told to fail".into()))
            }
            Run::Panics => panic!("the device was told to panic"),
        }
    }
}

/// One log a batch, a device that waits for cues, and a memory before it.
pub struct Stage {
    pub verdicts: Verdicts,
    cues: Option<Sender<Run>>,
    /// The device's end, to see that no cue is left.
    pub untaken: Receiver<Run>,
    pub engine: Engine,
}

pub fn one_log_a_batch() -> Batching {
    Batching { max_batch_rows: 2, ..Batching::default() }
}

impl Stage {
    pub fn new(batching: &Batching, cache: &Cache) -> Self {
        Self::with(&tiny_model(512), batching, cache)
    }

    pub fn with(model: &Model, batching: &Batching, cache: &Cache) -> Self {
        let (cue, cues) = bounded(4096);
        let taken = cues.clone();
        let make = move || Ok(Scripted { inner: FakeDevice::new("fake:0", 2), cues: taken.clone(), is_tried: true });
        let fleet = Fleet { makers: vec![DeviceMaker::new("fake:0".into(), make)], rules: Devices::default() };
        let metrics = Metrics::new().unwrap();
        let engine = Engine::start(model, fleet, &Scoring::default(), batching, metrics).unwrap();
        Self { verdicts: Verdicts::new(engine.handle(), cache), cues: Some(cue), untaken: cues, engine }
    }

    pub fn usual() -> Self {
        Self::new(&one_log_a_batch(), &Cache::default())
    }

    pub fn cue(&self, run: Run) {
        self.cues.as_ref().unwrap().send(run).unwrap();
    }

    /// From now on every run is fine.
    pub fn open(&mut self) {
        self.cues = None;
    }

    pub fn spawn(
        &self,
        log: &str,
        class: Class,
        deadline: Option<Instant>,
    ) -> JoinHandle<Result<Answer, RequestError>> {
        let (verdicts, log) = (self.verdicts.clone(), log.to_owned());
        tokio::spawn(async move {
            let task = verdicts.handle().default_task();
            let deadline = deadline.unwrap_or_else(|| Instant::now() + verdicts.handle().timeouts().default);
            verdicts.classify_by(&log, task, class, deadline).await
        })
    }

    pub async fn ask(&self, log: &str) -> Result<Answer, RequestError> {
        self.verdicts.classify(log, self.verdicts.handle().default_task(), Class::Interactive).await
    }

    /// The tokens that the model reads of a log.
    pub async fn ids(&self, log: &str) -> Vec<u32> {
        let handle = self.verdicts.handle();
        handle.encode(log, handle.default_task()).await.log.ids
    }

    /// The sum of a metric's samples whose line holds `label`.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let text = self.verdicts.handle().metrics().render();
        let of_it = |l: &&str| l.split([' ', '{']).next() == Some(name) && l.contains(label);
        text.lines().filter(of_it).filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Batches that the device took.
    pub fn batches(&self) -> f64 {
        self.metric("oddlog_batches_total", "")
    }
}

/// Lets other tasks run until `ready`; the test runner's own time limit is the bound.
pub async fn until(mut ready: impl FnMut() -> bool) {
    while !ready() {
        yield_now().await;
    }
}

/// On a single thread: lets every other task run until it waits for something. The scheduler comes back to a task that
/// yields after some 60 others.
pub async fn settle() {
    for _ in 0..64 {
        yield_now().await;
    }
}

pub fn outcome(answer: Result<Answer, RequestError>) -> Option<Outcome> {
    answer.unwrap().outcome
}
