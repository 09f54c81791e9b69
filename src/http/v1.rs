//! The API that existing clients call: `/api/v1/analyze`, `/api/v1/health`, `/api/v1/`.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::Incoming,
    header::{HeaderName, HeaderValue},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    answer::{Body, json_answer, refused, server_error, unprocessable},
    app::App,
    body,
    detail::{Detail, Learner},
    exchange::trace_of,
    fields::Fields,
    openapi::Refusals,
    patience,
    problem::Problem,
};
use crate::{
    classify::verdict,
    engine::{Class, StageTimes},
    verdicts::Answer,
};

/// Header that says how the cache had part in an answer.
pub const OUTCOME: HeaderName = HeaderName::from_static("x-oddlog-cache");

/// One log to score.
#[derive(Debug, PartialEq, ToSchema)]
#[schema(example = json!({ "log_message": "ERROR: Database connection timeout after 30s", "threshold": 0.5 }))]
pub struct AnalyzeRequest<'a> {
    /// The log message, with at least one character that is not white space. Longer ones than the model reads are cut.
    #[schema(value_type = String, min_length = 1)]
    log_message: Cow<'a, str>,
    /// Score from which the log is an anomaly, 0 to 1; `null` or absent takes the configured one.
    #[schema(minimum = 0, maximum = 1)]
    threshold: Option<f32>,
    /// Where the log comes from, a string, for the threshold that `scoring.thresholds` has for it. Any other value counts as
    /// none.
    #[schema(value_type = Option<Value>)]
    source: Option<String>,
}

impl<'a> AnalyzeRequest<'a> {
    /// Reads and checks a body; see [`Fields::read`].
    ///
    /// # Errors
    /// Every problem, in the order of the fields.
    fn read(text: &'a str, plain: bool, spare: &'a mut Option<String>) -> Result<Self, Vec<Problem<'a>>> {
        let mut fields =
            Fields::read(text, plain, ["log_message", "threshold", "source"], spare).map_err(|p| vec![p])?;
        let log_message = fields.text(0);
        let threshold = fields.optional_share(1);
        let source = fields.text_if_any(2);
        fields.finish()?;
        Ok(Self { log_message: log_message.expect("it is there, or it is a problem"), threshold, source })
    }
}

/// The verdict for one log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "log_message": "ERROR: Database connection timeout after 30s", "label": "anomaly", "confidence": 0.9372868,
    "is_anomaly": true, "threshold": 0.5
}))]
pub struct AnalyzeResponse<'a> {
    /// The log message as it was sent.
    #[schema(value_type = String)]
    log_message: &'a str,
    /// The label of the verdict.
    #[schema(value_type = String)]
    label: &'a str,
    /// The model's score of that label, 0 to 1.
    confidence: f32,
    /// Whether the log is an anomaly at the threshold.
    is_anomaly: bool,
    /// The threshold that was used.
    threshold: f32,
}

/// Score one log message
///
/// The body is read as JSON whatever its content type says, except for `text/plain`.
#[utoipa::path(
    post, path = "/api/v1/analyze", tag = "analysis", operation_id = "analyze",
    request_body = AnalyzeRequest, security((), ("bearer" = [])),
    params(("x-request-timeout-ms" = Option<u64>, Header, minimum = 1,
        description = "How long the client waits, in ms; by default `batching.request_timeout_ms`")),
    responses(
        (status = 200, description = "The verdict", body = AnalyzeResponse, headers(
            ("x-request-id" = String, description = "The request's own name if it brought one, else a new one"),
            ("x-tokenization-time" = f64, description = "Milliseconds from text to tokens"),
            ("x-queue-time" = f64, description = "Milliseconds spent waiting for a device"),
            ("x-inference-time" = f64, description = "Milliseconds of the model run"),
            ("x-oddlog-cache" = String, description = "`hit`, `joined` (a twin was being scored), `miss` or `template` (others like it were scored)")
        )),
        Refusals
    )
)]
pub async fn analyze(app: &App, request: Request<Incoming>) -> Response<Body> {
    let trace = trace_of(&request);
    let media_type = body::media_type(request.headers());
    let (timeouts, now) = (app.handle.timeouts(), Instant::now());
    let deadline = match patience::deadline(request.headers(), timeouts.max, now) {
        Ok(deadline) => deadline.unwrap_or(now + timeouts.default),
        Err(answer) => return answer,
    };
    let received = match body::read(app, request).await {
        Ok(received) => received,
        Err(answer) => return answer,
    };
    // Not before the body is there: an answer to a half-sent request may break its connection.
    if let Err(error) = app.verdicts.check(Class::Interactive, deadline) {
        return refused(&error);
    }
    let (text, plain) = match body::text(media_type.as_deref(), &received.bytes) {
        Ok(text) => text,
        Err(answer) => return answer,
    };
    let mut spare = None;
    let AnalyzeRequest { log_message, threshold, source } = match AnalyzeRequest::read(text, plain, &mut spare) {
        Ok(request) => request,
        Err(problems) => return unprocessable(&problems),
    };
    let scoring = app.handle.scoring();
    let threshold = threshold.unwrap_or_else(|| scoring.threshold_of(source.as_deref()));
    let task = app.handle.default_task();
    let Ok(learner) = Learner::new(app, task, Detail::None) else { return server_error() };
    let sighting = learner.observe(&log_message);
    let log = (&*log_message, sighting.as_ref());
    let answer = app.verdicts.at(threshold).classify_by(log, task, Class::Interactive, deadline).await;
    let Answer { classified, outcome } = match answer {
        Ok(answer) => answer,
        Err(error) => return refused(&error),
    };
    if let Some(trace) = &trace {
        trace.log(&classified.times);
        outcome.into_iter().for_each(|outcome| trace.note("oddlog.cache", outcome.name()));
    }
    let verdict = verdict(&classified.scores, task, threshold, scoring.threshold_rule);
    app.handle.metrics().verdict(verdict.is_anomaly);
    learner.note_verdict(sighting.as_ref(), verdict.is_anomaly, classified.scores[task.anomaly]);
    app.note_verdict(&log_message, &task.labels[verdict.label], verdict.confidence);
    let response = AnalyzeResponse {
        log_message: &log_message,
        label: &task.labels[verdict.label],
        confidence: verdict.confidence,
        is_anomaly: verdict.is_anomaly,
        threshold,
    };
    let mut answer = json_answer(StatusCode::OK, &response);
    add_times(answer.headers_mut(), &classified.times);
    if let Some(outcome) = outcome {
        answer.headers_mut().insert(OUTCOME, HeaderValue::from_static(outcome.name()));
    }
    answer
}

