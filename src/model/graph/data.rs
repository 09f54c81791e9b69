//! The external data file of a graph: initializers one behind the other, aligned for memory mapping.
//! It does not know what they are.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use super::error::GraphError;

/// Initializers of this size begin on a page, so that a map of one touches no page of another.
const LARGE: u64 = 64 * 1024;
const PAGE: u64 = 4096;
/// Any initializer begins on a cache line.
const LINE: u64 = 64;

/// A data file that is being written.
pub struct DataFile {
    path: PathBuf,
    out: BufWriter<File>,
    written: u64,
}

impl DataFile {
    /// A new file; one that is there already is an error.
    ///
    /// # Errors
    /// [`GraphError::Write`].
    pub fn create(path: &Path) -> Result<Self, GraphError> {
        let file = File::create_new(path).map_err(GraphError::write(path))?;
        Ok(Self { path: path.to_owned(), out: BufWriter::with_capacity(1 << 20, file), written: 0 })
    }

    /// Pads the file to where an initializer of `length` bytes may begin; returns that offset.
    ///
    /// # Errors
    /// [`GraphError::Write`].
    pub fn align(&mut self, length: u64) -> Result<u64, GraphError> {
        let offset = self.written.next_multiple_of(if length >= LARGE { PAGE } else { LINE });
        let padding = usize::try_from(offset - self.written).expect("less than a page");
        self.append(&[0; PAGE as usize][..padding])?;
        Ok(offset)
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`GraphError::Write`].
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), GraphError> {
        self.out.write_all(bytes).map_err(GraphError::write(&self.path))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Brings everything to the disk; returns the file's size in bytes.
    ///
    /// # Errors
    /// [`GraphError::Write`].
    pub fn finish(self) -> Result<u64, GraphError> {
        let Self { path, out, written } = self;
        out.into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all())
            .map_err(GraphError::write(&path))?;
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_initializers_begin_on_a_page_small_ones_on_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.onnx.data");
        let mut data = DataFile::create(&path).unwrap();
        let mut offsets = Vec::new();
        for size in [1000, 70, LARGE as usize, 1, 3] {
            offsets.push(data.align(size as u64).unwrap());
            data.append(&vec![7; size]).unwrap();
        }
        assert_eq!(offsets, [0, 1024, 4096, 4096 + LARGE, 4096 + LARGE + 64]);
        let written = data.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!((bytes.len() as u64, bytes[1000], bytes[1024]), (written, 0, 7));
        assert!(DataFile::create(&path).is_err());
    }
}
