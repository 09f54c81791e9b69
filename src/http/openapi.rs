//! The OpenAPI document, generated from the handlers and the types that serve.

use std::sync::LazyLock;

use bytes::Bytes;
use utoipa::{
    IntoResponses, Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use super::{
    answer::{ErrorDetail, ValidationErrors},
    batch, devices, docs, ops,
    problem::{Problem, Step},
    stream, templates, v1,
};

/// The document as JSON.
pub static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    let json = Document::openapi().to_json().expect("a document of plain strings and numbers is JSON");
    Bytes::from(json)
});

#[derive(OpenApi)]
#[openapi(
    info(
        title = "oddlog",
        description = "Finds the odd lines in logs with a zero-shot NLI cross-encoder.\n\n\
            A log is the premise, `This example is {label}.` the hypothesis of each label; the scores are the softmax over \
            the labels' entailment. A log is an anomaly if the score of the anomaly label reaches the threshold.",
        license(name = "MIT", identifier = "MIT")
    ),
    paths(
        v1::analyze, batch::analyze_batch, stream::analyze_stream, templates::templates, v1::health, v1::root, ops::live, ops::ready, devices::devices, ops::metrics, docs::openapi,
        docs::swagger, docs::redoc
    ),
    tags(
        (name = "analysis", description = "Scoring logs"),
        (name = "operations", description = "Running the server"),
        (name = "documentation", description = "This document and its pages")
    ),
    components(schemas(Problem, Step)),
    modifiers(&Bearer)
)]
struct Document;

/// Adds the bearer keys that an operator may ask for.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A key of `server.api_keys_file`, where the operator asks for one."))
            .build();
        document.components.get_or_insert_default().add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// Every way in which a call may be refused as a whole.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "the variants document answers that are built elsewhere")]
pub enum Refusals {
    /// The body broke off or is not UTF-8.
    #[response(status = 400, example = json!({ "detail": "There was an error parsing the body" }))]
    BadRequest(#[to_schema] ErrorDetail<'static>),
    /// Keys are asked for, and the request has none of them.
    #[response(
        status = 401,
        headers(("www-authenticate" = String, description = "`Bearer`")),
        example = json!({ "detail": "The key is not known. Send a key that this server accepts." })
    )]
    Unauthorized(#[to_schema] ErrorDetail<'static>),
    /// Another method.
    #[response(
        status = 405,
        headers(("allow" = String, description = "The methods of this path")),
        example = json!({ "detail": "Method Not Allowed" })
    )]
    MethodNotAllowed(#[to_schema] ErrorDetail<'static>),
    /// The body took too long.
    #[response(status = 408, example = json!({ "detail": "The request body took too long to arrive." }))]
    RequestTimeout(#[to_schema] ErrorDetail<'static>),
    /// The body is larger than `server.max_body_bytes`.
    #[response(
        status = 413,
        example = json!({ "detail": "The request body is too large. At most 4194304 bytes are allowed." })
    )]
    PayloadTooLarge(#[to_schema] ErrorDetail<'static>),
    /// The content coding is not known; a stream may also have a content type that is not.
    #[response(
        status = 415,
        headers(("accept-encoding" = String, description = "The codings that are known")),
        example = json!({
            "detail": "The content coding of the body is not supported. Send it as gzip, as zstd, or as it is."
        })
    )]
    UnsupportedMediaType(#[to_schema] ErrorDetail<'static>),
    /// Fields are missing or wrong; every problem is listed.
    #[response(status = 422, example = json!({ "detail": [
        { "type": "missing", "loc": ["body", "log_message"], "msg": "Field required", "input": {} },
        { "type": "less_than_equal", "loc": ["body", "threshold"],
          "msg": "Input should be less than or equal to 1", "input": 1.5, "ctx": { "le": 1.0 } }
    ] }))]
    Unprocessable(#[to_schema] ValidationErrors<'static>),
    /// The queue is full, or the answer would come too late.
    #[response(
        status = 429,
        headers(("retry-after" = u64, description = "Seconds until a retry has a fair chance")),
        example = json!({ "detail": "The server is overloaded. Retry after 2 s." })
    )]
    TooManyRequests(#[to_schema] ErrorDetail<'static>),
    /// The model failed on this log.
    #[response(status = 500, example = json!({ "detail": "The model could not score this log message." }))]
    InternalServerError(#[to_schema] ErrorDetail<'static>),
    /// The server is shutting down, or no device can answer.
    #[response(
        status = 503,
        headers(("retry-after" = u64, description = "Seconds until a retry has a fair chance")),
        example = json!({ "detail": "Model not loaded. Please load the model first." })
    )]
    ServiceUnavailable(#[to_schema] ErrorDetail<'static>),
    /// The deadline passed before the answer was there.
    #[response(status = 504, example = json!({
        "detail": "The deadline passed before the answer was there. Send fewer requests at once or allow more time."
    }))]
    GatewayTimeout(#[to_schema] ErrorDetail<'static>),
}