fn add_times(headers: &mut HeaderMap, times: &StageTimes) {
    let ms = |time: Duration| {
        HeaderValue::try_from(format!("{:.3}", time.as_secs_f64() * 1e3)).expect("digits are a valid header value")
    };
    headers.insert("x-tokenization-time", ms(times.tokenization));
    headers.insert("x-queue-time", ms(times.queue));
    headers.insert("x-inference-time", ms(times.inference));
}

/// Whether the model is served.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "status": "healthy", "model_loaded": true, "model_path": "models/oddlog-minilm" }))]
pub struct Health<'a> {
    /// `healthy` or `unhealthy`.
    #[schema(value_type = String)]
    status: &'static str,
    /// Whether requests can be answered.
    model_loaded: bool,
    /// The model as the operator named it.
    #[schema(value_type = String)]
    model_path: &'a str,
}

/// Whether the model is served
///
/// Always 200, for compatibility; load balancers should ask `/readyz`.
#[utoipa::path(
    get, path = "/api/v1/health", tag = "analysis", operation_id = "health",
    responses((status = 200, description = "The state of the service", body = Health))
)]
pub fn health(app: &App) -> Response<Body> {
    let model_loaded = app.handle.can_answer();
    let status = if model_loaded { "healthy" } else { "unhealthy" };
    json_answer(StatusCode::OK, &Health { status, model_loaded, model_path: &app.model })
}

/// What this service is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "message": "Log Anomaly Detection API", "version": "0.1.0", "docs": "/docs" }))]
pub struct Root {
    /// Its name.
    #[schema(value_type = String)]
    message: &'static str,
    /// Its version.
    #[schema(value_type = String)]
    version: &'static str,
    /// Where its documentation is.
    #[schema(value_type = String)]
    docs: &'static str,
}

/// What this service is
#[utoipa::path(
    get, path = "/api/v1/", tag = "analysis", operation_id = "root",
    responses((status = 200, description = "Name and version", body = Root))
)]
pub fn root() -> Response<Body> {
    let version = env!("CARGO_PKG_VERSION");
    json_answer(StatusCode::OK, &Root { message: "Log Anomaly Detection API", version, docs: "/docs" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<(String, String)> {
        let mut spare = None;
        let problems = AnalyzeRequest::read(text, false, &mut spare).unwrap_err();
        problems.iter().map(|p| (p.r#type.to_owned(), p.input.get().to_owned())).collect()
    }

    #[test]
    fn problems_come_in_the_order_of_the_fields_with_the_input_as_sent() {
        let both = problems(r#"{"threshold": 1.50, "log_message": {"a": [1.10]}}"#);
        let expected = [("string_type", r#"{"a": [1.10]}"#), ("less_than_equal", "1.50")];
        assert_eq!(both, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
        assert_eq!(problems(r#"{"log_message": "x", "threshold": NaN}"#), [("finite_number".into(), "null".into())]);
        assert_eq!(problems(r#"{"x": NaN}"#), [("missing".into(), r#"{"x": 1e999}"#.into())]);
    }

    #[test]
    fn a_message_without_escapes_is_not_copied() {
        let mut spare = None;
        let text = r#"{"log_message": "disk full", "threshold": "0.7", "source": "web"}"#;
        let request = AnalyzeRequest::read(text, false, &mut spare).unwrap();
        assert_eq!(
            request,
            AnalyzeRequest { log_message: "disk full".into(), threshold: Some(0.7), source: Some("web".into()) }
        );
        assert!(matches!(request.log_message, Cow::Borrowed(_)));
    }
}
