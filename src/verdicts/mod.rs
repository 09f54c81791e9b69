//! Scores from memory: what the model has read before is not scored again, and twins that come at once are scored once.
//!
//! ```text
//! recall  -> store, by the text -------------------------- hit    -> scores, without permit, queue or tokens
//!         -> Handle::encode -> store, by what is read ---- hit    -> scores, and under the text from now on
//! unknown -> flights: the lead is mine ------------------- miss   -> Handle::classify_encoded -> store, and all who wait
//!                `--- another one's lead ----------------- joined -> its scores; or the lead, if it ends without any
//! ```
//! What is recalled waits for nobody, so whoever has many logs makes no task for it.
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
mod memory;
mod store;
mod templates;

pub use self::kinds::{Kinds, Use};

use std::{
    convert::Infallible,
    future::pending,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use self::{
    flights::Flights,
    key::Key,
    store::{Scored, Store},
    templates::Templates,
};
use crate::{
    classify::Task,
    config::{Cache, CacheMode},
    engine::{Class, Classified, Encoded, Handle},
    error::RequestError,
    metrics::CacheMetrics,
    templates::{SharedBook, Sighting, TemplateId},
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

/// A log, and its template if that is known already.
#[derive(Debug, Clone, Copy)]
pub struct Log<'a> {
    text: &'a str,
    template: Option<TemplateId>,
}

/// A log and what is asked about it.
#[derive(Clone, Copy)]
struct Question<'a> {
    handle: &'a Handle,
    log: &'a str,
    /// Its template, if the book that has it is the one that is asked here.
    template: Option<TemplateId>,
    task: &'a Task,
    by_template: bool,
}

/// Whose log it is, and until when it must be answered.
#[derive(Clone, Copy)]
struct Terms {
    class: Class,
    deadline: Instant,
}

/// Scores, and where they come from.
type Known = (Classified, Outcome);

/// A log that [`Verdicts::recall`] has no answer for, and what was found out on the way.
#[derive(Debug)]
pub struct Unknown(Option<Read>);

/// What the model would read of a log that is not known, and its template if that may answer for it.
#[derive(Debug)]
struct Read {
    encoded: Encoded,
    kind: Option<Kind>,
}

