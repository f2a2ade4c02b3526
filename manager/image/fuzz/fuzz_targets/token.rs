//! What a token server answers.
#![no_main]

libfuzzer_sys::fuzz_target!(|content: &[u8]| image::fuzzing::token(content));
