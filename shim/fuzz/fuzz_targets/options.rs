//! Runtime options of every known type.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protobuf::well_known_types::any::Any;

fuzz_target!(|input: (bool, Vec<u8>)| {
    let (wrapped, value) = input;
    // The wrapper may name a file to read; that is no matter for a fuzzer.
    if wrapped && value.contains(&b'/') {
        return;
    }
    let kind = if wrapped { "runtimeoptions.v1.Options" } else { "containerd.runc.v1.Options" };
    let any = Any { type_url: kind.into(), value, ..Any::default() };
    let _ = shim::options::parse(Some(&any));
});
