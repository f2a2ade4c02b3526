//! Certificates of signers.
#![no_main]

// No bound of memory: for a length that DER announces zeroed pages are asked for, and left untouched when it is not there.
libfuzzer_sys::fuzz_target!(|content: &[u8]| image::fuzzing::certificate(content));
