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

use std::time::Instant;

use super::{
    Memory, Outcome, Question,
    checks::{Check, Checks},
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
    templates::{Policy, TemplateId},
};

/// Times that a log waits for another one of its template before it is scored itself.
const ROUNDS: usize = 8;

/// The memory by template.
pub struct Templates {
    pub kinds: Kinds,
    pub checks: Checks,
    pub metrics: TrustMetrics,
    interactive: Flights<TemplateId, ()>,
    bulk: Flights<TemplateId, ()>,
}

impl Templates {
    pub fn new(handle: &Handle, config: &Cache, max_seats: usize, now: Instant) -> Self {
        let policy =
            Policy { boundaries: boundaries(handle.scoring()), max_doubt: config.max_doubt, ttl_s: config.ttl_s };
        let seed = fastrand::u64(..);
        Self {
            kinds: Kinds::new(policy, config.check_share, config.max_templates, seed, now),
            checks: Checks::new(),
            metrics: handle.metrics().trust(),
            interactive: Flights::new(max_seats),
            bulk: Flights::new(max_seats),
        }
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
    pub fn gauge(&self, now: Instant) {
        for (gauge, templates) in self.metrics.states.iter().zip(self.kinds.count(now)) {
            gauge.set(templates as f64);
        }
        self.metrics.disagreement.set(self.checks.disagreement());
    }

    fn flights(&self, class: Class) -> &Flights<TemplateId, ()> {
        match class {
            Class::Interactive => &self.interactive,
            Class::Bulk => &self.bulk,
        }
    }
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
    /// A log that is not known exactly, by its template if that is known.
    pub(super) async fn by_template(
        &self,
        templates: &Templates,
        question: Question<'_>,
        encoded: Encoded,
    ) -> Result<(Classified, Outcome), RequestError> {
        let id = templates.kinds.sight(question.log);
        for _ in 0..ROUNDS {
            match self.reuse(templates, question, &encoded, id) {
                Ok(classified) => return Ok((classified, Outcome::Template)),
                Err(false) => break,
                Err(true) => {}
            }
            let Some(seat) = templates.flights(question.class).join(id) else { break };
            match tokio::time::timeout_at(question.deadline.into(), seat.turn()).await {
                Ok(Turn::Landed(())) => {}
                Ok(Turn::Lead(lead)) => {
                    // The last lead may have landed between the decision and the seat in a new flight.
                    if let Ok(classified) = self.reuse(templates, question, &encoded, id) {
                        lead.land(());
                        return Ok((classified, Outcome::Template));
                    }
                    let answer = self.learn(templates, question, encoded, id).await?;
                    lead.land(());
                    return Ok(answer);
                }
                Err(_) => return Err(question.expired()),
            }
        }
        self.learn(templates, question, encoded, id).await
    }

    /// The template's scores.
    ///
    /// # Errors
    /// If the model is to be asked: whether others of the template should wait for that.
    fn reuse(
        &self,
        templates: &Templates,
        question: Question<'_>,
        encoded: &Encoded,
        id: TemplateId,
    ) -> Result<Classified, bool> {
        let input = Probe::input(&encoded.log, question.task);
        let (scores, score, check) = match templates.kinds.decide(id, &input, Instant::now()) {
            Use::Reuse { scores, score, check } => (scores, score, check),
            Use::Ask { wait } => return Err(wait),
        };
        templates.metrics.answers.increment(1);
        if check {
            let log = question.log;
            let check = (log.len() <= super::MAX_LOG_BYTES).then(|| Check { log: log.to_owned(), id, score });
            if !check.is_some_and(|check| templates.checks.put(check)) {
                templates.metrics.check_dropped.increment(1);
            }
        }
        let truncated = encoded.log.truncated;
        if truncated {
            question.handle.metrics().truncated.increment(1);
        }
        let times = StageTimes { tokenization: encoded.tokenization, ..StageTimes::default() };
        Ok(Classified { scores, truncated, times })
    }

    /// Scores a log as without templates, and lets its template learn from it.
    async fn learn(
        &self,
        templates: &Templates,
        question: Question<'_>,
        encoded: Encoded,
        id: TemplateId,
    ) -> Result<(Classified, Outcome), RequestError> {
        let (classified, outcome) = self.exactly(question, encoded).await?;
        // A member counts once, however many copies of it come.
        if outcome == Outcome::Miss {
            templates.kinds.learn(id, &classified.scores, question.task.anomaly, Instant::now());
        }
        Ok((classified, outcome))
    }
}
