//! Certificates of signers.
#![no_main]

libfuzzer_sys::fuzz_target!(|content: &[u8]| image::fuzzing::certificate(content));
