//! Dockerfile instructions, as `--change` takes them.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| image::fuzzing::instruction(text));
