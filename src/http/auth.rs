//! Bearer keys and what each may do: how many requests a second, how many at once. It does not know which routes ask
//! for a key.

use std::{
    num::NonZeroU32,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use governor::{
    DefaultDirectRateLimiter, Quota,
    clock::{Clock, DefaultClock},
};
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{AUTHORIZATION, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
};
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer::{Body, detail};
use crate::{config::Server, error::StartError};

/// The keys that are let in, and the file that they can be read from again.
#[derive(Debug)]
pub struct Keys {
    config: Server,
    known: RwLock<Arc<[Key]>>,
}

/// One key. The key itself is not kept.
#[derive(Debug, Clone)]
struct Key {
    digest: [u8; 32],
    rate: Option<Arc<DefaultDirectRateLimiter>>,
    room: Option<Arc<Semaphore>>,
}

/// The leave to make a request, to be kept until its answer is sent.
#[derive(Debug, Clone)]
pub struct Pass(#[allow(dead_code, reason = "it is held, not read")] Option<Arc<OwnedSemaphorePermit>>);

/// A request that is not let in.
#[derive(Debug)]
pub struct Refusal {
    /// Why, for metrics.
    pub reason: &'static str,
    /// What the client is told.
    pub answer: Response<Body>,
}

impl Keys {
    /// The configured keys; `None` if none are asked for. In the file: one a line, blank lines and lines that start with
    /// `#` do not count.
    ///
    /// # Errors
    /// [`StartError::Io`] for an unreadable file, [`StartError::Config`] for one without a key.
    pub fn read(config: &Server) -> Result<Option<Self>, StartError> {
        let keys = texts(config)?;
        if keys.is_empty() {
            return Ok(None);
        }
        let known = keys.iter().map(|key| Key::new(digest(key), config)).collect();
        Ok(Some(Self { config: config.clone(), known: RwLock::new(known) }))
    }

    /// Reads the file again. A key that was there before keeps its place and its past. Returns how many keys there are.
    ///
    /// # Errors
    /// As [`Keys::read`]; the keys stay as they were.
    pub fn reload(&self) -> Result<usize, StartError> {
        let keys = texts(&self.config)?;
        let before = self.known();
        let known: Arc<[Key]> = keys
            .iter()
            .map(|key| {
                let digest = digest(key);
                let old = before.iter().find(|old| old.digest == digest);
                old.cloned().unwrap_or_else(|| Key::new(digest, &self.config))
            })
            .collect();
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(keys.len())
    }

    /// Lets a request with one of the keys in. Every key is compared to the end, whichever matches.
    ///
    /// # Errors
    /// [`Refusal`] for all others, and for those beyond the key's limits.
    pub fn check(&self, headers: &HeaderMap) -> Result<Pass, Refusal> {
        let Some(key) = headers.get(AUTHORIZATION).and_then(bearer) else {
            let text = "A key is needed. Send it in the header \"Authorization: Bearer <key>\".";
            return Err(unauthorized("no_key", text, "Bearer"));
        };
        let given = digest(key);
        let known = self.known();
        let mut place = u32::MAX;
        for (index, key) in (0..).zip(known.iter()) {
            place.conditional_assign(&index, key.digest.ct_eq(&given));
        }
        match known.get(place as usize) {
            Some(key) => key.enter(),
            None => {
                let text = "The key is not known. Send a key that this server accepts.";
                Err(unauthorized("unknown_key", text, "Bearer error=\"invalid_token\""))
            }
        }
    }

    fn known(&self) -> Arc<[Key]> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Key {
    fn new(digest: [u8; 32], config: &Server) -> Self {
        let rate = NonZeroU32::new(config.key_requests_per_s).map(|rate| {
            let burst = NonZeroU32::new(config.key_burst).unwrap_or(rate);
            Arc::new(DefaultDirectRateLimiter::direct(Quota::per_second(rate).allow_burst(burst)))
        });
        let most = config.key_max_in_flight.min(Semaphore::MAX_PERMITS);
        Self { digest, rate, room: (most > 0).then(|| Arc::new(Semaphore::new(most))) }
    }

    /// A place among the key's open requests, then one in its rate: a request that has no place costs no rate.
    fn enter(&self) -> Result<Pass, Refusal> {
        let place = match &self.room {
            None => None,
            Some(room) => Some(room.clone().try_acquire_owned().map_err(|_| {
                let text = "This key has as many requests open as it may. Send fewer at once.";
                too_many("key_in_flight", text, Duration::from_secs(1))
            })?),
        };
        if let Some(rate) = &self.rate {
            rate.check().map_err(|until| {
                let text = "This key has made more requests than it may. Send fewer a second.";
                too_many("key_rate", text, until.wait_time_from(DefaultClock::default().now()))
            })?;
        }
        Ok(Pass(place.map(Arc::new)))
    }
}

/// All keys, of the configuration and of the file.
fn texts(config: &Server) -> Result<Vec<String>, StartError> {
    let mut keys: Vec<String> = config.api_keys.0.clone();
    if !config.api_keys_file.is_empty() {
        let path = Path::new(&config.api_keys_file);
        let text = std::fs::read_to_string(path).map_err(|source| StartError::Io {
            what: format!("reading server.api_keys_file {}", path.display()),
            source,
        })?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let before = keys.len();
        keys.extend(lines.map(str::to_owned));
        if keys.len() == before {
            return Err(StartError::Config(format!(
                "server.api_keys_file {} holds no key. Write one a line, or set it to \"\" to let anyone in",
                path.display()
            )));
        }
    }
    if keys.iter().any(|key| key.trim().is_empty()) {
        return Err(StartError::Config("server.api_keys holds an empty key".into()));
    }
    Ok(keys)
}

fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key).into()
}

fn unauthorized(reason: &'static str, text: &str, challenge: &'static str) -> Refusal {
    let mut answer = detail(StatusCode::UNAUTHORIZED, text);
    answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    Refusal { reason, answer }
}

fn too_many(reason: &'static str, text: &str, wait: Duration) -> Refusal {
    let seconds = wait.as_millis().div_ceil(1000).max(1) as u64;
    let mut answer = detail(StatusCode::TOO_MANY_REQUESTS, text);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    Refusal { reason, answer }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(file: &str, own: &[&str]) -> Result<Option<Keys>, StartError> {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), file).unwrap();
        let api_keys_file = if file.is_empty() { String::new() } else { path.path().display().to_string() };
        Keys::read(&Server { api_keys_file, ..own_keys(own) })
    }

    fn own_keys(own: &[&str]) -> Server {
        let api_keys = crate::config::Secrets(own.iter().map(|k| (*k).to_owned()).collect());
        Server { api_keys, ..Server::default() }
    }

    fn ask(keys: &Keys, value: &str) -> Result<Pass, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        keys.check(&headers)
    }

    #[test]
    fn any_of_the_keys_opens() {
        let keys = keys("# operators\none\n\n  two \n", &["three"]).unwrap().unwrap();
        for good in ["Bearer one", "bearer two", "BEARER  three"] {
            assert!(ask(&keys, good).is_ok(), "{good}");
        }
        for bad in ["Bearer On", "Bearer one two", "Bearer # operators", "Bearer "] {
            let refusal = ask(&keys, bad).unwrap_err();
            assert_eq!(refusal.answer.headers()[WWW_AUTHENTICATE], "Bearer error=\"invalid_token\"", "{bad}");
            assert_eq!(refusal.reason, "unknown_key");
        }
        assert_eq!(ask(&keys, "Basic one").unwrap_err().answer.headers()[WWW_AUTHENTICATE], "Bearer");
        assert_eq!(keys.check(&HeaderMap::new()).unwrap_err().reason, "no_key");
    }

    #[test]
    fn no_configuration_means_no_keys_and_an_empty_file_is_refused() {
        assert!(keys("", &[]).unwrap().is_none());
        assert!(keys("# nothing\n", &[]).unwrap_err().to_string().contains("holds no key"));
        assert!(keys("", &[" "]).is_err());
        let config = Server { api_keys_file: "/no/such/keys".into(), ..Server::default() };
        assert!(Keys::read(&config).unwrap_err().to_string().contains("/no/such/keys"));
    }

    #[test]
    fn each_key_has_limits_of_its_own() {
        let limits = Server { key_requests_per_s: 1, key_burst: 3, key_max_in_flight: 2, ..own_keys(&["a", "b"]) };
        let keys = Keys::read(&limits).unwrap().unwrap();
        let held = [ask(&keys, "Bearer a").unwrap(), ask(&keys, "Bearer a").unwrap()];
        let crowded = ask(&keys, "Bearer a").unwrap_err();
        assert_eq!((crowded.reason, crowded.answer.status().as_u16()), ("key_in_flight", 429));
        drop(held);
        // What was refused for want of a place has cost no rate: the third of the burst is still there.
        assert!(ask(&keys, "Bearer a").is_ok());
        let fast = (0..100_000).find_map(|_| ask(&keys, "Bearer a").err()).unwrap();
        assert_eq!((fast.reason, &fast.answer.headers()[RETRY_AFTER]), ("key_rate", &HeaderValue::from_static("1")));
        assert!(ask(&keys, "Bearer b").is_ok());
    }

    #[test]
    fn keys_are_read_again_and_kept_if_that_fails() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let write = |text: &str| std::fs::write(file.path(), text).unwrap();
        write("old\nstays\n");
        let api_keys_file = file.path().display().to_string();
        let config = Server { api_keys_file, key_max_in_flight: 1, ..own_keys(&["own"]) };
        let keys = Keys::read(&config).unwrap().unwrap();
        let _held = ask(&keys, "Bearer stays").unwrap();
        write("new\nstays\n");
        assert_eq!(keys.reload().unwrap(), 3);
        let expected = [("new", None), ("own", None), ("old", Some("unknown_key")), ("stays", Some("key_in_flight"))];
        for (key, reason) in expected {
            assert_eq!(ask(&keys, &format!("Bearer {key}")).err().map(|r| r.reason), reason, "{key}");
        }
        write("# no key\n");
        assert!(keys.reload().is_err());
        assert!(ask(&keys, "Bearer new").is_ok());
    }
}
