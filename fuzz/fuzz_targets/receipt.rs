#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ghostsync_fuzz::receipt(bytes));
