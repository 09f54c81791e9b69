//! Reads the fields of protobuf's messages, which ONNX files are made of. It does not know what they mean, and takes any bytes:
//! what is no message is `None`.

/// What one field holds.
pub enum Content<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// All fields `number` that are messages or texts.
pub fn parts(message: &[u8], number: u64) -> Option<Vec<&[u8]>> {
    let (mut found, mut rest) = (Vec::new(), message);
    while !rest.is_empty() {
        match field(&mut rest)? {
            (n, Content::Bytes(part)) if n == number => found.push(part),
            _ => {}
        }
    }
    Some(found)
}

/// Takes a field off the front: its number and what it holds.
pub fn field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Content<'a>)> {
    let key = varint(rest)?;
    let content = match key & 7 {
        0 => Content::Number(varint(rest)?),
        1 => Content::Bytes(rest.split_off(..8)?),
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            Content::Bytes(rest.split_off(..length)?)
        }
        5 => Content::Bytes(rest.split_off(..4)?),
        _ => return None,
    };
    Some((key >> 3, content))
}

/// Takes a number off the front.
pub fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *rest.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
