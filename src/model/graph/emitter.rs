//! A graph under construction: operators are appended in the order they run, weights go to the data file at once.
//! It does not know what model it is.

use std::{collections::HashMap, rc::Rc};

use super::{
    data::DataFile,
    error::GraphError,
    halves::{self, Body},
    proto::{Attribute, Element, GraphProto, Message, Place},
    weights::Tensor,
};

/// Initializers of this size in bytes go to the data file.
const EXTERNAL: usize = 1024;
/// Values of a tensor copied at a time.
const PART: usize = 1 << 18;

/// ONNX's own operators.
pub const ONNX: &str = "";
/// Operators that every ONNX Runtime has besides.
pub const MICROSOFT: &str = "com.microsoft";
/// Operators that oddlog registers.
pub const ODDLOG: &str = "oddlog";

/// A tensor of the graph, by its name.
#[derive(Debug, Clone)]
pub struct Value {
    name: Rc<str>,
    /// Whether its numbers are those of 16 bits.
    half: bool,
}

impl Value {
    fn new(name: impl AsRef<str>) -> Self {
        Self { name: name.as_ref().into(), half: false }
    }

    /// What stands for an input that an operator can do without.
    pub fn none() -> Self {
        Self::new("")
    }
}

/// The graph so far.
pub struct Emitter {
    proto: GraphProto,
    data: DataFile,
    /// Name of the data file, beside the graph.
    data_name: String,
    nodes: usize,
    /// Small constants that were asked for before, by their type and bytes.
    constants: HashMap<(Element, bool, Vec<u8>), Value>,
    uses_oddlog: bool,
    body: Body,
}

impl Emitter {
    /// An empty graph with its data file, whose numbers are as `body` says.
    pub fn new(data: DataFile, data_name: &str, body: Body) -> Self {
        let data_name = data_name.to_owned();
        let (proto, constants) = (GraphProto::default(), HashMap::new());
        Self { proto, data, data_name, nodes: 0, constants, uses_oddlog: false, body }
    }

    /// Declares an int64 input of the shape `[batch, length]`.
    pub fn input(&mut self, name: &str) -> Value {
        self.proto.input(name, Element::I64, &["batch", "length"]);
        Value::new(name)
    }

