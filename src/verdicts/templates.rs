//! Answers from templates: a log that is like others which were scored gets their scores.
//!
//! ```text
//! not known exactly -> Kinds: sight, decide -- reuse --> the template's scores; some are checked later
//!                                          `-- ask, learning --> one leads and is scored; the others decide again
//!                                          `-- ask ------------> scored, as without templates, and learned from
//! ```
//!
//! Members of a template that is being learned wait for the one that is scored, so that a burst of a new kind costs a few
//! runs. The lead passes on as between twins ([`super::flights`]).

use std::time::SystemTime;

use super::{
    Kind, Known, Memory, Outcome, Question, Terms,
    checks::Checks,
    flights::{Flights, Turn},
    key::Probe,
    kinds::{Kinds, Use},
};
use crate::{
    classify::Task,
    config::{Cache, Scoring, ThresholdRule},
    engine::{Class, Classified, Encoded, Handle, StageTimes},
    error::RequestError,
    metrics::TrustMetrics,
    templates::{Policy, SharedBook, TemplateId},
};

/// Times that a log waits for another one of its template before it is scored itself.
const ROUNDS: usize = 8;

/// The memory by template.
pub struct Templates {
    pub kinds: Kinds,
    pub checks: Checks,
    pub metrics: TrustMetrics,
    /// Whether logs come with their templates.
    shares: bool,
    interactive: Flights<TemplateId, ()>,
    bulk: Flights<TemplateId, ()>,
}

impl Templates {
    /// With a book of its own.
    pub fn new(handle: &Handle, config: &Cache, max_seats: usize) -> Self {
        let kinds = Kinds::new(
            policy(handle, config),
            config.check_share,
            config.max_templates,
            fastrand::u64(..),
            SystemTime::now(),
        );
        Self::with(kinds, false, handle, max_seats)
    }

    /// With a book that others write in, too; see [`super::Verdicts::sharing`].
    pub fn sharing(handle: &Handle, config: &Cache, max_seats: usize, book: SharedBook, model: &str) -> Self {
        let kept = book.lock().judged_by(&judge(handle, model), handle.default_task().labels.len());
        if kept > 0 {
            tracing::info!(templates = kept, "verdicts on templates are known from an earlier process");
        }
        let kinds = Kinds::with_book(policy(handle, config), config.check_share, book, fastrand::u64(..));
        Self::with(kinds, true, handle, max_seats)
    }

    fn with(kinds: Kinds, shares: bool, handle: &Handle, max_seats: usize) -> Self {
        Self {
            kinds,
            checks: Checks::new(),
            metrics: handle.metrics().trust(),
            shares,
            interactive: Flights::new(max_seats),
            bulk: Flights::new(max_seats),
        }
    }

    /// The template of a log, which it may come with.
    pub fn template(&self, log: &str, given: Option<TemplateId>) -> TemplateId {
        given.filter(|_| self.shares).unwrap_or_else(|| self.kinds.sight(log, SystemTime::now()))
    }

    /// Whether scores that are reused are judged for this threshold, too.
    pub fn covers(&self, threshold: f32) -> bool {
        self.kinds.policy().boundaries.contains(&threshold)
    }

    /// Whether scores of this task are reused: those of the configured one.
    pub fn knows(&self, task: &Task, handle: &Handle) -> bool {
        let own = handle.default_task();
        std::ptr::eq(task, &**own)
            || (task.hypotheses == own.hypotheses && task.multi_label == own.multi_label && task.anomaly == own.anomaly)
    }

    /// Brings the gauges up to date.
    pub fn gauge(&self, now: SystemTime) {
        for (gauge, templates) in self.metrics.states.iter().zip(self.kinds.count(now)) {
            gauge.set(templates as f64);
        }
        self.metrics.disagreement.set(self.checks.disagreement());
    }

