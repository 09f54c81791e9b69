//! Request bodies under their limits of size and time.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Body as _, Incoming},
    header::{CONTENT_TYPE, EXPECT},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    answer::{Body, detail, refused},
    app::App,
    patient::{Lost, Patient},
};
use crate::{config::Server, error::RequestError};

const UNREADABLE: &str = "There was an error parsing the body";

/// A body that is too large is read on up to so many times the limit, unseen, so that a client which writes all before
/// it reads gets its answer instead of a broken connection.
const DRAINED_LIMITS: usize = 8;
/// Bodies up to this length take no room: what all connections may send of them together is bounded by their number.
const SMALL_BYTES: usize = 64 << 10;
/// Unit in which room is given.
const ROOM_UNIT: usize = 1 << 10;

/// A whole body, and the room that it takes in memory until it is dropped.
#[derive(Debug)]
pub struct Received {
    /// The body.
    pub bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// Room for all large bodies together.
pub fn room(config: &Server) -> Arc<Semaphore> {
    Arc::new(Semaphore::new((config.max_buffered_bytes / ROOM_UNIT).min(u32::MAX as usize)))
}

/// Reads the whole body.
///
/// # Errors
/// The answer: 413 beyond the size limit, 408 beyond the time limits, 429 if there was no room in that time, 400 if it
/// broke off.
pub async fn read(app: &App, request: Request<Incoming>) -> Result<Received, Response<Body>> {
    let patience = Duration::from_millis(app.config.body_timeout_ms);
    let limit = app.config.max_body_bytes;
    let waits_for_leave = request.headers().contains_key(EXPECT);
    let mut body = request.into_body();
    let size = body.size_hint();
    if size.lower() > limit as u64 {
        return Err(too_large(body, limit, patience, waits_for_leave));
    }
    let most = size.upper().map_or(limit, |upper| limit.min(upper as usize));
    let mut room = take_room(app, most, patience).await?;
    let pause = Duration::from_millis(app.config.body_idle_timeout_ms);
    match timeout(patience, Limited::new(Patient::new(&mut body, pause), limit).collect()).await {
        Ok(Ok(whole)) => {
            let bytes = whole.to_bytes();
            if let Some(room) = &mut room {
                // What was taken for a body of unknown length and is not needed.
                drop(room.split(room.num_permits().saturating_sub(units(bytes.len()))));
            }
            Ok(Received { bytes, _room: room })
        }
        Err(_) => Err(too_slow()),
        Ok(Err(error)) if matches!(error.downcast_ref(), Some(Lost::<hyper::Error>::TooSlow)) => Err(too_slow()),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => {
            Err(too_large(body, limit, patience, waits_for_leave))
        }
        Ok(Err(_)) => Err(detail(StatusCode::BAD_REQUEST, UNREADABLE)),
    }
}

/// Room for a body of at most `bytes`.
async fn take_room(
    app: &App,
    bytes: usize,
    patience: Duration,
) -> Result<Option<OwnedSemaphorePermit>, Response<Body>> {
    if units(bytes) == 0 {
        return Ok(None);
    }
    let all = app.bodies.clone().acquire_many_owned(units(bytes) as u32);
    match timeout(patience, all).await {
        Ok(Ok(room)) => Ok(Some(room)),
        _ => Err(refused(&RequestError::Overloaded { retry_after: Duration::from_secs(1) })),
    }
}

fn units(bytes: usize) -> usize {
    if bytes <= SMALL_BYTES { 0 } else { bytes.div_ceil(ROOM_UNIT) }
}

fn too_slow() -> Response<Body> {
    detail(StatusCode::REQUEST_TIMEOUT, "The request body took too long to arrive.")
}

fn too_large(body: Incoming, limit: usize, patience: Duration, waits_for_leave: bool) -> Response<Body> {
    if !waits_for_leave {
        drain(body, limit.saturating_mul(DRAINED_LIMITS), patience);
    }
    let text = format!("The request body is too large. At most {limit} bytes are allowed.");
    detail(StatusCode::PAYLOAD_TOO_LARGE, &text)
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
    let text = std::str::from_utf8(bytes).map_err(|_| detail(StatusCode::BAD_REQUEST, UNREADABLE))?;
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
