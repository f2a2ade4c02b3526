//! Payloads of signatures, and their annotations.
#![no_main]

libfuzzer_sys::fuzz_target!(|content: &[u8]| image::fuzzing::simple_signing(content));
