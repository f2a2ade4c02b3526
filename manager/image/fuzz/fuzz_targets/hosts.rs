//! The file hosts.toml.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| image::fuzzing::hosts(text));
