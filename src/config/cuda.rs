//! `[cuda]`: how NVIDIA's GPUs are used.

use serde::{Deserialize, Serialize};

/// Most MiB that can be set: 16 TiB.
const MOST_MB: usize = 1 << 24;

/// `[cuda]`: how NVIDIA's GPUs are used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cuda {
    /// Folder of CUDA's and cuDNN's libraries; empty looks beside ONNX Runtime's library, then where the system looks.
    pub libraries: String,
    /// MiB of a GPU's memory that one session may take; 0 is nine tenths of it, divided among the workers on that GPU.
    pub memory_limit_mb: usize,
    /// Whether matrix products of single precision may be computed in TF32: faster, with 10 bits of mantissa.
    pub tf32: bool,
    /// Whether cuDNN is used. Without it models that need it (convolutions, some reductions) do not run.
    pub cudnn: bool,
}

impl Default for Cuda {
    fn default() -> Self {
        Self { libraries: String::new(), memory_limit_mb: 0, tf32: false, cudnn: true }
    }
}

impl Cuda {
    /// Most bytes that each of `instances` sessions takes on a GPU with `memory` bytes.
    pub fn memory_limit(&self, memory: u64, instances: usize) -> usize {
        match self.memory_limit_mb {
            0 => usize::try_from(memory / 10 * 9).unwrap_or(usize::MAX) / instances.max(1),
            mb => mb << 20,
        }
    }

    /// # Errors
    /// A text that names the first key that cannot be used.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.memory_limit_mb <= MOST_MB {
            true => Ok(()),
            false => Err(format!("cuda.memory_limit_mb must be at most {MOST_MB}, not {}", self.memory_limit_mb)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_of_one_gpu_share_its_memory() {
        let cuda = Cuda::default();
        assert_eq!((cuda.memory_limit(1000, 1), cuda.memory_limit(1000, 3)), (900, 300));
        assert_eq!(Cuda { memory_limit_mb: 2, ..cuda }.memory_limit(1000, 3), 2 << 20);
    }
}
