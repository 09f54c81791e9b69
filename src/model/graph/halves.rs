//! Numbers of 16 bits (IEEE binary16, `float16` in ONNX): how a graph holds them, and what they cannot hold.
//! It does not know what they mean.

use half::f16;

use super::{error::GraphError, proto::Element};

/// Least magnitude that is rounded to infinity: halfway from the largest number, 65504, to the next one there would be.
const OVERFLOW: f32 = 65520.0;

/// Operators that move numbers without changing them.
pub const MOVES: [&str; 9] =
    ["Concat", "Expand", "Gather", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"];

/// The numbers between a graph's first and last layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// Single precision.
    Single,
    /// 16 bits.
    Half,
    /// Single precision, rounded to 16 bits after every operator: on a processor that has no arithmetic of 16 bits,
    /// ONNX Runtime computes whole chains of operators in single precision, and neither rounding nor overflow shows.
    Rounded,
}

impl Body {
    /// The type in the graph.
    pub fn element(self) -> Element {
        match self {
            Self::Single | Self::Rounded => Element::F32,
            Self::Half => Element::F16,
        }
    }

    /// Bytes of one number.
    pub fn width(self) -> u64 {
        match self {
            Self::Single | Self::Rounded => 4,
            Self::Half => 2,
        }
    }

    /// The values as the graph has them.
    pub fn bytes(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::Single => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::Half => bytes(values),
            Self::Rounded => values.iter().flat_map(|v| nearest(*v).to_le_bytes()).collect(),
        }
    }
}

/// The values in 16 bits, each rounded to the nearest.
pub fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect()
}

/// The number of 16 bits that is nearest to `value`.
pub fn nearest(value: f32) -> f32 {
    f16::from_f32(value).to_f32()
}

/// Whether 16 bits can hold all values of the tensor `name`.
///
/// # Errors
/// [`GraphError::Tensor`] tells the first that they cannot hold.
pub fn check(name: &str, values: &[f32]) -> Result<(), GraphError> {
    match values.iter().position(|value| overflows(*value)) {
        None => Ok(()),
        Some(at) => Err(GraphError::tensor(name, too_large(values[at], at))),
    }
}

/// Whether rounding makes it infinite.
pub fn overflows(value: f32) -> bool {
    value.abs() >= OVERFLOW
}

/// What is wrong with a `value` that [`overflows`].
pub fn too_large(value: f32, place: usize) -> String {
    format!("has the value {value} at place {place}, too large for 16 bits (at most 65504); compile to fp32 or int8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overflows_is_what_rounds_to_infinity() {
        for (value, overflow) in [(65504.0, false), (65519.0, false), (65520.0, true), (-65520.0, true), (-1e30, true)]
        {
            assert_eq!((overflows(value), nearest(value).is_infinite()), (overflow, overflow), "{value}");
        }
        let error = check("a.weight", &[1.0, -7e4]).unwrap_err().to_string();
        assert!(error.contains("a.weight") && error.contains("-70000 at place 1"), "{error}");
        assert!(check("a.weight", &[65519.0, 0.0]).is_ok());
    }

    /// Ties go to the even number; what is below half the smallest one becomes zero.
    #[test]
    fn values_are_rounded_to_the_nearest() {
        let smallest = 2f32.powi(-24);
        for (value, rounded) in [
            (1.0 + 2f32.powi(-11), 1.0),
            (1.0 + 3.0 * 2f32.powi(-11), 1.0 + 2f32.powi(-9)),
            (0.1, 0.099_975_586),
            (smallest, smallest),
            (0.49 * smallest, 0.0),
            (-2.5, -2.5),
        ] {
            assert_eq!(nearest(value), rounded, "{value}");
        }
        assert_eq!(Body::Half.bytes(&[1.0, -2.0]), [0x00, 0x3c, 0x00, 0xc0]);
        assert_eq!(Body::Rounded.bytes(&[0.1]), nearest(0.1).to_le_bytes());
    }

    /// Every number of 16 bits comes through unchanged.
    #[test]
    fn sixteen_bits_on_disk_stay_as_they_are() {
        for bits in (0..=u16::MAX).filter(|bits| f16::from_bits(*bits).is_finite()) {
            assert_eq!(bytes(&[f16::from_bits(bits).to_f32()]), bits.to_le_bytes());
        }
    }
}
