//! The logs that models are compared on: a file's lines, or the challenge set that ships inside the program.

use std::path::Path;

use crate::error::StartError;

/// Most lines of a file that are read: more would only take longer.
const MOST: usize = 2000;

const SHIPPED: &str = include_str!("../../models/challenge/challenge.tsv");

/// The texts of the challenge set.
pub fn shipped_samples() -> Vec<String> {
    SHIPPED.lines().skip(1).filter_map(|row| row.split('\t').nth(2)).map(str::to_owned).collect()
}

/// The lines of `path` that are not blank, at most the first 2,000 different ones.
///
/// # Errors
/// [`StartError`] if the file cannot be read or has no line.
pub fn read_samples(path: &Path) -> Result<Vec<String>, StartError> {
    let what = format!("reading the samples {}", path.display());
    let bytes = std::fs::read(path).map_err(|source| StartError::Io { what, source })?;
    let text = String::from_utf8_lossy(&bytes);
    let mut seen = std::collections::HashSet::new();
    let lines = text.lines().filter(|line| !line.trim().is_empty() && seen.insert(*line));
    let lines: Vec<String> = lines.take(MOST).map(str::to_owned).collect();
    if lines.is_empty() {
        return Err(StartError::Config(format!("the samples {} have no line", path.display())));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_ones_are_logs() {
        let samples = shipped_samples();
        assert!(samples.len() >= 300 && samples.iter().all(|line| !line.contains('\t') && line.len() > 5));
    }

    #[test]
    fn a_file_gives_its_different_lines() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"a\n\n b\na\n\xff\n").unwrap();
        assert_eq!(read_samples(file.path()).unwrap(), ["a", " b", "\u{fffd}"]);
        std::fs::write(file.path(), b" \n").unwrap();
        assert!(read_samples(file.path()).unwrap_err().to_string().contains("no line"));
        assert!(read_samples(Path::new("/no/such/file")).is_err());
    }
}
