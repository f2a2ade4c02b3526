//! CRI's description of a pod, as containerd passes it on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protobuf::well_known_types::any::Any;

fuzz_target!(|value: Vec<u8>| {
    let any = Any { type_url: "runtime.v1.PodSandboxConfig".into(), value, ..Any::default() };
    let _ = shim::sandbox::pod::Pod::parse(Some(&any));
});