/// The template of a log, and whether the log waits for others of it that are being scored.
#[derive(Debug, Clone, Copy)]
struct Kind {
    id: TemplateId,
    wait: bool,
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
        Self::make(handle, config, Templates::new)
    }

    /// As [`new`](Self::new), with templates of a book that others write in, too, and that may have trust of an earlier
    /// process: it counts if that asked the same of the same model, of which `model` is any name for good. Logs that were
    /// observed in the book come with their templates.
    pub fn sharing(handle: Handle, config: &Cache, book: SharedBook, model: &str) -> Self {
        Self::make(handle, config, |handle, config, seats| Templates::sharing(handle, config, seats, book, model))
    }

    fn make(handle: Handle, config: &Cache, templates: impl FnOnce(&Handle, &Cache, usize) -> Templates) -> Self {
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
            CacheMode::Template => Some(memory(Some(templates(&handle, config, MAX_SEATS)))),
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

    /// Checks that are wanted and not made yet. None come after the last answer.
    pub fn open_checks(&self) -> u64 {
        self.memory.as_ref().and_then(|memory| memory.templates.as_ref()).map_or(0, |templates| templates.checks.open())
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
    pub async fn classify(&self, log: impl Into<Log<'_>>, task: &Task, class: Class) -> Result<Answer, RequestError> {
        self.classify_by(log, task, class, Instant::now() + self.handle.timeouts().default).await
    }

    /// As [`Verdicts::classify`], for a log that must be answered by `deadline`.
    ///
    /// # Errors
    /// Any [`RequestError`] but `Invalid`.
    pub async fn classify_by(
        &self,
        log: impl Into<Log<'_>>,
        task: &Task,
        class: Class,
        deadline: Instant,
    ) -> Result<Answer, RequestError> {
        let log = log.into();
        match self.recall(log, task) {
            Ok(answer) => Ok(answer),
            Err(unknown) => self.classify_unknown(unknown, log, task, class, deadline).await,
        }
    }

    /// The answer that can be given without the engine. It takes the time of tokenising a log of at most some KiB. Whoever has
    /// many logs asks for this first, and makes no task for those that it has an answer for.
    ///
    /// # Errors
    /// [`Unknown`], to be given to [`classify_unknown`](Self::classify_unknown) with the same log and task, once. Dropping
    /// it does no harm.
    pub fn recall<'a>(&self, log: impl Into<Log<'a>>, task: &Task) -> Result<Answer, Unknown> {
        let known = self.open_memory().ok_or(Unknown(None))?.recall(self.question(log.into(), task));
        known.map(remembered)
    }

    /// As [`recall`](Self::recall), for a log that [`recall_text`](Self::recall_text) has just had no answer for.
    ///
    /// # Errors
    /// As [`recall`](Self::recall).
    pub fn recall_new_text<'a>(&self, log: impl Into<Log<'a>>, task: &Task) -> Result<Answer, Unknown> {
        let known = self.open_memory().ok_or(Unknown(None))?.recall_new_text(self.question(log.into(), task));
        known.map(remembered)
    }

    /// The answer to a log that was met before to the last byte: it costs a hash, and no tokens.
    pub fn recall_text(&self, log: &str, task: &Task) -> Option<Answer> {
        self.open_memory()?.recall_text(self.question(log.into(), task)).map(remembered)
    }

    fn open_memory(&self) -> Option<&Memory> {
        self.memory.as_deref().filter(|_| self.handle.is_open())
    }

    /// Scores a log that [`recall`](Self::recall) has no answer for.
    ///
    /// # Errors
    /// Any [`RequestError`] but `Invalid`.
    pub async fn classify_unknown(
        &self,
        unknown: Unknown,
        log: impl Into<Log<'_>>,
        task: &Task,
        class: Class,
        deadline: Instant,
    ) -> Result<Answer, RequestError> {
        let log = log.into();
        let Some(memory) = &self.memory else {
            let classified = self.handle.classify_by(log.text, task, class, deadline).await?;
            return Ok(Answer { classified, outcome: None });
        };
        // As without a memory: who shuts down sends its clients elsewhere.
        self.handle.must_be_open()?;
        // In a box of its own, for whoever awaits this moves it more than once before it runs.
        let answer = Box::pin(memory.answer(self.question(log, task), unknown, Terms { class, deadline }));
        let (classified, outcome) = answer.await?;
        Ok(Answer { classified, outcome: Some(outcome) })
    }

    fn question<'a>(&'a self, Log { text: log, template }: Log<'a>, task: &'a Task) -> Question<'a> {
        Question { handle: &self.handle, log, template, task, by_template: self.by_template }
    }

    /// Brings the gauges up to date, to be called before they are read.
    pub fn gauge(&self) {
        if let Some(memory) = &self.memory {
            let (entries, bytes) = memory.store.size();
            memory.metrics.entries.set(entries as f64);
            memory.metrics.bytes.set(bytes as f64);
            if let Some(templates) = &memory.templates {
                templates.gauge(SystemTime::now());
            }
        }
    }
}

fn remembered((classified, outcome): Known) -> Answer {
    Answer { classified, outcome: Some(outcome) }
}

impl<'a> From<&'a str> for Log<'a> {
    fn from(text: &'a str) -> Self {
        Self { text, template: None }
    }
}

impl<'a> From<&'a String> for Log<'a> {
    fn from(text: &'a String) -> Self {
        Self { text, template: None }
    }
}

impl<'a> From<(&'a str, Option<&Sighting>)> for Log<'a> {
    /// A log that was observed in the book that is shared, if it was.
    fn from((text, sighting): (&'a str, Option<&Sighting>)) -> Self {
        Self { text, template: sighting.map(|sighting| sighting.id) }
    }
}

impl Question<'_> {
    /// Its deadline has passed.
    fn expired(&self) -> RequestError {
        self.handle.metrics().expired.increment(1);
        RequestError::DeadlineExceeded
    }
}
