//! Docker's config.json.
#![no_main]

libfuzzer_sys::fuzz_target!(|content: &[u8]| credentials::fuzzing::file(content));
