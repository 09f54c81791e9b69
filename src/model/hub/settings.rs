//! Where the hub is, who asks, and where files go: the environment variables of the Hugging Face tools.
//!
//! It reads them once; all that follows sees plain fields. It does not know which model is wanted.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Hub, error::HubError, retry::Limits};

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// An access token; its `Debug` form keeps the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token in `text`, without the white space around it; `None` when nothing is left or it cannot be sent.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let sendable = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        sendable.then(|| Self(text.to_owned()))
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Hub {
    /// The hub that the environment describes: `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HOME`, `HF_HUB_CACHE`,
    /// `HF_HUB_OFFLINE`, `HF_HUB_DOWNLOAD_TIMEOUT`, `HF_HUB_DISABLE_IMPLICIT_TOKEN`, `XDG_CACHE_HOME`, `SSL_CERT_FILE`
    /// and the proxy variables; unset or empty ones take the same defaults as Python's huggingface_hub.
    ///
    /// `cache_dir`, if given, is used instead of the environment's.
    ///
    /// # Errors
    /// When the endpoint is no web address, or there is no home folder for the cache.
    pub fn from_env(cache_dir: Option<PathBuf>) -> Result<Self, HubError> {
        let mut hub = Self::from_lookup(&|name| std::env::var(name).ok(), std::env::home_dir(), cache_dir)?;
        hub.proxy_from_env = true;
        Ok(hub)
    }

    fn from_lookup(
        var: &dyn Fn(&str) -> Option<String>,
        home: Option<PathBuf>,
        cache_dir: Option<PathBuf>,
    ) -> Result<Self, HubError> {
        let text = |name: &str| var(name).filter(|value| !value.trim().is_empty());
        let path = |name: &str| text(name).map(|value| expand_home(&value, home.as_deref()));

        let hf_home = path("HF_HOME")
            .or_else(|| path("XDG_CACHE_HOME").map(|dir| dir.join("huggingface")))
            .or_else(|| home.as_ref().map(|dir| dir.join(".cache/huggingface")));
        let cache_dir = cache_dir
            .or_else(|| path("HF_HUB_CACHE"))
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| hf_home.as_ref().map(|dir| dir.join("hub")))
            .ok_or(HubError::NoHome)?;
        let token_path = path("HF_TOKEN_PATH").or_else(|| hf_home.map(|dir| dir.join("token")));

        let mut hub = Self::new(&text("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned()), cache_dir)?;
        if !is_true(text("HF_HUB_DISABLE_IMPLICIT_TOKEN")) {
            hub.token = text("HF_TOKEN")
                .or_else(|| text("HUGGING_FACE_HUB_TOKEN"))
                .or_else(|| std::fs::read_to_string(token_path?).ok())
                .and_then(|token| Token::new(&token));
        }
        hub.offline = is_true(text("HF_HUB_OFFLINE").or_else(|| text("TRANSFORMERS_OFFLINE")));
        hub.certificates = path("SSL_CERT_FILE");
        if let Some(seconds) =
            text("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|value| value.trim().parse().ok()).filter(|&s| s > 0)
        {
            hub.limits.stall_timeout = Duration::from_secs(seconds);
        }
        Ok(hub)
    }

    /// A hub at `endpoint` that keeps files in `cache_dir`: no token, no proxy, default limits.
    ///
    /// # Errors
    /// When `endpoint` does not start with `http://` or `https://`.
    pub fn new(endpoint: &str, cache_dir: PathBuf) -> Result<Self, HubError> {
        let trimmed = endpoint.trim().trim_end_matches('/');
        let host = trimmed.strip_prefix("https://").or_else(|| trimmed.strip_prefix("http://"));
        if host.is_none_or(str::is_empty) {
            return Err(HubError::BadEndpoint(endpoint.to_owned()));
        }
        Ok(Self {
            endpoint: trimmed.to_owned(),
            token: None,
            cache_dir,
            offline: false,
            verify: false,
            proxy_from_env: false,
            certificates: None,
            limits: Limits::default(),
        })
    }
}

/// What the Hugging Face tools take for yes.
fn is_true(value: Option<String>) -> bool {
    value.is_some_and(|text| ["1", "ON", "YES", "TRUE"].contains(&text.trim().to_ascii_uppercase().as_str()))
}

fn expand_home(value: &str, home: Option<&Path>) -> PathBuf {
    match (value.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(vars: &[(&str, &str)]) -> Result<Hub, HubError> {
        let lookup = |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Hub::from_lookup(&lookup, Some(PathBuf::from("/home/u")), None)
    }

    #[test]
    fn nothing_set_means_the_public_hub_and_the_usual_cache() {
        let hub = hub(&[("HF_ENDPOINT", ""), ("HF_TOKEN", "  ")]).unwrap();
        assert_eq!(hub.endpoint, "https://huggingface.co");
        assert_eq!(hub.cache_dir, Path::new("/home/u/.cache/huggingface/hub"));
        assert_eq!(hub.token, None);
        assert!(!hub.offline);
    }

    #[test]
    fn the_nearer_variable_wins() {
        let dir_of = |vars: &[(&str, &str)]| hub(vars).unwrap().cache_dir;
        assert_eq!(dir_of(&[("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        assert_eq!(dir_of(&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/hf")]), Path::new("/home/u/hf/hub"));
        assert_eq!(dir_of(&[("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/old")]), Path::new("/old"));
        assert_eq!(dir_of(&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/new")]), Path::new("/new"));
    }

    #[test]
    fn the_token_comes_from_the_variable_or_the_file_and_is_never_printed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t");
        std::fs::write(&file, "hf_file\n").unwrap();
        let file = file.to_str().unwrap();

        let read = |vars: &[(&str, &str)]| hub(vars).unwrap().token.map(|token| token.reveal().to_owned());
        assert_eq!(read(&[("HF_TOKEN_PATH", file)]).as_deref(), Some("hf_file"));
        assert_eq!(read(&[("HF_TOKEN", " hf_var\n"), ("HF_TOKEN_PATH", file)]).as_deref(), Some("hf_var"));
        assert_eq!(read(&[("HF_TOKEN", "hf_var"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        assert_eq!(read(&[("HF_TOKEN", "two\nlines")]), None);
        assert!(!format!("{:?}", hub(&[("HF_TOKEN", "hf_var")]).unwrap()).contains("hf_var"));
    }

    #[test]
    fn switches_and_addresses_are_checked() {
        assert!(hub(&[("HF_HUB_OFFLINE", "true")]).unwrap().offline);
        assert!(hub(&[("TRANSFORMERS_OFFLINE", "1")]).unwrap().offline);
        assert!(!hub(&[("HF_HUB_OFFLINE", "0")]).unwrap().offline);
        assert_eq!(hub(&[("HF_ENDPOINT", "http://mirror:8080/hf/")]).unwrap().endpoint, "http://mirror:8080/hf");
        for bad in ["huggingface.co", "ftp://x", "https://"] {
            assert!(matches!(hub(&[("HF_ENDPOINT", bad)]), Err(HubError::BadEndpoint(_))), "{bad}");
        }
        assert!(matches!(Hub::from_lookup(&|_| None, None, None), Err(HubError::NoHome)));
        assert!(Hub::from_lookup(&|_| None, None, Some("/c".into())).is_ok());
    }
}
