//! What the process does about its memory: two allocators hold on to what was freed, each in its own way.

#![allow(unsafe_code, reason = "settings of C libraries; each use gives its reason")]

/// Bytes from which glibc's `malloc` gives a block back to the system as soon as it is freed.
#[cfg(target_env = "gnu")]
const GIVEN_BACK_FROM: i32 = 64 << 10;

/// Settings for the whole process, to be made first.
///
/// ONNX Runtime takes its scratch memory from glibc, whose own threshold grows with every large block freed; after that
/// each device thread's heap keeps what it once held: twice the memory after a minute under load.
///
/// mimalloc spreads what threads allocate over its arenas and asks for huge pages there, so that each first touch takes, and
/// clears, 2 MiB for some KiB: 60 MB of a server that has 40 else, and no line a second more.
pub fn settle() {
    #[cfg(target_os = "linux")]
    // SAFETY: it only sets a flag of the process; where it is not known, nothing happens.
    unsafe {
        libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0)
    };
    #[cfg(target_env = "gnu")]
    // SAFETY: `mallopt` only sets a number.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, GIVEN_BACK_FROM);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 2 * GIVEN_BACK_FROM);
    };
}

/// Bytes that a block of `bytes` takes in mimalloc.
pub fn allocated(bytes: usize) -> usize {
    // SAFETY: a computation without any state.
    unsafe { libmimalloc_sys::mi_good_size(bytes) }
}

/// Gives back what is free now, after work that needed much more than what stays: reading a vocabulary takes several
/// times its size, and mimalloc, which Rust allocates from, would keep that for later.
pub fn give_back() {
    // SAFETY: any thread may call it at any time.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
