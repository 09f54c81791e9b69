//! Bearer keys. It does not know which routes ask for one.

use std::path::Path;

use hyper::{
    HeaderMap, Response, StatusCode,
    header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE},
};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::answer::{Body, detail};
use crate::{config::Server, error::StartError};

/// Digests of the keys that are let in; the keys themselves are not kept.
#[derive(Debug)]
pub struct Keys(Vec<[u8; 32]>);

impl Keys {
    /// The configured keys; `None` if none are asked for. In the file: one a line, blank lines and lines that start with
    /// `#` do not count.
    ///
    /// # Errors
    /// [`StartError::Io`] for an unreadable file, [`StartError::Config`] for one without a key.
    pub fn read(config: &Server) -> Result<Option<Self>, StartError> {
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
        Ok((!keys.is_empty()).then(|| Self(keys.iter().map(|key| digest(key)).collect())))
    }

    /// Lets a request with one of the keys in. Every key is compared to the end, whichever matches.
    ///
    /// # Errors
    /// The answer for all others.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Response<Body>> {
        let Some(key) = headers.get(AUTHORIZATION).and_then(bearer) else {
            let text = "A key is needed. Send it in the header \"Authorization: Bearer <key>\".";
            return Err(unauthorized(text, "Bearer"));
        };
        let given = digest(key);
        let known = self.0.iter().fold(Choice::from(0), |known, key| known | key.ct_eq(&given));
        if known.into() {
            return Ok(());
        }
        Err(unauthorized("The key is not known. Send a key that this server accepts.", "Bearer error=\"invalid_token\""))
    }
}

fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key).into()
}

fn unauthorized(text: &str, challenge: &'static str) -> Response<Body> {
    let mut answer = detail(StatusCode::UNAUTHORIZED, text);
    answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(file: &str, own: &[&str]) -> Result<Option<Keys>, StartError> {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), file).unwrap();
        let api_keys_file = if file.is_empty() { String::new() } else { path.path().display().to_string() };
        let api_keys = crate::config::Secrets(own.iter().map(|k| (*k).to_owned()).collect());
        Keys::read(&Server { api_keys_file, api_keys, ..Server::default() })
    }

    #[test]
    fn any_of_the_keys_opens() {
        let keys = keys("# operators\none\n\n  two \n", &["three"]).unwrap().unwrap();
        let check = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            keys.check(&headers).map_err(|answer| answer.headers()[WWW_AUTHENTICATE].clone())
        };
        for good in ["Bearer one", "bearer two", "BEARER  three"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["Bearer On", "Bearer one two", "Bearer # operators", "Bearer "] {
            assert_eq!(check(bad).unwrap_err(), "Bearer error=\"invalid_token\"", "{bad}");
        }
        assert_eq!(check("Basic one").unwrap_err(), "Bearer");
        assert!(keys.check(&HeaderMap::new()).is_err());
    }

    #[test]
    fn no_configuration_means_no_keys_and_an_empty_file_is_refused() {
        assert!(keys("", &[]).unwrap().is_none());
        assert!(keys("# nothing\n", &[]).unwrap_err().to_string().contains("holds no key"));
        assert!(keys("", &[" "]).is_err());
        let config = Server { api_keys_file: "/no/such/keys".into(), ..Server::default() };
        assert!(Keys::read(&config).unwrap_err().to_string().contains("/no/such/keys"));
    }
}
