//! A message from a container.
#![no_main]

libfuzzer_sys::fuzz_target!(|message: &[u8]| dns::fuzzing::question(message));
