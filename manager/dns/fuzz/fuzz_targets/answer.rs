//! A message from a server, to a question that it may fit or not.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dns::fuzzing::answer(data));
