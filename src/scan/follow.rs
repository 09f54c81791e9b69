//! One file that is read on as it grows, through rotation: renamed and made anew, or copied and truncated.
//!
//! It looks; when to look again is the caller's. A file that is cut and has grown beyond the old place between two looks
//! cannot be told from one that has only grown.

use std::{
    fs::{File, Metadata},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

/// What a look found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Bytes that were written.
    Bytes(usize),
    /// Nothing new.
    Nothing,
    /// What comes next is the beginning of a file: a line that was begun has no end.
    Rotated,
}

pub(super) struct Follow {
    path: PathBuf,
    file: Option<File>,
    at: u64,
    /// Whether the file under the name is another one, so that this one is read to its end first.
    replaced: bool,
}

impl Follow {
    /// Follows `path` from its beginning, or from its end.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(path: PathBuf, from_end: bool) -> io::Result<Self> {
        let mut file = File::open(&path)?;
        let at = if from_end { file.seek(SeekFrom::End(0))? } else { 0 };
        Ok(Self { path, file: Some(file), at, replaced: false })
    }

    /// Reads what is there into `into`, which has room for some.
    ///
    /// # Errors
    /// If the file cannot be read. One that is gone is no error: it may come back.
    pub fn look(&mut self, into: &mut [u8]) -> io::Result<Look> {
        let Some(file) = &mut self.file else {
            return Ok(match File::open(&self.path) {
                Ok(file) => {
                    (self.file, self.at, self.replaced) = (Some(file), 0, false);
                    Look::Rotated
                }
                Err(_) => Look::Nothing,
            });
        };
        let read = file.read(into)?;
        if read > 0 {
            self.at += read as u64;
            return Ok(Look::Bytes(read));
        }
        if std::mem::take(&mut self.replaced) {
            // It was read to its end after the other one was seen.
            self.file = None;
            return self.look(into);
        }
        let own = file.metadata()?;
        if own.len() < self.at {
            file.seek(SeekFrom::Start(0))?;
            self.at = 0;
            return Ok(Look::Rotated);
        }
        // Whoever writes may still write to the old one for a moment: it is read once more before it is left.
        self.replaced = std::fs::metadata(&self.path).is_ok_and(|named| !same(&own, &named));
        Ok(Look::Nothing)
    }
}

fn same(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::*;

    /// Looks until nothing is new twice, because a replaced file is left at the second look; `|` marks a rotation.
    fn all(follow: &mut Follow) -> String {
        let (mut out, mut quiet) = (String::new(), 0);
        while quiet < 2 {
            let mut into = [0; 3];
            match follow.look(&mut into).unwrap() {
                Look::Bytes(n) => out.push_str(std::str::from_utf8(&into[..n]).unwrap()),
                Look::Rotated => out.push('|'),
                Look::Nothing => quiet += 1,
            }
        }
        out
    }

    #[test]
    fn it_goes_on_through_both_kinds_of_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.log");
        fs::write(&path, "one\n").unwrap();
        let mut follow = Follow::open(path.clone(), false).unwrap();
        assert_eq!(all(&mut follow), "one\n");
        let mut old = fs::OpenOptions::new().append(true).open(&path).unwrap();
        old.write_all(b"two\n").unwrap();
        assert_eq!(all(&mut follow), "two\n");
        // Renamed; the writer goes on in the old file for a moment, the new one is not there yet.
        fs::rename(&path, dir.path().join("app.log.1")).unwrap();
        old.write_all(b"late").unwrap();
        assert_eq!(all(&mut follow), "late");
        fs::write(&path, "new\n").unwrap();
        assert_eq!(all(&mut follow), "|new\n");
        // Copied and truncated.
        fs::write(&path, "x\n").unwrap();
        assert_eq!(all(&mut follow), "|x\n");
        // Gone for good is no error.
        fs::remove_file(&path).unwrap();
        assert_eq!(all(&mut follow), "");
    }

    #[test]
    fn from_the_end_only_what_is_new() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "old\n").unwrap();
        let mut follow = Follow::open(file.path().into(), true).unwrap();
        assert_eq!(all(&mut follow), "");
        fs::OpenOptions::new().append(true).open(file.path()).unwrap().write_all(b"new\n").unwrap();
        assert_eq!(all(&mut follow), "new\n");
        assert!(Follow::open("/no/such.log".into(), false).is_err());
    }
}
