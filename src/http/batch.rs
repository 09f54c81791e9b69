//! `POST /api/v1/analyze/batch`: many logs in one call, each answered or refused on its own.

use std::{borrow::Cow, sync::Arc, time::Instant};

use hyper::{Request, Response, StatusCode, body::Incoming, header::HeaderValue};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use tokio::task::JoinSet;
use utoipa::ToSchema;

use super::{
    answer::{Body, json_answer, refused, unprocessable},
    app::App,
    body,
    detail::{DetailQuery, Learner, TemplateDetail},
    exchange::trace_of,
    fields::{self, Fields},
    openapi::Refusals,
    patience,
    problem::{Problem, Rule},
    query,
    v1::OUTCOME,
};
use crate::{
    classify::{Task, verdict},
    config::Server,
    engine::{Class, Classified, Handle},
    error::RequestError,
    templates::Sighting,
    verdicts::{Answer, Outcome, Verdicts},
};

/// Logs of one call that are in the engine at once: enough for full batches on several devices.
const IN_FLIGHT: usize = 256;
/// Labels in a body that are looked at; how many are allowed is for the engine to say.
const MAX_LABELS: usize = 1024;

/// A candidate label: some words, not blank.
#[derive(ToSchema)]
#[schema(pattern = r"\S", min_length = 1)]
#[expect(dead_code, reason = "for the documentation alone")]
struct Label(String);

/// Many logs to score, and with what.
#[derive(Debug, ToSchema)]
#[schema(example = json!({
    "logs": ["ERROR: Database connection timeout after 30s", "user 42 logged in from 10.0.0.7"], "threshold": 0.5
}))]
pub struct BatchRequest<'a> {
    /// The log messages, strings. An entry that is no string, or blank, gets an error of its own.
    #[schema(value_type = Vec<Value>)]
    logs: Vec<&'a RawValue>,
    /// Score from which a log is an anomaly, 0 to 1; `null` or absent takes the configured one.
    #[schema(minimum = 0, maximum = 1)]
    threshold: Option<f32>,
    /// Where the logs come from, a string, for the threshold that `scoring.thresholds` has for it. Any other value counts as
    /// none.
    #[schema(value_type = Option<Value>)]
    source: Option<String>,
    /// Candidate labels instead of the configured ones.
    #[schema(value_type = Option<Vec<Label>>, min_items = 1, max_items = 32)]
    labels: Option<Vec<String>>,
    /// Which label counts as the anomaly: by default the configured one, or the first if it is not among `labels`.
    anomaly_label: Option<String>,
    /// The hypothesis, with `{}` for the label.
    #[schema(pattern = r"\{\}")]
    hypothesis_template: Option<String>,
    /// Score each label on its own instead of against the others.
    multi_label: Option<bool>,
}

impl<'a> BatchRequest<'a> {
    fn read(
        text: &'a str,
        plain: bool,
        config: &Server,
        spare: &'a mut Option<String>,
    ) -> Result<Self, Vec<Problem<'a>>> {
        const NAMES: [&str; 7] =
            ["logs", "threshold", "labels", "anomaly_label", "hypothesis_template", "multi_label", "source"];
        let mut fields = Fields::read(text, plain, NAMES, spare).map_err(|p| vec![p])?;
        let logs = fields.list(0, config.max_batch_logs);
        let threshold = fields.optional_share(1);
        let labels = fields.optional_texts(2, MAX_LABELS);
        let anomaly_label = fields.optional_text(3);
        let hypothesis_template = fields.optional_text(4);
        let multi_label = fields.optional_flag(5);
        let source = fields.text_if_any(6);
        fields.finish()?;
        let logs = logs.expect("it is there, or it is a problem");
        Ok(Self { logs, threshold, source, labels, anomaly_label, hypothesis_template, multi_label })
    }
}

/// One entry a log, in order.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "results": [
        { "label": "anomaly", "confidence": 0.97, "is_anomaly": true,
          "scores": { "anomaly": 0.97, "normal": 0.03 }, "truncated": false },
        { "error": { "type": "string_type", "msg": "Input should be a valid string" } }
    ],
    "threshold": 0.5
}))]
pub struct BatchResponse<'a> {
    /// One entry a log, in the order of the logs.
    results: Vec<BatchEntry<'a>>,
    /// The threshold that was used.
    threshold: f32,
}

/// What became of one log, and what its template is, if that was asked for.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchEntry<'a> {
    #[serde(flatten)]
    result: BatchResult<'a>,
    #[serde(flatten)]
    #[schema(value_type = TemplateDetail)]
    template: Option<TemplateDetail<'a>>,
}

impl<'a> BatchEntry<'a> {
    /// With the detail that was asked for.
    pub fn new(result: BatchResult<'a>, template: Option<TemplateDetail<'a>>) -> Self {
        Self { result, template }
    }
}

