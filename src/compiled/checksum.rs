//! Checksums of large files that are asked for at every start: read whole once, remembered while the file stays as it is.
//!
//! Weights of several hundred megabytes take half a second to read, and more where the processor has no instruction for it.
//! A file counts as unchanged if device, inode, size and both times are those of when it was read: whoever writes to it
//! changes them. It does not know what the files are.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{error::StartError, model::ModelFiles};

/// A file younger than this may change again within the same tick of its clock, so it is not remembered.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// What says that a file is the same as before.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds of the last change of content.
    modified: (i64, i64),
    /// Seconds and nanoseconds of the last change of content or owner, name and the like; nobody can set it.
    changed: (i64, i64),
}

/// What is kept, as JSON, in a file of its own.
#[derive(Serialize, Deserialize)]
struct Memory {
    file: Identity,
    sha256: String,
}

impl Identity {
    fn of(path: &Path, metadata: &Metadata) -> Self {
        Self {
            path: path.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let last = self.modified.0.max(self.changed.0);
        u64::try_from(last).is_ok_and(|last| Duration::from_secs(last) + SETTLED_AFTER < now)
    }
}

/// SHA-256 of the file `path` in hexadecimal, from the folder `memory` if it was read before; else it is remembered
/// there. `now` is the time.
///
/// # Errors
/// [`StartError::Io`] if the file cannot be read. If nothing can be remembered, that costs time at the next start only.
pub fn remembered(path: &Path, memory: &Path, now: SystemTime) -> Result<String, StartError> {
    let fail = |source| StartError::Io { what: format!("reading {}", path.display()), source };
    let real = path.canonicalize().map_err(fail)?;
    let identity = || Ok(Identity::of(&real, &fs::metadata(&real).map_err(fail)?));
    let name = hex(&Sha256::digest(real.as_os_str().as_encoded_bytes()));
    let place = memory.join(format!("{}.sha256.json", &name[..16]));
    let before = identity()?;
    let known = fs::read(&place).ok().and_then(|text| serde_json::from_slice::<Memory>(&text).ok());
    if let Some(Memory { sha256, .. }) = known.filter(|known| known.file == before) {
        return Ok(sha256);
    }
    let sha256 = of(&real)?;
    if before.settled(now) && before == identity()? {
        let known = Memory { file: before, sha256: sha256.clone() };
        if let Err(error) = keep(&place, &known) {
            tracing::warn!(file = %place.display(), %error, "the weights' checksum could not be kept");
        }
    }
    Ok(sha256)
}

/// SHA-256 of the file `path` in hexadecimal.
///
/// # Errors
/// [`StartError::Io`] if the file cannot be read.
pub fn of(path: &Path) -> Result<String, StartError> {
    let fail = |source| StartError::Io { what: format!("reading {}", path.display()), source };
    let (mut file, mut sum) = (File::open(path).map_err(fail)?, Sha256::new());
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(fail)? {
            0 => return Ok(hex(&sum.finalize())),
            n => sum.update(&buffer[..n]),
        }
    }
}

/// A name for the model that these files are, in hexadecimal: what it reads and how, whatever folder it is in, and which of
/// its graphs is run.
///
/// # Errors
/// [`StartError::Io`] if a file cannot be read.
pub fn of_model(files: &ModelFiles) -> Result<String, StartError> {
    let folder = files.onnx.parent().unwrap_or(Path::new("."));
    let fail = |source| StartError::Io { what: format!("reading {}", folder.display()), source };
    let mut parts = vec![files.config.clone(), files.tokenizer.clone()];
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        // The graph, and weights that lie beside it.
        if path.is_file() && path.file_name().is_some_and(|name| name.to_string_lossy().contains(".onnx")) {
            parts.push(path);
        }
    }
    parts.sort();
    let mut sum = Sha256::new();
    sum.update(files.onnx.file_name().unwrap_or_default().as_encoded_bytes());
    for part in parts {
        sum.update(part.file_name().unwrap_or_default().as_encoded_bytes());
        sum.update(of(&part)?);
    }
    Ok(hex(&sum.finalize()))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes it under another name first, so that nobody reads half of it.
fn keep(place: &Path, memory: &Memory) -> io::Result<()> {
    let folder = place.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&mut file, memory)?;
    file.persist(place)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later() -> SystemTime {
        SystemTime::now() + Duration::from_secs(60)
    }

    fn memories(folder: &Path) -> Vec<PathBuf> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn a_file_that_stays_the_same_is_read_once() {
        let (files, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = files.path().join("weights");
        fs::write(&path, "abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(of(&path).unwrap(), abc);
        assert_eq!(remembered(&path, folder.path(), later()).unwrap(), abc);
        let [place] = &memories(folder.path())[..] else { panic!("one file is remembered") };
        // What is remembered is what is answered: the file is not read again.
        let text = fs::read_to_string(place).unwrap();
        fs::write(place, text.replace(abc, "remembered")).unwrap();
        assert_eq!(remembered(&path, folder.path(), later()).unwrap(), "remembered");
        // Other content of the same size is noticed, and so is a memory that makes no sense.
        fs::write(&path, "abd").unwrap();
        let abd = of(&path).unwrap();
        assert_eq!(remembered(&path, folder.path(), later()).unwrap(), abd);
        fs::write(place, "{").unwrap();
        assert_eq!(remembered(&path, folder.path(), later()).unwrap(), abd);
        // A file put in its place with the old times is another one.
        let other = files.path().join("other");
        fs::write(&other, "abc").unwrap();
        let times = fs::metadata(&path).unwrap().modified().unwrap();
        File::options().write(true).open(&other).unwrap().set_modified(times).unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(remembered(&path, folder.path(), later()).unwrap(), abc);
    }

    #[test]
    fn a_model_is_its_content_wherever_it_is() {
        let model = |weights: &str| {
            let dir = tempfile::tempdir().unwrap();
            let all =
                [("config.json", "{}"), ("tokenizer.json", "{}"), ("model.onnx", "g"), ("model.onnx.data", weights)];
            all.iter().for_each(|(name, text)| fs::write(dir.path().join(name), text).unwrap());
            fs::write(dir.path().join("README.md"), format!("{:?}", dir.path())).unwrap();
            let files = ModelFiles::find(dir.path()).unwrap();
            let twin = ModelFiles { onnx: dir.path().join("model_fp32.onnx"), ..files.clone() };
            [files, twin].map(|files| of_model(&files).unwrap())
        };
        let [own, twin] = model("w");
        assert_eq!(model("w"), [own.clone(), twin.clone()]);
        assert_ne!(model("v"), [own.clone(), twin.clone()]);
        assert_ne!(own, twin, "another graph of the same folder is run");
    }

    #[test]
    fn what_may_still_change_is_not_remembered() {
        let (files, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = files.path().join("weights");
        fs::write(&path, "abc").unwrap();
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        remembered(&path, folder.path(), written).unwrap();
        remembered(&path, folder.path(), written + Duration::from_secs(1)).unwrap();
        assert_eq!(memories(folder.path()), Vec::<PathBuf>::new());
        // A folder that cannot be written to costs nothing but time.
        assert_eq!(remembered(&path, &path.join("none"), later()).unwrap(), of(&path).unwrap());
        assert!(remembered(&files.path().join("none"), folder.path(), later()).is_err());
    }
}
