//! `POST /api/v1/analyze/stream`: any number of lines, answered in order while they come.
//!
//! ```text
//! query -> Query    lines -> Lines -> Format    outcomes -> Output    all of it moved by Pump
//! ```
//!
//! The answer comes in parts while the body is read, or, for clients that write everything before they read, as one
//! summary at the end. It does not know how bodies are coded or sockets work.

mod entry;
mod lines;
mod output;
mod pump;
mod query;

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration};

use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, VARY},
};
use serde_json::value::RawValue;
use tokio::{io::AsyncBufRead, sync::OwnedSemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::{
    answer::{Body, detail, json_answer, refused, server_error, unprocessable},
    app::App,
    body,
    coding::{Coding, Encoder},
    exchange::trace_of,
    openapi::Refusals,
    problem::{Rule, Step},
};
use crate::{
    classify::Task, config::Server, error::RequestError, metrics::Metrics, telemetry::Trace, verdicts::Verdicts,
};
use entry::Format;
use output::{ClientGone, Output, Sent};
pub use output::{StreamEntry, Summary};
use pump::{End, Ended, Input, Pump};
pub use query::{Query, Respond};

const NDJSON: &str = "application/x-ndjson";
/// Of a body whose stream has ended, bytes that are still read, and for how long.
const PASSED_OVER: usize = 32 << 20;
/// See [`PASSED_OVER`].
const LINGER: Duration = Duration::from_secs(1);
/// Seconds after which a body that could not be scored in whole may be sent again.
const RETRY: u64 = 1;

/// Score a stream of log lines
///
/// Each line is a JSON object with the log in `log_message`, `message` or `log`, or a JSON string; of `text/plain` each
/// line is a log. Lines that are blank have no entry; all others have one, in order, sent as soon as it is there. A line
/// that cannot be scored has its own error and its neighbours are served.
///
/// The body has no limit of length; a line has `server.max_stream_line_bytes`. While too many lines are unanswered, or the
/// client does not read its answers, nothing more of the body is read. A client that reads only after it has written
/// everything must ask for `respond=summary`, or keep its body so small that the answers fit into the buffers between
/// the two. If the stream ends before the body, the last entry is an error with the number of the first line that was not
/// read. A summary has status 503 if sending the body again may help, so that log shippers do it.
#[utoipa::path(
    post, path = "/api/v1/analyze/stream", tag = "analysis", operation_id = "analyze_stream", params(Query),
    request_body(
        content(
            (String = "application/x-ndjson", example = "{\"log_message\":\"disk full\"}\n{\"message\":\"user 42 logged in\"}\n"),
            (String = "text/plain", example = "disk full\nuser 42 logged in\n")
        ),
        description = "Lines of any number; gzip and zstd are understood"
    ),
    security((), ("bearer" = [])),
    responses(
        (status = 200, description = "One entry a line, or the summary", content(
            (StreamEntry = "application/x-ndjson"), (Summary = "application/json")
        )),
        Refusals
    )
)]
pub async fn analyze_stream(app: &App, request: Request<Incoming>) -> Response<Body> {
    match prepare(app, &request) {
        Ok(ready) => ready.start(app, request).await,
        Err(answer) => {
            body::forget(app, request);
            answer
        }
    }
}

/// A stream whose head is in order.
struct Ready {
    query: Query,
    plain: bool,
    coding: Coding,
    task: Arc<Task>,
    place: OwnedSemaphorePermit,
}

fn prepare(app: &App, request: &Request<Incoming>) -> Result<Ready, Response<Body>> {
    let plain = is_plain(body::media_type(request.headers()).as_deref())?;
    let coding = Coding::of_request(request.headers())?;
    let mut query =
        Query::read(request.uri().query().unwrap_or_default()).map_err(|problems| unprocessable(&problems))?;
    let task = app
        .handle
        .task(query.labels.take(), query.anomaly_label.take(), query.hypothesis_template.take(), query.multi_label)
        .map_err(|error| in_query(&error))?;
    if app.is_draining() || !app.handle.is_open() {
        app.handle.metrics().refused("draining");
        return Err(refused(&RequestError::Draining));
    }
    let place = app.streams.clone().try_acquire_owned().map_err(|_| {
        app.handle.metrics().refused("too_many_streams");
        refused(&RequestError::Overloaded { retry_after: Duration::from_secs(RETRY) })
    })?;
    Ok(Ready { query, plain, coding, task, place })
}

