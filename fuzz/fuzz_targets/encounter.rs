#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| proto_core::sim::fuzz::encounter(bytes));
