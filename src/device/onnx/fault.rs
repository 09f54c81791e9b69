//! Why a GPU cannot be used, in plain words with what mends it. Pure: it reads what ONNX Runtime said.

use std::path::PathBuf;

/// The oldest driver that runs CUDA 13.
const DRIVER: &str = "580";

/// Why a GPU cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CudaError {
    /// ONNX Runtime is the CPU build.
    #[error(
        "ONNX Runtime in {} is built without CUDA. `make serve DEVICE=cuda` fetches the build with it and what that \
         needs; for a library of your own set ORT_DYLIB_PATH",
        library.display()
    )]
    NotBuiltIn {
        /// The library's file.
        library: PathBuf,
    },
    /// A library is neither beside ONNX Runtime nor where the system looks.
    #[error(
        "the library {file} is missing or cannot be loaded{}. `make cuda` fetches it into .ort/cuda; where it is \
         elsewhere, name its folder in cuda.libraries",
        parent.as_ref().map(|parent| format!(" (it is needed by {parent})")).unwrap_or_default()
    )]
    Missing {
        /// The library's file name.
        file: String,
        /// What asked for it.
        parent: Option<String>,
    },
    /// No driver.
    #[error(
        "there is no NVIDIA driver here: libcuda.so.1 cannot be loaded. Install NVIDIA's driver, {DRIVER} or newer \
         (`nvidia-smi` shows it); a container gets it from the host: docker run --gpus all"
    )]
    NoDriver,
    /// A driver that does not start.
    #[error("NVIDIA's driver does not start: {0}")]
    Driver(String),
    /// A driver that is older than the libraries.
    #[error(
        "NVIDIA's driver is too old{}; ONNX Runtime's libraries need {DRIVER} or newer. Install a newer driver",
        has.as_ref().map(|has| format!(": it runs CUDA up to {has}")).unwrap_or_default()
    )]
    OldDriver {
        /// The newest CUDA version that the driver runs.
        has: Option<String>,
    },
    /// The driver is there and shows no GPU.
    #[error(
        "the driver shows no GPU{}. `nvidia-smi -L` lists what the machine has; a container needs --gpus all",
        hidden_by.as_ref().map(|v| format!(" (CUDA_VISIBLE_DEVICES is {v:?})")).unwrap_or_default()
    )]
    NoGpu {
        /// What `CUDA_VISIBLE_DEVICES` is set to.
        hidden_by: Option<String>,
    },
    /// There are GPUs, but not this one.
    #[error("there is no GPU {index}: {count} can be seen, the last is cuda:{}", count - 1)]
    NoSuchGpu {
        /// Its number.
        index: u32,
        /// How many there are, at least one.
        count: u32,
    },
    /// The GPU's instructions are not in the library.
    #[error("ONNX Runtime has no code for this GPU; it needs one of the Turing generation (2018) or newer")]
    OldGpu,
    /// Somebody has the GPU's memory.
    #[error("the GPU's memory is full. `nvidia-smi` shows who has it; cuda.memory_limit_mb bounds what oddlog takes")]
    Full,
    /// An operator of the model needs what is turned off.
    #[error("the model needs cuDNN: set cuda.cudnn = true")]
    NoCudnn,
    /// A run left the GPU unusable for this process.
    #[error(
        "this process can use the GPU no longer: {0}. Restart oddlog; if it comes again, `dmesg | grep Xid` says what the GPU \
         suffers from"
    )]
    Broken(String),
    /// The model is for CPUs.
    #[error("{0}")]
    ForCpus(String),
    /// Anything else.
    #[error("CUDA does not work here: {0}")]
    Other(String),
}

impl CudaError {
    /// The same without paths and without what others say in their own words: for pages that more people see than the log.
    pub fn brief(&self) -> String {
        match self {
            Self::NotBuiltIn { .. } => {
                "ONNX Runtime is built without CUDA; `make serve DEVICE=cuda` fetches the build with it".into()
            }
            Self::Driver(_) => "NVIDIA's driver does not start; the server's log says why".into(),
            Self::ForCpus(_) => "the model has 8 bits, which are for CPUs".into(),
            Self::Broken(_) => "this process can use the GPU no longer; restart oddlog".into(),
            Self::Other(_) => "CUDA does not work here; the server's log says why".into(),
            other => other.to_string(),
        }
    }

