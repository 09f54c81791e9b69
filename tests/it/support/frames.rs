//! HTTP/2 frames as bytes, so that a test can send what no client library would.

use super::Connection;

/// Frame types.
pub const DATA: u8 = 0;
/// See [`DATA`].
pub const HEADERS: u8 = 1;
/// See [`DATA`].
pub const RST_STREAM: u8 = 3;
/// See [`DATA`].
pub const SETTINGS: u8 = 4;
/// See [`DATA`].
pub const GOAWAY: u8 = 7;
/// See [`DATA`].
pub const CONTINUATION: u8 = 9;

/// The flag of a frame that ends its stream.
pub const END_STREAM: u8 = 1;
/// The flag of a header that is whole.
pub const END_HEADERS: u8 = 4;

/// What a client says first: the preface and `settings`, pairs of name and value.
pub fn preface(settings: &[(u16, u32)]) -> Vec<u8> {
    let settings: Vec<u8> =
        settings.iter().flat_map(|(n, v)| [&n.to_be_bytes()[..], &v.to_be_bytes()].concat()).collect();
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &settings)].concat()
}

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block of `GET` (or `POST`) `path`, without compression but for the static table.
pub fn block(post: bool, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    // Method and scheme http are whole entries of the static table; the path is a literal for its entry 4, the
    // authority one for entry 1.
    let mut block = vec![if post { 0x83 } else { 0x82 }, 0x86, 0x04, path.len() as u8];
    block.extend(path.as_bytes());
    block.extend([0x01, 4]);
    block.extend(b"test");
    for (name, value) in fields {
        for (text, mark) in [(name, &[0x00][..]), (value, &[])] {
            block.extend(mark);
            block.push(text.len() as u8);
            block.extend(text.as_bytes());
        }
    }
    block
}

/// Reads one frame: type, flags, payload.
pub fn read(connection: &mut Connection) -> (u8, u8, Vec<u8>) {
    let head = connection.read(9);
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    (head[3], head[4], connection.read(length))
}

/// The status of the next answer, read from its header's first byte: an entry of the static table, or none.
pub fn status(connection: &mut Connection) -> Option<u16> {
    loop {
        if let (HEADERS, _, block) = read(connection) {
            return match block[0] {
                0x88 => Some(200),
                0x8c => Some(400),
                0x8d => Some(404),
                // A literal for the static table's entry 8, with the digits in Huffman's code.
                0x48 if block[1..5] == [0x83, 0x69, 0x90, 0xff] => Some(431),
                _ => None,
            };
        }
    }
}
