//! Generates the Rust side of `berth/v1/berth.proto`. The compiler is protox, in Rust, so that a fresh machine
//! needs no protoc.

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=berth");
    let descriptors = protox::compile(["berth/v1/berth.proto"], ["."])?;
    // For clients that ask the server what it offers.
    let described = std::path::Path::new(&std::env::var("OUT_DIR")?).join("berth.v1.bin");
    std::fs::write(described, descriptors.encode_to_vec())?;
    // So that a test's server need not answer what the test does not ask.
    tonic_prost_build::configure()
        .generate_default_stubs(true)
        // One at the end of many small ones.
        .boxed(".berth.v1.PullProgress.kind.pulled")
        .compile_fds(descriptors)?;
    Ok(())
}
