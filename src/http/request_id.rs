//! A name for each request, the client's own where it is fit to be echoed and logged.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use hyper::{HeaderMap, header::HeaderValue};

/// The header that carries it, both ways.
pub const HEADER: &str = "x-request-id";

const LONGEST: usize = 128;

/// Makes names that do not repeat within a process and hardly across processes.
pub struct RequestIds {
    seed: u64,
    given: AtomicU64,
}

impl RequestIds {
    /// Starts at a random place.
    pub fn new() -> Self {
        Self { seed: RandomState::new().hash_one(std::process::id()), given: AtomicU64::new(0) }
    }

    /// The client's name for the request if it is 1 to 128 visible ASCII characters, else a new one.
    pub fn of(&self, headers: &HeaderMap) -> HeaderValue {
        if let Some(own) = headers.get(HEADER)
            && (1..=LONGEST).contains(&own.len())
            && own.as_bytes().iter().all(u8::is_ascii_graphic)
        {
            return own.clone();
        }
        let mut id = self.given.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.seed;
        // A bijective mix (the finaliser of splitmix64): distinct counts stay distinct.
        id = (id ^ (id >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        id = (id ^ (id >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        id ^= id >> 31;
        HeaderValue::try_from(format!("{id:016x}")).expect("hexadecimal digits are a valid header value")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ids: &RequestIds, own: &[u8]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_bytes(own).unwrap());
        ids.of(&headers).to_str().unwrap().to_owned()
    }

    #[test]
    fn fit_names_are_kept_and_others_replaced() {
        let ids = RequestIds::new();
        assert_eq!(of(&ids, b"req-1/a:b"), "req-1/a:b");
        for unfit in [&b""[..], b"two words", b"tab\tbed", "ü".as_bytes(), &[b'x'; 129]] {
            assert_eq!(of(&ids, unfit).len(), 16);
        }
        let many: std::collections::HashSet<_> = (0..1000).map(|_| ids.of(&HeaderMap::new())).collect();
        assert_eq!(many.len(), 1000);
    }
}