/// What became of one log.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum BatchResult<'a> {
    /// It was scored.
    Verdict(BatchVerdict<'a>),
    /// It was not.
    Refusal(BatchRefusal),
}

/// The verdict for one log of a call.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchVerdict<'a> {
    /// The label of the verdict.
    #[schema(value_type = String)]
    label: &'a str,
    /// The score of that label, 0 to 1.
    confidence: f32,
    /// Whether the log is an anomaly at the threshold.
    is_anomaly: bool,
    /// The score of every label.
    #[schema(value_type = std::collections::HashMap<String, f32>)]
    scores: Scores<'a>,
    /// Whether the log was longer than the model reads, and cut.
    truncated: bool,
}

impl<'a> BatchVerdict<'a> {
    /// The verdict on a log with these scores, which is counted.
    pub fn new(handle: &Handle, task: &'a Task, threshold: f32, classified: &'a Classified) -> Self {
        let verdict = verdict(&classified.scores, task, threshold, handle.scoring().threshold_rule);
        handle.metrics().verdict(verdict.is_anomaly);
        Self {
            label: &task.labels[verdict.label],
            confidence: verdict.confidence,
            is_anomaly: verdict.is_anomaly,
            scores: Scores { labels: &task.labels, scores: &classified.scores },
            truncated: classified.truncated,
        }
    }

    /// Whether the log is an anomaly, and the score of the label of the verdict.
    pub fn outcome(&self) -> (bool, f32) {
        (self.is_anomaly, self.confidence)
    }
}

/// Why one log of a call was not scored.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchRefusal {
    /// The reason.
    pub(super) error: ItemError,
}

/// The reason why one log was not scored.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ItemError {
    /// The reason for programs: a rule's name such as `string_type`, or `overloaded`, `deadline_exceeded`,
    /// `unavailable`, `inference_failed`.
    #[schema(value_type = String)]
    pub(super) r#type: &'static str,
    /// The reason for people.
    #[schema(value_type = String)]
    pub(super) msg: Cow<'static, str>,
}

/// Labels with their scores, in the order of the labels.
#[derive(Debug)]
struct Scores<'a> {
    labels: &'a [String],
    scores: &'a [f32],
}

impl Serialize for Scores<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.labels.iter().zip(self.scores))
    }
}

/// Score many log messages
///
/// One entry a log, in order; a log that cannot be scored has its own error and its neighbours are served. The call
/// itself fails only for what is wrong with all of it.
#[utoipa::path(
    post, path = "/api/v1/analyze/batch", tag = "analysis", operation_id = "analyze_batch",
    request_body = BatchRequest, security((), ("bearer" = [])),
    params(DetailQuery, ("x-request-timeout-ms" = Option<u64>, Header, minimum = 1,
        description = "How long the client waits for the whole call, in ms; by default each log has \
            `batching.request_timeout_ms` from its turn on")),
    responses(
        (status = 200, description = "One entry a log", body = BatchResponse, headers(
            ("x-oddlog-cache" = String, description = "How many logs were which, such as `hit=3, joined=1, miss=4`")
        )),
        Refusals
    )
)]
pub async fn analyze_batch(app: &App, request: Request<Incoming>) -> Response<Body> {
    let trace = trace_of(&request);
    let media_type = body::media_type(request.headers());
    let detail = DetailQuery::read(request.uri().query().unwrap_or_default());
    let (timeouts, now) = (app.handle.timeouts(), Instant::now());
    let deadline = match patience::deadline(request.headers(), timeouts.max, now) {
        Ok(deadline) => deadline,
        Err(answer) => return answer,
    };
    let received = match body::read(app, request).await {
        Ok(received) => received,
        Err(answer) => return answer,
    };
    if let Err(error) = app.verdicts.check(Class::Bulk, deadline.unwrap_or(now + timeouts.default)) {
        return refused(&error);
    }
    let (text, plain) = match body::text(media_type.as_deref(), &received.bytes) {
        Ok(text) => text,
        Err(answer) => return answer,
    };
    let detail = match detail {
        Ok(query) => query.detail,
        Err(problems) => return unprocessable(&problems),
    };
    let mut spare = None;
    let request = match BatchRequest::read(text, plain, &app.config, &mut spare) {
        Ok(request) => request,
        Err(problems) => return unprocessable(&problems),
    };
    let BatchRequest { logs, threshold, source, labels, anomaly_label, hypothesis_template, multi_label } = request;
    let task = match app.handle.task(labels, anomaly_label, hypothesis_template, multi_label) {
        Ok(task) => task,
        Err(error) => return refused(&error),
    };
    let learner = match Learner::new(app, &task, detail) {
        Ok(learner) => learner,
        Err(rule) => return unprocessable(&[query::problem("detail", "template", rule)]),
    };
    if !app.handle.is_open() {
        app.handle.metrics().refused("draining");
        return refused(&RequestError::Draining);
    }
    let threshold = threshold.unwrap_or_else(|| app.handle.scoring().threshold_of(source.as_deref()));
    let (outcomes, sightings) = score(&app.verdicts.at(threshold), &task, &logs, deadline, &learner).await;
    if let Some(trace) = &trace {
        outcomes.iter().flatten().for_each(|answer| trace.one_of_many(&answer.classified.times));
    }
    let results = outcomes.iter().zip(&logs).zip(&sightings).map(|((outcome, log), sighting)| {
        let result = match outcome {
            Err(error) => BatchResult::Refusal(BatchRefusal { error: error.clone() }),
            Ok(Answer { classified, .. }) => {
                let verdict = BatchVerdict::new(&app.handle, &task, threshold, classified);
                app.note_verdict(log.get(), verdict.label, verdict.confidence);
                learner.note_verdict(sighting.as_ref(), verdict.is_anomaly, classified.scores[task.anomaly]);
                BatchResult::Verdict(verdict)
            }
        };
        BatchEntry::new(result, learner.tell(sighting.as_ref()))
    });
    let mut answer = json_answer(StatusCode::OK, &BatchResponse { results: results.collect(), threshold });
    if let Some(counts) = counts(&outcomes) {
        answer.headers_mut().insert(OUTCOME, counts);
    }
    answer
}

