//! Chunks of bytes to lines. A line has a longest length; what is beyond is left out and counted.

use std::borrow::Cow;

/// One line, without its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its bytes, at most as many as allowed. LF and CR LF at the end are taken off.
    pub bytes: &'a [u8],
    /// Bytes that were left out behind them.
    pub cut: u64,
}

impl<'a> Line<'a> {
    /// The line as text: bytes that are no UTF-8 become replacement characters.
    pub fn text(&self) -> Cow<'a, str> {
        // Nearly all lines are valid, and this sees it several times as fast.
        std::str::from_utf8(self.bytes).map_or_else(|_| String::from_utf8_lossy(self.bytes), Cow::Borrowed)
    }
}

/// Splits chunks into lines, in memory bounded by one chunk and one longest line.
#[derive(Debug)]
pub struct Lines {
    chunk: Vec<u8>,
    at: usize,
    /// The beginning of a line whose end is in a later chunk; `whole` once it was given out.
    carry: Vec<u8>,
    carry_is_whole: bool,
    cut: u64,
    longest: usize,
}

impl Lines {
    /// For lines of at most `longest` bytes.
    pub fn new(longest: usize) -> Self {
        Self { chunk: Vec::new(), at: 0, carry: Vec::new(), carry_is_whole: false, cut: 0, longest }
    }

    /// The next chunk. Everything of the one before must have been taken.
    pub fn push(&mut self, chunk: Vec<u8>) {
        debug_assert_eq!(self.at, self.chunk.len(), "lines of the chunk before were not taken");
        self.chunk = chunk;
        self.at = 0;
    }

    /// The next line that ends in what was pushed.
    pub fn next_line(&mut self) -> Option<Line<'_>> {
        self.forget_given();
        let rest = &self.chunk[self.at..];
        let Some(end) = memchr::memchr(b'\n', rest) else {
            let kept = rest.len().min(self.longest.saturating_sub(self.carry.len()));
            self.carry.extend_from_slice(&rest[..kept]);
            self.cut += (rest.len() - kept) as u64;
            self.at = self.chunk.len();
            return None;
        };
        let start = self.at;
        self.at += end + 1;
        if self.carry.is_empty() && self.cut == 0 {
            return Some(shorten(&self.chunk[start..start + end], 0, self.longest));
        }
        let kept = end.min(self.longest.saturating_sub(self.carry.len()));
        self.carry.extend_from_slice(&self.chunk[start..start + kept]);
        self.carry_is_whole = true;
        let cut = self.cut + (end - kept) as u64;
        Some(shorten(&self.carry, cut, self.longest))
    }

    /// The line at the end of the input that has no end of its own.
    pub fn last_line(&mut self) -> Option<Line<'_>> {
        self.forget_given();
        if self.carry.is_empty() && self.cut == 0 {
            return None;
        }
        self.carry_is_whole = true;
        Some(shorten(&self.carry, self.cut, self.longest))
    }

    /// Whether a line has begun that has no end yet.
    pub fn is_in_a_line(&self) -> bool {
        !self.carry_is_whole && !self.carry.is_empty()
    }

    fn forget_given(&mut self) {
        if std::mem::take(&mut self.carry_is_whole) {
            self.carry.clear();
            self.cut = 0;
        }
    }
}

fn shorten(bytes: &[u8], cut: u64, longest: usize) -> Line<'_> {
    let kept = &bytes[..bytes.len().min(longest)];
    let cut = cut + (bytes.len() - kept.len()) as u64;
    Line { bytes: if cut == 0 { kept.strip_suffix(b"\r").unwrap_or(kept) } else { kept }, cut }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(chunks: &[&[u8]], longest: usize) -> Vec<(Vec<u8>, u64)> {
        let (mut lines, mut all) = (Lines::new(longest), Vec::new());
        for chunk in chunks {
            lines.push(chunk.to_vec());
            while let Some(line) = lines.next_line() {
                all.push((line.bytes.to_vec(), line.cut));
            }
        }
        all.extend(lines.last_line().map(|l| (l.bytes.to_vec(), l.cut)));
        assert!(lines.last_line().is_none());
        all
    }

    #[test]
    fn ends_of_both_kinds_and_none() {
        let line = |text: &str| (text.as_bytes().to_vec(), 0);
        assert_eq!(split(&[b"a\r\nb\n\n", b"c\r", b"\nd"], 99), [line("a"), line("b"), line(""), line("c"), line("d")]);
        assert_eq!(split(&[b"nul \0 and \xff stay\n"], 99), [(b"nul \0 and \xff stay".to_vec(), 0)]);
        assert!(split(&[b"", b""], 99).is_empty());
    }

    #[test]
    fn a_long_line_is_cut_and_says_so() {
        assert_eq!(split(&[b"abcdef\nab\n"], 4), [(b"abcd".to_vec(), 2), (b"ab".to_vec(), 0)]);
        assert_eq!(split(&[b"abc", b"defg", b"h\nx"], 4), [(b"abcd".to_vec(), 4), (b"x".to_vec(), 0)]);
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(
            text in proptest::collection::vec(proptest::sample::select(b"ab\r\n\xff".to_vec()), 0..200),
            cuts in proptest::collection::vec(0usize..200, 0..6),
            longest in 1usize..30,
        ) {
            let mut at: Vec<usize> = cuts.into_iter().map(|c| c.min(text.len())).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let chunks: Vec<&[u8]> = at.windows(2).map(|w| &text[w[0]..w[1]]).collect();
            let lines = split(&chunks, longest);
            prop_assert_eq!(&lines, &split(&[&text], longest));
            let total: u64 = lines.iter().map(|(bytes, cut)| bytes.len() as u64 + cut).sum();
            let ends = text.iter().filter(|b| **b == b'\n').count();
            // Nothing is lost but the ends: LF, and a CR before it.
            prop_assert!(total + ends as u64 <= text.len() as u64);
            prop_assert!(total + 2 * ends as u64 + 1 >= text.len() as u64);
            prop_assert!(lines.iter().all(|(bytes, _)| bytes.len() <= longest));
        }
    }
}
