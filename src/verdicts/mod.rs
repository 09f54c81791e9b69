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
//! - With `cache.mode = "template"` a log that is not known itself may be answered by its template ([`templates`]).
//!
//! It does not know HTTP or verdicts' labels: what is remembered are scores. Of thresholds it knows the configured ones, for
//! they decide which templates' scores may be reused.

mod checks;
mod flights;
mod key;
mod kinds;
mod store;
mod templates;

pub use self::kinds::{Kinds, Use};

use std::{
    convert::Infallible,
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use self::{
    flights::{Flights, Turn},
    key::{Key, Probe},
    store::{Scored, Store},
    templates::Templates,
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
    /// Whether templates are asked, too, where there are any.
    by_template: bool,
}

struct Memory {
    store: Store,
    /// Single requests in flight.
    interactive: Flights<Key, Scored>,
    /// Parts of batch calls in flight.
    bulk: Flights<Key, Scored>,
    metrics: CacheMetrics,
    /// `None` if only what is the same is reused.
    templates: Option<Templates>,
}

/// A log and what is asked about it.
#[derive(Clone, Copy)]
struct Question<'a> {
    handle: &'a Handle,
    log: &'a str,
    task: &'a Task,
    class: Class,
    deadline: Instant,
    by_template: bool,
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
    /// Others of its template were scored.
    Template,
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
            Self::Template => "template",
        }
    }
}

impl Verdicts {
    /// A memory of its own before the engine of `handle`.
    pub fn new(handle: Handle, config: &Cache) -> Self {
        let now = Instant::now();
        let memory = |templates| {
            let (ttl, shared) = (Duration::from_secs(config.ttl_s), handle.default_task().hypotheses.clone());
            Arc::new(Memory {
                store: Store::new(config.max_bytes, ttl, shared, now),
                interactive: Flights::new(MAX_SEATS),
                bulk: Flights::new(MAX_SEATS),
                metrics: handle.metrics().cache(),
                templates,
            })
        };
        let memory = match config.mode {
            CacheMode::Exact => Some(memory(None)),
            CacheMode::Template => Some(memory(Some(Templates::new(&handle, config, MAX_SEATS, now)))),
            CacheMode::Off => None,
        };
        Self { handle, memory, by_template: true }
    }

    /// The same memory for logs that are judged at `threshold`: at one that is not configured templates are not asked, since
    /// their scores are reused only where they are far enough from the configured ones.
    #[must_use]
    pub fn at(&self, threshold: f32) -> Self {
        let templates = self.memory.as_ref().and_then(|memory| memory.templates.as_ref());
        let by_template = templates.is_some_and(|templates| templates.covers(threshold));
        Self { by_template, ..self.clone() }
    }

    /// Makes the checks of what templates answer, until it is dropped. It is for whoever owns the server to poll; where
    /// nobody does, none are made.
    pub async fn check_templates(&self) -> Infallible {
        let Some(memory) = &self.memory else { return pending().await };
        let Some(templates) = &memory.templates else { return pending().await };
        templates.checks.run(memory, templates, &self.handle).await
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
        self.handle.must_be_open()?;
        let question = Question { handle: &self.handle, log, task, class, deadline, by_template: self.by_template };
        let (classified, outcome) = memory.answer(question).await?;
        Ok(Answer { classified, outcome: Some(outcome) })
    }

    /// Brings the gauges up to date, to be called before they are read.
    pub fn gauge(&self) {
        if let Some(memory) = &self.memory {
            let (entries, bytes) = memory.store.size();
            memory.metrics.entries.set(entries as f64);
            memory.metrics.bytes.set(bytes as f64);
            if let Some(templates) = &memory.templates {
                templates.gauge(Instant::now());
            }
        }
    }
}

impl Question<'_> {
    /// Its deadline has passed.
    fn expired(&self) -> RequestError {
        self.handle.metrics().expired.increment(1);
        RequestError::DeadlineExceeded
    }
}

impl Memory {
    async fn answer(&self, question: Question<'_>) -> Result<(Classified, Outcome), RequestError> {
        let Question { handle, log, task, .. } = question;
        let asked = Instant::now();
        let text = (log.len() <= MAX_LOG_BYTES).then(|| Probe::text(log, task));
        if let Some(scored) = text.and_then(|text| self.store.get(&text, asked)) {
            return Ok(self.remembered(handle, scored, StageTimes::default()));
        }
        let encoded = handle.encode(log, task).await;
        if let Some(scored) = self.store.get(&Probe::input(&encoded.log, task), asked) {
            self.know(log, task, &scored);
            let times = StageTimes { tokenization: encoded.tokenization, ..StageTimes::default() };
            return Ok(self.remembered(handle, scored, times));
        }
        match &self.templates {
            Some(templates) if question.by_template && templates.knows(task, handle) => {
                self.by_template(templates, question, encoded).await
            }
            _ => self.exactly(question, encoded).await,
        }
    }

    /// A log that is not in the store, with a twin in flight or by the engine.
    async fn exactly(&self, question: Question<'_>, encoded: Encoded) -> Result<(Classified, Outcome), RequestError> {
        let Question { handle, log, task, class, deadline, .. } = question;
        let flights = match class {
            Class::Interactive => &self.interactive,
            Class::Bulk => &self.bulk,
        };
        let Some(seat) = flights.join(Key::input(&encoded.log, task)) else {
            return self.ask(question, encoded).await;
        };
        let tokenized = StageTimes { tokenization: encoded.tokenization, ..StageTimes::default() };
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
            Err(_) => return Err(question.expired()),
        };
        // The last flight may have landed between the look at the store and the seat in a new one.
        if let Some(scored) = self.store.get(&lead.key().probe(), seated) {
            self.know(log, task, &scored);
            lead.land(scored.clone());
            return Ok(self.remembered(handle, scored, tokenized));
        }
        let (classified, outcome) = self.ask(question, encoded).await?;
        let scored = self.store.scored(&classified.scores, classified.truncated, Instant::now());
        // First the store, then the landing: whoever finds no flight any more finds the scores.
        self.store.put(lead.key().clone(), scored.clone());
        lead.land(scored);
        Ok((classified, outcome))
    }

    async fn ask(&self, question: Question<'_>, log: Encoded) -> Result<(Classified, Outcome), RequestError> {
        let Question { handle, task, class, deadline, .. } = question;
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
