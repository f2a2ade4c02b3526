//! What a credential helper answers.
#![no_main]

libfuzzer_sys::fuzz_target!(|content: &[u8]| credentials::fuzzing::helper(content));
