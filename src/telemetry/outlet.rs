//! The way out of spans: how many wait, what became of them, and a word to the operator now and then. It does not know what
//! a span says.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use opentelemetry::Context;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor},
};

use crate::metrics::{Metrics, SpanOutcome};

/// Time between two warnings that exports fail.
const QUIET: Duration = Duration::from_secs(60);

/// Places for spans that no collector has taken yet.
pub(super) struct Room {
    taken: AtomicUsize,
    max: usize,
    metrics: Arc<Metrics>,
    warned: Mutex<Option<Instant>>,
}

impl Room {
    pub fn new(max: usize, metrics: Arc<Metrics>) -> Self {
        Self { taken: AtomicUsize::new(0), max, metrics, warned: Mutex::new(None) }
    }

    /// A place, or the span is counted as dropped.
    fn enter(&self) -> bool {
        let more = |taken| (taken < self.max).then_some(taken + 1);
        let entered = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        if !entered {
            self.metrics.spans(SpanOutcome::Dropped, 1);
        }
        entered
    }

    /// Those that were given up meanwhile have been counted.
    fn leave(&self, spans: usize, outcome: SpanOutcome) {
        let fewer = |taken: usize| taken.checked_sub(spans);
        if self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_ok() {
            self.metrics.spans(outcome, spans as u64);
        }
    }

    /// Gives up what is still here, and says how many that were.
    pub fn clear(&self) -> usize {
        let left = self.taken.swap(0, Ordering::Relaxed);
        self.metrics.spans(SpanOutcome::Dropped, left as u64);
        left
    }

    /// Whether a warning is due at `now`.
    fn may_warn(&self, now: Instant) -> bool {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let due = warned.is_none_or(|at| now.saturating_duration_since(at) >= QUIET);
        if due {
            *warned = Some(now);
        }
        due
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Room").field("taken", &self.taken).field("max", &self.max).finish_non_exhaustive()
    }
}

/// Lets spans in while there is room. The queue behind it has as many places, so that it never drops any itself, which
/// nobody would count.
#[derive(Debug)]
pub(super) struct Bounded {
    queue: BatchSpanProcessor,
    room: Arc<Room>,
}

impl Bounded {
    pub fn new(queue: BatchSpanProcessor, room: Arc<Room>) -> Self {
        Self { queue, room }
    }
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.queue.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.room.enter() {
            self.queue.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.queue.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.queue.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.queue.set_resource(resource);
    }
}

/// Counts what becomes of exports.
#[derive(Debug)]
pub(super) struct Counted<E> {
    exporter: E,
    room: Arc<Room>,
}

impl<E> Counted<E> {
    pub fn new(exporter: E, room: Arc<Room>) -> Self {
        Self { exporter, room }
    }
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.exporter.export(batch).await;
        let outcome = if result.is_ok() { SpanOutcome::Exported } else { SpanOutcome::Failed };
        self.room.leave(spans, outcome);
        if let Err(error) = &result
            && self.room.may_warn(Instant::now())
        {
            tracing::warn!(%error, spans, "traces cannot be exported; this is said once a minute");
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_many_and_the_rest_is_counted() {
        let metrics = Metrics::new().unwrap();
        let room = Room::new(2, metrics.clone());
        assert_eq!([room.enter(), room.enter(), room.enter()], [true, true, false]);
        room.leave(1, SpanOutcome::Failed);
        assert!(room.enter());
        assert_eq!((room.clear(), room.clear()), (2, 0));
        room.leave(2, SpanOutcome::Exported);
        assert!(!metrics.render().contains(r#"outcome="exported""#), "what was given up is not counted again");
        let text = metrics.render();
        for line in
            [r#"oddlog_trace_spans_total{outcome="dropped"} 3"#, r#"oddlog_trace_spans_total{outcome="failed"} 1"#]
        {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn warnings_come_once_a_minute() {
        let room = Room::new(1, Metrics::new().unwrap());
        let start = Instant::now();
        let asked = [0, 1, 59, 60, 61, 200].map(|s| room.may_warn(start + Duration::from_secs(s)));
        assert_eq!(asked, [true, false, false, true, false, true]);
    }
}
