//! The checksum that an ETag of the hub is, and its proof against a file.
//!
//! Large files carry their sha256, small ones their git blob sha1. It does not know where the ETag came from.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::Path,
};

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// Bytes read at a time.
const CHUNK: usize = 256 * 1024;

/// A checksum in lower-case hexadecimal; also the blob's file name in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Digest {
    /// sha256 of the content (files in large file storage).
    Sha256(String),
    /// sha1 of `"blob <length>\0"` and the content (files in git itself).
    GitSha1(String),
}

impl Digest {
    /// Reads an ETag header value, quoted or not, weak or not; `None` when it is not one of the two checksums.
    pub fn from_etag(etag: &str) -> Option<Self> {
        let text = etag.trim();
        let text = text.strip_prefix("W/").unwrap_or(text).trim_matches('"');
        if !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        match text.len() {
            64 => Some(Self::Sha256(text.to_owned())),
            40 => Some(Self::GitSha1(text.to_owned())),
            _ => None,
        }
    }

    pub fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::GitSha1(hex) => hex,
        }
    }

    /// Whether the file at `path` has this checksum; reads all of it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn matches(&self, path: &Path) -> io::Result<bool> {
        let mut file = File::open(path)?;
        let found = match self {
            Self::Sha256(_) => digest_of(Sha256::new(), &mut file)?,
            Self::GitSha1(_) => {
                let length = file.metadata()?.len();
                digest_of(Sha1::new_with_prefix(format!("blob {length}\0")), &mut file)?
            }
        };
        Ok(found == self.hex())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(hex) => write!(f, "sha256 {hex}"),
            Self::GitSha1(hex) => write!(f, "git sha1 {hex}"),
        }
    }
}

fn digest_of<D: sha2::Digest>(mut state: D, content: &mut impl Read) -> io::Result<String> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match content.read(&mut chunk) {
            Ok(0) => break,
            Ok(n) => state.update(&chunk[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(state.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf 'hello\n' | git hash-object --stdin` and `| sha256sum`.
    const HELLO_GIT: &str = "ce013625030ba8dba906f756967f9e9ca394464a";
    const HELLO_SHA256: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

    #[test]
    fn both_kinds_prove_the_content_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (good, bad) = (dir.path().join("good"), dir.path().join("bad"));
        std::fs::write(&good, "hello\n").unwrap();
        std::fs::write(&bad, "hellO\n").unwrap();
        for etag in [HELLO_GIT, HELLO_SHA256] {
            let digest = Digest::from_etag(etag).unwrap();
            assert!(digest.matches(&good).unwrap(), "{digest}");
            assert!(!digest.matches(&bad).unwrap(), "{digest}");
        }
    }

    #[test]
    fn etags_are_read_in_every_dress_and_others_refused() {
        for dressed in [format!("\"{HELLO_GIT}\""), format!("W/\"{HELLO_GIT}\""), format!(" {HELLO_GIT} ")] {
            assert_eq!(Digest::from_etag(&dressed), Some(Digest::GitSha1(HELLO_GIT.into())), "{dressed}");
        }
        for other in ["", "\"\"", "../../etc/passwd", "d41d8cd98f00b204e9800998ecf8427e", &format!("{HELLO_GIT}-gzip")]
        {
            assert_eq!(Digest::from_etag(other), None, "{other}");
        }
    }
}
