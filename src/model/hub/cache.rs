//! The folder of one repository in the Hugging Face cache, laid out as Python's huggingface_hub reads it:
//!
//! ```text
//! models--owner--name/blobs/<etag>                      the content
//!                     snapshots/<commit>/<file> -> ../../blobs/<etag>
//!                     refs/<revision>                   the commit hash, as text
//! .locks/models--owner--name/<etag>.lock
//! ```
//!
//! A snapshot is linked only when all of its blobs are in place, and the ref that leads to it is written last.
//! It does not know the network.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    digest::Digest,
    error::HubError,
    remote::RemoteFile,
    repo::{RepoId, is_commit_hash},
    select::{Weights, select},
};

pub(super) struct RepoCache {
    repo: RepoId,
    layout: hf_hub::CacheRepo,
    root: PathBuf,
    locks: PathBuf,
}

/// A snapshot with all that a model needs.
pub(super) struct Snapshot {
    pub dir: PathBuf,
    pub files: Vec<String>,
}

impl RepoCache {
    pub fn new(cache_dir: &Path, repo: &RepoId) -> Self {
        let folder = repo.to_hf_hub().folder_name();
        Self {
            repo: repo.clone(),
            layout: hf_hub::Cache::new(cache_dir.to_owned()).repo(repo.to_hf_hub()),
            root: cache_dir.join(&folder),
            locks: cache_dir.join(".locks").join(folder),
        }
    }

    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    /// What has arrived so far of an unfinished blob.
    pub fn partial(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(format!("{}.incomplete", digest.hex()))
    }

    pub fn lock(&self, digest: &Digest) -> PathBuf {
        self.locks.join(format!("{}.lock", digest.hex()))
    }

    /// Whether the blob is in place with the announced size.
    pub fn has(&self, file: &RemoteFile) -> bool {
        fs::metadata(self.blob(&file.digest)).is_ok_and(|found| found.is_file() && found.len() == file.size)
    }

    /// The snapshot that the revision leads to, if all that a model with such weights needs is there.
    pub fn complete(&self, weights: Weights) -> Option<Snapshot> {
        let dir = self.layout.pointer_path(&self.commit()?);
        let files = select(&names_in(&dir).ok()?, weights).ok()?;
        files.iter().all(|name| dir.join(name).is_file()).then_some(Snapshot { dir, files })
    }

    /// Links `files` into the snapshot of `commit`, in their order, then points the revision at it.
    ///
    /// # Errors
    /// When the cache cannot be written, unless all was in place before.
    pub fn publish(&self, commit: &str, files: &[RemoteFile]) -> Result<PathBuf, HubError> {
        let dir = self.layout.pointer_path(commit);
        let mut changed = false;
        for file in files {
            changed |= self.link(&dir, file).map_err(|e| HubError::io(&dir.join(&file.name), e))?;
        }
        match self.point_at(commit) {
            Err((path, e)) if changed => Err(HubError::io(&path, e)),
            // A cache that cannot be written serves what it has.
            _ => Ok(dir),
        }
    }

    /// Removes the blobs of `snapshot` that do not have the checksum in their name; returns the files concerned.
    ///
    /// # Errors
    /// When a file cannot be read or removed.
    pub fn drop_damaged(&self, snapshot: &Snapshot) -> Result<Vec<String>, HubError> {
        let mut damaged = Vec::new();
        for name in &snapshot.files {
            let pointer = snapshot.dir.join(name);
            // A copy in place of a link carries no checksum.
            let Ok(target) = fs::read_link(&pointer) else { continue };
            let Some(digest) = target.file_name().and_then(|etag| Digest::from_etag(etag.to_str()?)) else { continue };
            let blob = self.blob(&digest);
            if !digest.matches(&blob).map_err(|e| HubError::io(&blob, e))? {
                fs::remove_file(&blob).map_err(|e| HubError::io(&blob, e))?;
                damaged.push(name.clone());
            }
        }
        Ok(damaged)
    }

    fn commit(&self) -> Option<String> {
        if self.repo.is_pinned() {
            return Some(self.repo.revision().to_owned());
        }
        let text = fs::read_to_string(self.ref_path()).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit_hash(commit))
    }

    fn ref_path(&self) -> PathBuf {
        self.root.join("refs").join(self.repo.revision())
    }

    /// Returns whether anything had to be changed.
    fn link(&self, snapshot: &Path, file: &RemoteFile) -> io::Result<bool> {
        let depth = 2 + file.name.matches('/').count();
        let target = PathBuf::from(format!("{}blobs/{}", "../".repeat(depth), file.digest.hex()));
        let pointer = snapshot.join(&file.name);
        if fs::read_link(&pointer).is_ok_and(|found| found == target) {
            return Ok(false);
        }
        replace(&pointer, |fresh| symlink(&target, fresh))?;
        Ok(true)
    }

    fn point_at(&self, commit: &str) -> Result<(), (PathBuf, io::Error)> {
        if self.repo.is_pinned() || self.commit().as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.ref_path();
        replace(&path, |fresh| fs::write(fresh, commit)).map_err(|e| (path, e))
    }
}

/// Puts what `make` creates at `path`, so that a reader finds the old or the new, and nothing between.
fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let fresh = dir.join(format!(".oddlog-{}-{serial}.tmp", std::process::id()));
    let placed = make(&fresh).and_then(|()| fs::rename(&fresh, path));
    if placed.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    placed
}

/// The names of the files in `dir` and in its folders, one level deep.
fn names_in(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if entry.file_type()?.is_dir() {
            let inner = fs::read_dir(entry.path())?.filter_map(|inner| inner.ok()?.file_name().into_string().ok());
            names.extend(inner.map(|inner| format!("{name}/{inner}")));
        } else {
            names.push(name);
        }
    }
    Ok(names)
}
