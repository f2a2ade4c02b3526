//! Answers to searches, pages of catalogs, and the links between them.
#![no_main]

libfuzzer_sys::fuzz_target!(|content: &[u8]| image::fuzzing::search(content));
