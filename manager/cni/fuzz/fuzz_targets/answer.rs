//! A configuration of a network, or an answer of a plugin.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cni::fuzz(bytes));
