//! Content codings, both ways: gzip and zstd, as a stream in bounded memory.
//!
//! A bomb does no harm: whoever reads takes what was decoded piece by piece, and stops at a limit of its own. It does
//! not know what is coded.

use std::{
    io::{self, Write},
    mem,
};

use async_compression::{
    tokio::bufread::{GzipDecoder, ZstdDecoder},
    zstd::DParameter,
};
use flate2::{Compression, write::GzEncoder};
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue},
};
use tokio::io::{AsyncBufRead, AsyncRead};

use super::answer::{Body, detail};

/// Largest window of a zstd body, as a power of two: the 8 MiB that RFC 9659 allows in HTTP.
const MAX_WINDOW_LOG: u32 = 23;
/// Window of what is sent, as a power of two: verdicts repeat themselves over short distances.
const WINDOW_LOG: u32 = 17;
/// Speed before size: verdicts are small anyway.
const ZSTD_LEVEL: i32 = 1;

/// How a body is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Not at all.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Coding {
    fn named(name: &str) -> Option<Self> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match () {
            () if is("") || is("identity") => Some(Self::Identity),
            () if is("gzip") || is("x-gzip") => Some(Self::Gzip),
            () if is("zstd") => Some(Self::Zstd),
            () => None,
        }
    }

    /// The coding's name; `None` for none.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }

    /// The coding of a request's body.
    ///
    /// # Errors
    /// The answer for an unknown coding, or more than one: 415 with the list of those that are known.
    pub fn of_request(headers: &HeaderMap) -> Result<Self, Response<Body>> {
        let mut values = headers.get_all(CONTENT_ENCODING).iter();
        let name = values.next().map_or(Some(""), |value| value.to_str().ok().map(str::trim));
        if let (Some(coding), None) = (name.and_then(Self::named), values.next()) {
            return Ok(coding);
        }
        let text = "The content coding of the body is not supported. Send it as gzip, as zstd, or as it is.";
        let mut answer = detail(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
        answer.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd"));
        Err(answer)
    }

    /// The coding that a client prefers for its answer; zstd before gzip where it has no preference.
    pub fn of_answer(headers: &HeaderMap) -> Self {
        let known = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        let mut best = (0.0, Self::Identity);
        for entry in known.flat_map(|list| list.split(',')) {
            let mut parts = entry.split(';').map(str::trim);
            let coding = parts.next().filter(|name| !name.is_empty()).and_then(Self::named);
            let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok()).unwrap_or(1.0);
            if let Some(coding) = coding
                && weight > 0.0
                && (weight > best.0 || weight == best.0 && coding == Self::Zstd)
            {
                best = (weight, coding);
            }
        }
        best.1
    }

    /// What `coded` says. Bytes after an end begin a further member or frame.
    pub fn decoder<'r>(self, coded: impl AsyncBufRead + Send + Unpin + 'r) -> Box<dyn AsyncRead + Send + Unpin + 'r> {
        match self {
            Self::Identity => Box::new(coded),
            Self::Gzip => {
                let mut decoder = GzipDecoder::new(coded);
                decoder.multiple_members(true);
                Box::new(decoder)
            }
            Self::Zstd => {
                let limit = DParameter::window_log_max(MAX_WINDOW_LOG);
                let mut decoder = ZstdDecoder::with_params(coded, &[limit]);
                decoder.multiple_members(true);
                Box::new(decoder)
            }
        }
    }
}

/// Codes an answer piece by piece.
pub enum Encoder {
    /// Not at all.
    Identity(Vec<u8>),
    /// gzip.
    Gzip(GzEncoder<Vec<u8>>),
    /// zstd.
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    /// # Errors
    /// If the library refuses its own defaults.
    pub fn new(coding: Coding) -> io::Result<Self> {
        Ok(match coding {
            Coding::Identity => Self::Identity(Vec::new()),
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Compression::fast())),
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.window_log(WINDOW_LOG)?;
                Self::Zstd(encoder)
            }
        })
    }

    /// Everything written so far and not taken yet, so that the other side can read all of it now.
    ///
    /// # Errors
    /// Never, as memory takes what is written to it.
    pub fn take(&mut self) -> io::Result<Vec<u8>> {
        self.flush()?;
        Ok(mem::take(match self {
            Self::Identity(bytes) => bytes,
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        }))
    }

    /// The rest.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Identity(bytes) => Ok(bytes),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl Write for Encoder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Identity(out) => out.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Identity(_) => Ok(()),
            Self::Gzip(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    fn headers(name: &str, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(hyper::header::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn codings_of_requests_and_answers() {
        for (values, coding) in [
            (&[][..], Some(Coding::Identity)),
            (&["identity"], Some(Coding::Identity)),
            (&["GZIP"], Some(Coding::Gzip)),
            (&[" x-gzip "], Some(Coding::Gzip)),
            (&["zstd"], Some(Coding::Zstd)),
            (&["br"], None),
            (&["gzip, gzip"], None),
            (&["gzip", "zstd"], None),
        ] {
            assert_eq!(Coding::of_request(&headers("content-encoding", values)).ok(), coding, "{values:?}");
        }
        for (values, coding) in [
            (&[][..], Coding::Identity),
            (&[""], Coding::Identity),
            (&["br, deflate"], Coding::Identity),
            (&["gzip, deflate, br, zstd"], Coding::Zstd),
            (&["zstd;q=0.1, gzip;q=0.5"], Coding::Gzip),
            (&["gzip;q=0"], Coding::Identity),
            (&["deflate", "gzip"], Coding::Gzip),
            (&["identity, gzip;q=0.5"], Coding::Identity),
        ] {
            assert_eq!(Coding::of_answer(&headers("accept-encoding", values)), coding, "{values:?}");
        }
    }

    #[tokio::test]
    async fn what_was_taken_can_be_read_at_once_and_comes_back() {
        for coding in [Coding::Identity, Coding::Gzip, Coding::Zstd] {
            let mut encoder = Encoder::new(coding).unwrap();
            encoder.write_all(b"first\n").unwrap();
            let mut sent = encoder.take().unwrap();
            let mut text = [0; 6];
            coding.decoder(&sent[..]).read_exact(&mut text).await.unwrap();
            assert_eq!(&text, b"first\n", "{coding:?}");
            encoder.write_all(b"second\n").unwrap();
            sent.extend(encoder.finish().unwrap());
            // A further member.
            let mut further = Encoder::new(coding).unwrap();
            further.write_all(b"third").unwrap();
            sent.extend(further.finish().unwrap());
            let mut all = String::new();
            coding.decoder(&sent[..]).read_to_string(&mut all).await.unwrap();
            assert_eq!(all, "first\nsecond\nthird", "{coding:?}");
        }
    }
}
