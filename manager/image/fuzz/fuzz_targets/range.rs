//! The header that says how much of an upload has arrived.
#![no_main]

libfuzzer_sys::fuzz_target!(|header: &str| image::fuzzing::range(header));
