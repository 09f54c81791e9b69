//! A snapshot as a file: written whole or not at all, and known to be what was written.
//!
//! ```text
//! "oddlog templates 2\n" | zstd(JSON) | SHA-256 of all before it
//! ```
//!
//! It is written beside its place, brought to disk and then moved there, so that a reader finds the old one or the new one,
//! whatever kills the writer. It does not know when that is done.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::templates::BookSnapshot;

const NAME: &str = "templates.snapshot";
const BEGINNING: &[u8] = b"oddlog templates ";
/// Change it with the form; who reads a version that it does not know sets it aside.
const VERSION: &str = "2";
/// Versions that are read. The first had no trust, and lists in full.
const READ: [&str; 2] = ["1", VERSION];
const SUM_BYTES: usize = 32;
/// Fast; templates shrink to a tenth all the same.
const ZSTD_LEVEL: i32 = 1;
/// Largest file, and largest JSON in it, in bytes: a million templates have less.
const MOST_BYTES: u64 = 4 << 30;

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is none, or broken, or of another version.
    #[error("{0}")]
    Content(String),
}

/// Where the snapshot is.
pub fn place(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// Where it is while this process writes it.
pub fn unfinished(dir: &Path) -> PathBuf {
    dir.join(format!("{NAME}.{}.tmp", std::process::id()))
}

/// Removes what processes left that were killed while they wrote.
///
/// # Errors
/// If the folder cannot be read or written.
pub fn clean(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(NAME) && name.ends_with(".tmp") {
            fs::remove_file(dir.join(&*name))?;
        }
    }
    Ok(())
}

/// Puts a snapshot into its place.
///
/// # Errors
/// If it cannot be written in whole: then the one before is still there, and nothing else.
pub fn write(dir: &Path, snapshot: &BookSnapshot) -> io::Result<()> {
    let beside = unfinished(dir);
    let written = write_to(&beside, snapshot).and_then(|()| fs::rename(&beside, place(dir)));
    if written.is_err() {
        // It may not be there at all.
        let _ = fs::remove_file(&beside);
    }
    written?;
    // The new name itself must outlive a power cut, too.
    File::open(dir)?.sync_all()
}

fn write_to(path: &Path, snapshot: &BookSnapshot) -> io::Result<()> {
    let mut summed = Summed { file: BufWriter::new(File::create(path)?), sum: Sha256::new() };
    summed.write_all(&[BEGINNING, VERSION.as_bytes(), b"\n"].concat())?;
    let mut json = BufWriter::new(zstd::Encoder::new(&mut summed, ZSTD_LEVEL)?);
    serde_json::to_writer(&mut json, snapshot)?;
    json.into_inner()?.finish()?;
    let Summed { mut file, sum } = summed;
    file.write_all(&sum.finalize())?;
    file.into_inner()?.sync_all()
}

/// Reads a snapshot.
///
/// # Errors
/// [`Unusable`].
pub fn read(path: &Path) -> Result<BookSnapshot, Unusable> {
    let content = |text: &str| Unusable::Content(text.to_owned());
    let file = File::open(path)?;
    if file.metadata()?.len() > MOST_BYTES {
        return Err(content("it is too large"));
    }
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    let rest = bytes.strip_prefix(BEGINNING).ok_or_else(|| content("it is no snapshot of templates"))?;
    let end = rest.iter().take(20).position(|byte| *byte == b'\n').ok_or_else(|| content("its version is broken"))?;
    let version = String::from_utf8_lossy(&rest[..end]);
    if !READ.contains(&&*version) {
        return Err(Unusable::Content(format!(
            "it has version {version}, and this program reads {}",
            READ.join(" and ")
        )));
    }
    let sum_at = bytes.len().saturating_sub(SUM_BYTES);
    if Sha256::digest(&bytes[..sum_at])[..] != bytes[sum_at..] {
        return Err(content("its checksum is wrong: it was cut off or changed"));
    }
    let begins = BEGINNING.len() + end + 1;
    let packed = bytes.get(begins..sum_at).ok_or_else(|| content("it has no content"))?;
    let json = zstd::Decoder::new(packed)?.take(MOST_BYTES);
    serde_json::from_reader(BufReader::new(json)).map_err(|error| Unusable::Content(error.to_string()))
}

/// Writes to a file and sums what it wrote.
struct Summed {
    file: BufWriter<File>,
    sum: Sha256,
}

impl Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.sum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
