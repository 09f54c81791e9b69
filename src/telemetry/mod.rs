//! Traces: spans of requests, sent to a collector by OTLP over HTTP.
//!
//! ```text
//! Parent (traceparent) -> Traces::begin -> Trace, held by whoever works for the request
//!                                            '- last one dropped -> spans -> Bounded -> (thread) -> Counted -> Post -> collector
//! ```
//!
//! Off unless an endpoint is configured; then nothing is made for a request. The only place that knows OpenTelemetry. It
//! does not know HTTP's types, and never sees a log message: spans hold names, numbers and times.

mod outlet;
mod parent;
mod post;
mod trace;

use std::{sync::Arc, time::Duration};

use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider},
};

pub use parent::Parent;
pub use trace::Trace;

use crate::{config::Telemetry, error::StartError, metrics::Metrics};
use outlet::{Bounded, Counted, Room};
use post::Post;

/// Spans of one export.
const BATCH: usize = 512;

/// Where traces begin, and the thread that exports them.
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    room: Arc<Room>,
    bound: Duration,
}

impl Traces {
    /// Starts the exporting thread; `None` without an endpoint. A collector that does not answer is no error: it may come
    /// later.
    ///
    /// # Errors
    /// [`StartError::Config`] for an endpoint or a header that cannot be one.
    pub fn start(config: &Telemetry, metrics: Arc<Metrics>) -> Result<Option<Self>, StartError> {
        if config.otlp_endpoint.is_empty() {
            return Ok(None);
        }
        let endpoint = post::endpoint(&config.otlp_endpoint)?;
        post::check_headers(&config.otlp_headers.0)?;
        let bound = Duration::from_millis(config.export_timeout_ms);
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Post::new(bound))
            .with_endpoint(endpoint)
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(bound)
            .with_headers(config.otlp_headers.0.clone().into_iter().collect())
            .build()
            .map_err(|e| StartError::Config(format!("telemetry.otlp_endpoint = {:?}: {e}", config.otlp_endpoint)))?;
        let room = Arc::new(Room::new(config.max_queued_spans, metrics));
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(config.max_queued_spans)
            .with_max_export_batch_size(BATCH.min(config.max_queued_spans))
            .with_scheduled_delay(Duration::from_millis(config.export_interval_ms))
            .build();
        let queue =
            BatchSpanProcessor::builder(Counted::new(exporter, room.clone())).with_batch_config(batches).build();
        let resource = Resource::builder()
            .with_service_name(config.service_name.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Bounded::new(queue, room.clone()))
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample_ratio))))
            .with_resource(resource)
            .build();
        Ok(Some(Self { tracer: provider.tracer("oddlog"), provider, room, bound }))
    }

    /// The trace of a request for `route`, unless it is not to be traced.
    pub fn begin(&self, method: &str, route: &'static str, parent: Option<&Parent>) -> Option<Trace> {
        Trace::begin(&self.tracer, method, route, parent)
    }

    /// Sends what is left, within the export's bound, and makes no spans any more. Returns whether all was handed over.
    pub fn shutdown(&self) -> bool {
        let flushed = self.provider.shutdown_with_timeout(self.bound).is_ok();
        let left = self.room.clear();
        if left > 0 {
            tracing::warn!(spans = left, "the collector did not take the last spans in time");
        }
        flushed && left == 0
    }
}
