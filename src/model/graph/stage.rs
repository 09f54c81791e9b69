//! A directory that appears whole or not at all: filled under another name beside its place, brought to the disk, and
//! renamed. It does not know what is in it.
//!
//! ```text
//! parent/.NAME.oddlog-<process>.tmp   filled under a lock; removed on failure, or by the next one after a crash
//! parent/NAME                         exchanged for the finished one in a single step
//! ```

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};

use super::error::GraphError;

/// Marks a directory that oddlog made and may replace.
pub const MARKER: &str = "oddlog.json";

/// A directory on its way to its place.
pub struct Stage {
    place: PathBuf,
    parent: PathBuf,
    dir: PathBuf,
    /// Held as long as the process works on `dir`.
    _lock: File,
    published: bool,
}

impl Stage {
    /// An empty directory for what shall stand at `place`. Something that stands there already is replaced in the end if
    /// it is empty, if oddlog made it, or with `force`; but never if it holds `source`.
    ///
    /// # Errors
    /// [`GraphError::Place`] if the place cannot be taken, [`GraphError::Write`].
    pub fn new(place: &Path, source: &Path, force: bool) -> Result<Self, GraphError> {
        let refuse = |reason: &str| Err(GraphError::place(place, reason));
        let Some(name) = place.file_name().and_then(|name| name.to_str()) else {
            return refuse("it has no name that a directory can be given");
        };
        let parent = match place.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        if !parent.is_dir() {
            return Err(GraphError::place(&parent, "there is no such directory"));
        }
        if let (Ok(there), Ok(source)) = (place.canonicalize(), source.canonicalize())
            && source.starts_with(&there)
        {
            return refuse("it holds what is to be compiled; give another directory with --out");
        }
        if fs::symlink_metadata(place).is_ok_and(|found| !found.is_dir()) {
            return refuse("it is there already and is no directory");
        }
        if !force && holds_something_else(place) {
            return refuse(
                "it is there already and oddlog did not make it; --force replaces it, with all that is in it",
            );
        }
        remove_abandoned(&parent, name);
        let dir = parent.join(format!(".{name}.oddlog-{}.tmp", std::process::id()));
        fs::create_dir(&dir).map_err(GraphError::write(&dir))?;
        let lock = File::open(&dir).and_then(|lock| {
            flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
            Ok(lock)
        });
        match lock {
            Ok(_lock) => Ok(Self { place: place.to_owned(), parent, dir, _lock, published: false }),
            Err(source) => {
                let _ = fs::remove_dir(&dir);
                Err(GraphError::Write { path: dir, source })
            }
        }
    }

    /// Where to write.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Copies the file `from` into the directory.
    ///
    /// # Errors
    /// [`GraphError::Source`] if it cannot be read, [`GraphError::Write`].
    pub fn copy(&self, from: &Path, name: &str) -> Result<(), GraphError> {
        let bytes = fs::read(from).map_err(|e| GraphError::source_file(from, e))?;
        self.write(name, &bytes)
    }

    /// Writes a file into the directory.
    ///
    /// # Errors
    /// [`GraphError::Write`].
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), GraphError> {
        let to = self.dir.join(name);
        let written = fs::write(&to, bytes).and_then(|()| File::open(&to)?.sync_all());
        written.map_err(GraphError::write(&to))
    }

    /// Puts the directory, whose files are on the disk, into its place.
    ///
    /// # Errors
    /// [`GraphError::Write`]; what stood there stands there still.
    pub fn publish(mut self) -> Result<(), GraphError> {
        let fail = GraphError::write(&self.place);
        sync_dir(&self.dir).map_err(&fail)?;
        if self.place.exists() {
            // Now the old one has the name of the stage, and goes with it.
            renameat_with(CWD, &self.dir, CWD, &self.place, RenameFlags::EXCHANGE).map_err(|e| fail(e.into()))?;
        } else {
            fs::rename(&self.dir, &self.place).map_err(&fail)?;
            self.published = true;
        }
        sync_dir(&self.parent).map_err(&fail)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.published {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Whether there is something at `dir` that oddlog did not make.
fn holds_something_else(dir: &Path) -> bool {
    let Ok(mut entries) = fs::read_dir(dir) else { return dir.exists() };
    entries.next().is_some() && !dir.join(MARKER).is_file()
}

/// Removes the stages for `name` whose processes are gone. Nothing is lost if that fails.
fn remove_abandoned(parent: &Path, name: &str) {
    let prefix = format!(".{name}.oddlog-");
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_str().is_some_and(|n| n.starts_with(&prefix) && n.ends_with(".tmp"));
        if ours
            && let Ok(lock) = File::open(entry.path())
            && flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_directory_appears_whole_and_is_replaced_whole() {
        let parent = tempfile::tempdir().unwrap();
        let source = tempfile::tempdir().unwrap();
        let place = parent.path().join("model");
        for round in ["first", "second"] {
            let stage = Stage::new(&place, source.path(), false).unwrap();
            stage.write(MARKER, b"{}").unwrap();
            stage.write(round, round.as_bytes()).unwrap();
            assert_eq!(place.exists(), round == "second");
            stage.publish().unwrap();
            let mut expected = [round, MARKER];
            expected.sort_unstable();
            assert_eq!(names(&place), expected);
            assert_eq!(names(parent.path()), ["model"]);
        }
    }

    #[test]
    fn a_dropped_stage_leaves_the_old_directory_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let source = tempfile::tempdir().unwrap();
        let place = parent.path().join("model");
        for name in [MARKER, "new"] {
            let stage = Stage::new(&place, source.path(), false).unwrap();
            stage.write(name, b"").unwrap();
            if name == MARKER {
                stage.publish().unwrap();
            }
        }
        assert_eq!(names(parent.path()), ["model"]);
        assert_eq!(names(&place), [MARKER]);
    }

    #[test]
    fn what_oddlog_did_not_make_is_kept_unless_forced() {
        let parent = tempfile::tempdir().unwrap();
        let source = tempfile::tempdir().unwrap();
        let place = parent.path().join("model");
        let refused = |place: &Path, force: bool| Stage::new(place, source.path(), force).err().map(|e| e.to_string());
        fs::create_dir(&place).unwrap();
        assert_eq!(refused(&place, false), None);
        fs::write(place.join("thesis.tex"), "").unwrap();
        assert!(refused(&place, false).unwrap().contains("--force"));
        assert_eq!(refused(&place, true), None);
        assert!(refused(&parent.path().join("no/where"), true).unwrap().contains("no such directory"));
        assert!(refused(Path::new("/"), true).is_some() && refused(Path::new(".."), true).is_some());
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(refused(&file, true).unwrap().contains("no directory"));
        assert!(refused(source.path(), true).unwrap().contains("holds what is to be compiled"));
        assert_eq!(names(&place), ["thesis.tex"]);
    }

    #[test]
    fn what_a_crash_left_is_removed_but_not_what_is_in_work() {
        let parent = tempfile::tempdir().unwrap();
        let source = tempfile::tempdir().unwrap();
        let left = parent.path().join(".model.oddlog-1.tmp");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("model.onnx.data"), "half").unwrap();
        let busy = parent.path().join(".model.oddlog-2.tmp");
        fs::create_dir(&busy).unwrap();
        let lock = File::open(&busy).unwrap();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        let stage = Stage::new(&parent.path().join("model"), source.path(), false).unwrap();
        assert!(!left.exists() && busy.exists() && stage.dir().exists());
    }
}
