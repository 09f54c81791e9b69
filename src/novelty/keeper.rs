//! When snapshots are taken, and what becomes of those of earlier processes.

use std::{
    fs, io,
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use super::{
    file::{self, Unusable},
    unix_ms,
};
use crate::{
    config::Templates,
    error::StartError,
    templates::{Book, BookSnapshot, Settings},
};

/// The folder of snapshots and what is known of the last one.
pub struct Keeper {
    dir: PathBuf,
    interval: Duration,
    /// The book's count of changes when the last snapshot was taken. Held while one is written.
    written: Mutex<u64>,
    /// Until when everything is on disk, in ms since the Unix epoch. Beside the lock, so that a disk that hangs shows.
    kept_until_ms: AtomicU64,
}

impl Keeper {
    /// Makes the folder if need be, and sees that it can be written.
    ///
    /// # Errors
    /// [`StartError::Io`] if not.
    pub fn open(config: &Templates, now: SystemTime) -> Result<Self, StartError> {
        let dir = PathBuf::from(&config.snapshot_dir);
        let broken = |source| StartError::Io {
            what: format!("templates.snapshot_dir = {:?} cannot be written", config.snapshot_dir),
            source,
        };
        fs::create_dir_all(&dir).map_err(broken)?;
        file::clean(&dir).map_err(broken)?;
        let probe = file::unfinished(&dir);
        fs::write(&probe, "oddlog was here").and_then(|()| fs::remove_file(&probe)).map_err(broken)?;
        let interval = Duration::from_secs(config.snapshot_interval_s);
        Ok(Self { dir, interval, written: Mutex::new(0), kept_until_ms: AtomicU64::new(unix_ms(now)) })
    }

    /// The book of the last snapshot; `None` if there is none, or none that can be used: that one is set aside.
    ///
    /// # Errors
    /// [`StartError::Io`] if it cannot be read: whoever writes over it would lose what it has.
    pub fn load(&self, settings: Settings, now: SystemTime) -> Result<Option<Book>, StartError> {
        let path = self.file();
        let broken = |source| StartError::Io { what: format!("reading {}", path.display()), source };
        let reason = match file::read(&path) {
            Ok(snapshot) => match Book::restore(settings, snapshot) {
                Ok(book) => {
                    let (templates, logs) = (book.len(), book.seen());
                    tracing::info!(templates, logs, file = %path.display(), "templates of an earlier process");
                    return Ok(Some(book));
                }
                Err(reason) => reason,
            },
            Err(Unusable::Io(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(Unusable::Io(error)) => return Err(broken(error)),
            Err(Unusable::Content(reason)) => reason,
        };
        let aside = path.with_extension(format!("snapshot.{}.aside", unix_ms(now)));
        fs::rename(&path, &aside).map_err(broken)?;
        tracing::warn!(
            reason, aside = %aside.display(),
            "the snapshot of templates cannot be used and was set aside; counts begin anew"
        );
        Ok(None)
    }

    /// Writes what `copy` gives, which is asked for changes since the given count; whether there were any. One at a time,
    /// so that an older snapshot never takes the place of a newer one.
    ///
    /// # Errors
    /// If it cannot be written. The one before stays.
    pub fn save(&self, copy: impl FnOnce(u64) -> Option<(u64, BookSnapshot)>, now: SystemTime) -> io::Result<bool> {
        let mut written = self.written();
        let copied = copy(*written);
        if let Some((changes, snapshot)) = &copied {
            file::write(&self.dir, snapshot)?;
            *written = *changes;
        }
        self.kept_until_ms.store(unix_ms(now), Ordering::Relaxed);
        Ok(copied.is_some())
    }

    /// Time since everything was on disk.
    pub fn age(&self, now: SystemTime) -> Duration {
        Duration::from_millis(unix_ms(now).saturating_sub(self.kept_until_ms.load(Ordering::Relaxed)))
    }

    /// Time between two snapshots.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Where the snapshot is.
    pub fn file(&self) -> PathBuf {
        file::place(&self.dir)
    }

    fn written(&self) -> MutexGuard<'_, u64> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
