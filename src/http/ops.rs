//! What operators and their tools ask: is it alive, is it ready, how is it doing.

use std::time::SystemTime;

use hyper::{Response, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    answer::{Body, bytes_answer, json_answer},
    app::App,
};

/// The media type of the Prometheus text format.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How the process is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Status {
    /// `alive`, `ready` or `not_ready`.
    #[schema(value_type = String)]
    status: &'static str,
}

/// The process runs
///
/// Answers as long as the process can answer at all: restart it when it does not.
#[utoipa::path(
    get, path = "/livez", tag = "operations",
    responses((status = 200, description = "Alive", body = Status, example = json!({ "status": "alive" })))
)]
pub fn live() -> Response<Body> {
    json_answer(StatusCode::OK, &Status { status: "alive" })
}

/// New requests are welcome
///
/// True while a device can answer: a model run succeeded in the last seconds, or one is made now and succeeds. Send no
/// requests here when it is not. It never is again once the server begins to end.
#[utoipa::path(
    get, path = "/readyz", tag = "operations",
    responses(
        (status = 200, description = "Ready", body = Status, example = json!({ "status": "ready" })),
        (status = 503, description = "Not ready", body = Status, example = json!({ "status": "not_ready" }))
    )
)]
pub async fn ready(app: &App) -> Response<Body> {
    match app.is_ready().await {
        true => json_answer(StatusCode::OK, &Status { status: "ready" }),
        false => json_answer(StatusCode::SERVICE_UNAVAILABLE, &Status { status: "not_ready" }),
    }
}

/// Metrics in the Prometheus text format
#[utoipa::path(
    get, path = "/metrics", tag = "operations",
    responses((
        status = 200, description = "All metrics", body = String, content_type = "text/plain",
        example = "# TYPE oddlog_queue_jobs gauge\noddlog_queue_jobs 0\n"
    ))
)]
pub fn metrics(app: &App) -> Response<Body> {
    app.verdicts.gauge();
    if let Some(novelty) = &app.novelty {
        novelty.gauge(SystemTime::now());
    }
    bytes_answer(StatusCode::OK, PROMETHEUS_TEXT, app.handle.metrics().render())
}