/// How many answered logs were hits and so on; `None` if nothing is remembered at all.
fn counts(outcomes: &[Result<Answer, ItemError>]) -> Option<HeaderValue> {
    let outcomes: Vec<Outcome> = outcomes.iter().flatten().filter_map(|answer| answer.outcome).collect();
    let count = |which: Outcome| {
        let logs = outcomes.iter().filter(|outcome| **outcome == which).count();
        format!("{}={logs}", which.name())
    };
    let mut text = [Outcome::Hit, Outcome::Joined, Outcome::Miss].map(count).join(", ");
    if outcomes.contains(&Outcome::Template) {
        text = format!("{text}, {}", count(Outcome::Template));
    }
    (!outcomes.is_empty()).then(|| HeaderValue::try_from(text).expect("names and digits are a valid header value"))
}

/// Learns from every log, in order, and scores it by `deadline`, or each within the configured time, at most [`IN_FLIGHT`] at once, on all HTTP
/// threads: tokenising a long call on one of them would hold up other connections. Dropping the future takes back what is
/// still waiting.
async fn score(
    verdicts: &Verdicts,
    task: &Arc<Task>,
    logs: &[&RawValue],
    deadline: Option<Instant>,
    learner: &Learner,
) -> (Vec<Result<Answer, ItemError>>, Vec<Option<Sighting>>) {
    let lost = || Err(ItemError::from(&RequestError::Inference));
    let mut outcomes: Vec<_> = logs.iter().map(|_| lost()).collect();
    let mut sightings = vec![None; logs.len()];
    let mut running = JoinSet::new();
    for (index, raw) in logs.iter().enumerate() {
        let log = match fields::text(raw) {
            Ok(log) => log.into_owned(),
            Err(rule) => {
                outcomes[index] = Err(ItemError::from(&rule));
                continue;
            }
        };
        sightings[index] = learner.observe(&log);
        if running.len() >= IN_FLIGHT {
            settle(&mut outcomes, running.join_next().await);
        }
        let (verdicts, task, sighting) = (verdicts.clone(), task.clone(), sightings[index].clone());
        running.spawn(async move {
            let deadline = deadline.unwrap_or_else(|| Instant::now() + verdicts.handle().timeouts().default);
            (index, verdicts.classify_by((&*log, sighting.as_ref()), &task, Class::Bulk, deadline).await)
        });
    }
    while let Some(joined) = running.join_next().await {
        settle(&mut outcomes, Some(joined));
    }
    (outcomes, sightings)
}

type Joined = Result<(usize, Result<Answer, RequestError>), tokio::task::JoinError>;

/// Puts an outcome in its place. A task that panicked leaves its place as it is: failed.
fn settle(outcomes: &mut [Result<Answer, ItemError>], joined: Option<Joined>) {
    if let Some(Ok((index, result))) = joined {
        outcomes[index] = result.map_err(|error| ItemError::from(&error));
    }
}

impl From<&Rule> for ItemError {
    fn from(rule: &Rule) -> Self {
        Self { r#type: rule.name(), msg: rule.message() }
    }
}

impl From<&RequestError> for ItemError {
    fn from(error: &RequestError) -> Self {
        let r#type = match error {
            RequestError::Overloaded { .. } | RequestError::TooLate { .. } => "overloaded",
            RequestError::Draining | RequestError::Unavailable => "unavailable",
            RequestError::DeadlineExceeded => "deadline_exceeded",
            RequestError::Inference => "inference_failed",
            RequestError::Invalid { .. } => "value_error",
        };
        Self { r#type, msg: error.to_string().into() }
    }
}
