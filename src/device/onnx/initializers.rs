//! Reads from an ONNX file where its weights are, when they are in a file beside it. It does not read the weights.
//!
//! Field numbers are those of `onnx.proto3`; everything else in the file is passed over.

use super::wire::{Content, field, parts, varint};

/// A weight in a file of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External<'a> {
    pub name: &'a str,
    /// ONNX's number of the element type.
    pub element: u64,
    pub dims: Vec<i64>,
    /// The other file's name.
    pub file: &'a str,
    /// Of the first byte.
    pub offset: usize,
    /// In bytes.
    pub length: usize,
    /// Whether the file holds it in another arrangement besides, which ONNX Runtime finds itself.
    pub packed: bool,
}

/// The weights of `model` that are in other files, but for those that it cannot make out; `None` if it is no ONNX file.
pub fn external(model: &[u8]) -> Option<Vec<External<'_>>> {
    let mut found = Vec::new();
    for graph in parts(model, 7)? {
        for tensor in parts(graph, 5)? {
            found.extend(tensor_of(tensor));
        }
    }
    Some(found)
}

fn tensor_of(message: &[u8]) -> Option<External<'_>> {
    let mut tensor = External { name: "", element: 0, dims: Vec::new(), file: "", offset: 0, length: 0, packed: false };
    let mut external = false;
    let mut rest = message;
    while !rest.is_empty() {
        match field(&mut rest)? {
            (1, Content::Number(dim)) => tensor.dims.push(dim.cast_signed()),
            (1, Content::Bytes(mut dims)) => {
                while !dims.is_empty() {
                    tensor.dims.push(varint(&mut dims)?.cast_signed());
                }
            }
            (2, Content::Number(element)) => tensor.element = element,
            (8, Content::Bytes(name)) => tensor.name = str::from_utf8(name).ok()?,
            (13, Content::Bytes(entry)) => match entry_of(entry)? {
                ("location", file) => tensor.file = file,
                ("offset", offset) => tensor.offset = offset.parse().ok()?,
                ("length", length) => tensor.length = length.parse().ok()?,
                (key, _) => tensor.packed |= key.starts_with("prepacked"),
            },
            (14, Content::Number(place)) => external = place == 1,
            _ => {}
        }
    }
    external.then_some(tensor)
}

fn entry_of(message: &[u8]) -> Option<(&str, &str)> {
    let text = |number| str::from_utf8(parts(message, number)?.pop()?).ok();
    Some((text(1)?, text(2)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::graph::{Precision, compile};

    #[test]
    fn it_finds_what_the_compiler_wrote_and_takes_any_bytes() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("model");
        compile(&root.join("tests/data/tiny-deberta"), &dir, Precision::Int8, false, &mut |_| {}).unwrap();
        let (model, data) = ["model.onnx", "model.onnx.data"].map(|name| std::fs::read(dir.join(name)).unwrap()).into();
        let found = external(&model).unwrap();
        assert!(found.len() > 10 && found.iter().all(|w| w.file == "model.onnx.data" && !w.packed), "{found:?}");
        let words = found.iter().find(|w| w.name == "deberta.embeddings.word_embeddings.weight").unwrap();
        assert_eq!((words.element, words.dims.iter().product::<i64>() * 4), (1, words.length as i64));
        assert!(found.iter().all(|w| w.offset + w.length <= data.len()));
        assert!(found.iter().any(|w| w.element == 3));
        for cut in 0..model.len() {
            external(&model[..cut]);
        }
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..2_000 {
            let mut broken = model.clone();
            let at = random.usize(..broken.len());
            broken[at] = random.u8(..);
            external(&broken);
        }
        assert_eq!(external(&[0xff; 20]), None);
    }

    #[test]
    fn numbers_in_one_field_and_prepacked_weights() {
        let entry = |key: &str, value: &str| {
            let (k, v) = (key.len() as u8, value.len() as u8);
            let text = [&[10, k], key.as_bytes(), &[18, v], value.as_bytes()].concat();
            [&[106, text.len() as u8], &text[..]].concat()
        };
        let tensor = [
            &[10, 3, 2, 0x80, 1, 16, 1, 66, 1][..],
            b"w",
            &entry("location", "data"),
            &entry("offset", "64"),
            &entry("length", "1024"),
            &entry("prepacked_0", "x"),
            &[112, 1],
        ]
        .concat();
        let graph = [&[42, tensor.len() as u8], &tensor[..]].concat();
        let model = [&[58, graph.len() as u8], &graph[..]].concat();
        let expected = External {
            name: "w",
            element: 1,
            dims: vec![2, 128],
            file: "data",
            offset: 64,
            length: 1024,
            packed: true,
        };
        assert_eq!(external(&model).unwrap(), [expected]);
    }
}
