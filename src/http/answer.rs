//! Answers: JSON bodies, FastAPI-shaped errors, and how a [`RequestError`] becomes a status.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::{BODY, Problem, Rule, Step};
use crate::error::RequestError;

/// The body type of every answer.
pub type Body = Full<Bytes>;

/// An error that is not about single fields.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorDetail<'a> {
    /// What happened and what to change.
    #[schema(value_type = String)]
    pub detail: &'a str,
}

/// Everything that is wrong with a request's fields.
#[derive(Debug, Serialize, ToSchema)]
pub struct ValidationErrors<'a> {
    /// One entry a problem, in the order of the fields.
    pub detail: &'a [Problem<'a>],
}

/// `value` as JSON.
pub fn json_answer(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let mut bytes = Vec::with_capacity(512);
    match serde_json::to_writer(&mut bytes, value) {
        Ok(()) => bytes_answer(status, "application/json", bytes),
        Err(_) => server_error(),
    }
}

/// `bytes` with their media type.
pub fn bytes_answer(status: StatusCode, media_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut answer = Response::new(Full::new(bytes.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    answer
}

/// No body.
pub fn empty(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(Body::default());
    *answer.status_mut() = status;
    answer
}

/// `{"detail": text}`.
pub fn detail(status: StatusCode, text: &str) -> Response<Body> {
    json_answer(status, &ErrorDetail { detail: text })
}

/// 500 for what should never happen.
pub fn server_error() -> Response<Body> {
    let body = r#"{"detail":"Internal Server Error"}"#;
    bytes_answer(StatusCode::INTERNAL_SERVER_ERROR, "application/json", body)
}

/// 422 with FastAPI's list of errors.
pub fn unprocessable(problems: &[Problem]) -> Response<Body> {
    json_answer(StatusCode::UNPROCESSABLE_ENTITY, &ValidationErrors { detail: problems })
}

/// A request that got no verdict.
pub fn refused(error: &RequestError) -> Response<Body> {
    let (status, retry_after) = match error {
        RequestError::Overloaded { retry_after } | RequestError::TooLate { retry_after } => {
            (StatusCode::TOO_MANY_REQUESTS, Some(retry_after.as_secs()))
        }
        RequestError::Draining => (StatusCode::SERVICE_UNAVAILABLE, Some(1)),
        RequestError::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, Some(5)),
        RequestError::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, None),
        RequestError::Inference => (StatusCode::INTERNAL_SERVER_ERROR, None),
        RequestError::Invalid { field, reason } => {
            let input = serde_json::value::RawValue::NULL;
            let problem = Rule::Value { reason: reason.clone() }.at(vec![BODY, Step::Name(field)], input);
            return unprocessable(&[problem]);
        }
    };
    let mut answer = detail(status, &error.to_string());
    if let Some(seconds) = retry_after {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}
