#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| oddlog_fuzz::targets::templates(data));