impl Ready {
    async fn start(self, app: &App, request: Request<Incoming>) -> Response<Body> {
        let Self { mut query, plain, coding, task, place } = self;
        let trace = trace_of(&request);
        let answer_coding = Coding::of_answer(request.headers());
        let mut body = body::reader(request.into_body());
        // To be asked for the body, hyper sends a client that waits for leave "100 Continue", but not after an answer.
        let early = poll_fn(|context| Poll::Ready(Pin::new(&mut body).poll_fill_buf(context).map_ok(|_| ()))).await;
        if matches!(early, Poll::Ready(Err(_))) {
            return detail(StatusCode::BAD_REQUEST, body::UNREADABLE);
        }
        tokio::task::yield_now().await;

        let job = Job {
            coding,
            threshold: query.threshold.unwrap_or_else(|| app.handle.scoring().threshold_of(query.source.as_deref())),
            respond: query.respond,
            format: query.format(plain),
            task,
            verdicts: app.verdicts.clone(),
            draining: app.draining.clone(),
            config: app.config.clone(),
            open: Open::new(app.handle.metrics().clone()),
            place,
            trace,
        };
        if job.respond == Respond::Summary {
            return summary(job.run(body, None).await);
        }
        let Ok(encoder) = Encoder::new(answer_coding) else { return server_error() };
        let (parts, answer_body) = Body::in_parts();
        let patience = Duration::from_millis(app.config.stream_idle_timeout_ms);
        tokio::spawn(async move {
            if let Err(ClientGone) = job.run(body, Some(Sent { encoder, parts, patience })).await {
                tracing::debug!("the client of a stream is gone");
            }
        });
        head(answer_body, answer_coding)
    }
}

/// Everything that a stream needs, apart from its body.
struct Job {
    coding: Coding,
    threshold: f32,
    respond: Respond,
    format: Format,
    task: Arc<Task>,
    verdicts: Verdicts,
    draining: CancellationToken,
    config: Server,
    open: Open,
    place: OwnedSemaphorePermit,
    trace: Option<Trace>,
}

impl Job {
    async fn run(self, mut body: impl AsyncBufRead + Send + Unpin, sent: Option<Sent>) -> Ended {
        let Self { coding, threshold, respond, format, task, verdicts, draining, config, mut open, place, trace } =
            self;
        let output = Output::new(verdicts.handle().clone(), task.clone(), threshold, respond, sent);
        let input = Input { body: coding.decoder(&mut body), format, coding: coding.name(), draining, trace };
        let ended = Pump::new(input, output, verdicts, task, &config).run().await;
        open.reason = ended.as_ref().map_or("client_gone", |(end, _)| end.name());
        drop((open, place));
        if !matches!(ended, Ok((End::Whole, _)) | Err(ClientGone)) {
            // The client may not read before it has written: with bytes left unread the connection would break.
            body::pass_over(&mut body, PASSED_OVER, LINGER).await;
        }
        ended
    }
}

/// An answer in parts.
fn head(body: Body, coding: Coding) -> Response<Body> {
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    headers.append(VARY, HeaderValue::from_name(ACCEPT_ENCODING));
    // nginx would collect the parts.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    if let Some(name) = coding.name() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    answer
}

/// The answer in one piece. Log shippers send a body again after 503, and not after other errors.
fn summary(ended: Ended) -> Response<Body> {
    let Ok((end, mut summary)) = ended else { return detail(StatusCode::BAD_REQUEST, body::UNREADABLE) };
    let status = match end {
        End::Whole if summary.passing == 0 => StatusCode::OK,
        End::Whole => {
            let text = format!("{} lines got no verdict for lack of capacity. Send the body again.", summary.passing);
            summary.detail = Some(text);
            StatusCode::SERVICE_UNAVAILABLE
        }
        End::Draining => StatusCode::SERVICE_UNAVAILABLE,
        End::Stalled => StatusCode::REQUEST_TIMEOUT,
        End::Undecodable => StatusCode::BAD_REQUEST,
    };
    let mut answer = json_answer(status, &summary);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY));
    }
    answer
}

/// Whether lines are plain text; clients that name no type of their own send JSON.
fn is_plain(media_type: Option<&str>) -> Result<bool, Response<Body>> {
    let Some(name) = media_type else { return Ok(false) };
    match name.strip_prefix("application/") {
        _ if name == "text/plain" => Ok(true),
        Some("x-ndjson" | "ndjson" | "jsonl" | "x-jsonlines" | "json" | "x-www-form-urlencoded" | "octet-stream") => {
            Ok(false)
        }
        Some(other) if other.ends_with("+json") => Ok(false),
        _ => {
            let text = "The content type is not supported. Send lines of JSON as application/x-ndjson, or lines of text \
                        as text/plain.";
            Err(detail(StatusCode::UNSUPPORTED_MEDIA_TYPE, text))
        }
    }
}

/// A refusal of labels that came in the query.
fn in_query(error: &RequestError) -> Response<Body> {
    let RequestError::Invalid { field, reason } = error else { return refused(error) };
    let input = RawValue::NULL;
    let rule = Rule::Value { reason: reason.clone() };
    let problem = rule.at(vec![Step::Name("query"), Step::Name(field)], input);
    unprocessable(&[problem])
}

/// Counts an open stream until it is dropped, and then its end.
struct Open {
    metrics: Arc<Metrics>,
    reason: &'static str,
}

impl Open {
    fn new(metrics: Arc<Metrics>) -> Self {
        metrics.streams_open().increment(1.0);
        Self { metrics, reason: "cut_off" }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.streams_open().decrement(1.0);
        self.metrics.stream_ended(self.reason);
    }
}
