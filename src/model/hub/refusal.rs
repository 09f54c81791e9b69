//! What a reply that is no success means, and whether asking again can help.
//!
//! It reads the status and the hub's own headers (`X-Error-Code`, `X-Error-Message`, `Retry-After`, `RateLimit`), never the body:
//! error pages come in every form and must not be mistaken for content.

use std::time::Duration;

use ureq::http::{HeaderMap, StatusCode};

use super::{Hub, address::page_url, client::Reply, error::HubError, repo::RepoId, retry::Fault};

/// Longest part of the hub's own words that is shown.
const MAX_MESSAGE: usize = 200;

/// What was asked for.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub repo: &'a RepoId,
    /// `None` for the listing of the whole repository.
    pub file: Option<&'a str>,
}

/// Judges a reply whose status is not a success.
pub(super) fn judge(hub: &Hub, asked: Asked<'_>, reply: &Reply) -> Fault {
    let status = reply.response.status();
    let headers = reply.response.headers();
    let host = reply.host.clone();
    match status.as_u16() {
        408 | 429 | 500..=599 => Fault::Transient {
            error: HubError::Busy { host, status: status.as_u16() },
            retry_after: retry_after(status, headers),
            advanced: false,
        },
        // The address of the storage is signed and expires: the next attempt asks the hub for a new one.
        401 | 403 if !reply.from_hub => Fault::transient(HubError::Refused { host, status: status.as_u16() }),
        _ if reply.from_hub => Fault::Fatal(answer_of_the_hub(hub, asked, host, status, headers)),
        code => Fault::Fatal(HubError::Refused { host, status: code }),
    }
}

fn answer_of_the_hub(hub: &Hub, asked: Asked<'_>, host: String, status: StatusCode, headers: &HeaderMap) -> HubError {
    let repo = asked.repo;
    let signed_in = hub.token.is_some();
    let no_repo = || HubError::NoSuchRepo { repo: repo.path(), endpoint: hub.endpoint.clone(), signed_in };
    let no_revision = || HubError::NoSuchRevision { repo: repo.path(), revision: repo.revision().to_owned() };
    let message = text(headers, "x-error-message");
    match (text(headers, "x-error-code").as_str(), status.as_u16()) {
        ("GatedRepo", _) => HubError::Gated { repo: repo.to_string(), page: page_url(&hub.endpoint, repo), signed_in },
        ("RepoNotFound", _) => no_repo(),
        ("RevisionNotFound", _) => no_revision(),
        ("EntryNotFound", _) => no_file(asked),
        (_, 401) if message.contains("Invalid credentials") => HubError::BadToken { host },
        // The hub answers 401 rather than 404 to strangers who ask for what does not exist.
        ("", 401) if asked.file.is_none() && !signed_in => no_repo(),
        ("", 404) if asked.file.is_some() => no_file(asked),
        ("", 404) if repo.revision() == "main" => no_repo(),
        ("", 404) => no_revision(),
        (_, code) => {
            let message = if message.is_empty() { message } else { format!(" ({message})") };
            HubError::Denied { host, repo: repo.to_string(), status: code, message, signed_in }
        }
    }
}

fn no_file(asked: Asked<'_>) -> HubError {
    HubError::NoSuchFile { repo: asked.repo.to_string(), file: asked.file.unwrap_or("list").to_owned() }
}

/// The value of header `name`, shortened and safe to print; empty when it is absent.
fn text(headers: &HeaderMap, name: &str) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect()
}

/// The pause that the server asks for: `Retry-After: <seconds>`, or, with status 429, the reset time in `RateLimit`
/// (`"api";r=0;t=55`). Dates are not read: the usual backoff applies then.
fn retry_after(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let limit_reset = || header("ratelimit")?.split(';').find_map(|part| part.trim().strip_prefix("t="));
    let limited = status == StatusCode::TOO_MANY_REQUESTS;
    let seconds = header("retry-after").or_else(|| limit_reset().filter(|_| limited))?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_asked_pause_is_read_from_either_header() {
        for (status, name, value, pause) in [
            (503, "retry-after", "7", Some(7)),
            (429, "ratelimit", "\"api\";r=0;t=55", Some(55)),
            (503, "ratelimit", "\"api\";r=99;t=55", None),
            (429, "retry-after", "Fri, 31 Dec 1999 23:59:59 GMT", None),
            (429, "retry-after", "-1", None),
            (429, "x", "1", None),
        ] {
            let name: ureq::http::HeaderName = name.parse().unwrap();
            let headers = HeaderMap::from_iter([(name, value.parse().unwrap())]);
            let found = retry_after(StatusCode::from_u16(status).unwrap(), &headers);
            assert_eq!(found, pause.map(Duration::from_secs), "{status} {value}");
        }
    }
}
