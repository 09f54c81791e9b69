//! Scores from memory: what the model has read before is not scored again, and twins that come at once are scored once.
//!
//! ```text
//! classify -> store, by the text ------------------------- hit    -> scores, without permit, queue or tokens
//!          -> Handle::encode -> store, by what is read --- hit    -> scores, and under the text from now on
//!                     `-> flights: the lead is mine ------ miss   -> Handle::classify_encoded -> store, and all who wait
//!                             `--- another one's lead ---- joined -> its scores; or the lead, if it ends without any
//! ```
//!
//! - A memory belongs to one engine, so to one model in one precision: entries of another model cannot be met.
//! - Scores are kept by what the model reads: texts that differ only in what the tokenizer writes alike share them. A text
//!   is kept beside that when it is met the second time, as its tokens or itself: one that comes once takes one entry.
//! - Tokens come before admission, for a full engine still answers what it knows. So a new log that is refused costs them.
//! - Errors are never kept. A leader that fails, is refused, expires or hangs up costs its followers time, no answer:
//!   the one that has waited longest leads on. Each keeps its own deadline.
//! - Single requests do not wait for a batch call's turn: twins join within their [`Class`] only, so that a line costs
//!   at most two runs at once.
//!
//! It does not know HTTP, thresholds or verdicts' labels: what is remembered are scores.

mod flights;
mod key;
mod store;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use self::{
    flights::{Flights, Turn},
    key::{Key, Probe},
    store::{Scored, Store},
};
use crate::{
    classify::Task,
    config::{Cache, CacheMode},
    engine::{Class, Classified, Encoded, Handle, StageTimes},
    error::RequestError,
    metrics::CacheMetrics,
};

/// Longest log in bytes that is looked for and remembered under its text; a longer one is known by its tokens alone,
/// of which the model's length bounds the number.
const MAX_LOG_BYTES: usize = 64 << 10;

/// Most requests of a class that lead or wait at once; further ones go to the engine, which admits or refuses them.
/// Admission bounds the leaders; this bounds who waits for them.
const MAX_SEATS: usize = 1 << 16;

/// The way to the engine, past what is remembered. Clones share it.
#[derive(Clone)]
pub struct Verdicts {
    handle: Handle,
    /// `None` if nothing is to be remembered.
    memory: Option<Arc<Memory>>,
}

struct Memory {
    store: Store,
    /// Single requests in flight.
    interactive: Flights<Key, Scored>,
    /// Parts of batch calls in flight.
    bulk: Flights<Key, Scored>,
    metrics: CacheMetrics,
}

/// How an answer came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was remembered.
    Hit,
    /// A twin was being scored.
    Joined,
    /// It was scored.
    Miss,
}

/// One scored log, and where its scores come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The scores. Stage times of a hit are zero, but for the tokens if it was found by them; who joined waited else.
    pub classified: Classified,
    /// `None` if nothing is remembered at all.
    pub outcome: Option<Outcome>,
}

impl Outcome {
    /// As headers and metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Joined => "joined",
            Self::Miss => "miss",
        }
    }
}

impl Verdicts {
    /// A memory of its own before the engine of `handle`.
    pub fn new(handle: Handle, config: &Cache) -> Self {
        let memory = || {
            let (ttl, shared) = (Duration::from_secs(config.ttl_s), handle.default_task().hypotheses.clone());
            Arc::new(Memory {
                store: Store::new(config.max_bytes, ttl, shared, Instant::now()),
                interactive: Flights::new(MAX_SEATS),
                bulk: Flights::new(MAX_SEATS),
                metrics: handle.metrics().cache(),
            })
        };
        let memory = match config.mode {
            CacheMode::Exact => Some(memory()),
            CacheMode::Off => None,
        };
        Self { handle, memory }
    }

    /// The engine.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Whether a request would be let in now: worth asking before its body is read closely. What is remembered is
    /// answered whatever the load, so with a memory that is found out later.
    ///
    /// # Errors
    /// The refusal, already counted.
    pub fn check(&self, class: Class, deadline: Instant) -> Result<(), RequestError> {
        match &self.memory {
            Some(_) => Ok(()),
            None => self.handle.check(class, deadline),
        }
    }

    /// Scores one log, from memory if it can be. Dropping the future harms no twin.
    ///
    /// # Errors
    /// Any [`RequestError`] but `Invalid`.
    pub async fn classify(&self, log: &str, task: &Task, class: Class) -> Result<Answer, RequestError> {
        self.classify_by(log, task, class, Instant::now() + self.handle.timeouts().default).await
    }

