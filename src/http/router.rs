//! Method and path to a route.

use hyper::{Method, Request, Response, StatusCode, body::Incoming};

use super::{
    answer::{Body, bytes_answer, detail},
    v1,
};
use crate::{config::Server, engine::Handle};

/// What every route may use.
pub struct App {
    /// The way to the engine.
    pub handle: Handle,
    /// Limits and switches.
    pub config: Server,
    /// The served model, as the operator named it.
    pub model: String,
}

/// Answers one request.
pub async fn route(app: &App, request: Request<Incoming>) -> Response<Body> {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/api/v1/analyze") => v1::analyze(app, request).await,
        (&Method::GET, "/metrics") => {
            bytes_answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", app.handle.metrics().render())
        }
        _ => detail(StatusCode::NOT_FOUND, "Not Found"),
    }
}
