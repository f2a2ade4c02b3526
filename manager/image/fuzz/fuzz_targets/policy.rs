//! The trust policy.
#![no_main]

libfuzzer_sys::fuzz_target!(|content: &[u8]| image::fuzzing::policy(content));
