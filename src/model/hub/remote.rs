//! What the hub says about a repository: its commit, its files, and each file's checksum and size.
//!
//! Nothing that the hub says is trusted as a path: commits must be hashes, file names must stay in their folder.
//! It does not know the cache.

use serde::Deserialize;
use ureq::http::{
    HeaderMap,
    header::{CONTENT_LENGTH, ETAG},
};

use super::{
    address::{file_url, listing_url},
    client::Client,
    digest::Digest,
    error::HubError,
    refusal::{Asked, judge},
    repo::{RepoId, is_commit_hash},
    retry::Fault,
    select::is_safe_name,
};

/// Largest listing that is read, in bytes.
const MAX_LISTING: u64 = 16 << 20;

/// A repository at the commit that its revision stands for now.
pub(super) struct Listing {
    pub commit: String,
    pub files: Vec<String>,
}

/// One file, as its checksum and size were announced.
pub(super) struct RemoteFile {
    pub name: String,
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
}

#[derive(Deserialize)]
struct ModelInfo {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// Asks which files `repo` has.
pub(super) fn list(client: &Client<'_>, repo: &RepoId) -> Result<Listing, Fault> {
    let url = listing_url(client.endpoint(), repo);
    let not_a_hub = |why| HubError::NotAHub { url: url.clone(), why };
    let mut reply = client.get(&url, 0)?;
    if !reply.response.status().is_success() {
        return Err(judge(client.hub(), Asked { repo, file: None }, &reply));
    }
    let body = reply.response.body_mut().with_config().limit(MAX_LISTING).read_to_vec().map_err(|e| match e {
        ureq::Error::BodyExceedsLimit(_) => Fault::Fatal(not_a_hub("the list of files is larger than 16 MiB")),
        e => Fault::transient(HubError::Unreachable { host: reply.host.clone(), reason: e.to_string() }),
    })?;
    let info: ModelInfo = serde_json::from_slice(&body).map_err(|_| not_a_hub("the list of files is not readable"))?;
    if !is_commit_hash(&info.sha) {
        return Err(not_a_hub("it names no commit").into());
    }
    let files: Vec<String> = info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
    match files.iter().find(|name| !is_safe_name(name)) {
        Some(name) => Err(HubError::UnsafeName { repo: repo.to_string(), name: name.clone() }.into()),
        None => Ok(Listing { commit: info.sha, files }),
    }
}

/// Asks for the checksum and size of one file.
pub(super) fn describe(client: &Client<'_>, repo: &RepoId, commit: &str, name: &str) -> Result<RemoteFile, Fault> {
    let url = file_url(client.endpoint(), repo, commit, name);
    let not_a_hub = |why| Fault::Fatal(HubError::NotAHub { url: url.clone(), why });
    // A redirect to the storage carries the facts itself; a redirect within the hub need not.
    let (mut digest, mut size, mut served) = (None, None, None);
    let reply = client.head(&url, &mut |headers| {
        digest = digest.take().or_else(|| Digest::from_etag(text(headers, "x-linked-etag")?));
        size = size.or_else(|| text(headers, "x-linked-size")?.parse().ok());
        served = served.take().or_else(|| text(headers, "x-repo-commit").map(str::to_owned));
        digest.is_some() && size.is_some()
    })?;
    let (status, headers) = (reply.response.status(), reply.response.headers());
    if !status.is_success() && !status.is_redirection() {
        return Err(judge(client.hub(), Asked { repo, file: Some(name) }, &reply));
    }
    if status.is_success() {
        digest = digest.or_else(|| Digest::from_etag(text(headers, ETAG.as_str())?));
        size = size.or_else(|| text(headers, CONTENT_LENGTH.as_str())?.parse().ok());
    }
    if served.is_some_and(|served| served != commit) {
        return Err(not_a_hub("it serves another commit than the one asked for"));
    }
    Ok(RemoteFile {
        name: name.to_owned(),
        digest: digest.ok_or_else(|| not_a_hub("the ETag is no checksum, so that the file could not be verified"))?,
        size: size.ok_or_else(|| not_a_hub("it does not tell the file's size"))?,
    })
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}
