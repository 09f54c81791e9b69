//! The lines that are measured with: the user's own, or the samples that ship inside the program.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use crate::{error::StartError, fidelity::shipped_samples};

/// Most lines that are kept.
const MOST: usize = 4096;

/// Most bytes of a file that are read.
const MOST_BYTES: u64 = 256 << 20;

/// Longest line that is kept, in bytes; the rest of it is left out. No model reads as much.
const LONGEST: usize = 64 << 10;

/// The same on every run, so that two runs measure the same.
const SEED: u64 = 0x0dd_106;

/// The samples that ship inside the program, shuffled.
pub fn built_in_lines() -> Vec<String> {
    let mut lines = shipped_samples();
    fastrand::Rng::with_seed(SEED).shuffle(&mut lines);
    lines
}

/// A sample of the lines of `path` that are not blank, from all over its first 256 MiB, shuffled. Repeated lines stay,
/// because the server sees them, too.
///
/// # Errors
/// [`StartError`] if the file cannot be read or has no such line.
pub fn read_lines(path: &Path) -> Result<Vec<String>, StartError> {
    let failed = |source| StartError::Io { what: format!("reading the lines {}", path.display()), source };
    let mut input = BufReader::new(File::open(path).map_err(failed)?.take(MOST_BYTES));
    let mut random = fastrand::Rng::with_seed(SEED);
    let (mut lines, mut seen) = (Vec::new(), 0);
    while let Some(line) = next_line(&mut input).map_err(failed)? {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\r', '\n']);
        if text.trim().is_empty() {
            continue;
        }
        seen += 1;
        // Reservoir sampling: each line seen so far is kept with the same chance.
        match random.usize(0..seen) {
            _ if lines.len() < MOST => lines.push(text.to_owned()),
            at if at < MOST => text.clone_into(&mut lines[at]),
            _ => {}
        }
    }
    if lines.is_empty() {
        return Err(StartError::Config(format!("the lines {}: there is no line that is not blank", path.display())));
    }
    random.shuffle(&mut lines);
    Ok(lines)
}

/// The next line, cut to [`LONGEST`] bytes; `None` at the end.
fn next_line(input: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    if input.by_ref().take(LONGEST as u64).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        input.skip_until(b'\n')?;
    }
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(bytes: &[u8]) -> Result<Vec<String>, StartError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        read_lines(file.path())
    }

    #[test]
    fn blank_lines_are_skipped_and_the_order_is_another_but_always_the_same() {
        let text: String = (0..100).map(|i| format!("line {i}\r\n  \n")).collect();
        let lines = lines_of(text.as_bytes()).unwrap();
        assert_eq!(lines, lines_of(text.as_bytes()).unwrap());
        let given: Vec<String> = (0..100).map(|i| format!("line {i}")).collect();
        assert_ne!(lines, given);
        let mut sorted = lines.clone();
        sorted.sort_by_key(|l| l[5..].parse::<u32>().unwrap());
        assert_eq!(sorted, given);
        assert_eq!(lines_of(b"a \xff b").unwrap(), ["a \u{fffd} b"]);
    }

    #[test]
    fn a_long_file_gives_lines_from_all_over_it_and_a_long_line_its_beginning() {
        let text: String = (0..20_000).map(|i| format!("{i}\n")).collect();
        let lines = lines_of(text.as_bytes()).unwrap();
        assert_eq!(lines.len(), MOST);
        let late = lines.iter().filter(|l| l.parse::<u32>().unwrap() >= 10_000).count();
        assert!((1700..2400).contains(&late), "{late} of {MOST} from the second half");
        let long = [vec![b'x'; 3 * LONGEST], b"\nshort".to_vec()].concat();
        let mut lengths: Vec<usize> = lines_of(&long).unwrap().iter().map(String::len).collect();
        lengths.sort_unstable();
        assert_eq!(lengths, [5, LONGEST]);
    }

    #[test]
    fn no_file_and_no_line_are_errors_that_name_the_file() {
        assert!(read_lines(Path::new("/no/such.log")).unwrap_err().to_string().contains("/no/such.log"));
        for empty in [&b""[..], b"\n \n\t\r\n"] {
            assert!(lines_of(empty).unwrap_err().to_string().contains("not blank"));
        }
        let mut built_in = built_in_lines();
        assert_ne!(built_in, shipped_samples());
        let mut shipped = shipped_samples();
        built_in.sort();
        shipped.sort();
        assert_eq!(built_in, shipped);
    }
}
