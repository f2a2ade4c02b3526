//! The header in which a registry asks for credentials.
#![no_main]

libfuzzer_sys::fuzz_target!(|header: &str| image::fuzzing::challenge(header));
