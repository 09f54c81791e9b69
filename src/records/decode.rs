//! Compressed or not: told by a stream's first bytes, never by a name.

use std::io::{self, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

/// How a stream is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Plain,
    /// gzip, one member or several.
    Gzip,
    /// Zstandard, one frame or several.
    Zstd,
}

const GZIP: [u8; 3] = [0x1f, 0x8b, 0x08];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Bytes between the file and the decompressor.
const BUFFER_BYTES: usize = 64 << 10;

/// The content of `input`, decompressed if its first bytes say so. All members and frames are read, one after another.
///
/// # Errors
/// If its beginning cannot be read. What is broken later is an error of the reader that is returned.
pub fn decode(mut input: impl Read + Send + 'static) -> io::Result<(Encoding, Box<dyn Read + Send>)> {
    let (mut head, mut filled) = ([0; 4], 0);
    // A pipe may bring one short line and then nothing for a while: what cannot be a mark is not waited for.
    while filled < head.len() && (GZIP.starts_with(&head[..filled]) || ZSTD.starts_with(&head[..filled])) {
        match input.read(&mut head[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    let encoding = match &head[..filled] {
        head if head.starts_with(&GZIP) => Encoding::Gzip,
        head if head.starts_with(&ZSTD) => Encoding::Zstd,
        _ => Encoding::Plain,
    };
    let whole = Cursor::new(head).take(filled as u64).chain(input);
    let reader: Box<dyn Read + Send> = match encoding {
        Encoding::Plain => Box::new(whole),
        Encoding::Gzip => Box::new(MultiGzDecoder::new(BufReader::with_capacity(BUFFER_BYTES, whole))),
        Encoding::Zstd => Box::new(zstd::stream::read::Decoder::new(whole)?),
    };
    Ok((encoding, reader))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    fn read(bytes: Vec<u8>) -> (Encoding, io::Result<Vec<u8>>) {
        let (encoding, mut reader) = decode(Cursor::new(bytes)).unwrap();
        let mut all = Vec::new();
        let result = reader.read_to_end(&mut all).map(|_| all);
        (encoding, result)
    }

    #[test]
    fn every_member_and_frame_is_read() {
        let members = [gzip(b"one\n"), gzip(b"two\n")].concat();
        assert_eq!(read(members).1.unwrap(), b"one\ntwo\n");
        let frame = |b: &[u8]| zstd::stream::encode_all(b, 1).unwrap();
        let (encoding, all) = read([frame(b"one\n"), frame(b"two\n")].concat());
        assert_eq!((encoding, all.unwrap().as_slice()), (Encoding::Zstd, &b"one\ntwo\n"[..]));
    }

    #[test]
    fn whatever_is_no_mark_is_plain() {
        for plain in [&b""[..], b"a", b"\x1f", b"\x1f\x8b", b"(\xb5/", b"line\nline\n"] {
            let (encoding, all) = read(plain.to_vec());
            assert_eq!((encoding, all.unwrap().as_slice()), (Encoding::Plain, plain));
        }
    }

    #[test]
    fn a_torn_stream_is_an_error_after_what_could_be_read() {
        let whole = gzip(b"some text\n");
        let (encoding, all) = read(whole[..whole.len() - 6].to_vec());
        assert_eq!(encoding, Encoding::Gzip);
        assert!(all.is_err());
    }

    /// Gives one byte, then fails the test if it is asked again.
    struct OneByte(bool);
    impl Read for OneByte {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            assert!(!std::mem::replace(&mut self.0, true), "it waits for bytes it does not need");
            into[0] = b'x';
            Ok(1)
        }
    }

    #[test]
    fn a_slow_pipe_is_not_waited_for() {
        let (encoding, mut reader) = decode(OneByte(false)).unwrap();
        let mut first = [0; 8];
        assert_eq!((encoding, reader.read(&mut first).unwrap(), first[0]), (Encoding::Plain, 1, b'x'));
    }
}
