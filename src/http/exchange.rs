//! One request and its answer: everything that holds for all routes.
//!
//! Counts it whatever happens to it, names it, survives a panic, adds the headers that every answer carries, and writes
//! the access log.

use std::{
    future::{Future, poll_fn},
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
    time::Instant,
};

use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::{Body as _, Incoming},
    header::{CONNECTION, CONTENT_LENGTH, HeaderValue, ORIGIN},
};

use super::{
    answer::{Body, detail, server_error},
    app::{App, Door},
    request_id,
    router::{Place, route},
};
use crate::{
    config::AccessLog,
    metrics::Metrics,
    telemetry::{Parent, Trace},
};
use tracing::Instrument;

/// Status under which a request is counted whose client left before the answer.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Fields of a header; hyper has the same limit for HTTP/1.1, and none for HTTP/2.
const MAX_FIELDS: usize = 100;

/// Who sends a request.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// Where it came in.
    pub door: Door,
    /// From where.
    pub client: IpAddr,
}

/// Answers `request`.
pub async fn exchange(app: &App, caller: Caller, mut request: Request<Incoming>) -> Response<Body> {
    let started = Instant::now();
    let place = match Place::of(request.uri().path()) {
        place if place.is_for_operators() && !app.shows_operations(caller.door) => Place::Unknown,
        place => place,
    };
    let count = Count::new(app.handle.metrics(), place.pattern());
    let id = app.ids.of(request.headers());
    let origin = request.headers().get(ORIGIN).cloned();
    let (method, version) = (request.method().clone(), request.version());
    let span = tracing::info_span!(
        "request",
        id = id.to_str().unwrap_or_default(),
        route = place.pattern(),
        trace_id = tracing::field::Empty
    );
    let trace = begin_trace(app, place, &mut request, &span);
    if let Some(trace) = &trace {
        trace.note("oddlog.request_id", id.to_str().unwrap_or_default().to_owned());
    }

    // Boxed, because hyper keeps room for this future with every idle connection, and the routes' are large.
    let answered = Box::pin(async {
        if request.headers().len() > MAX_FIELDS {
            app.handle.metrics().turned_away("header_fields");
            return detail(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "The request has too many header fields.");
        }
        route(app, place, request).await
    });
    let mut answer = caught(answered.instrument(span.clone())).await.unwrap_or_else(|Panicked| {
        span.in_scope(|| tracing::error!("a handler panicked"));
        server_error()
    });

    let status = answer.status();
    let entry = Entry { caller, method: &method, place, status, started };
    span.in_scope(|| entry.write(app.log.access));
    let body_bytes = answer.body().size_hint().lower();
    let headers = answer.headers_mut();
    headers.insert(request_id::HEADER, id);
    app.cors.apply(origin.as_ref(), headers);
    if app.is_draining() && version < Version::HTTP_2 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if method == Method::HEAD {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body_bytes));
        *answer.body_mut() = Body::default();
    }
    if let Some(trace) = trace {
        trace.answered(status.as_u16());
        // Its end is that of the answer's body.
        answer.extensions_mut().insert(trace);
    }
    count.answered(status.as_u16());
    answer
}

/// The request's trace, unless it has none, for its handler, too. The trace's id becomes part of the log's entries; with a
/// `traceparent` also when no spans are made.
fn begin_trace(app: &App, place: Place, request: &mut Request<Incoming>, span: &tracing::Span) -> Option<Trace> {
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let parent = text("traceparent").and_then(|parent| Parent::read(parent, text("tracestate")));
    let traces = app.traces.as_ref().filter(|_| place.is_analysis());
    let trace = traces.and_then(|traces| traces.begin(request.method().as_str(), place.pattern(), parent.as_ref()));
    if let Some(id) = trace.as_ref().map(Trace::id).or_else(|| parent.as_ref().map(Parent::trace_id)) {
        span.record("trace_id", id);
    }
    if let Some(trace) = &trace {
        request.extensions_mut().insert(trace.clone());
    }
    trace
}

/// The part in the trace of a request that its handler has.
pub fn trace_of(request: &Request<Incoming>) -> Option<Trace> {
    request.extensions().get::<Trace>().cloned()
}

/// A line of the access log; the request's name and route are in its span.
struct Entry<'a> {
    caller: Caller,
    method: &'a Method,
    place: Place,
    status: StatusCode,
    started: Instant,
}

impl Entry<'_> {
    fn write(&self, level: AccessLog) {
        // An unknown method is the client's own text.
        let method = if self.place == Place::Unknown { "-" } else { self.method.as_str() };
        let (client, status) = (self.caller.client, self.status.as_u16());
        let ms = self.started.elapsed().as_secs_f64() * 1e3;
        match level {
            AccessLog::Off => {}
            AccessLog::Debug => tracing::debug!(target: "oddlog::access", %client, method, status, ms, "answered"),
            AccessLog::Info => tracing::info!(target: "oddlog::access", %client, method, status, ms, "answered"),
        }
    }
}

/// Counts a request exactly once: with its status, or as closed by the client when it is dropped before.
struct Count<'a> {
    metrics: &'a Metrics,
    pattern: &'static str,
    started: Instant,
    status: u16,
}

impl<'a> Count<'a> {
    fn new(metrics: &'a Metrics, pattern: &'static str) -> Self {
        metrics.in_flight.increment(1.0);
        Self { metrics, pattern, started: Instant::now(), status: CLIENT_CLOSED_REQUEST }
    }

    fn answered(mut self, status: u16) {
        self.status = status;
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.metrics.in_flight.decrement(1.0);
        self.metrics.http_request(self.pattern, self.status, self.started.elapsed());
    }
}

/// A handler panicked; the panic hook has told where.
#[derive(Debug, PartialEq, Eq)]
struct Panicked;

/// Runs `future`, making a panic in it an error. It is not polled again after one.
async fn caught<T>(future: impl Future<Output = T>) -> Result<T, Panicked> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
        Err(_) => Poll::Ready(Err(Panicked)),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_and_a_value_is_kept() {
        assert_eq!(caught(async { 3 }).await, Ok(3));
        let late = async {
            tokio::task::yield_now().await;
            panic!("this test panics on purpose")
        };
        assert_eq!(caught::<u8>(late).await, Err(Panicked));
    }

    #[test]
    fn every_request_is_counted_once_even_when_it_is_dropped() {
        let metrics = Metrics::new().unwrap();
        Count::new(&metrics, "/x").answered(200);
        drop(Count::new(&metrics, "/x"));
        let text = metrics.render();
        assert!(text.contains(r#"oddlog_http_requests_total{route="/x",status="200"} 1"#), "{text}");
        assert!(text.contains(r#"oddlog_http_requests_total{route="/x",status="499"} 1"#), "{text}");
        assert!(text.contains("oddlog_http_requests_in_flight 0"), "{text}");
    }
}
