//! Care for a device that may be sick: whether it still runs what every device can, and making it anew.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use crossbeam_channel::RecvTimeoutError;

use super::{End, Worker};
use crate::{
    batching::{Entry, Job},
    device::{Device, DeviceError},
    engine::{backoff::Backoff, vitals::Fault},
};

impl Worker {
    /// Gives the entries of a failed run back if the device still runs what every device can. One that does not would fail
    /// faster than others work, and so get the more logs the longer it is sick.
    pub(super) fn examine(
        &mut self,
        device: &mut dyn Device,
        entries: Vec<Entry<Job>>,
        error: &DeviceError,
    ) -> Result<Vec<Entry<Job>>, End> {
        // Where whoever abandons this thread finds them.
        self.slot.push_rest(entries);
        let told = match self.try_out(device)? {
            Ok(()) => return Ok(self.slot.pop_rest().unwrap_or_default()),
            Err(told) => told,
        };
        let entries = self.slot.take_rest();
        tracing::error!(device = self.slot.name, %error, then = told, logs = entries.len(), "the device is broken");
        self.slot.suffered(Fault::Broken);
        self.slot.set_up(false);
        self.crew.refuse(entries);
        Err(End::Broken)
    }

    /// Makes the device anew: at once, then after longer and longer waits.
    pub(super) fn rebuild(&mut self) -> Result<Box<dyn Device>, End> {
        let (crew, slot) = (self.crew.clone(), self.slot.clone());
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(crew.rules.rebuild_backoff_ms), ms(crew.rules.max_rebuild_backoff_ms));
        loop {
            let made = self.make()?;
            crew.metrics.rebuilt(&slot.name, self.reason, made.is_ok());
            let reason = match made {
                Ok(device) => {
                    slot.set_up(true);
                    tracing::info!(device = slot.name, after = self.reason, "the device is made anew");
                    return Ok(device);
                }
                Err(reason) => reason,
            };
            slot.suffered(Fault::NotMade);
            slot.set_up(false);
            crew.refuse(slot.take_rest());
            let wait = backoff.wait(fastrand::f64());
            tracing::warn!(device = slot.name, reason, ?wait, "the device cannot be made");
            if crew.closing.recv_timeout(wait) == Err(RecvTimeoutError::Disconnected) {
                return Err(End::Closed);
            }
        }
    }

    /// A device that ran once, or what is wrong with it.
    fn make(&mut self) -> Result<Result<Box<dyn Device>, String>, End> {
        let mut device = match catch_unwind(AssertUnwindSafe(|| self.slot.make())) {
            Ok(Ok(device)) => device,
            Ok(Err(error)) => return Ok(Err(error.to_string())),
            Err(_) => return Ok(Err("making it panicked".into())),
        };
        let outcome = match self.try_out(device.as_mut()) {
            Ok(Ok(())) => {
                self.crew.health.succeeded(Instant::now());
                return Ok(Ok(device));
            }
            Ok(Err(reason)) => Ok(Err(reason)),
            Err(end) => Err(end),
        };
        drop_quietly(device);
        outcome
    }

    /// A run of what every device must be able to run; or why it is none.
    fn try_out(&mut self, device: &mut dyn Device) -> Result<Result<(), String>, End> {
        self.inputs.clone_from(&self.crew.first_run);
        Ok(match self.run_watched(device, Vec::new())?.result {
            Some(Ok(())) if self.logits.iter().all(|z| z.is_finite()) => Ok(()),
            Some(Ok(())) => Err("its logits are not finite numbers".into()),
            Some(Err(error)) => Err(error.to_string()),
            None => Err("the run that tries it panicked".into()),
        })
    }
}

/// A device that failed may fail at its end, too.
pub(super) fn drop_quietly(device: Box<dyn Device>) {
    if catch_unwind(AssertUnwindSafe(|| drop(device))).is_err() {
        tracing::warn!("a device panicked at its end");
    }
}
