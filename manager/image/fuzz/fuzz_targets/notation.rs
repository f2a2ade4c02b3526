//! Notary Project envelopes, as JWS and as COSE.
#![no_main]

libfuzzer_sys::fuzz_target!(|content: &[u8]| image::fuzzing::notation(content));
