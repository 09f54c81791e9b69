//! How an export travels: the HTTP client of the hub's downloads, behind the exporter's interface. It blocks, and only the
//! exporting thread calls it. It does not know what it carries.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use ureq::http::{HeaderName, HeaderValue, Uri};

use crate::error::StartError;

/// Bytes of a collector's answer that are read.
const LONGEST_ANSWER: u64 = 64 << 10;

#[derive(Debug)]
pub(super) struct Post(ureq::Agent);

impl Post {
    /// Each request ends within `bound`.
    pub fn new(bound: Duration) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(bound))
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("oddlog/", env!("CARGO_PKG_VERSION")))
            .build();
        Self(config.into())
    }
}

#[async_trait]
impl HttpClient for Post {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let (head, mut body) = self.0.run(Request::from_parts(head, &body[..]))?.into_parts();
        let body = body.with_config().limit(LONGEST_ANSWER).read_to_vec()?;
        Ok(Response::from_parts(head, body.into()))
    }
}

/// Where the collector takes traces.
///
/// # Errors
/// [`StartError::Config`] for what is no address of HTTP.
pub(super) fn endpoint(base: &str) -> Result<String, StartError> {
    let uri: Option<Uri> = base.parse().ok();
    let usable = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.query().is_none()
    });
    if !usable {
        let text = format!("telemetry.otlp_endpoint = {base:?} is no address such as http://127.0.0.1:4318");
        return Err(StartError::Config(text));
    }
    let base = base.trim_end_matches('/');
    Ok(if base.ends_with("/v1/traces") { base.to_owned() } else { format!("{base}/v1/traces") })
}

/// Whether HTTP can carry them.
///
/// # Errors
/// [`StartError::Config`] names the first that it cannot; values are not shown.
pub(super) fn check_headers(headers: &BTreeMap<String, String>) -> Result<(), StartError> {
    let fits = |name: &str, value: &str| {
        HeaderName::from_bytes(name.as_bytes()).is_ok() && HeaderValue::from_str(value).is_ok()
    };
    match headers.iter().find(|(name, value)| !fits(name, value)) {
        Some((name, _)) => Err(StartError::Config(format!("telemetry.otlp_headers: {name:?} is no valid header"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_get_the_path_once() {
        for base in ["http://h:4318", "http://h:4318/", "http://h:4318/v1/traces"] {
            assert_eq!(endpoint(base).unwrap(), "http://h:4318/v1/traces");
        }
        assert_eq!(endpoint("https://h/otlp").unwrap(), "https://h/otlp/v1/traces");
        for wrong in ["h:4318", "ftp://h", "http://", "http://h/?a=b", "grpc://h:4317", "http://h h"] {
            assert!(endpoint(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn headers_that_cannot_be_sent_are_named_without_their_value() {
        let of = |name: &str, value: &str| check_headers(&[(name.to_owned(), value.to_owned())].into());
        assert!(of("authorization", "Bearer x").is_ok());
        let error = of("x-token", "se\ncret").unwrap_err().to_string();
        assert!(error.contains("x-token") && !error.contains("cret"), "{error}");
        assert!(of("two words", "x").is_err());
    }
}