    /// As [`Verdicts::classify`], for a log that must be answered by `deadline`.
    ///
    /// # Errors
    /// Any [`RequestError`] but `Invalid`.
    pub async fn classify_by(
        &self,
        log: &str,
        task: &Task,
        class: Class,
        deadline: Instant,
    ) -> Result<Answer, RequestError> {
        let Some(memory) = &self.memory else {
            let classified = self.handle.classify_by(log, task, class, deadline).await?;
            return Ok(Answer { classified, outcome: None });
        };
        // As without a memory: who shuts down sends its clients elsewhere.
        if !self.handle.is_open() {
            return Err(RequestError::Draining);
        }
        let (classified, outcome) = memory.answer(&self.handle, log, task, class, deadline).await?;
        Ok(Answer { classified, outcome: Some(outcome) })
    }

    /// Brings the gauges up to date, to be called before they are read.
    pub fn gauge(&self) {
        if let Some(memory) = &self.memory {
            let (entries, bytes) = memory.store.size();
            memory.metrics.entries.set(entries as f64);
            memory.metrics.bytes.set(bytes as f64);
        }
    }
}

impl Memory {
    async fn answer(
        &self,
        handle: &Handle,
        log: &str,
        task: &Task,
        class: Class,
        deadline: Instant,
    ) -> Result<(Classified, Outcome), RequestError> {
        let asked = Instant::now();
        let text = (log.len() <= MAX_LOG_BYTES).then(|| Probe::text(log, task));
        if let Some(scored) = text.and_then(|text| self.store.get(&text, asked)) {
            return Ok(self.remembered(handle, scored, StageTimes::default()));
        }
        let encoded = handle.encode(log, task).await;
        let tokenized = StageTimes { tokenization: encoded.tokenization, ..StageTimes::default() };
        if let Some(scored) = self.store.get(&Probe::input(&encoded.log, task), asked) {
            self.know(log, task, &scored);
            return Ok(self.remembered(handle, scored, tokenized));
        }
        let flights = match class {
            Class::Interactive => &self.interactive,
            Class::Bulk => &self.bulk,
        };
        let Some(seat) = flights.join(Key::input(&encoded.log, task)) else {
            return self.ask(handle, encoded, task, class, deadline).await;
        };
        let seated = Instant::now();
        let lead = match tokio::time::timeout_at(deadline.into(), seat.turn()).await {
            Ok(Turn::Lead(lead)) => lead,
            Ok(Turn::Landed(scored)) => {
                self.metrics.joined.increment(1);
                self.know(log, task, &scored);
                return Ok((
                    known(handle, scored, StageTimes { queue: seated.elapsed(), ..tokenized }),
                    Outcome::Joined,
                ));
            }
            Err(_) => {
                handle.metrics().expired.increment(1);
                return Err(RequestError::DeadlineExceeded);
            }
        };
        // The last flight may have landed between the look at the store and the seat in a new one.
        if let Some(scored) = self.store.get(&lead.key().probe(), asked) {
            self.know(log, task, &scored);
            lead.land(scored.clone());
            return Ok(self.remembered(handle, scored, tokenized));
        }
        let (classified, outcome) = self.ask(handle, encoded, task, class, deadline).await?;
        let scored = self.store.scored(&classified.scores, classified.truncated, Instant::now());
        // First the store, then the landing: whoever finds no flight any more finds the scores.
        self.store.put(lead.key().clone(), scored.clone());
        lead.land(scored);
        Ok((classified, outcome))
    }

    async fn ask(
        &self,
        handle: &Handle,
        log: Encoded,
        task: &Task,
        class: Class,
        deadline: Instant,
    ) -> Result<(Classified, Outcome), RequestError> {
        self.metrics.misses.increment(1);
        let classified = handle.classify_encoded(log, task, class, deadline).await?;
        Ok((classified, Outcome::Miss))
    }

    /// Keeps what was found by a log's tokens under its text, too, unless one of many twins did.
    fn know(&self, log: &str, task: &Task, scored: &Scored) {
        if log.len() <= MAX_LOG_BYTES && !self.store.has(&Probe::text(log, task), Instant::now()) {
            self.store.put(Key::text(log, task), scored.clone());
        }
    }

    fn remembered(&self, handle: &Handle, scored: Scored, times: StageTimes) -> (Classified, Outcome) {
        self.metrics.hits.increment(1);
        (known(handle, scored, times), Outcome::Hit)
    }
}

fn known(handle: &Handle, scored: Scored, times: StageTimes) -> Classified {
    if scored.truncated {
        handle.metrics().truncated.increment(1);
    }
    Classified { scores: scored.scores.into_vec(), truncated: scored.truncated, times }
}
