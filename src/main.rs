//! The `oddlog` program.

use std::process::ExitCode;

use oddlog::device::onnx::TELEMETRY_VARIABLE;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    #[allow(unsafe_code)]
    // SAFETY: no other thread runs yet. ONNX Runtime reads this while it loads, so it must stand before all else.
    unsafe {
        std::env::set_var(TELEMETRY_VARIABLE, "1")
    };
    oddlog::memory::settle();
    oddlog::cli::main()
}
