//! What a download reports while it runs. It does not know how, or whether, that is shown.

use std::{path::Path, time::Duration};

use super::error::HubError;

/// One report of [`Hub::fetch`](super::Hub::fetch).
#[derive(Debug)]
#[allow(missing_docs, reason = "each variant is documented together with its fields")]
pub enum Progress<'a> {
    /// Bytes on disk, of all bytes of all files. `done` falls back when a file has to start afresh.
    Bytes { file: &'a str, done: u64, total: u64 },
    /// The checksum of `file` is being computed.
    Verifying { file: &'a str },
    /// An attempt failed; the next one follows after `wait`.
    Retry { what: &'a str, reason: &'a HubError, wait: Duration },
    /// Another process holds the lock of `file`, and is waited for.
    LockHeld { file: &'a str, lock: &'a Path },
    /// A file in the cache does not have its checksum and was removed.
    Damaged { file: &'a str },
    /// The hub cannot be reached; the snapshot in the cache is used.
    CacheUsed { reason: &'a HubError },
}
