//! One download of a file at a time, among threads and processes.
//!
//! The lock files are those of Python's huggingface_hub (`.locks/<repo>/<etag>.lock`, `flock`), so that both wait
//! for each other. It does not know what is protected. A broken lock costs bandwidth, never correctness: content is
//! verified and renamed into place.

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::Path,
    time::{Duration, Instant},
};

use super::{Progress, error::HubError, retry::pause};

/// Between two looks at a lock that is held.
const POLL: Duration = Duration::from_millis(100);

/// Held until dropped, or until the process ends in whatever way.
pub(super) struct BlobLock {
    _file: Option<File>,
}

impl BlobLock {
    /// Takes the lock at `path`, waiting at most `timeout` for whoever holds it.
    ///
    /// # Errors
    /// [`HubError::Locked`] when the time is over, [`HubError::Io`] when the lock file cannot be made.
    pub fn acquire(
        path: &Path,
        file: &str,
        timeout: Duration,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Self, HubError> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(|e| HubError::io(dir, e))?;
        }
        let handle = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|e| HubError::io(path, e))?;
        let deadline = Instant::now() + timeout;
        let mut told = false;
        loop {
            match handle.try_lock() {
                Ok(()) => return Ok(Self { _file: Some(handle) }),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                    return Err(HubError::Locked { lock: path.to_owned(), waited: timeout });
                }
                Err(TryLockError::WouldBlock) => {
                    if !told {
                        progress(Progress::LockHeld { file, lock: path });
                        told = true;
                    }
                    pause(POLL.min(deadline.saturating_duration_since(Instant::now())));
                }
                // Some network file systems know no locks; see above for why that is bearable.
                Err(TryLockError::Error(_)) => return Ok(Self { _file: None }),
            }
        }
    }
}
