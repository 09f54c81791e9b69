//! A checkpoint's tensors, memory-mapped from `model.safetensors`. It does not know what they mean.

use std::{fs::File, path::Path};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors, tensor::Metadata};

use super::{
    error::GraphError,
    halves::{overflows, too_large},
};

/// Values converted at a time.
const PART: usize = 1 << 18;

/// An open `model.safetensors`.
pub struct Weights {
    map: Mmap,
    metadata: Metadata,
    /// Where the tensors' bytes begin.
    start: usize,
    /// Whether every value must be one that 16 bits can hold.
    for_half: bool,
}

/// One tensor on disk, of a shape that was asked for and of a type that can be read.
pub struct Tensor<'a> {
    name: &'a str,
    bytes: &'a [u8],
    form: Form,
    for_half: bool,
}

/// The number formats that weights are read from.
#[derive(Clone, Copy)]
enum Form {
    F32,
    F16,
    Bf16,
}

impl Weights {
    /// Maps the file and checks its header: every tensor lies within it.
    ///
    /// # Errors
    /// [`GraphError::Source`] if it cannot be read, is cut short, or is no safetensors file.
    pub fn open(path: &Path) -> Result<Self, GraphError> {
        let file = File::open(path).map_err(|e| GraphError::source_file(path, e))?;
        #[allow(unsafe_code)]
        // SAFETY: the map is only read. Nobody may change the file meanwhile: the hub's cache never rewrites a blob,
        // and whoever rewrites a local checkpoint while it is compiled gets a broken graph, or a bus error, either way.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| GraphError::source_file(path, e))?;
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|e| {
            GraphError::source_file(path, format!("it is no complete safetensors file ({e}); fetch or copy it again"))
        })?;
        Ok(Self { map, metadata, start: header + size_of::<u64>(), for_half: false })
    }

    /// The same, where a value that 16 bits cannot hold is an error too.
    pub fn for_half(self) -> Self {
        Self { for_half: true, ..self }
    }

    /// The tensor `name`.
    ///
    /// # Errors
    /// [`GraphError::Tensor`] if it is missing, not of the shape `dims`, or not of floating-point numbers.
    pub fn tensor<'a>(&'a self, name: &'a str, dims: &[usize]) -> Result<Tensor<'a>, GraphError> {
        let fail = |problem: String| GraphError::tensor(name, problem);
        let info = self.metadata.info(name).ok_or_else(|| fail("is missing from model.safetensors".into()))?;
        let form = match info.dtype {
            Dtype::F32 => Form::F32,
            Dtype::F16 => Form::F16,
            Dtype::BF16 => Form::Bf16,
            other => return Err(fail(format!("has the type {other:?}; only F32, F16 and BF16 can be read"))),
        };
        if info.shape != dims {
            return Err(fail(format!("has the shape {:?}; config.json says {dims:?}", info.shape)));
        }
        let (from, to) = info.data_offsets;
        Ok(Tensor { name, bytes: &self.map[self.start + from..self.start + to], form, for_half: self.for_half })
    }

    /// The values of the tensor `name`.
    ///
    /// # Errors
    /// As [`tensor`](Self::tensor), and if a value is not finite.
    pub fn values(&self, name: &str, dims: &[usize]) -> Result<Vec<f32>, GraphError> {
        let tensor = self.tensor(name, dims)?;
        let mut values = Vec::new();
        tensor.for_each_part(PART, |part| {
            values.extend_from_slice(part);
            Ok(())
        })?;
        Ok(values)
    }
}

