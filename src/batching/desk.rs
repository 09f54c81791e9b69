//! The policy: what a free device gets. Pure, time is an argument; the batcher and the simulation ask alike.
//!
//! ```text
//! nothing waits, or the oldest not long enough    -> wait
//! no clearly faster device                        -> a batch that begins with the oldest: its share, if others are free
//! faster ones would be done sooner                -> leave it to them, ask again soon
//! else                                            -> a smaller one: what it can run until they have run the rest
//! ```
//! So a slow device takes its part of a long queue, and is done with it before the fast ones are done with all. It begins
//! with the oldest like any other. Leaving that to the fast ones and taking what they would reach last was tried: then fewer
//! devices serve what has waited for long, and the longest times become longer.

use std::time::{Duration, Instant};

use super::{Asker, Batch, CloseReason, Entry, Limits, Queue, roster::Load, roster::Roster};

/// Bounds of the time after which a device that was sent away asks again.
const SOONEST: Duration = Duration::from_millis(1);
const LATEST: Duration = Duration::from_millis(50);

/// What there is for a device that asks.
#[derive(Debug)]
pub enum Choice<T> {
    /// Run this.
    Batch(Batch<T>),
    /// Nothing until then, or until something comes.
    Wait(Option<Instant>),
    /// Faster devices finish sooner what waits. Ask again then.
    Leave(Instant),
}

/// Waiting items, and the devices that ask for them.
#[derive(Debug)]
pub struct Desk<T> {
    /// What waits.
    pub queue: Queue<T>,
    roster: Roster,
}

impl<T> Desk<T> {
    /// An empty queue before so many devices, for rows that are `packed` or padded: see [`Queue::new`].
    pub fn new(devices: usize, packed: bool) -> Self {
        Self { queue: Queue::new(packed), roster: Roster::new(devices) }
    }

    /// Adds an item.
    pub fn push(&mut self, entry: Entry<T>) {
        self.queue.push(entry);
    }

    /// How many devices are clearly faster than `asker`: it should be woken after them.
    pub fn rank(&self, asker: &Asker) -> usize {
        self.roster.rank(asker)
    }

    /// What `asker`, which is free, is to do at `now`. When `closing`, nothing waits for company. Call
    /// [`Queue::take_expired`] before it.
    pub fn ask(&mut self, asker: &Asker, now: Instant, closing: bool) -> Choice<T> {
        self.roster.asks(asker);
        match self.queue.due_at(&asker.limits) {
            None => return Choice::Wait(None),
            Some(due) if due > now && !closing => return Choice::Wait(Some(due)),
            Some(_) => {}
        }
        // What is left behind waits until any device is free: with others about, company spares less waiting.
        let worth = asker.limits.max_padding_tokens as f64 / self.roster.turnout(asker, now).sqrt();
        let limits = Limits { max_padding_tokens: worth as usize, ..asker.limits };
        let batch = match self.beside_faster(asker, &limits, now) {
            Ok(batch) => batch,
            Err(again) => return Choice::Leave(again),
        };
        let Some(batch) = batch.or_else(|| self.share(asker, &limits, now)) else { return Choice::Wait(None) };
        self.roster.takes(asker, now, batch.size.tokens(), batch.size.row_len());
        Choice::Batch(batch)
    }

    /// A batch, if need be a smaller one that leaves to others what they will have run as soon.
    fn share(&mut self, asker: &Asker, limits: &Limits, now: Instant) -> Option<Batch<T>> {
        let Some(share) = self.load().and_then(|load| self.roster.share(asker, load, now)) else {
            return self.queue.take(limits);
        };
        let mut batch = self.queue.take_within(limits, share)?;
        if batch.closed_by == CloseReason::Tokens && batch.size.tokens() < limits.tokens(batch.size.row_len()) {
            batch.closed_by = CloseReason::Share;
        }
        Some(batch)
    }

    fn load(&self) -> Option<Load> {
        let first = self.queue.first_of_last()?;
        Some(Load { tokens: self.queue.tokens(), job: first.tokens, len: first.len })
    }

    /// What a device gets beside faster ones: a batch that does not keep it longer than they need for the rest, or when it is
    /// to ask again. `None` if there are no faster ones.
    fn beside_faster(&mut self, asker: &Asker, limits: &Limits, now: Instant) -> Result<Option<Batch<T>>, Instant> {
        let Some(cost) = asker.cost.filter(|_| !self.roster.is_alone()) else { return Ok(None) };
        let Some(load) = self.load() else { return Ok(None) };
        let Load { job, len, .. } = load;
        let Some((done, rate)) = self.roster.others_finish(asker, load, now) else { return Ok(None) };
        let own = cost.seconds(job, len);
        if self.roster.is_to_probe(asker, now) {
            return Ok(self.queue.take_last(limits, job));
        }
        if own > done {
            return Err(now + Duration::from_secs_f64(own.min(1.0) / 8.0).clamp(SOONEST, LATEST));
        }
        // What it takes the others will not have to run: it must not take longer than they do for what is left.
        let tokens = ((done - cost.fixed) / (cost.slope(len) + 1.0 / rate)).max(0.0) as usize;
        Ok(self.queue.take_last(limits, tokens))
    }
}

#[cfg(test)]
mod tests;
