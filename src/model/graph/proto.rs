//! The messages of ONNX's protobuf format that a graph needs, encoded by hand: a few fields of eight messages.
//!
//! Field numbers are those of `onnx.proto3`. It does not know what a graph computes.

/// An encoded message.
#[derive(Debug, Default, Clone)]
pub struct Message(Vec<u8>);

impl Message {
    /// The message's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn int(&mut self, field: u64, value: i64) {
        self.varint(field << 3);
        self.varint(value.cast_unsigned());
    }

    fn float(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }

    fn raw(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }

    fn text(&mut self, field: u64, value: &str) {
        self.raw(field, value.as_bytes());
    }

    fn message(&mut self, field: u64, value: &Self) {
        self.raw(field, &value.0);
    }
}

/// Element types of tensors, with ONNX's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// `float`
    F32 = 1,
    /// `uint8`
    U8 = 2,
    /// `int8`
    I8 = 3,
    /// `int32`
    I32 = 6,
    /// `int64`
    I64 = 7,
    /// `bool`
    Bool = 9,
    /// `float16`
    F16 = 10,
}

/// A node's attribute.
#[derive(Debug, Clone, Copy)]
pub enum Attribute<'a> {
    /// A number.
    Int(&'a str, i64),
    /// A fraction.
    Float(&'a str, f32),
    /// A list of numbers.
    Ints(&'a str, &'a [i64]),
}

impl Attribute<'_> {
    fn encode(self) -> Message {
        let mut message = Message::default();
        match self {
            Self::Int(name, value) => {
                message.text(1, name);
                message.int(3, value);
                message.int(20, 2);
            }
            Self::Float(name, value) => {
                message.text(1, name);
                message.float(2, value);
                message.int(20, 1);
            }
            Self::Ints(name, values) => {
                message.text(1, name);
                values.iter().for_each(|value| message.int(8, *value));
                message.int(20, 7);
            }
        }
        message
    }
}

/// Where an initializer's bytes are.
#[derive(Debug)]
pub enum Place<'a> {
    /// In the graph file.
    Inline(&'a [u8]),
    /// In a file beside it.
    External {
        /// That file's name.
        file: &'a str,
        /// Of the first byte.
        offset: u64,
        /// In bytes.
        length: u64,
    },
}

/// A model under construction: nodes, initializers, inputs, outputs.
#[derive(Debug, Default)]
pub struct GraphProto(Message);

impl GraphProto {
    /// Appends a node; its inputs must be there already.
    pub fn node(
        &mut self,
        (domain, kind): (&str, &str),
        name: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[Attribute<'_>],
    ) {
        let mut node = Message::default();
        inputs.iter().for_each(|input| node.text(1, input));
        outputs.iter().for_each(|output| node.text(2, output));
        node.text(3, name);
        node.text(4, kind);
        attributes.iter().for_each(|attribute| node.message(5, &attribute.encode()));
        if !domain.is_empty() {
            node.text(7, domain);
        }
        self.0.message(1, &node);
    }

    /// Appends an initializer.
    pub fn initializer(&mut self, name: &str, element: Element, dims: &[usize], place: &Place<'_>) {
        let mut tensor = Message::default();
        dims.iter().for_each(|dim| tensor.int(1, *dim as i64));
        tensor.int(2, element as i64);
        tensor.text(8, name);
        match place {
            Place::Inline(bytes) => tensor.raw(9, bytes),
            Place::External { file, offset, length } => {
                let entries =
                    [("location", (*file).to_owned()), ("offset", offset.to_string()), ("length", length.to_string())];
                for (key, value) in entries {
                    tensor.message(13, &entry(key, &value));
                }
                tensor.int(14, 1);
            }
        }
        self.0.message(5, &tensor);
    }

    /// Declares an input whose dimensions have names.
    pub fn input(&mut self, name: &str, element: Element, dims: &[&str]) {
        let dims = dims.iter().map(|dim| dimension(Ok(dim)));
        self.0.message(11, &value_info(name, element, dims));
    }

    /// Declares an output with as many rows as `batch` says and `columns` columns.
    pub fn output(&mut self, name: &str, element: Element, batch: &str, columns: usize) {
        let dims = [dimension(Ok(batch)), dimension(Err(columns))];
        self.0.message(12, &value_info(name, element, dims));
    }

    /// The finished model, with its operator sets (domain, version) and notes (key, value).
    pub fn model(mut self, operator_sets: &[(&str, i64)], notes: &[(&str, &str)]) -> Message {
        // IR version 9 goes with operator set 18 and newer; every ONNX Runtime since 1.16 reads it.
        const IR_VERSION: i64 = 9;
        let mut model = Message::default();
        model.int(1, IR_VERSION);
        model.text(2, "oddlog");
        model.text(3, env!("CARGO_PKG_VERSION"));
        self.0.text(2, "deberta");
        model.message(7, &self.0);
        for (domain, version) in operator_sets {
            let mut set = Message::default();
            set.text(1, domain);
            set.int(2, *version);
            model.message(8, &set);
        }
        notes.iter().for_each(|(key, value)| model.message(14, &entry(key, value)));
        model
    }
}

fn entry(key: &str, value: &str) -> Message {
    let mut entry = Message::default();
    entry.text(1, key);
    entry.text(2, value);
    entry
}

/// A dimension with a name, or else with a size.
fn dimension(dim: Result<&str, usize>) -> Message {
    let mut message = Message::default();
    match dim {
        Ok(name) => message.text(2, name),
        Err(size) => message.int(1, size as i64),
    }
    message
}

fn value_info(name: &str, element: Element, dims: impl IntoIterator<Item = Message>) -> Message {
    let [mut shape, mut tensor, mut kind, mut info] = [(); 4].map(|()| Message::default());
    dims.into_iter().for_each(|dim| shape.message(1, &dim));
    tensor.int(1, element as i64);
    tensor.message(2, &shape);
    kind.message(1, &tensor);
    info.text(1, name);
    info.message(2, &kind);
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_the_wire_format_has_them() {
        // The examples of protobuf's encoding page: 150 is 96 01, and a negative number takes ten bytes.
        let mut message = Message::default();
        message.int(1, 150);
        message.int(2, -2);
        message.text(2, "testing");
        message.float(5, 1.0);
        let expected = [
            &[0x08, 0x96, 0x01, 0x10, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x12, 0x07][..],
            b"testing",
            &[0x2d, 0x00, 0x00, 0x80, 0x3f],
        ];
        assert_eq!(message.bytes(), expected.concat());
    }
}
