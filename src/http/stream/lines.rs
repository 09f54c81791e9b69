//! Bytes to lines, however they are cut into chunks. Pure; it does not know what a line says.

use std::mem;

/// Cuts lines at `\n`; a `\r` before it belongs to it. At most one line is kept, up to its limit.
#[derive(Debug)]
pub struct Lines {
    max: usize,
    begun: Vec<u8>,
    /// The rest of a line that was too long is passed over.
    skipping: bool,
    /// Lines that came out.
    count: u64,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number, from 1, blank lines included.
    pub number: u64,
    /// Its bytes without the end; `None` if it is longer than allowed.
    pub bytes: Option<Vec<u8>>,
}

impl Lines {
    /// Lines of at most `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { max, begun: Vec::new(), skipping: false, count: 0 }
    }

    /// The number of the next line.
    pub fn next_number(&self) -> u64 {
        self.count + 1
    }

    /// Takes bytes from the front of `unread` up to the end of a line, or all of them. A line that is too long comes
    /// out as soon as that is known.
    pub fn next(&mut self, unread: &mut &[u8]) -> Option<Line> {
        while !unread.is_empty() {
            let end = unread.iter().position(|byte| *byte == b'\n');
            let (part, rest) = unread.split_at(end.unwrap_or(unread.len()));
            *unread = if end.is_some() { &rest[1..] } else { rest };
            if self.skipping {
                self.skipping = end.is_none();
                continue;
            }
            if self.begun.len() + part.len() > self.max {
                self.begun = Vec::new();
                self.skipping = end.is_none();
                return Some(self.line(None));
            }
            self.begun.extend_from_slice(part);
            if end.is_some() {
                return Some(self.whole());
            }
        }
        None
    }

    /// The last line, if it has no end.
    pub fn last(&mut self) -> Option<Line> {
        (!self.begun.is_empty()).then(|| self.whole())
    }

    fn whole(&mut self) -> Line {
        let mut bytes = mem::take(&mut self.begun);
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        if self.count == 0 && bytes.starts_with(b"\xef\xbb\xbf") {
            bytes.drain(..3);
        }
        self.line(Some(bytes))
    }

    fn line(&mut self, bytes: Option<Vec<u8>>) -> Line {
        self.count += 1;
        Line { number: self.count, bytes }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines<'c>(max: usize, chunks: impl IntoIterator<Item = &'c [u8]>) -> Vec<Line> {
        let (mut lines, mut found) = (Lines::new(max), Vec::new());
        for mut chunk in chunks {
            while let Some(line) = lines.next(&mut chunk) {
                found.push(line);
            }
            assert!(chunk.is_empty() && lines.begun.len() <= max);
        }
        found.extend(lines.last());
        found
    }

    fn texts(max: usize, text: &str) -> Vec<(u64, Option<String>)> {
        let text_of = |bytes| String::from_utf8(bytes).unwrap();
        lines(max, [text.as_bytes()]).into_iter().map(|line| (line.number, line.bytes.map(text_of))).collect()
    }

    #[test]
    fn ends_marks_and_limits() {
        let some = |number, text: &str| (number, Some(text.to_owned()));
        assert_eq!(texts(9, ""), []);
        assert_eq!(texts(9, "a\nb\r\n\n\r\nc"), [some(1, "a"), some(2, "b"), some(3, ""), some(4, ""), some(5, "c")]);
        assert_eq!(texts(9, "\u{feff}a\n\u{feff}b\n"), [some(1, "a"), some(2, "\u{feff}b")]);
        assert_eq!(texts(9, "a\rb\0c\n"), [some(1, "a\rb\0c")]);
        assert_eq!(texts(3, "abc\nabcd\nabcdef\nx"), [some(1, "abc"), (2, None), (3, None), some(4, "x")]);
        assert_eq!(texts(3, "abcd"), [(1, None)]);
    }

    proptest! {
        #[test]
        fn any_cutting_gives_the_same_lines(
            bytes in prop::collection::vec(prop_oneof![4 => Just(b'a'), 2 => Just(b'\n'), 1 => Just(b'\r'), 1 => any::<u8>()], 0..200),
            cuts in prop::collection::vec(0..200usize, 0..20),
            max in 1..12usize,
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let whole = lines(max, [&bytes[..]]);
            let cut = lines(max, cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]));
            prop_assert_eq!(&whole, &cut);
            // Against the plain definition.
            let mut plain: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
            if plain.last().is_some_and(|last| last.is_empty()) {
                plain.pop();
            }
            prop_assert_eq!(whole.len(), plain.len());
            for (line, plain) in whole.iter().zip(plain) {
                prop_assert_eq!(line.bytes.is_none(), plain.len() > max);
                if let Some(bytes) = &line.bytes {
                    let plain = plain.strip_suffix(b"\r").unwrap_or(plain);
                    let mark = if line.number == 1 { plain.strip_prefix(b"\xef\xbb\xbf") } else { None };
                    prop_assert_eq!(&bytes[..], mark.unwrap_or(plain));
                }
            }
        }
    }
}
