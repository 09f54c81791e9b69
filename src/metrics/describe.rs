//! What each metric means, as `/metrics` says it. It does not know who records them.

use metrics::{describe_counter, describe_gauge, describe_histogram};

/// Describes every metric to the recorder that is the current one.
pub(super) fn describe() {
    describe_counter!("oddlog_http_requests_total", "HTTP requests answered, by route and status.");
    describe_histogram!("oddlog_http_request_duration_seconds", "Time from a request's header to its answer.");
    describe_gauge!("oddlog_http_requests_in_flight", "HTTP requests being answered.");
    describe_gauge!("oddlog_connections", "Open connections.");
    describe_counter!("oddlog_connections_closed_total", "Connections that ended, by reason.");
    describe_counter!(
        "oddlog_accept_errors_total",
        "Connections that could not be accepted, most often for want of file descriptors."
    );
    describe_counter!(
        "oddlog_requests_turned_away_total",
        "Requests refused for their key, their limits or their header, by reason."
    );
    describe_counter!("oddlog_reloads_total", "Files read again on SIGHUP, by file and result.");
    describe_counter!("oddlog_refused_total", "Logs refused before they entered the queue, by reason.");
    describe_gauge!(
        "oddlog_queue_jobs",
        "Logs waiting for a device. Those given up leave it when one asks, or within 250 ms."
    );
    describe_gauge!("oddlog_queue_tokens", "Tokens waiting for a device, padded ones where the graph pads.");
    describe_histogram!("oddlog_stage_duration_seconds", "Time that a log spent in each stage.");
    describe_histogram!("oddlog_batch_rows", "Rows of each batch; a log has one row for each label.");
    describe_histogram!("oddlog_batch_tokens", "Tokens of each batch, padded ones where the graph pads.");
    describe_histogram!(
        "oddlog_batch_padding_ratio",
        "Share of padding in each batch, 0 to 1; 0 where padding costs nothing."
    );
    describe_counter!("oddlog_batches_total", "Batches run, by the reason why they did not grow further.");
    describe_histogram!("oddlog_device_run_duration_seconds", "Model runs of each device.");
    describe_gauge!("oddlog_device_info", "1, with what the device runs on as a label.");
    describe_gauge!("oddlog_device_up", "1 while the device can answer.");
    describe_gauge!(
        "oddlog_device_token_budget",
        "Tokens that the device takes at once at present, padded ones where the graph pads."
    );
    describe_counter!("oddlog_device_tokens_total", "Tokens that the device ran, padded ones where the graph pads.");
    describe_gauge!(
        "oddlog_device_cost_seconds",
        "Learned cost: of a run (run), a thousand tokens (kilotoken), a million tokens x length (megapair)."
    );
    describe_counter!("oddlog_device_left_to_faster_total", "Times that the device left what waits to a faster one.");
    describe_counter!("oddlog_device_budget_shrinks_total", "Times that the device was out of memory.");
    describe_counter!("oddlog_device_halved_batches_total", "Batches that failed and were halved.");
    describe_counter!("oddlog_device_terminated_runs_total", "Model runs that took too long and were told to end.");
    describe_counter!("oddlog_device_abandoned_threads_total", "Threads that hung in a run and were given up.");
    describe_counter!("oddlog_device_rebuilds_total", "Devices made anew, by reason (panic, broken, hang) and result.");
    describe_counter!("oddlog_failed_jobs_total", "Logs that a device could not score.");
    describe_counter!("oddlog_dropped_by_client_total", "Logs whose client was gone before the answer.");
    describe_counter!("oddlog_expired_total", "Logs whose deadline passed before they were answered.");
    describe_counter!("oddlog_truncated_logs_total", "Logs cut to the model's length.");
    describe_counter!("oddlog_stream_lines_total", "Lines of streams, by outcome.");
    describe_counter!("oddlog_stream_bytes_total", "Bytes read from streams, after decompression.");
    describe_counter!("oddlog_streams_ended_total", "Streams that are over, by the reason of their end.");
    describe_gauge!("oddlog_streams_open", "Streams being served.");
    describe_counter!("oddlog_verdicts_total", "Verdicts given, by kind.");
    describe_counter!(
        "oddlog_cache_logs_total",
        "Logs by outcome: hit (remembered), joined (a twin was being scored), miss, template."
    );
    describe_gauge!("oddlog_template_trust", "Known templates, by how far their verdicts are trusted.");
    describe_counter!("oddlog_template_checks_total", "Template answers that were to be scored as well, by result.");
    describe_gauge!(
        "oddlog_template_disagreement_ratio",
        "Share of the checks made in which the model's verdict differed."
    );
    describe_gauge!("oddlog_cache_entries", "Token sequences and texts whose scores are remembered.");
    describe_gauge!("oddlog_cache_bytes", "Bytes that remembered logs and scores take.");
    describe_gauge!("oddlog_templates", "Templates that are known.");
    describe_gauge!("oddlog_template_bytes", "Bytes that templates take, about.");
    describe_counter!("oddlog_templates_first_seen_total", "Logs of a template that was not known.");
    describe_counter!("oddlog_templates_forgotten_total", "Templates forgotten to make room for others.");
    describe_counter!("oddlog_template_snapshots_total", "Snapshots of templates, by result.");
    describe_gauge!("oddlog_template_snapshot_age_seconds", "Time since everything known of templates was on disk.");
    describe_counter!(
        "oddlog_trace_spans_total",
        "Spans by outcome: exported, failed (the collector did not take them), dropped (no room)."
    );
    describe_gauge!("oddlog_build_info", "1, with the version as a label.");
}
