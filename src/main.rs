//! The `oddlog` program.

use std::process::ExitCode;

use oddlog::device::onnx::TELEMETRY_VARIABLE;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes from which glibc's `malloc` gives a block back to the system as soon as it is freed.
#[cfg(target_env = "gnu")]
const GIVEN_BACK_FROM: i32 = 64 << 10;

fn main() -> ExitCode {
    #[allow(unsafe_code)]
    // SAFETY: no other thread runs yet. ONNX Runtime reads this while it loads, so it must stand before all else.
    unsafe {
        std::env::set_var(TELEMETRY_VARIABLE, "1")
    };
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code)]
    // SAFETY: `mallopt` only sets a number, and no other thread runs yet. ONNX Runtime takes its scratch memory from
    // glibc, whose own threshold grows with every large block freed, after which each device thread's heap keeps what
    // it once held: twice the memory after a minute under load.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, GIVEN_BACK_FROM);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 2 * GIVEN_BACK_FROM);
    };
    oddlog::cli::main()
}
