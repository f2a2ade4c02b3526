//! A file that says where a plugin is, or an answer of one.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| plugins::fuzz(bytes));
