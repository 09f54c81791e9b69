//! The drop-in API: `/api/v1`.

use http_body_util::{BodyExt, Limited};
use hyper::{Request, Response, StatusCode, body::Incoming};
use serde_json::{Value, json};

use super::{
    answer::{Body, detail, json_answer, refused},
    router::App,
};
use crate::{classify::verdict, engine::Class};

/// `POST /api/v1/analyze`
pub async fn analyze(app: &App, request: Request<Incoming>) -> Response<Body> {
    let Ok(body) = Limited::new(request.into_body(), app.config.max_body_bytes).collect().await else {
        return detail(StatusCode::PAYLOAD_TOO_LARGE, "Payload Too Large");
    };
    let Ok(body) = serde_json::from_slice::<Value>(&body.to_bytes()) else {
        return detail(StatusCode::UNPROCESSABLE_ENTITY, "JSON decode error");
    };
    let Some(log_message) = body["log_message"].as_str() else {
        return detail(StatusCode::UNPROCESSABLE_ENTITY, "Field required");
    };
    let scoring = app.handle.scoring();
    let threshold = body["threshold"].as_f64().map_or(scoring.threshold, |t| t as f32);
    let task = app.handle.default_task();
    let classified = match app.handle.classify(log_message, task, Class::Interactive).await {
        Ok(classified) => classified,
        Err(error) => return refused(&error),
    };
    let v = verdict(&classified.scores, task, threshold, scoring.threshold_rule);
    app.handle.metrics().verdict(v.is_anomaly);
    json_answer(
        StatusCode::OK,
        &json!({
            "log_message": log_message, "label": task.labels[v.label], "confidence": v.confidence,
            "is_anomaly": v.is_anomaly, "threshold": threshold
        }),
    )
}
