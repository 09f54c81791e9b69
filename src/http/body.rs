//! Request bodies under their limits of size and time.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Body as _, Incoming},
    header::{CONTENT_TYPE, EXPECT},
};
use tokio::time::timeout;

use super::answer::{Body, detail};
use crate::config::Server;

/// A body that is too large is read on up to so many times the limit, unseen, so that a client which writes all before
/// it reads gets its answer instead of a broken connection.
const DRAINED_LIMITS: usize = 8;

/// Reads the whole body.
///
/// # Errors
/// The answer: 413 beyond the size limit, 408 beyond the time limit, 400 if it broke off.
pub async fn read(request: Request<Incoming>, config: &Server) -> Result<Bytes, Response<Body>> {
    let patience = Duration::from_millis(config.body_timeout_ms);
    let limit = config.max_body_bytes;
    let waits_for_leave = request.headers().contains_key(EXPECT);
    let mut body = request.into_body();
    let told = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let read = match told > limit {
        true => None,
        false => Some(timeout(patience, Limited::new(&mut body, limit).collect()).await),
    };
    match read {
        Some(Ok(Ok(whole))) => return Ok(whole.to_bytes()),
        Some(Err(_)) => {
            return Err(detail(StatusCode::REQUEST_TIMEOUT, "The request body took too long to arrive."));
        }
        Some(Ok(Err(error))) if error.downcast_ref::<LengthLimitError>().is_none() => {
            return Err(detail(StatusCode::BAD_REQUEST, "There was an error parsing the body"));
        }
        _ => {}
    }
    if !waits_for_leave {
        drain(body, limit.saturating_mul(DRAINED_LIMITS), patience);
    }
    let text = format!("The request body is too large. At most {limit} bytes are allowed.");
    Err(detail(StatusCode::PAYLOAD_TOO_LARGE, &text))
}

/// Reads and forgets at most `bytes` of `body`.
fn drain(mut body: Incoming, bytes: usize, patience: Duration) {
    tokio::spawn(timeout(patience, async move {
        let mut left = bytes;
        while let Some(Ok(frame)) = body.frame().await {
            match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    }));
}

/// The body's text, and whether it is to be taken as plain text rather than as JSON.
///
/// A JSON type or none means JSON. So does any other type but `text/plain` if the body starts as an object:
/// `curl -d '{...}'` calls it a form.
///
/// # Errors
/// The answer for a body that is not UTF-8.
pub fn text<'b>(media_type: Option<&str>, bytes: &'b [u8]) -> Result<(&'b str, bool), Response<Body>> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| detail(StatusCode::BAD_REQUEST, "There was an error parsing the body"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let plain = match media_type {
        None => false,
        Some(media_type) if is_json(media_type) => false,
        Some("text/plain") => true,
        Some(_) => !text.trim_start().starts_with('{'),
    };
    Ok((text, plain))
}

fn is_json(media_type: &str) -> bool {
    let subtype = media_type.strip_prefix("application/");
    subtype.is_some_and(|s| s == "json" || s.ends_with("+json"))
}

/// The request's media type in lower case, without parameters.
pub fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let value = value.split(';').next().unwrap_or_default().trim();
    (!value.is_empty()).then(|| value.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_as_json() {
        for (media_type, body, plain) in [
            (None, "[]", false),
            (Some("application/json"), "[]", false),
            (Some("application/problem+json"), "x", false),
            (Some("application/x-www-form-urlencoded"), " {\"a\":1}", false),
            (Some("application/x-www-form-urlencoded"), "a=1", true),
            (Some("text/plain"), "{}", true),
            (Some("application/xml"), "<a/>", true),
        ] {
            assert_eq!(text(media_type, body.as_bytes()).unwrap(), (body, plain), "{media_type:?} {body}");
        }
        assert_eq!(text(None, b"\xef\xbb\xbf{}").unwrap().0, "{}");
        assert_eq!(text(None, b"{\"a\":\"\xff\"}").unwrap_err().status(), 400);
    }
}
