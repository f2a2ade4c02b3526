//! What `start` reads on stdin, and that its answer has the form that was asked for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shim::bootstrap::params::{Params, answer};

fuzz_target!(|input: (&[u8], &str, &str, Option<&str>)| {
    let (stdin, id, namespace, max_version) = input;
    let params = Params::parse(stdin, id, namespace, max_version);
    assert!(!answer(params.protocol, "unix:///run/s/x").is_empty());
});
