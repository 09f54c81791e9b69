//! Cross-origin access: which pages of other origins may read the answers. Credentials are never allowed.

use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
        ACCESS_CONTROL_REQUEST_METHOD, HeaderValue, ORIGIN, VARY,
    },
};

use super::answer::{Body, detail, empty};
use crate::error::StartError;

/// Headers of ours that a page may read.
const EXPOSED: &str = "x-request-id, x-queue-time, x-tokenization-time, x-inference-time, x-oddlog-cache, retry-after";

/// The configured origins.
#[derive(Debug)]
pub enum Cors {
    /// No CORS headers at all.
    Off,
    /// Any origin.
    Any,
    /// These origins.
    Only(Vec<HeaderValue>),
}

impl Cors {
    /// Reads `server.cors_allow_origins`.
    ///
    /// # Errors
    /// [`StartError::Config`] for an entry that is no origin.
    pub fn new(origins: &[String]) -> Result<Self, StartError> {
        if origins.is_empty() {
            return Ok(Self::Off);
        }
        if origins.iter().any(|origin| origin == "*") {
            return Ok(Self::Any);
        }
        let parse = |origin: &String| {
            let host = origin.split_once("://").map(|(_, host)| host);
            let whole = host.is_some_and(|host| !host.is_empty() && !host.contains('/'));
            whole.then(|| HeaderValue::from_str(origin).ok()).flatten().ok_or_else(|| {
                StartError::Config(format!(
                    "server.cors_allow_origins: {origin:?} is no origin. Write scheme://host[:port], for example \
                     https://logs.example.org"
                ))
            })
        };
        origins.iter().map(parse).collect::<Result<_, _>>().map(Self::Only)
    }

    /// Adds what a page at `origin` needs to read the answer.
    pub fn apply(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        if matches!(self, Self::Only(_)) {
            headers.insert(VARY, HeaderValue::from_static("Origin"));
        }
        if let Some(allowed) = origin.and_then(|origin| self.allows(origin)) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
        }
    }

    /// The answer to a browser's question before the request itself; `None` if `request` is no such question.
    /// `methods` are those of the route.
    pub fn preflight<B>(&self, request: &Request<B>, methods: &'static str) -> Option<Response<Body>> {
        let headers = request.headers();
        if matches!(self, Self::Off)
            || request.method() != Method::OPTIONS
            || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
        {
            return None;
        }
        if self.allows(headers.get(ORIGIN)?).is_none() {
            return Some(detail(StatusCode::BAD_REQUEST, "Disallowed CORS origin"));
        }
        let mut answer = empty(StatusCode::NO_CONTENT);
        let out = answer.headers_mut();
        out.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
        out.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        if let Some(asked) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            out.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
        Some(answer)
    }

    fn allows(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match self {
            Self::Off => None,
            Self::Any => Some(HeaderValue::from_static("*")),
            Self::Only(origins) => origins.contains(origin).then(|| origin.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_is_no_origin_is_refused() {
        for bad in ["logs.example.org", "https://", "https://logs.example.org/", "https://a\nb"] {
            let error = Cors::new(&[bad.into()]).unwrap_err().to_string();
            assert!(error.contains("cors_allow_origins"), "{error}");
        }
        assert!(matches!(Cors::new(&["https://a.org".into(), "*".into()]), Ok(Cors::Any)));
    }
}
