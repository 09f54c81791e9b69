//! NVIDIA's driver: which GPUs this process may use. It does not know ONNX Runtime.
//!
//! `CUDA_VISIBLE_DEVICES` hides GPUs and numbers the others; the driver does that itself.

#![allow(unsafe_code, reason = "a C library that is loaded at run time; each use gives its reason")]

use std::{
    error::Error,
    ffi::{CStr, c_char, c_int, c_uint},
    sync::OnceLock,
};

use libloading::Library;

const LIBRARY: &str = "libcuda.so.1";
const NO_DEVICE: c_int = 100;

/// A GPU that this process may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// From 0; the number in `cuda:0`.
    pub index: u32,
    /// As its maker calls it.
    pub name: String,
    /// Bytes of its memory.
    pub memory: u64,
}

/// What the driver shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpus {
    /// All of them, by their numbers.
    pub list: Vec<Gpu>,
    /// The newest CUDA version that the driver runs: `13.0`.
    pub cuda: String,
}

/// Why the driver shows nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DriverError {
    /// It is not there.
    #[error("{LIBRARY} cannot be loaded: {0}")]
    Absent(String),
    /// It is there and does not work.
    #[error("{what} fails with error {code}{}", meaning(*code))]
    Fails {
        /// The call.
        what: &'static str,
        /// Its answer.
        code: i32,
    },
    /// It is not NVIDIA's.
    #[error("it has no {0}")]
    Foreign(&'static str),
}

/// Whether there is a driver, without starting it.
pub fn is_there() -> bool {
    library().is_ok()
}

/// Starts the driver, if it does not run in this process yet, and asks it for its GPUs.
///
/// # Errors
/// [`DriverError`] if it is not there or does not start. Having no GPU is none.
pub fn gpus() -> Result<Gpus, DriverError> {
    let library = library()?;
    let mut gpus = Gpus { list: Vec::new(), cuda: cuda_version(library)? };
    // SAFETY: `CUresult cuInit(unsigned)`; it may be called any number of times, from any thread.
    match unsafe { call(library, "cuInit", |init: Init| init(0)) } {
        Err(DriverError::Fails { code: NO_DEVICE, .. }) => return Ok(gpus),
        result => result?,
    }
    let mut count: c_int = 0;
    // SAFETY: `CUresult cuDeviceGetCount(int*)`, which writes one number.
    unsafe { call(library, "cuDeviceGetCount", |get: GetNumber| get(&raw mut count)) }?;
    for index in 0..count.max(0) {
        gpus.list.push(gpu(library, index)?);
    }
    Ok(gpus)
}

type Init = unsafe extern "C" fn(c_uint) -> c_int;
type GetNumber = unsafe extern "C" fn(*mut c_int) -> c_int;
type GetDevice = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
type GetName = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
type GetMemory = unsafe extern "C" fn(*mut usize, c_int) -> c_int;

/// The driver stays loaded: it has threads once it runs.
fn library() -> Result<&'static Library, DriverError> {
    static LOADED: OnceLock<Result<Library, String>> = OnceLock::new();
    // SAFETY: the driver's initialisers do nothing that depends on this process.
    let loaded = LOADED.get_or_init(|| unsafe { Library::new(LIBRARY) }.map_err(|e| reason(&e)));
    loaded.as_ref().map_err(|e| DriverError::Absent(e.clone()))
}

/// The loader's own words are the error's source.
pub(super) fn reason(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

fn cuda_version(library: &Library) -> Result<String, DriverError> {
    let mut version: c_int = 0;
    // SAFETY: `CUresult cuDriverGetVersion(int*)`, which writes one number; it needs no `cuInit`.
    unsafe { call(library, "cuDriverGetVersion", |get: GetNumber| get(&raw mut version)) }?;
    Ok(format!("{}.{}", version / 1000, version % 1000 / 10))
}

fn gpu(library: &Library, index: c_int) -> Result<Gpu, DriverError> {
    let (mut device, mut memory): (c_int, usize) = (0, 0);
    let mut name: [c_char; 256] = [0; 256];
    // SAFETY: `CUresult cuDeviceGet(CUdevice*, int)`; a `CUdevice` is an `int`.
    unsafe { call(library, "cuDeviceGet", |get: GetDevice| get(&raw mut device, index)) }?;
    // SAFETY: `CUresult cuDeviceGetName(char*, int, CUdevice)` writes at most the given number of bytes, a NUL included.
    unsafe {
        call(library, "cuDeviceGetName", |get: GetName| get(name.as_mut_ptr(), name.len() as c_int - 1, device))
    }?;
    // SAFETY: `CUresult cuDeviceTotalMem_v2(size_t*, CUdevice)` writes one number.
    unsafe { call(library, "cuDeviceTotalMem_v2", |get: GetMemory| get(&raw mut memory, device)) }?;
    // SAFETY: the last byte was not written and is a NUL.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
    Ok(Gpu { index: index.unsigned_abs(), name, memory: memory as u64 })
}

/// Calls the function `what` by `with`.
///
/// # Safety
/// `F` must be its type, and `with` must keep its contract.
unsafe fn call<F: Copy>(
    library: &Library,
    what: &'static str,
    with: impl FnOnce(F) -> c_int,
) -> Result<(), DriverError> {
    // SAFETY: the caller knows its type.
    let function = unsafe { library.get::<F>(what.as_bytes()) }.map_err(|_| DriverError::Foreign(what))?;
    match with(*function) {
        0 => Ok(()),
        code => Err(DriverError::Fails { what, code }),
    }
}

/// Of the errors that machines have when their installation is at fault.
fn meaning(code: i32) -> &'static str {
    match code {
        34 => " (this is the stub that comes with CUDA's headers, not a driver)",
        2 => " (out of memory)",
        802 => " (the system is not ready: on machines with NVSwitch the fabric manager must run)",
        803 => " (the kernel's module is another version than the library: restart the machine after an update)",
        804 => " (this GPU does not run newer CUDA versions on an older driver)",
        999 => " (unknown; `dmesg` and `nvidia-smi` may say more, and a restart often mends it)",
        _ => "",
    }
}
