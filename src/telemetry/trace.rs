//! One traced request: a span for it, and one for each stage of its logs.
//!
//! ```text
//! request [ tokenise | queue | run ] respond
//! ```
//!
//! Stages are told when they are over, with the times that were measured anyway. A call with many logs has no `tokenise`
//! spans, and of each model run one `queue` and one `run`, for the first of its logs.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use opentelemetry::{
    Context, KeyValue,
    trace::{Span, SpanKind, Status, TraceContextExt, Tracer},
};
use opentelemetry_sdk::trace::SdkTracer;

use super::Parent;
use crate::engine::{JobRun, StageTimes};

/// Runs of one request that have spans of their own.
const MOST_RUNS: usize = 64;
/// Status of a request whose client left before its answer.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// A part in a traced request. Its span ends when the last part is dropped.
#[derive(Clone)]
pub struct Trace(Arc<Open>);

struct Open {
    tracer: SdkTracer,
    /// With the request's span.
    context: Context,
    /// The same moment twice: spans have calendar times, measurements have not.
    began: (Instant, SystemTime),
    answer: OnceLock<(u16, Instant)>,
    logs: Mutex<Logs>,
}

/// What was told of a call's logs.
#[derive(Default)]
struct Logs {
    number: u64,
    tokenization: Duration,
    /// Runs with spans, by device and beginning, which no two share.
    runs: Vec<(Arc<str>, Instant)>,
    runs_left_out: u64,
    last_left_out: Option<(Arc<str>, Instant)>,
}

impl Trace {
    pub(super) fn begin(
        tracer: &SdkTracer,
        method: &str,
        route: &'static str,
        parent: Option<&Parent>,
    ) -> Option<Self> {
        let none = Context::new();
        let above = parent.map_or(&none, Parent::context);
        let began = (Instant::now(), SystemTime::now());
        let builder = tracer.span_builder(route).with_kind(SpanKind::Server).with_start_time(began.1);
        let mut span = tracer.build_with_context(builder, above);
        if !span.is_recording() {
            return None;
        }
        span.update_name(format!("{method} {route}"));
        span.set_attribute(KeyValue::new("http.request.method", method.to_owned()));
        span.set_attribute(KeyValue::new("http.route", route));
        let context = above.with_span(span);
        let (answer, logs) = (OnceLock::new(), Mutex::default());
        Some(Self(Arc::new(Open { tracer: tracer.clone(), context, began, answer, logs })))
    }

    /// The trace's id, 32 hexadecimal digits.
    pub fn id(&self) -> String {
        self.0.context.span().span_context().trace_id().to_string()
    }

    /// Says something about the request. Never a log message.
    pub fn note(&self, key: &'static str, value: impl Into<opentelemetry::Value>) {
        self.0.context.span().set_attribute(KeyValue::new(key, value));
    }

    /// The request's only log was scored or remembered: a span for each of its stages.
    pub fn log(&self, times: &StageTimes) {
        let queued = self.0.ran(times);
        if times.tokenization > Duration::ZERO {
            self.0.stage("tokenise", queued.checked_sub(times.tokenization).unwrap_or(queued), queued, vec![]);
        }
    }

    /// One of a request's many logs was scored or remembered.
    pub fn one_of_many(&self, times: &StageTimes) {
        if self.0.first_of_run(times) {
            self.0.ran(times);
        }
    }

    /// The answer begins to be sent.
    pub fn answered(&self, status: u16) {
        // A request has one answer.
        let _ = self.0.answer.set((status, Instant::now()));
    }
}

impl Open {
    /// Spans for the queue and the run. Returns when the log came to the queue.
    fn ran(&self, times: &StageTimes) -> Instant {
        let Some(run) = &times.run else {
            // From memory: what it waited for, if for anything, was a twin.
            let now = Instant::now();
            let queued = now.checked_sub(times.queue).unwrap_or(now);
            if times.queue > Duration::ZERO {
                self.stage("join", queued, now, vec![]);
            }
            return queued;
        };
        let queued = run.began.checked_sub(times.queue).unwrap_or(run.began);
        self.stage("queue", queued, run.began, vec![]);
        self.stage("run", run.began, run.ended, of_run(run));
        queued
    }

    /// Whether a log is the first of its run that is told of, and there is room for it.
    fn first_of_run(&self, times: &StageTimes) -> bool {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.number += 1;
        logs.tokenization += times.tokenization;
        let Some(run) = &times.run else { return false };
        let is = |known: &(Arc<str>, Instant)| known.1 == run.began && known.0 == run.device;
        if logs.runs.iter().rev().any(is) {
            return false;
        }
        if logs.runs.len() < MOST_RUNS {
            logs.runs.push((run.device.clone(), run.began));
            return true;
        }
        if !logs.last_left_out.as_ref().is_some_and(is) {
            logs.last_left_out = Some((run.device.clone(), run.began));
            logs.runs_left_out += 1;
        }
        false
    }

    fn stage(&self, name: &'static str, from: Instant, to: Instant, attributes: Vec<KeyValue>) {
        let builder = self.tracer.span_builder(name).with_kind(SpanKind::Internal);
        let builder = builder.with_start_time(self.at(from)).with_attributes(attributes);
        self.tracer.build_with_context(builder, &self.context).end_with_timestamp(self.at(to));
    }

    fn at(&self, moment: Instant) -> SystemTime {
        let (instant, time) = self.began;
        match moment.checked_duration_since(instant) {
            Some(later) => time + later,
            None => time.checked_sub(instant.duration_since(moment)).unwrap_or(time),
        }
    }
}

fn of_run(run: &JobRun) -> Vec<KeyValue> {
    let number = |key: &'static str, value: usize| KeyValue::new(key, value as i64);
    vec![
        KeyValue::new("oddlog.device", run.device.clone()),
        number("oddlog.batch.logs", run.jobs),
        number("oddlog.batch.rows", run.rows),
        number("oddlog.batch.tokens", run.tokens),
        KeyValue::new("oddlog.batch.closed_by", run.closed_by.map_or("failed_before", |reason| reason.name())),
    ]
}

impl Drop for Open {
    fn drop(&mut self) {
        let now = Instant::now();
        if let Some((_, since)) = self.answer.get() {
            self.stage("respond", *since, now, vec![]);
        }
        let span = self.context.span();
        let logs = self.logs.get_mut().unwrap_or_else(PoisonError::into_inner);
        if logs.number > 0 {
            span.set_attribute(KeyValue::new("oddlog.logs", logs.number as i64));
            span.set_attribute(KeyValue::new("oddlog.tokenise_ms", logs.tokenization.as_secs_f64() * 1e3));
            span.set_attribute(KeyValue::new("oddlog.runs_left_out", logs.runs_left_out as i64));
        }
        let status = self.answer.get().map_or(CLIENT_CLOSED_REQUEST, |(status, _)| *status);
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        if status >= 499 {
            span.set_attribute(KeyValue::new("error.type", status.to_string()));
            span.set_status(Status::error(""));
        }
        span.end_with_timestamp(self.at(now));
    }
}