    /// Appends an operator of ONNX with one output.
    pub fn op(&mut self, kind: &str, inputs: &[&Value], attributes: &[Attribute<'_>]) -> Value {
        self.op_of(ONNX, kind, inputs, attributes)
    }

    /// Appends an operator of `domain` with one output.
    pub fn op_of(&mut self, domain: &str, kind: &str, inputs: &[&Value], attributes: &[Attribute<'_>]) -> Value {
        let [output] = self.op_with(domain, kind, inputs, attributes);
        output
    }

    /// Appends an operator of `domain` with `N` outputs.
    pub fn op_with<const N: usize>(
        &mut self,
        domain: &str,
        kind: &str,
        inputs: &[&Value],
        attributes: &[Attribute<'_>],
    ) -> [Value; N] {
        // Whoever reads 16 bits writes them, but for shapes and casts.
        let half = kind != "Cast" && inputs.iter().any(|input| input.half);
        let outputs = self.append((domain, kind), inputs, attributes);
        let round = half && self.body == Body::Rounded && !halves::MOVES.contains(&kind);
        outputs.map(|output| Value { half, ..if round { self.rounded(&output) } else { output } })
    }

    fn append<const N: usize>(
        &mut self,
        (domain, kind): (&str, &str),
        inputs: &[&Value],
        attributes: &[Attribute<'_>],
    ) -> [Value; N] {
        self.nodes += 1;
        self.uses_oddlog |= domain == ODDLOG;
        let name = format!("{kind}_{}", self.nodes);
        let outputs = std::array::from_fn(|i| Value::new(format!("{name}_{i}")));
        let names: Vec<&str> = inputs.iter().map(|value| &*value.name).collect();
        let output_names: Vec<&str> = outputs.iter().map(|value: &Value| &*value.name).collect();
        self.proto.node((domain, kind), &name, &names, &output_names, attributes);
        outputs
    }

    /// The numbers of 16 bits nearest to those of `x`, in single precision.
    fn rounded(&mut self, x: &Value) -> Value {
        let to = |element: Element| [Attribute::Int("to", element as i64)];
        let [halves] = self.append((ONNX, "Cast"), &[x], &to(Element::F16));
        let [back] = self.append((ONNX, "Cast"), &[&halves], &to(Element::F32));
        back
    }

    /// `x` as the body's numbers: from integers or single precision.
    pub fn body_of(&mut self, x: &Value) -> Value {
        let element = self.body.element();
        let [cast] = self.append((ONNX, "Cast"), &[x], &[Attribute::Int("to", element as i64)]);
        let half = self.body != Body::Single;
        Value { half, ..if self.body == Body::Rounded { self.rounded(&cast) } else { cast } }
    }

    /// `x` in single precision.
    pub fn single_of(&mut self, x: &Value) -> Value {
        match self.body {
            Body::Half if x.half => self.op("Cast", &[x], &[Attribute::Int("to", Element::F32 as i64)]),
            _ => Value { half: false, ..x.clone() },
        }
    }

    /// Whether the body has the range and precision of 16 bits.
    pub fn is_half(&self) -> bool {
        self.body != Body::Single
    }

    /// A constant of the body without dimensions.
    pub fn number(&mut self, value: f32) -> Value {
        let rounded = halves::nearest(value);
        let number = match self.body {
            Body::Single => return self.float(value),
            Body::Half => self.constant(Element::F16, None, halves::bytes(&[value])),
            Body::Rounded => self.float(rounded),
        };
        Value { half: true, ..number }
    }

    /// An initializer of the body. `name` must be new.
    ///
    /// # Errors
    /// [`GraphError::Tensor`] if the body cannot hold a value, [`GraphError::Write`].
    pub fn numbers(&mut self, name: &str, dims: &[usize], values: &[f32]) -> Result<Value, GraphError> {
        if self.is_half() {
            halves::check(name, values)?;
        }
        let bytes = self.body.bytes(values);
        let half = self.is_half();
        Ok(Value { half, ..self.initializer(name, self.body.element(), dims, &bytes)? })
    }

    /// A constant list of int64.
    pub fn ints(&mut self, values: &[i64]) -> Value {
        self.constant(Element::I64, Some(values.len()), values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// A constant int64 without dimensions.
    pub fn int(&mut self, value: i64) -> Value {
        self.constant(Element::I64, None, value.to_le_bytes().into())
    }

    /// A constant f32 without dimensions.
    pub fn float(&mut self, value: f32) -> Value {
        self.constant(Element::F32, None, value.to_le_bytes().into())
    }

    /// A constant uint8 without dimensions.
    pub fn byte(&mut self, value: u8) -> Value {
        self.constant(Element::U8, None, vec![value])
    }

    /// The same constant has one name, however often it is asked for.
    fn constant(&mut self, element: Element, len: Option<usize>, bytes: Vec<u8>) -> Value {
        let key = (element, len.is_some(), bytes);
        if let Some(known) = self.constants.get(&key) {
            return known.clone();
        }
        let value = Value::new(format!("constant_{}", self.constants.len()));
        self.proto.initializer(&value.name, element, len.as_slice(), &Place::Inline(&key.2));
        self.constants.insert(key, value.clone());
        value
    }

    /// An initializer of f32 values. `name` must be new.
    ///
    /// # Errors
    /// [`GraphError::Write`].
    pub fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) -> Result<Value, GraphError> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.initializer(name, Element::F32, dims, &bytes)
    }

    /// An initializer of any type from its little-endian bytes. `name` must be new.
    ///
    /// # Errors
    /// [`GraphError::Write`].
    pub fn initializer(
        &mut self,
        name: &str,
        element: Element,
        dims: &[usize],
        bytes: &[u8],
    ) -> Result<Value, GraphError> {
        if bytes.len() < EXTERNAL {
            self.proto.initializer(name, element, dims, &Place::Inline(bytes));
        } else {
            let length = bytes.len() as u64;
            let offset = self.data.align(length)?;
            self.data.append(bytes)?;
            let place = Place::External { file: &self.data_name, offset, length };
            self.proto.initializer(name, element, dims, &place);
        }
        Ok(Value::new(name))
    }

    /// An initializer of the body straight from a checkpoint, for a tensor that is too large to copy.
    ///
    /// # Errors
    /// [`GraphError::Write`], or as [`Tensor::for_each_part`].
    pub fn copied(&mut self, name: &str, dims: &[usize], tensor: &Tensor<'_>) -> Result<Value, GraphError> {
        let length = dims.iter().product::<usize>() as u64 * self.body.width();
        let offset = self.data.align(length)?;
        let body = self.body;
        tensor.for_each_part(PART, |part| self.data.append(&body.bytes(part)))?;
        let place = Place::External { file: &self.data_name, offset, length };
        self.proto.initializer(name, body.element(), dims, &place);
        Ok(Value { half: self.is_half(), ..Value::new(name) })
    }

    /// The finished model, whose output is `logits` with `classes` columns. The data file is on the disk afterwards.
    ///
    /// # Errors
    /// [`GraphError::Write`].
    pub fn finish(mut self, logits: &Value, classes: usize, notes: &[(&str, &str)]) -> Result<Message, GraphError> {
        self.proto.node((ONNX, "Identity"), "Identity_logits", &[&logits.name], &["logits"], &[]);
        self.proto.output("logits", Element::F32, "batch", classes);
        self.data.finish()?;
        let mut operator_sets = vec![(ONNX, 18), (MICROSOFT, 1)];
        if self.uses_oddlog {
            operator_sets.push((ODDLOG, 1));
        }
        Ok(self.proto.model(&operator_sets, notes))
    }
}
