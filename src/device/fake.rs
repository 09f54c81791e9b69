//! A device without a model: deterministic logits from the token ids, for tests of everything around the model and
//! for measuring oddlog's own cost. It can be gated, and fails or panics on chosen tokens.

use crossbeam_channel::Receiver;

use super::{Device, DeviceError};
use crate::model::InputTensors;

/// Logits are a function of a row's ids alone, so company never changes them.
pub struct FakeDevice {
    name: String,
    classes: usize,
    gate: Option<Receiver<()>>,
    poison: Option<i64>,
    panic: Option<i64>,
}

impl FakeDevice {
    /// A device that answers at once with `classes` logits a row.
    pub fn new(name: impl Into<String>, classes: usize) -> Self {
        Self { name: name.into(), classes, gate: None, poison: None, panic: None }
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
}

impl Device for FakeDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&mut self, inputs: &InputTensors, logits: &mut Vec<f32>) -> Result<(), DeviceError> {
        if let Some(gate) = &self.gate {
            // A closed gate stands open.
            let _ = gate.recv();
        }
        let holds = |id: Option<i64>| id.is_some_and(|id| inputs.input_ids.contains(&id));
        assert!(!holds(self.panic), "the fake device was told to panic on this token");
        if holds(self.poison) {
            return Err(DeviceError("the fake device was told to fail on this token".into()));
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
}
