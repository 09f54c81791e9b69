//! Model files from a Hugging Face hub, kept in the Hugging Face cache.
//!
//! ```text
//! RepoId -> listing (commit, names) -> select -> HEAD each (checksum, size) -> transfer -> blobs -> snapshot -> ref
//! ```
//!
//! What is promised: nothing gets its place in the cache before its checksum was verified; an error page is never
//! taken for content; a broken download resumes; the access token goes to the hub's own origin and nowhere else;
//! every wait and every repetition has a bound ([`Limits`]). The cache is the one that Python's huggingface_hub reads.
//!
//! hf-hub gives the repository's name and layout; the bytes are moved here, because its own transfer verifies nothing
//! and passes the token on to the storage's host. It does not know what stands in the files, nor who wants them.

mod address;
mod cache;
mod client;
mod digest;
mod error;
mod lock;
mod progress;
mod refusal;
mod remote;
mod repo;
mod retry;
mod select;
mod settings;
mod space;
mod transfer;

pub use error::HubError;
pub use progress::Progress;
pub use repo::{RepoId, RepoIdError};
pub use retry::Limits;
pub use select::Weights;
pub use settings::Token;
pub use space::human;

use std::path::PathBuf;

use cache::RepoCache;
use client::Client;
use remote::RemoteFile;
use retry::retrying;
use transfer::{Transfer, length};

/// A model hub, the cache its files go to, and the terms on which it is asked.
#[derive(Clone, Debug)]
pub struct Hub {
    /// Without a slash at the end.
    pub endpoint: String,
    /// Sent to the endpoint's own origin only.
    pub token: Option<Token>,
    /// The folder that holds `models--owner--name`.
    pub cache_dir: PathBuf,
    /// Whether the cache alone is used.
    pub offline: bool,
    /// Whether files that are in the cache already are read again and compared with their checksums.
    pub verify: bool,
    /// Whether `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` are heeded.
    pub proxy_from_env: bool,
    /// PEM file of the certificate authorities to trust instead of the built-in ones.
    pub certificates: Option<PathBuf>,
    /// Bounds on time and on the number of attempts.
    pub limits: Limits,
}

impl Hub {
    /// The folder with the files of the model `repo`, brought up to date with the hub as far as that is possible:
    /// offline, or with the hub out of reach, a complete snapshot in the cache does.
    ///
    /// # Errors
    /// When the files cannot be had; the message says what to do.
    pub fn fetch(
        &self,
        repo: &RepoId,
        weights: Weights,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<PathBuf, HubError> {
        let cache = RepoCache::new(&self.cache_dir, repo);
        if self.verify {
            self.drop_damaged(&cache, weights, progress)?;
        }
        let cached = cache.complete(weights).map(|snapshot| snapshot.dir);
        match cached {
            Some(dir) if self.offline || repo.is_pinned() => Ok(dir),
            None if self.offline => Err(HubError::Offline { repo: repo.to_string(), cache: self.cache_dir.clone() }),
            Some(dir) => match self.update(repo, weights, &cache, 1, progress) {
                Err(reason) if reason.is_outage() => {
                    progress(Progress::CacheUsed { reason: &reason });
                    Ok(dir)
                }
                outcome => outcome,
            },
            None => self.update(repo, weights, &cache, self.limits.attempts, progress),
        }
    }

    /// The folder with the files of `repo` if the cache holds them all; asks nobody.
    pub fn cached(&self, repo: &RepoId, weights: Weights) -> Option<PathBuf> {
        RepoCache::new(&self.cache_dir, repo).complete(weights).map(|snapshot| snapshot.dir)
    }

    /// Fetches what is missing; the hub is asked `attempts` times for the list of files.
    fn update(
        &self,
        repo: &RepoId,
        weights: Weights,
        cache: &RepoCache,
        attempts: u32,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<PathBuf, HubError> {
        let client = Client::new(self)?;
        let first = Limits { attempts, ..self.limits.clone() };
        let listing = retrying(&first, &repo.to_string(), progress, |_| remote::list(&client, repo))?;
        let names = select::select(&listing.files, weights).map_err(|wanted| HubError::MissingFile {
            repo: repo.to_string(),
            wanted,
            present: listing.files.clone(),
        })?;
        let commit = listing.commit.as_str();
        let describe = |name: &String| {
            retrying(&self.limits, name, &mut *progress, |_| remote::describe(&client, repo, commit, name))
        };
        let files = names.iter().map(describe).collect::<Result<Vec<_>, _>>()?;

        reserve(cache, &files)?;
        let total = files.iter().fold(0u64, |sum, file| sum.saturating_add(file.size));
        let mut transfer = Transfer { client: &client, cache, repo, commit, settled: 0, total };
        for file in &files {
            transfer.obtain(file, progress)?;
        }
        cache.publish(commit, &files)
    }

    fn drop_damaged(
        &self,
        cache: &RepoCache,
        weights: Weights,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), HubError> {
        let Some(snapshot) = cache.complete(weights) else { return Ok(()) };
        for file in &snapshot.files {
            progress(Progress::Verifying { file });
        }
        for file in cache.drop_damaged(&snapshot)? {
            progress(Progress::Damaged { file: &file });
        }
        Ok(())
    }
}

/// Makes the folder for the blobs and checks that the disk has room for what is missing of `files`.
fn reserve(cache: &RepoCache, files: &[RemoteFile]) -> Result<(), HubError> {
    let missing = files.iter().filter(|file| !cache.has(file));
    let needed =
        missing.map(|file| file.size.saturating_sub(length(&cache.partial(&file.digest)))).fold(0, u64::saturating_add);
    if needed == 0 {
        return Ok(());
    }
    let dir = cache.blobs();
    std::fs::create_dir_all(&dir).map_err(|e| HubError::io(&dir, e))?;
    match space::free_bytes(&dir) {
        Some(free) if free < needed => Err(HubError::DiskFull { dir, needed, free: Some(free) }),
        _ => Ok(()),
    }
}
