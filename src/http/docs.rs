//! The documentation pages. Everything they load comes from this program; a content security policy holds them to it.

use std::{
    collections::HashMap,
    io::{self, Read},
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use bytes::Bytes;
use flate2::read::GzDecoder;
use hyper::{
    Request, Response, StatusCode,
    header::{
        ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, VARY,
        X_CONTENT_TYPE_OPTIONS,
    },
};

use super::{
    answer::{Body, bytes_answer, detail},
    openapi::DOCUMENT,
};

const SWAGGER_PAGE: &str = include_str!("assets/swagger.html");
const SWAGGER_START: &str = include_str!("assets/swagger-start.js");
const REDOC_PAGE: &str = include_str!("assets/redoc.html");
const REDOC_START: &str = include_str!("assets/redoc-start.js");
const REDOC_BUNDLE: &[u8] = include_bytes!("assets/redoc.standalone.js.gz");

/// Scripts, styles and data from here alone; Redoc's search runs in a worker that it makes itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; worker-src 'self' blob:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// One embedded file. Answers share its bytes, so that a client that asks for it a thousand times costs one copy.
#[derive(Clone)]
struct Asset {
    plain: Bytes,
    gzipped: Option<Bytes>,
    media_type: HeaderValue,
}

impl Asset {
    fn new(bytes: Bytes, is_gzipped: bool, media_type: HeaderValue) -> io::Result<Self> {
        if !is_gzipped {
            return Ok(Self { plain: bytes, gzipped: None, media_type });
        }
        let mut plain = Vec::new();
        GzDecoder::new(&*bytes).read_to_end(&mut plain)?;
        Ok(Self { plain: plain.into(), gzipped: Some(bytes), media_type })
    }
}

/// The OpenAPI 3.1 document
#[utoipa::path(
    get, path = "/openapi.json", tag = "documentation",
    responses((status = 200, description = "This document", body = Object))
)]
pub fn openapi() -> Response<Body> {
    bytes_answer(StatusCode::OK, "application/json", DOCUMENT.clone())
}

/// Swagger UI
#[utoipa::path(
    get, path = "/docs", tag = "documentation",
    responses((status = 200, description = "A page to read and try the API", body = String, content_type = "text/html"))
)]
pub fn swagger() -> Response<Body> {
    page(SWAGGER_PAGE)
}

/// ReDoc
#[utoipa::path(
    get, path = "/redoc", tag = "documentation",
    responses((status = 200, description = "A page to read", body = String, content_type = "text/html"))
)]
pub fn redoc() -> Response<Body> {
    page(REDOC_PAGE)
}

fn page(html: &'static str) -> Response<Body> {
    let mut answer = bytes_answer(StatusCode::OK, "text/html; charset=utf-8", html);
    answer.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    answer
}

/// A file that one of the pages loads.
pub fn file<B>(request: &Request<B>) -> Response<Body> {
    let Some(asset) = find(request.uri().path()) else {
        return detail(StatusCode::NOT_FOUND, "Not Found");
    };
    let gzipped = asset.gzipped.as_ref().filter(|_| accepts_gzip(request.headers().get(ACCEPT_ENCODING)));
    let mut answer = Response::new(Body::new(gzipped.unwrap_or(&asset.plain).clone()));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, asset.media_type);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if asset.gzipped.is_some() {
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    if gzipped.is_some() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    answer
}

/// The file at `path`. Each is unpacked once; there are as many as the pages have.
fn find(path: &str) -> Option<Asset> {
    static FOUND: LazyLock<Mutex<HashMap<String, Asset>>> = LazyLock::new(Mutex::default);
    let found = || FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(asset) = found().get(path) {
        return Some(asset.clone());
    }
    let asset = embedded(path)?;
    found().insert(path.to_owned(), asset.clone());
    Some(asset)
}

fn embedded(path: &str) -> Option<Asset> {
    const JAVASCRIPT: HeaderValue = HeaderValue::from_static("text/javascript; charset=utf-8");
    let script = |bytes: &'static [u8], gzipped| Asset::new(Bytes::from_static(bytes), gzipped, JAVASCRIPT).ok();
    match path {
        "/docs/swagger-start.js" => script(SWAGGER_START.as_bytes(), false),
        "/redoc/redoc-start.js" => script(REDOC_START.as_bytes(), false),
        "/redoc/redoc.standalone.js" => script(REDOC_BUNDLE, true),
        _ => vendored(path.strip_prefix("/docs/")?),
    }
}

/// A file of Swagger UI's distribution.
fn vendored(name: &str) -> Option<Asset> {
    static CONFIG: LazyLock<Arc<utoipa_swagger_ui::Config<'static>>> =
        LazyLock::new(|| Arc::new(utoipa_swagger_ui::Config::from("../openapi.json")));
    let file = utoipa_swagger_ui::serve(name, CONFIG.clone()).ok().flatten()?;
    let media_type = HeaderValue::try_from(file.content_type).ok()?;
    let bytes = match file.bytes {
        std::borrow::Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        std::borrow::Cow::Owned(bytes) => Bytes::from(bytes),
    };
    Asset::new(bytes, file.gzpipped, media_type).ok()
}

/// Whether gzip is among the accepted encodings and not refused with a weight of zero.
fn accepts_gzip(header: Option<&HeaderValue>) -> bool {
    let Some(list) = header.and_then(|value| value.to_str().ok()) else { return false };
    list.split(',').any(|entry| {
        let mut parts = entry.split(';').map(str::trim);
        let coding = parts.next().unwrap_or_default();
        let refused = parts.any(|p| p.strip_prefix("q=").and_then(|q| q.parse::<f32>().ok()) == Some(0.0));
        (coding.eq_ignore_ascii_case("gzip") || coding == "*") && !refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings() {
        for (value, accepted) in [
            ("gzip, deflate, br", true),
            ("deflate;q=0.5, GZIP;q=0.1", true),
            ("*", true),
            ("gzip;q=0, deflate", false),
            ("identity", false),
            ("", false),
        ] {
            assert_eq!(accepts_gzip(Some(&HeaderValue::from_str(value).unwrap())), accepted, "{value}");
        }
        assert!(!accepts_gzip(None));
    }

    #[test]
    fn every_file_that_a_page_names_is_there() {
        for (page, folder) in [(SWAGGER_PAGE, "docs/"), (REDOC_PAGE, "redoc/")] {
            let names = page.split('"').filter(|part| part.starts_with(folder));
            assert!(names.clone().count() >= 2, "{page}");
            for name in names {
                assert!(find(&format!("/{name}")).is_some(), "{name}");
            }
            assert!(!page.contains("//"), "a page loads something from elsewhere: {page}");
        }
        let twice = [(); 2].map(|()| find("/docs/swagger-ui-bundle.js").unwrap());
        assert_eq!(twice[0].plain.as_ptr(), twice[1].plain.as_ptr(), "each answer has a copy of its own");
        assert!(find("/docs/../secret").is_none() && find("/redoc/swagger-ui.css").is_none());
    }
}
