//! What registries answer about the referrers of a manifest.
#![no_main]

libfuzzer_sys::fuzz_target!(|content: &[u8]| image::fuzzing::referrers(content));
