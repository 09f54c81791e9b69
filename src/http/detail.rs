//! `?detail=template`: what is learned of the logs of one call, and what of it is told beside their verdicts.

use std::{sync::Arc, time::SystemTime};

use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::{
    app::App,
    problem::{Problem, Rule},
    query,
};
use crate::{classify::Task, novelty::Novelty, templates::Sighting};

/// What entries of answers have beside the verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum Detail {
    /// Nothing.
    #[default]
    None,
    /// The template of the log, and how new it is.
    Template,
}

impl Detail {
    /// # Errors
    /// The rule that `value` breaks.
    pub fn read(value: &str) -> Result<Self, Rule> {
        match value {
            "none" => Ok(Self::None),
            "template" => Ok(Self::Template),
            _ => Err(Rule::Value { reason: "detail must be none or template".into() }),
        }
    }
}

/// The query of a batch call. Unknown parameters do not count.
#[derive(Debug, Default, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DetailQuery {
    /// `none` (default), or `template`: entries also have `template_id`, `template`, `first_seen`, `count` and `novelty`. The
    /// operator must have set `templates.enabled`.
    #[param(inline, value_type = Option<Detail>)]
    pub detail: Detail,
}

impl DetailQuery {
    /// Reads what stands behind the `?` of a path.
    ///
    /// # Errors
    /// Every problem, in the order of the query.
    pub fn read(text: &str) -> Result<Self, Vec<Problem<'static>>> {
        let mut read = Self::default();
        query::read(text, |name, value| {
            (name == "detail").then(|| ("detail", Detail::read(value).map(|detail| read.detail = detail)))
        })?;
        Ok(read)
    }
}

/// The template of a log and how new it is, for `detail=template`.
#[derive(Debug, Serialize, ToSchema)]
pub struct TemplateDetail<'a> {
    /// The template's name, 16 hexadecimal digits: the same in every process, and after a restart.
    #[schema(value_type = String, required = false)]
    template_id: String,
    /// The log without what varies.
    #[schema(value_type = String, required = false)]
    template: &'a str,
    /// Whether no log before it was of this template, as far as is remembered.
    #[schema(required = false)]
    first_seen: bool,
    /// Logs of the template so far, this one counted.
    #[schema(required = false)]
    count: u64,
    /// How surprising the log is, 0 to 1, by how often its template came before: `1 - ln(1 + known) / ln(1 + seen)` for
    /// `known` of `seen` logs. 1 for a template never seen.
    #[schema(required = false)]
    novelty: f32,
}

/// Learns from the logs of one call, if this server learns at all. Clones learn the same.
#[derive(Clone)]
pub struct Learner {
    novelty: Option<Arc<Novelty>>,
    /// Verdicts on other labels than the configured ones say nothing about a template.
    notes_verdicts: bool,
    tells: bool,
}

impl Learner {
    /// For the logs of a call with this task.
    ///
    /// # Errors
    /// If details are asked for and nothing is learned: the rule that `detail` breaks.
    pub fn new(app: &App, task: &Arc<Task>, detail: Detail) -> Result<Self, Rule> {
        let tells = detail == Detail::Template;
        if tells && app.novelty.is_none() {
            let reason = "templates are not learned here. Leave detail out, or set templates.enabled on the server.";
            return Err(Rule::Value { reason: reason.into() });
        }
        let notes_verdicts = Arc::ptr_eq(task, app.handle.default_task());
        Ok(Self { novelty: app.novelty.clone(), notes_verdicts, tells })
    }

    /// To be called once for each log, in order.
    pub fn observe(&self, log: &str) -> Option<Sighting> {
        self.novelty.as_ref().map(|novelty| novelty.observe(log, SystemTime::now()))
    }

    /// Notes the verdict on a log; `score` is that of the anomaly label.
    pub fn note_verdict(&self, sighting: Option<&Sighting>, is_anomaly: bool, score: f32) {
        if let (Some(novelty), Some(sighting), true) = (&self.novelty, sighting, self.notes_verdicts) {
            novelty.note_verdict(sighting.id, is_anomaly, score);
        }
    }

    /// What is told of a log, if that was asked for.
    pub fn tell<'a>(&self, sighting: Option<&'a Sighting>) -> Option<TemplateDetail<'a>> {
        let Sighting { id, template, first_seen, count, novelty } = sighting.filter(|_| self.tells)?;
        Some(TemplateDetail {
            template_id: id.to_string(),
            template,
            first_seen: *first_seen,
            count: *count,
            novelty: *novelty as f32,
        })
    }
}
