//! Web addresses: the hub's own, and where a redirect leads.
//!
//! It does not send anything.

use std::fmt::Write as _;

use ureq::http::Uri;

use super::repo::RepoId;

/// Scheme, host and port: what a token may be sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// `None` for addresses that are not `http` or `https` with a host.
    pub fn of(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let default_port = match scheme.as_str() {
            "https" => 443,
            "http" => 80,
            _ => return None,
        };
        let host = uri.host()?.to_ascii_lowercase();
        Some(Self { scheme, host, port: uri.port_u16().unwrap_or(default_port) })
    }

    pub fn is_encrypted(&self) -> bool {
        self.scheme == "https"
    }
}

/// The address that lists the files of `repo` and its commit.
pub(super) fn listing_url(endpoint: &str, repo: &RepoId) -> String {
    format!("{endpoint}/api/models/{}/revision/{}", repo.path(), encode(repo.revision(), ""))
}

/// The address of one file at one commit.
pub(super) fn file_url(endpoint: &str, repo: &RepoId, commit: &str, file: &str) -> String {
    format!("{endpoint}/{}/resolve/{commit}/{}", repo.path(), encode(file, "/"))
}

/// The page where people read about `repo` and accept its licence.
pub(super) fn page_url(endpoint: &str, repo: &RepoId) -> String {
    format!("{endpoint}/{}", repo.path())
}

/// Where `location`, absolute or relative, leads from `base`; `None` when it is no address.
pub(super) fn join(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or_default();
    let scheme = base.scheme_str()?;
    let authority = base.authority()?.as_str();
    let text = if location.contains("://") && !location.starts_with(['/', '?']) {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", base.path())
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    text.parse().ok()
}

/// Percent-encodes all but the unreserved characters of RFC 3986 and those in `keep`.
fn encode(text: &str, keep: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-._~".contains(c) || keep.contains(c) {
            encoded.push(c);
        } else {
            write!(encoded, "%{byte:02X}").expect("a String takes everything");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_encoded() {
        let repo: RepoId = "a/b@refs/pr/1".parse().unwrap();
        assert_eq!(listing_url("http://h/x", &repo), "http://h/x/api/models/a/b/revision/refs%2Fpr%2F1");
        assert_eq!(file_url("http://h", &repo, "c0", "onnx/a b?.onnx"), "http://h/a/b/resolve/c0/onnx/a%20b%3F.onnx");
    }

    #[test]
    fn redirects_of_every_form_are_joined() {
        let base: Uri = "https://hub.example:8443/a/b?q=1".parse().unwrap();
        for (location, target) in [
            ("https://cdn.example/x?sig=%2F#part", "https://cdn.example/x?sig=%2F"),
            ("//cdn.example/x", "https://cdn.example/x"),
            ("/api/x?next=http://y", "https://hub.example:8443/api/x?next=http://y"),
            ("c", "https://hub.example:8443/a/c"),
            ("?p=2", "https://hub.example:8443/a/b?p=2"),
        ] {
            assert_eq!(join(&base, location).unwrap().to_string(), target, "{location}");
        }
        assert_eq!(join(&base, "https://exa mple/"), None);
    }

    #[test]
    fn origins_differ_by_scheme_host_or_port() {
        let origin = |text: &str| Origin::of(&text.parse().unwrap());
        assert_eq!(origin("https://Hub.example/a"), origin("https://hub.example:443/b"));
        for other in
            ["http://hub.example/", "https://hub.example:444/", "https://hub.example.evil/", "https://evil/hub.example"]
        {
            assert_ne!(origin("https://hub.example/"), origin(other), "{other}");
        }
        assert_eq!(origin("ftp://hub.example/"), None);
    }
}