impl Tensor<'_> {
    /// Hands the values to `take` in parts of at most `most`, in their order: no copy of a large tensor is ever whole
    /// in memory.
    ///
    /// # Errors
    /// [`GraphError::Tensor`] if a value is not finite, or not one for this precision; what `take` returns.
    pub fn for_each_part(
        &self,
        most: usize,
        mut take: impl FnMut(&[f32]) -> Result<(), GraphError>,
    ) -> Result<(), GraphError> {
        let width = match self.form {
            Form::F32 => 4,
            Form::F16 | Form::Bf16 => 2,
        };
        let mut part = Vec::new();
        for (index, bytes) in self.bytes.chunks(most.saturating_mul(width)).enumerate() {
            part.clear();
            match self.form {
                Form::F32 => part.extend(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b))),
                Form::F16 => part.extend(bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32())),
                Form::Bf16 => part.extend(bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32())),
            }
            if let Some(at) = part.iter().position(|value| !value.is_finite()) {
                let place = index * most + at;
                return Err(GraphError::tensor(self.name, format!("has the value {} at place {place}", part[at])));
            }
            if self.for_half
                && let Some(at) = part.iter().position(|value| overflows(*value))
            {
                return Err(GraphError::tensor(self.name, too_large(part[at], index * most + at)));
            }
            take(&part)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use safetensors::tensor::TensorView;

    use super::*;

    fn file(dir: &Path, tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) -> PathBuf {
        let views = tensors
            .iter()
            .map(|(name, dtype, shape, data)| (*name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
        let path = dir.join("model.safetensors");
        std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
        path
    }

    fn bytes<const N: usize>(values: impl IntoIterator<Item = [u8; N]>) -> Vec<u8> {
        values.into_iter().flatten().collect()
    }

    #[test]
    fn three_number_formats_give_their_values() {
        let dir = tempfile::tempdir().unwrap();
        // All of them exact in each format; the smallest is a subnormal f16.
        let values = [1.5f32, -0.25, 6.103_515_6e-5 / 64.0, 0.0, -96.0, 1.0];
        let path = file(
            dir.path(),
            &[
                ("a", Dtype::F32, vec![2, 3], bytes(values.map(f32::to_le_bytes))),
                ("b", Dtype::F16, vec![2, 3], bytes(values.map(|v| f16::from_f32(v).to_le_bytes()))),
                ("c", Dtype::BF16, vec![2, 3], bytes(values.map(|v| bf16::from_f32(v).to_le_bytes()))),
            ],
        );
        let weights = Weights::open(&path).unwrap();
        for name in ["a", "b", "c"] {
            assert_eq!(weights.values(name, &[2, 3]).unwrap(), values);
            let mut parts = Vec::new();
            let take = |part: &[f32]| {
                parts.push(part.to_vec());
                Ok(())
            };
            weights.tensor(name, &[2, 3]).unwrap().for_each_part(4, take).unwrap();
            assert_eq!(parts, [&values[..4], &values[4..]]);
        }
    }

    #[test]
    fn a_bad_tensor_is_named_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(
            dir.path(),
            &[
                ("nan", Dtype::F32, vec![2], bytes([1.0, f32::NAN].map(f32::to_le_bytes))),
                ("inf", Dtype::F16, vec![2], bytes([f16::NEG_INFINITY, f16::ONE].map(f16::to_le_bytes))),
                ("ints", Dtype::I64, vec![1], bytes([7i64.to_le_bytes()])),
            ],
        );
        let weights = Weights::open(&path).unwrap();
        for (name, dims, words) in [
            ("gone", &[2][..], "is missing"),
            ("nan", &[2], "NaN at place 1"),
            ("nan", &[1, 2], "config.json says [1, 2]"),
            ("inf", &[2], "-inf at place 0"),
            ("ints", &[1], "I64"),
        ] {
            let error = weights.values(name, dims).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(words) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path(), &[("a", Dtype::F32, vec![64], vec![0; 256])]);
        let whole = std::fs::read(&path).unwrap();
        for keep in (0..whole.len()).step_by(7) {
            std::fs::write(&path, &whole[..keep]).unwrap();
            let error = Weights::open(&path).err().unwrap().to_string();
            assert!(error.contains("model.safetensors") && !error.contains('\n'), "{keep}: {error}");
        }
    }
}
