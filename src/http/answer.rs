//! Answers: JSON bodies, FastAPI-shaped errors, and how a [`RequestError`] becomes a status.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::RequestError;

/// The body type of every answer.
pub type Body = Full<Bytes>;

/// `value` as JSON.
pub fn json_answer(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => bytes_answer(status, "application/json", bytes),
        Err(_) => {
            bytes_answer(StatusCode::INTERNAL_SERVER_ERROR, "application/json", r#"{"detail":"Internal Server Error"}"#)
        }
    }
}

/// `bytes` with their media type.
pub fn bytes_answer(status: StatusCode, media_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut answer = Response::new(Full::new(bytes.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer
}

/// `{"detail": text}`.
pub fn detail(status: StatusCode, text: &str) -> Response<Body> {
    json_answer(status, &json!({ "detail": text }))
}

/// 422 with FastAPI's list of errors.
pub fn unprocessable(errors: Vec<Value>) -> Response<Body> {
    json_answer(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "detail": errors }))
}

/// A request that got no verdict.
pub fn refused(error: &RequestError) -> Response<Body> {
    let (status, retry_after) = match error {
        RequestError::Overloaded { retry_after } => (StatusCode::TOO_MANY_REQUESTS, Some(retry_after.as_secs())),
        RequestError::Draining => (StatusCode::SERVICE_UNAVAILABLE, Some(1)),
        RequestError::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, Some(5)),
        RequestError::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, None),
        RequestError::Inference => (StatusCode::INTERNAL_SERVER_ERROR, None),
        RequestError::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, None),
    };
    let mut answer = detail(status, &error.to_string());
    if let Some(seconds) = retry_after {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}
