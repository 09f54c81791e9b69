//! Bringing one file's bytes into the cache: resumed where they broke off, verified before they get their name.
//!
//! ```text
//! <etag>.incomplete  --append, from byte n-->  full size  --checksum-->  blobs/<etag>
//!        ^-- kept when the connection breaks          `-- removed when it is wrong, once more from the start
//! ```
//!
//! Every attempt asks the hub anew, so that an expired storage address replaces itself. It does not know snapshots.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use ureq::http::{
    StatusCode,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, TRANSFER_ENCODING},
};

use super::{
    Progress,
    address::file_url,
    cache::RepoCache,
    client::{Client, Reply},
    error::HubError,
    lock::BlobLock,
    refusal::{Asked, judge},
    remote::RemoteFile,
    repo::RepoId,
    retry::{Fault, retrying},
    space::free_bytes,
};

/// Bytes read from the network at a time.
const CHUNK: usize = 256 * 1024;

/// An attempt that brought this many bytes does not count as one in vain.
const ADVANCE: u64 = 1 << 20;

/// Times that a file is fetched whole when its content proves wrong.
const ROUNDS: usize = 2;

pub(super) struct Transfer<'a> {
    pub client: &'a Client<'a>,
    pub cache: &'a RepoCache,
    pub repo: &'a RepoId,
    pub commit: &'a str,
    /// Bytes of the files that are in place.
    pub settled: u64,
    /// Bytes of all files.
    pub total: u64,
}

impl Transfer<'_> {
    /// Sees to it that the blob of `file` is in the cache.
    ///
    /// # Errors
    /// When it cannot be had; what has arrived is kept unless its content is wrong.
    pub fn obtain(&mut self, file: &RemoteFile, progress: &mut dyn FnMut(Progress<'_>)) -> Result<(), HubError> {
        if !self.cache.has(file) {
            let timeout = self.client.hub().limits.lock_timeout;
            let _lock = BlobLock::acquire(&self.cache.lock(&file.digest), &file.name, timeout, progress)?;
            // Whoever held the lock may have brought it.
            if !self.cache.has(file) {
                self.download(file, progress)?;
            }
        }
        self.settled += file.size;
        progress(Progress::Bytes { file: &file.name, done: self.settled, total: self.total });
        Ok(())
    }

    fn download(&self, file: &RemoteFile, progress: &mut dyn FnMut(Progress<'_>)) -> Result<(), HubError> {
        let partial = self.cache.partial(&file.digest);
        let at_partial = |e| HubError::io(&partial, e);
        let mut damage = HubError::Corrupt { file: file.name.clone(), expected: file.digest.to_string() };
        for _ in 0..ROUNDS {
            let limits = &self.client.hub().limits;
            match retrying(limits, &file.name, progress, |progress| self.attempt(file, &partial, progress)) {
                Ok(()) => {
                    progress(Progress::Verifying { file: &file.name });
                    if file.digest.matches(&partial).map_err(at_partial)? {
                        return File::open(&partial)
                            .and_then(|whole| whole.sync_all())
                            .and_then(|()| fs::rename(&partial, self.cache.blob(&file.digest)))
                            .map_err(at_partial);
                    }
                }
                Err(wrong @ HubError::WrongSize { .. }) => damage = wrong,
                Err(error) => return Err(error),
            }
            discard(&partial)?;
        }
        Err(damage)
    }

    /// One request; afterwards `partial` has the full size, or the fault says why not.
    fn attempt(&self, file: &RemoteFile, partial: &Path, progress: &mut dyn FnMut(Progress<'_>)) -> Result<(), Fault> {
        let have = length(partial);
        if have == file.size && partial.exists() {
            return Ok(());
        }
        if have > file.size {
            discard(partial)?;
            return self.attempt(file, partial, progress);
        }
        let url = file_url(self.client.endpoint(), self.repo, self.commit, &file.name);
        let reply = self.client.get(&url, have)?;
        let start = match reply.response.status() {
            StatusCode::PARTIAL_CONTENT if range_start(&reply) == Some(have) => have,
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => {
                discard(partial)?;
                return Err(Fault::transient(self.broken_off(&reply.host, file, 0, "it resumed at another place")));
            }
            _ => return Err(judge(self.client.hub(), Asked { repo: self.repo, file: Some(&file.name) }, &reply)),
        };
        if let Some(rest) = announced_length(&reply).filter(|&rest| rest != file.size - start) {
            return Err(wrong_size(&reply.host, file, start.saturating_add(rest)));
        }
        let mut output = open_at(partial, start).map_err(|e| self.write_error(partial, file.size - start, e))?;
        self.copy(reply, file, start, &mut output, progress)
    }

    fn copy(
        &self,
        reply: Reply,
        file: &RemoteFile,
        start: u64,
        output: &mut File,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), Fault> {
        let chunked = reply.response.headers().contains_key(TRANSFER_ENCODING);
        let Reply { response, host, .. } = reply;
        let mut body = response.into_body().into_reader();
        let mut chunk = vec![0; CHUNK];
        let mut done = start;
        while done < file.size {
            let reason = match body.read(&mut chunk) {
                // A chunked body that ends says itself that this was all.
                Ok(0) if chunked => return Err(wrong_size(&host, file, done)),
                Ok(0) => "it ended early".to_owned(),
                Ok(n) if done + n as u64 > file.size => return Err(wrong_size(&host, file, done + n as u64)),
                Ok(n) => {
                    output
                        .write_all(&chunk[..n])
                        .map_err(|e| self.write_error(&self.cache.blobs(), file.size - done, e))?;
                    done += n as u64;
                    progress(Progress::Bytes { file: &file.name, done: self.settled + done, total: self.total });
                    continue;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => e.to_string(),
            };
            let error = self.broken_off(&host, file, done, &reason);
            return Err(Fault::Transient { error, retry_after: None, advanced: done >= start + ADVANCE });
        }
        Ok(())
    }

    fn broken_off(&self, host: &str, file: &RemoteFile, done: u64, reason: &str) -> HubError {
        let (host, file, size) = (host.to_owned(), file.name.clone(), file.size);
        HubError::BrokenOff { host, file, done, size, reason: reason.to_owned() }
    }

    fn write_error(&self, path: &Path, needed: u64, error: io::Error) -> HubError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                let dir = self.cache.blobs();
                HubError::DiskFull { free: free_bytes(&dir), dir, needed }
            }
            _ => HubError::io(path, error),
        }
    }
}

fn wrong_size(host: &str, file: &RemoteFile, got: u64) -> Fault {
    Fault::Fatal(HubError::WrongSize { host: host.to_owned(), file: file.name.clone(), expected: file.size, got })
}

/// Bytes in the file at `path`; 0 when there is none.
pub(super) fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

fn discard(path: &Path) -> Result<(), HubError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(HubError::io(path, e)),
        _ => Ok(()),
    }
}

/// Opens `path` for writing at byte `start`, dropping what stands behind it.
fn open_at(path: &Path, start: u64) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    if file.metadata()?.len() != start {
        file.set_len(start)?;
    }
    file.seek(SeekFrom::Start(start))?;
    Ok(file)
}

/// Bytes that the body will have; `None` when the reply does not say, or says it of a compressed form.
fn announced_length(reply: &Reply) -> Option<u64> {
    let headers = reply.response.headers();
    if headers.contains_key(CONTENT_ENCODING) {
        return None;
    }
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The first byte of a partial reply: `Content-Range: bytes <start>-<end>/<size>`.
fn range_start(reply: &Reply) -> Option<u64> {
    let range = reply.response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}
