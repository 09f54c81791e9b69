//! Every metric of oddlog: names, meanings, buckets. Parts get handles, never names.
//!
//! A registry of its own for each [`Metrics`], not a global one, so that two engines in one process do not mix.

mod describe;
mod devices;
mod read;
mod templates;

pub use devices::DeviceMetrics;
pub use templates::{TemplateMetrics, TrustMetrics};

use std::{sync::Arc, time::Duration};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

const SECONDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0,
];
const COUNTS: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0,
    65536.0,
];
const SHARES: &[f64] = &[0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0];

/// A stage of a request, timed on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for a place in the queue (batch calls only wait; single requests are refused instead).
    Admission,
    /// Text to token ids.
    Tokenize,
    /// From the queue to a device.
    Queue,
    /// The model run.
    Inference,
    /// From the parsed request to the verdict.
    Total,
}

/// What the memory of verdicts counts.
pub struct CacheMetrics {
    /// Logs answered from memory.
    pub hits: Counter,
    /// Logs answered with what a twin in flight got.
    pub joined: Counter,
    /// Logs that went to the engine.
    pub misses: Counter,
    /// Remembered logs.
    pub entries: Gauge,
    /// Bytes that they take.
    pub bytes: Gauge,
}

/// All handles. Clone the `Arc`, not the handles.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    stages: [Histogram; 5],
    /// Jobs between enqueueing and a device.
    pub queue_jobs: Gauge,
    /// Padded tokens between enqueueing and a device.
    pub queue_tokens: Gauge,
    /// HTTP requests being answered.
    pub in_flight: Gauge,
    /// Rows of each batch.
    pub batch_rows: Histogram,
    /// Padded tokens of each batch.
    pub batch_tokens: Histogram,
    /// Padding share of each batch, 0 to 1.
    pub batch_padding: Histogram,
    /// Logs whose client was gone before the answer.
    pub dropped_by_client: Counter,
    /// Logs whose deadline passed before they were answered.
    pub expired: Counter,
    /// Logs cut to the model's length.
    pub truncated: Counter,
}

/// What became of spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanOutcome {
    /// The collector took them.
    Exported,
    /// It did not.
    Failed,
    /// There was no room for them, or no time at the end.
    Dropped,
}

