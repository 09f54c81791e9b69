//! What can go wrong on the way from the hub to a folder, each with what to do about it.
//!
//! Written for the person at the terminal. It does not know which command was run.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::space::human;

/// Names of files shown when a repository lacks the wanted ones.
const MAX_LISTED: usize = 40;

/// Why a model's files cannot be had. The message of each variant is meant for people and says what to do.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is documented by its message, which names all of its fields")]
pub enum HubError {
    #[error("the hub's address must start with http:// or https://, got `{0}` (set HF_ENDPOINT, or unset it)")]
    BadEndpoint(String),

    #[error("there is no home folder to keep downloads in: set HF_HOME or name a cache folder")]
    NoHome,

    #[error("cannot use the certificates in {}: {why} (SSL_CERT_FILE names them)", path.display())]
    BadCertificates { path: PathBuf, why: String },

    #[error("cannot reach {host}: {reason} (check the network and the proxy settings; HF_ENDPOINT names another hub)")]
    Unreachable { host: String, reason: String },

    #[error(
        "cannot trust {host}: {reason} (SSL_CERT_FILE names the certificate authorities, such as that of a proxy that reads along)"
    )]
    Untrusted { host: String, reason: String },

    #[error("{host} answered {status}, again and again: try later")]
    Busy { host: String, status: u16 },

    #[error("{host} refused the download with status {status} (a firewall or proxy between here and there may be why)")]
    Refused { host: String, status: u16 },

    #[error(
        "{url} does not answer like a model hub: {why} (check HF_ENDPOINT, or whether a login page stands in the way)"
    )]
    NotAHub { url: String, why: &'static str },

    #[error("{url} leads to an address that is not followed: {why}")]
    BadRedirect { url: String, why: &'static str },

    #[error("there is no model `{repo}` on {endpoint}{}", private_hint(*signed_in))]
    NoSuchRepo { repo: String, endpoint: String, signed_in: bool },

    #[error("{repo} has no revision `{revision}`")]
    NoSuchRevision { repo: String, revision: String },

    #[error("{repo} has no file {file}")]
    NoSuchFile { repo: String, file: String },

    #[error("{repo} is gated: {}", gate_hint(page, *signed_in))]
    Gated { repo: String, page: String, signed_in: bool },

    #[error(
        "{host} does not accept the access token: make a new one in your account's settings and set HF_TOKEN, or unset it"
    )]
    BadToken { host: String },

    #[error("{host} refused access to {repo} with status {status}{message}{}", private_hint(*signed_in))]
    Denied { host: String, repo: String, status: u16, message: String, signed_in: bool },

    #[error("{repo} has no {wanted}; it has: {}", list(present))]
    MissingFile { repo: String, wanted: String, present: Vec<String> },

    #[error("{repo} lists a file with the unsafe name {name:?}: nothing was downloaded")]
    UnsafeName { repo: String, name: String },

    #[error("the connection to {host} broke off in {file} at {} of {}: {reason} (what has arrived is kept: run again to go on)", human(*done), human(*size))]
    BrokenOff { host: String, file: String, done: u64, size: u64, reason: String },

    #[error("{file} arrived damaged twice, its checksum is not {expected}: the damaged copy was removed")]
    Corrupt { file: String, expected: String },

    #[error("{host} sent {got} bytes of {file} where {expected} were announced")]
    WrongSize { host: String, file: String, expected: u64, got: u64 },

    #[error("the disk is full: {} more are needed in {}{} (make room and run again: what has arrived is kept; HF_HOME names another place)", human(*needed), dir.display(), free_hint(*free))]
    DiskFull { dir: PathBuf, needed: u64, free: Option<u64> },

    #[error("cannot use {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },

    #[error("another process has been downloading the same file for {} s (it holds {}): wait for it or end it, then run again", waited.as_secs(), lock.display())]
    Locked { lock: PathBuf, waited: Duration },

    #[error("{repo} is not complete in {} and the hub may not be asked (offline): fetch it while online, or copy the cache from a machine that has it", cache.display())]
    Offline { repo: String, cache: PathBuf },
}

impl HubError {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    /// What happened, without what to do about it: for an attempt that will be repeated.
    pub fn brief(&self) -> String {
        match self {
            Self::Unreachable { host, reason } => format!("cannot reach {host}: {reason}"),
            Self::Busy { host, status } => format!("{host} answered {status}"),
            Self::Refused { host, status } => format!("{host} refused the download with status {status}"),
            Self::BrokenOff { host, done, size, reason, .. } => {
                format!("the connection to {host} broke off at {} of {}: {reason}", human(*done), human(*size))
            }
            other => other.to_string(),
        }
    }

    /// Whether no answer came from the hub itself, so that asking later, or elsewhere, may bring one.
    pub fn is_outage(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Untrusted { .. }
                | Self::Busy { .. }
                | Self::Refused { .. }
                | Self::NotAHub { .. }
                | Self::BadRedirect { .. }
                | Self::BrokenOff { .. }
        )
    }
}

fn private_hint(signed_in: bool) -> &'static str {
    if signed_in {
        "; or the account of the access token may not read it"
    } else {
        "; if it is private, set HF_TOKEN to an access token that may read it"
    }
}

fn gate_hint(page: &str, signed_in: bool) -> String {
    if signed_in {
        format!(
            "accept its licence on {page} with the account that HF_TOKEN belongs to, and let the token read gated models"
        )
    } else {
        format!("accept its licence on {page}, then set HF_TOKEN to an access token of that account")
    }
}

fn free_hint(free: Option<u64>) -> String {
    free.map(|bytes| format!(", {} are free", human(bytes))).unwrap_or_default()
}

fn list(names: &[String]) -> String {
    match names.len() {
        0 => "nothing".to_owned(),
        n if n > MAX_LISTED => format!("{} and {} more", names[..MAX_LISTED].join(", "), n - MAX_LISTED),
        _ => names.join(", "),
    }
}