    /// The template's scores.
    ///
    /// # Errors
    /// If the model is to be asked: whether others of the template should wait for that.
    pub fn reuse(&self, question: Question<'_>, encoded: &Encoded, id: TemplateId) -> Result<Classified, bool> {
        let Question { handle, log, task, .. } = question;
        let (scores, score, check) = match self.kinds.decide(id, &Probe::input(&encoded.log, task), SystemTime::now()) {
            Use::Reuse { scores, score, check } => (scores, score, check),
            Use::Ask { wait } => return Err(wait),
        };
        self.metrics.answers.increment(1);
        if check && !self.checks.put(log, id, score) {
            self.metrics.check_dropped.increment(1);
        }
        let truncated = encoded.log.truncated;
        if truncated {
            handle.metrics().truncated.increment(1);
        }
        let times = StageTimes { tokenization: encoded.tokenization, ..StageTimes::default() };
        Ok(Classified { scores, truncated, times })
    }

    fn flights(&self, class: Class) -> &Flights<TemplateId, ()> {
        match class {
            Class::Interactive => &self.interactive,
            Class::Bulk => &self.bulk,
        }
    }
}

fn policy(handle: &Handle, config: &Cache) -> Policy {
    Policy { boundaries: boundaries(handle.scoring()), max_doubt: config.max_doubt, ttl_s: config.ttl_s }
}

/// A name for all that verdicts on templates rest on.
fn judge(handle: &Handle, model: &str) -> String {
    format!("{model} {:?}", handle.scoring())
}

/// The scores of the anomaly label at which verdicts of requests change that name no threshold of their own.
fn boundaries(scoring: &Scoring) -> Vec<f32> {
    let thresholds = [scoring.threshold].into_iter().chain(scoring.thresholds.values().copied());
    let mut boundaries: Vec<f32> = match scoring.threshold_rule {
        ThresholdRule::Monotone => thresholds.collect(),
        // The top label changes in the middle, and what is below the threshold is turned over.
        ThresholdRule::Upstream => thresholds.flat_map(|threshold| [threshold, 0.5, 1.0 - threshold]).collect(),
    };
    boundaries.sort_by(f32::total_cmp);
    boundaries.dedup();
    boundaries
}

impl Memory {
    /// A log that is not known exactly, and that its template did not answer at once.
    pub(super) async fn by_template(
        &self,
        templates: &Templates,
        question: Question<'_>,
        encoded: Encoded,
        Kind { id, mut wait }: Kind,
        terms: Terms,
    ) -> Result<Known, RequestError> {
        for _ in 0..ROUNDS {
            if !wait {
                break;
            }
            let Some(seat) = templates.flights(terms.class).join(id) else { break };
            let lead = match tokio::time::timeout_at(terms.deadline.into(), seat.turn()).await {
                Ok(Turn::Landed(())) => None,
                Ok(Turn::Lead(lead)) => Some(lead),
                Err(_) => return Err(question.expired()),
            };
            // Who leads asks once more, too: the last lead may have landed between the decision and the seat in a new flight.
            match (templates.reuse(question, &encoded, id), lead) {
                (Ok(classified), lead) => {
                    if let Some(lead) = lead {
                        lead.land(());
                    }
                    return Ok((classified, Outcome::Template));
                }
                (Err(_), Some(lead)) => {
                    let answer = self.learn(templates, question, encoded, id, terms).await?;
                    lead.land(());
                    return Ok(answer);
                }
                (Err(again), None) => wait = again,
            }
        }
        self.learn(templates, question, encoded, id, terms).await
    }

    /// Scores a log as without templates, and lets its template learn from it.
    async fn learn(
        &self,
        templates: &Templates,
        question: Question<'_>,
        encoded: Encoded,
        id: TemplateId,
        terms: Terms,
    ) -> Result<Known, RequestError> {
        let (classified, outcome) = self.exactly(question, encoded, terms).await?;
        // A member counts once, however many copies of it come.
        if outcome == Outcome::Miss {
            templates.kinds.learn(id, &classified.scores, question.task.anomaly, SystemTime::now());
        }
        Ok((classified, outcome))
    }
}
