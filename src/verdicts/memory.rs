//! The ways to scores from memory, and to the engine where there are none.

use std::time::Instant;

use super::{
    Kind, Known, MAX_LOG_BYTES, Memory, Outcome, Question, Read, Terms, Unknown,
    flights::Turn,
    key::{Key, Probe},
    store::Scored,
};
use crate::{
    classify::Task,
    engine::{Class, Classified, Encoded, Handle, StageTimes},
    error::RequestError,
};

impl Memory {
    pub(super) fn recall(&self, question: Question<'_>) -> Result<Known, Unknown> {
        self.recall_text(question).map_or_else(|| self.recall_new_text(question), Ok)
    }

    /// As `recall`, for a log whose text is not known.
    pub(super) fn recall_new_text(&self, question: Question<'_>) -> Result<Known, Unknown> {
        let encoded = question.handle.encode_short(question.log, question.task).ok_or(Unknown(None))?;
        self.recall_read(question, encoded).map_err(|read| Unknown(Some(read)))
    }

    /// As `recall`, by the text alone.
    pub(super) fn recall_text(&self, Question { handle, log, task, .. }: Question<'_>) -> Option<Known> {
        let text = (log.len() <= MAX_LOG_BYTES).then(|| Probe::text(log, task))?;
        let scored = self.store.get(&text, Instant::now())?;
        Some(self.remembered(handle, scored, StageTimes::default()))
    }

    /// As `recall`, once it is known what the model would read.
    pub(super) fn recall_read(&self, question: Question<'_>, encoded: Encoded) -> Result<Known, Read> {
        let Question { handle, log, template, task, by_template } = question;
        if let Some(scored) = self.store.get(&Probe::input(&encoded.log, task), Instant::now()) {
            self.know(log, task, &scored);
            let times = StageTimes { tokenization: encoded.tokenization, ..StageTimes::default() };
            return Ok(self.remembered(handle, scored, times));
        }
        let kind = match &self.templates {
            Some(templates) if by_template && templates.knows(task, handle) => {
                let id = templates.template(log, template);
                match templates.reuse(question, &encoded, id) {
                    Ok(classified) => return Ok((classified, Outcome::Template)),
                    Err(wait) => Some(Kind { id, wait }),
                }
            }
            _ => None,
        };
        Err(Read { encoded, kind })
    }

    pub(super) async fn answer(
        &self,
        question: Question<'_>,
        Unknown(read): Unknown,
        terms: Terms,
    ) -> Result<Known, RequestError> {
        let Read { encoded, kind } = match read {
            Some(read) => read,
            None => {
                let encoded = question.handle.encode(question.log, question.task).await;
                match self.recall_read(question, encoded) {
                    Ok(known) => return Ok(known),
                    Err(read) => read,
                }
            }
        };
        match (kind, &self.templates) {
            (Some(kind), Some(templates)) => self.by_template(templates, question, encoded, kind, terms).await,
            _ => self.exactly(question, encoded, terms).await,
        }
    }

    /// A log that is not in the store, with a twin in flight or by the engine.
    pub(super) async fn exactly(
        &self,
        question: Question<'_>,
        encoded: Encoded,
        terms: Terms,
    ) -> Result<Known, RequestError> {
        let Question { handle, log, task, .. } = question;
        let flights = match terms.class {
            Class::Interactive => &self.interactive,
            Class::Bulk => &self.bulk,
        };
        let Some(seat) = flights.join(Key::input(&encoded.log, task)) else {
            return self.ask(question, encoded, terms).await;
        };
        let tokenized = StageTimes { tokenization: encoded.tokenization, ..StageTimes::default() };
        let seated = Instant::now();
        let lead = match tokio::time::timeout_at(terms.deadline.into(), seat.turn()).await {
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
        let (classified, outcome) = self.ask(question, encoded, terms).await?;
        let scored = self.store.scored(&classified.scores, classified.truncated, Instant::now());
        // First the store, then the landing: whoever finds no flight any more finds the scores.
        self.store.put(lead.key().clone(), scored.clone());
        lead.land(scored);
        Ok((classified, outcome))
    }

    pub(super) async fn ask(&self, question: Question<'_>, log: Encoded, terms: Terms) -> Result<Known, RequestError> {
        let Question { handle, task, .. } = question;
        self.metrics.misses.increment(1);
        let classified = handle.classify_encoded(log, task, terms.class, terms.deadline).await?;
        Ok((classified, Outcome::Miss))
    }

    /// Keeps what was found by a log's tokens under its text, too, unless one of many twins did.
    pub(super) fn know(&self, log: &str, task: &Task, scored: &Scored) {
        if log.len() <= MAX_LOG_BYTES && !self.store.has(&Probe::text(log, task), Instant::now()) {
            self.store.put(Key::text(log, task), scored.clone());
        }
    }

    pub(super) fn remembered(&self, handle: &Handle, scored: Scored, times: StageTimes) -> Known {
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
