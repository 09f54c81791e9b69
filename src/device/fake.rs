//! A device without a model: deterministic logits from the token ids, for tests of everything around the model and
//! for measuring oddlog's own cost. It can be gated, takes a given time, fails or panics on chosen tokens, has little memory, and plays
//! a script of faults.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender};

use super::{Device, DeviceError, DeviceMaker, Terminate};
use crate::model::InputTensors;

/// What one run does.
#[derive(Debug, Clone)]
pub enum Step {
    /// Runs.
    Run,
    /// Runs after a word from the other end, or once that is dropped; termination does not reach it.
    Wait(Receiver<()>),
    /// Fails.
    Fail,
    /// Finds no memory.
    OutOfMemory,
    /// Panics.
    Panic,
    /// Hangs until terminated.
    Hang,
}

/// Logits are a function of a row's ids alone, so company never changes them. Clones share gate, script and memory.
#[derive(Clone)]
pub struct FakeDevice {
    name: String,
    classes: usize,
    gate: Option<Receiver<()>>,
    poison: Option<i64>,
    panic: Option<i64>,
    script: Option<Receiver<Step>>,
    memory: Arc<AtomicUsize>,
    latency: Option<(Duration, Duration)>,
    shapes: Option<Sender<(usize, usize)>>,
    packs: bool,
    stop: Arc<Stop>,
}

/// Whether runs shall end.
#[derive(Default)]
struct Stop {
    set: Mutex<bool>,
    changed: Condvar,
}

impl FakeDevice {
    /// A device that answers at once with `classes` logits a row.
    pub fn new(name: impl Into<String>, classes: usize) -> Self {
        Self {
            name: name.into(),
            classes,
            gate: None,
            poison: None,
            panic: None,
            script: None,
            memory: Arc::new(AtomicUsize::new(usize::MAX)),
            latency: None,
            shapes: None,
            packs: false,
            stop: Arc::default(),
        }
    }

    /// Runs one batch for each token that `gate` hands out; freely once its sender is gone.
    pub fn gated(mut self, gate: Receiver<()>) -> Self {
        self.gate = Some(gate);
        self
    }

    /// Fails every run that holds the token `id`.
    pub fn failing_on(mut self, id: u32) -> Self {
        self.poison = Some(i64::from(id));
        self
    }

    /// Panics in every run that holds the token `id`.
    pub fn panicking_on(mut self, id: u32) -> Self {
        self.panic = Some(i64::from(id));
        self
    }

    /// Each run takes the next step of `script`; it runs where there is none.
    pub fn scripted(mut self, script: Receiver<Step>) -> Self {
        self.script = Some(script);
        self
    }

    /// Packs rows or pads them, as `packs` says: padding then takes neither time nor memory.
    pub fn packing(mut self, packs: bool) -> Self {
        self.packs = packs;
        self
    }

    /// Finds no memory for runs of more than `tokens` tokens, padded ones unless it packs. It may change at any time.
    pub fn with_memory(mut self, tokens: Arc<AtomicUsize>) -> Self {
        self.memory = tokens;
        self
    }

    /// Takes this long for a run, and for each token of it, padded ones unless it packs; unless terminated.
    pub fn taking(mut self, fixed: Duration, per_token: Duration) -> Self {
        self.latency = Some((fixed, per_token));
        self
    }

    /// Tells rows and length of the tensors of every run that `shapes` has room for.
    pub fn telling(mut self, shapes: Sender<(usize, usize)>) -> Self {
        self.shapes = Some(shapes);
        self
    }

    /// Makes it, and its clones after it.
    pub fn maker(self) -> DeviceMaker {
        // A device of its own is not terminated by what terminated the one before.
        let packs = self.packs;
        DeviceMaker::new(self.name.clone(), move || Ok(Self { stop: Arc::default(), ..self.clone() })).packing(packs)
    }

    fn play(&self, step: Step) -> Result<(), DeviceError> {
        match step {
            Step::Run => {}
            // A closed gate stands open.
            Step::Wait(gate) => drop(gate.recv()),
            Step::Fail => return Err(DeviceError::Failed("the script says so".into())),
            Step::OutOfMemory => return Err(DeviceError::OutOfMemory("the script says so".into())),
            Step::Panic => panic!("the fake device's script says so"),
            Step::Hang => return Err(self.stop.wait()),
        }
        Ok(())
    }
}

impl Device for FakeDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&mut self, inputs: &InputTensors, logits: &mut Vec<f32>) -> Result<(), DeviceError> {
        if let Some(shapes) = &self.shapes {
            let _ = shapes.try_send((inputs.padded_rows, inputs.len));
        }
        if let Some(gate) = &self.gate {
            // A closed gate stands open.
            let _ = gate.recv();
        }
        if let Some(step) = self.script.as_ref().and_then(|script| script.try_recv().ok()) {
            self.play(step)?;
        }
        let holds = |id: Option<i64>| id.is_some_and(|id| inputs.input_ids.contains(&id));
        assert!(!holds(self.panic), "the fake device was told to panic on this token");
        if holds(self.poison) {
            return Err(DeviceError::Failed("the fake device was told to fail on this token".into()));
        }
        let tokens = if self.packs { inputs.tokens() } else { inputs.rows * inputs.len };
        if tokens > self.memory.load(Ordering::Relaxed) {
            return Err(DeviceError::OutOfMemory(format!("{tokens} tokens are too many")));
        }
        if let Some((fixed, per_token)) = self.latency
            && self.stop.wait_for(fixed + per_token * tokens as u32)
        {
            return Err(DeviceError::Terminated);
        }
        logits.clear();
        for row in 0..inputs.rows {
            let ids = &inputs.input_ids[row * inputs.len..][..inputs.len];
            let mask = &inputs.attention_mask[row * inputs.len..][..inputs.len];
            let tokens = ids.iter().zip(mask).filter(|(_, m)| **m == 1);
            let hash = tokens.fold(0u64, |h, (id, _)| (h ^ *id as u64).wrapping_mul(0x0100_0000_01b3).rotate_left(23));
            logits.extend((0..self.classes).map(|class| {
                let bits = hash.wrapping_mul(2 * class as u64 + 1) >> 48;
                bits as f32 / 65536.0 * 8.0 - 4.0
            }));
        }
        Ok(())
    }

    fn terminator(&self) -> Option<Arc<dyn Terminate>> {
        Some(self.stop.clone())
    }
}

impl Stop {
    fn wait(&self) -> DeviceError {
        let stopped = self.changed.wait_while(self.lock(), |set| !*set);
        drop(stopped.unwrap_or_else(PoisonError::into_inner));
        DeviceError::Terminated
    }

    /// Waits for this long; says whether it was stopped meanwhile.
    fn wait_for(&self, time: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), time, |set| !*set);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Terminate for Stop {
    fn terminate(&self) {
        *self.lock() = true;
        self.changed.notify_all();
    }

    fn clear(&self) {
        *self.lock() = false;
    }
}