impl SpanOutcome {
    /// The metric label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exported => "exported",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

impl Metrics {
    /// A fresh registry with every metric described.
    ///
    /// # Errors
    /// Only if the fixed bucket lists were empty.
    pub fn new() -> Result<Arc<Self>, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), SECONDS)?
            .set_buckets_for_metric(Matcher::Full("oddlog_batch_rows".into()), COUNTS)?
            .set_buckets_for_metric(Matcher::Full("oddlog_batch_tokens".into()), COUNTS)?
            .set_buckets_for_metric(Matcher::Full("oddlog_batch_padding_ratio".into()), SHARES)?
            .build_recorder();
        let handle = recorder.handle();
        let metrics = metrics::with_local_recorder(&recorder, || {
            describe::describe();
            let stage = |name: &'static str| histogram!("oddlog_stage_duration_seconds", "stage" => name);
            gauge!("oddlog_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
            (
                ["admission", "tokenize", "queue", "inference", "total"].map(stage),
                [gauge!("oddlog_queue_jobs"), gauge!("oddlog_queue_tokens"), gauge!("oddlog_http_requests_in_flight")],
                [
                    histogram!("oddlog_batch_rows"),
                    histogram!("oddlog_batch_tokens"),
                    histogram!("oddlog_batch_padding_ratio"),
                ],
                [
                    counter!("oddlog_dropped_by_client_total"),
                    counter!("oddlog_expired_total"),
                    counter!("oddlog_truncated_logs_total"),
                ],
            )
        });
        let (stages, gauges, batch, counters) = metrics;
        let [queue_jobs, queue_tokens, in_flight] = gauges;
        let [batch_rows, batch_tokens, batch_padding] = batch;
        let [dropped_by_client, expired, truncated] = counters;
        Ok(Arc::new(Self {
            recorder,
            handle,
            stages,
            queue_jobs,
            queue_tokens,
            in_flight,
            batch_rows,
            batch_tokens,
            batch_padding,
            dropped_by_client,
            expired,
            truncated,
        }))
    }

    /// Records the time that one job spent in `stage`.
    pub fn stage(&self, stage: Stage, time: Duration) {
        self.stages[stage as usize].record(time);
    }

    /// Counts an answered HTTP request. `route` is a route's pattern, never a raw path.
    pub fn http_request(&self, route: &'static str, status: u16, time: Duration) {
        metrics::with_local_recorder(&self.recorder, || {
            counter!("oddlog_http_requests_total", "route" => route, "status" => status.to_string()).increment(1);
            histogram!("oddlog_http_request_duration_seconds", "route" => route).record(time);
        });
    }

    /// Counts a request that was refused before it entered the queue.
    pub fn refused(&self, reason: &'static str) {
        metrics::with_local_recorder(&self.recorder, || {
            counter!("oddlog_refused_total", "reason" => reason).increment(1);
        });
    }

    /// Counts `lines` of streams that had one outcome.
    pub fn stream_lines(&self, outcome: &'static str, lines: u64) {
        metrics::with_local_recorder(&self.recorder, || {
            counter!("oddlog_stream_lines_total", "outcome" => outcome).increment(lines);
        });
    }

    /// Counts `bytes` read from streams, after decompression.
    pub fn stream_bytes(&self, bytes: u64) {
        metrics::with_local_recorder(&self.recorder, || counter!("oddlog_stream_bytes_total").increment(bytes));
    }

    /// Counts a stream that is over.
    pub fn stream_ended(&self, reason: &'static str) {
        metrics::with_local_recorder(&self.recorder, || {
            counter!("oddlog_streams_ended_total", "reason" => reason).increment(1);
        });
    }

    /// Streams being served.
    pub fn streams_open(&self) -> Gauge {
        metrics::with_local_recorder(&self.recorder, || gauge!("oddlog_streams_open"))
    }

    /// Counts a verdict.
    pub fn verdict(&self, is_anomaly: bool) {
        let verdict = if is_anomaly { "anomaly" } else { "normal" };
        metrics::with_local_recorder(&self.recorder, || {
            counter!("oddlog_verdicts_total", "verdict" => verdict).increment(1);
        });
    }

    /// Counts a batch that left the queue.
    pub fn batch_closed(&self, reason: &'static str) {
        metrics::with_local_recorder(&self.recorder, || {
            counter!("oddlog_batches_total", "closed_by" => reason).increment(1);
        });
    }

    /// Counts jobs that a device could not score.
    pub fn failed_jobs(&self, jobs: usize) {
        metrics::with_local_recorder(&self.recorder, || {
            counter!("oddlog_failed_jobs_total").increment(jobs as u64);
        });
    }

    /// What a memory of verdicts counts.
    pub fn cache(&self) -> CacheMetrics {
        let outcome = |name: &'static str| counter!("oddlog_cache_logs_total", "outcome" => name);
        metrics::with_local_recorder(&self.recorder, || CacheMetrics {
            hits: outcome("hit"),
            joined: outcome("joined"),
            misses: outcome("miss"),
            entries: gauge!("oddlog_cache_entries"),
            bytes: gauge!("oddlog_cache_bytes"),
        })
    }

    /// What a memory of templates counts.
    pub fn trust(&self) -> TrustMetrics {
        let check = |result: &'static str| counter!("oddlog_template_checks_total", "result" => result);
        let state = |state: &'static str| gauge!("oddlog_template_trust", "state" => state);
        metrics::with_local_recorder(&self.recorder, || TrustMetrics {
            answers: counter!("oddlog_cache_logs_total", "outcome" => "template"),
            states: ["learning", "trusted", "volatile"].map(state),
            disagreement: gauge!("oddlog_template_disagreement_ratio"),
            check_agreed: check("agreed"),
            check_disagreed: check("disagreed"),
            check_dropped: check("dropped"),
            check_failed: check("failed"),
        })
    }

    /// What a book of templates counts.
    pub fn templates(&self) -> TemplateMetrics {
        let snapshots = |result: &'static str| counter!("oddlog_template_snapshots_total", "result" => result);
        metrics::with_local_recorder(&self.recorder, || TemplateMetrics {
            templates: gauge!("oddlog_templates"),
            bytes: gauge!("oddlog_template_bytes"),
            first_seen: counter!("oddlog_templates_first_seen_total"),
            forgotten: counter!("oddlog_templates_forgotten_total"),
            written: snapshots("written"),
            failed: snapshots("failed"),
            snapshot_age: gauge!("oddlog_template_snapshot_age_seconds"),
        })
    }

    /// Counts a connection that was accepted.
    pub fn connection_opened(&self) {
        metrics::with_local_recorder(&self.recorder, || gauge!("oddlog_connections").increment(1.0));
    }

    /// Counts the end of a connection that was counted as opened.
    pub fn connection_closed(&self, reason: &'static str) {
        metrics::with_local_recorder(&self.recorder, || gauge!("oddlog_connections").decrement(1.0));
        self.connection_refused(reason);
    }

    /// Counts a connection that was closed at once.
    pub fn connection_refused(&self, reason: &'static str) {
        metrics::with_local_recorder(&self.recorder, || {
            counter!("oddlog_connections_closed_total", "reason" => reason).increment(1);
        });
    }

    /// Counts a connection that could not be accepted.
    pub fn accept_failed(&self) {
        metrics::with_local_recorder(&self.recorder, || counter!("oddlog_accept_errors_total").increment(1));
    }

    /// Counts a request that was refused for who sent it, or for its form, before anything of it was looked at.
    pub fn turned_away(&self, reason: &'static str) {
        metrics::with_local_recorder(&self.recorder, || {
            counter!("oddlog_requests_turned_away_total", "reason" => reason).increment(1);
        });
    }

    /// Counts spans that are done with.
    pub fn spans(&self, outcome: SpanOutcome, spans: u64) {
        metrics::with_local_recorder(&self.recorder, || {
            counter!("oddlog_trace_spans_total", "outcome" => outcome.name()).increment(spans);
        });
    }

    /// Counts what was read again on SIGHUP: `keys` or `certificate`.
    pub fn reloaded(&self, what: &'static str, well: bool) {
        let result = if well { "ok" } else { "error" };
        metrics::with_local_recorder(&self.recorder, || {
            counter!("oddlog_reloads_total", "what" => what, "result" => result).increment(1);
        });
    }

    /// Everything as Prometheus text.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds recorded samples into buckets; to be called every few seconds, else they pile up until the next scrape.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_do_not_mix_and_the_text_parses() {
        let (one, two) = (Metrics::new().unwrap(), Metrics::new().unwrap());
        one.http_request("/x", 200, Duration::from_millis(3));
        one.stage(Stage::Queue, Duration::from_millis(1));
        two.expired.increment(5);
        one.upkeep();
        let parse = |m: &Metrics| {
            let text = m.render();
            prometheus_parse::Scrape::parse(text.lines().map(|l| Ok(l.to_owned()))).unwrap().samples
        };
        let has = |m: &Metrics, name: &str| parse(m).iter().any(|s| s.metric == name);
        assert!(has(&one, "oddlog_http_requests_total") && !has(&two, "oddlog_http_requests_total"));
        let value = parse(&two).into_iter().find(|s| s.metric == "oddlog_expired_total").unwrap().value;
        assert_eq!(value, prometheus_parse::Value::Counter(5.0));
        let queue = parse(&one)
            .into_iter()
            .find(|s| s.metric == "oddlog_stage_duration_seconds" && s.labels.get("stage") == Some("queue"));
        assert!(matches!(queue.unwrap().value, prometheus_parse::Value::Histogram(_)));
    }
}