    /// What `message`, of ONNX Runtime, says about the GPU, its driver or CUDA's libraries; `None` if it says nothing
    /// about these.
    pub fn told(message: &str) -> Option<Self> {
        /// After these, as CUDA calls them, every call fails until the process ends.
        const FOR_GOOD: &[&str] = &[
            "context is destroyed",
            "device-side assert triggered",
            "illegal instruction",
            "illegal memory access",
            "invalid program counter",
            "launch timed out and was terminated",
            "misaligned address",
            "uncorrectable ECC error",
            "uncorrectable NVLink error",
            "unspecified launch failure",
        ];
        let says = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
        if let Some(missing) = missing(message) {
            return Some(missing);
        }
        Some(if says(&["driver version is insufficient", "CUDA failure 35:"]) {
            Self::OldDriver { has: None }
        } else if says(&["no CUDA-capable device", "CUDA failure 100:"]) {
            Self::NoGpu { hidden_by: None }
        } else if says(&["no kernel image is available", "CUDA failure 209:"]) {
            Self::OldGpu
        } else if says(&["CUDA failure 2:", "CUBLAS failure 3:", "Failed to allocate memory for requested buffer"]) {
            Self::Full
        } else if says(&["cuDNN is unavailable or disabled"]) {
            Self::NoCudnn
        } else if says(FOR_GOOD) {
            Self::Broken(first_line(message))
        } else if says(&["CUDA failure", "CUDA error", "CUBLAS failure", "CUDNN failure", "cuDNN is", "libcuda"]) {
            Self::Other(first_line(message))
        } else {
            return None;
        })
    }
}

/// Of `Failed to load library A with error: B: cannot open shared object file`.
fn missing(message: &str) -> Option<CudaError> {
    let (before, reason) = message.split_once(" with error: ")?;
    let parent = before.rsplit_once("Failed to load library ")?.1;
    let parent = parent.rsplit('/').next().map(str::to_owned);
    let file = reason.split(':').next().unwrap_or(reason).trim();
    let file = file.rsplit('/').next().unwrap_or(file);
    match file {
        "libcuda.so.1" => Some(CudaError::NoDriver),
        // The provider's own library is damaged, or misses a symbol.
        _ if !reason.contains("cannot open shared object") => Some(CudaError::Other(first_line(message))),
        _ => Some(CudaError::Missing { file: file.to_owned(), parent }),
    }
}

/// What is said between source files before it, and the machine's name and more source files after it.
fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let starts = ["CUDA failure", "CUBLAS failure", "CUDNN failure", "cuDNN is"];
    let from = starts.iter().filter_map(|start| line.find(start)).min().unwrap_or_default();
    line[from..].split(" ; ").next().unwrap_or_default().chars().take(400).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_onnx_runtime_says_is_understood() {
        let of_library = |name: &str| {
            CudaError::told(&format!(
                "/onnxruntime_src/provider_bridge_ort.cc:2 Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library \
                 /a/libonnxruntime_providers_cuda.so with error: {name}: cannot open shared object file: No such file"
            ))
        };
        assert_eq!(of_library("libcuda.so.1"), Some(CudaError::NoDriver));
        let missing = of_library("libcublasLt.so.13").unwrap().to_string();
        assert!(missing.contains("libcublasLt.so.13") && missing.contains("make cuda"), "{missing}");
        assert!(missing.contains("needed by libonnxruntime_providers_cuda.so"), "{missing}");
        let old = "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version ; GPU=-1 ; hostname=x";
        assert_eq!(CudaError::told(old), Some(CudaError::OldDriver { has: None }));
        let damaged = "Failed to load library /a/b.so with error: /a/b.so: undefined symbol: x";
        assert!(matches!(CudaError::told(damaged), Some(CudaError::Other(_))));
        let off = "cuda_kernel.h:296 9 : NOT_IMPLEMENTED : cuDNN is unavailable or disabled for CUDA Execution Provider: dlopen";
        assert_eq!(CudaError::told(off), Some(CudaError::NoCudnn));
        assert_eq!(CudaError::told("CUDA failure 2: out of memory ; GPU=0"), Some(CudaError::Full));
        let parsed =
            "info.cc:63 [ONNXRuntimeError] : 1 : CUDA failure 36: API call is not supported ; GPU=-1 ; file=/x";
        assert_eq!(
            CudaError::told(parsed),
            Some(CudaError::Other("CUDA failure 36: API call is not supported".into()))
        );
        let broken = "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=x";
        let told = CudaError::told(broken).unwrap();
        assert_eq!(told, CudaError::Broken("CUDA failure 700: an illegal memory access was encountered".into()));
        assert!(told.to_string().contains("Restart oddlog") && !told.brief().contains("700"), "{told}");
        assert_eq!(CudaError::told("Protobuf parsing failed."), None);
    }
}
