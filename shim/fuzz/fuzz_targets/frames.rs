//! ttrpc frames: whatever a client sends, in pieces of any size, memory stays bounded and nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shim::ttrpc::Frames;

fuzz_target!(|pieces: Vec<Vec<u8>>| {
    let mut frames = Frames::default();
    for piece in &pieces {
        frames.push(piece);
        loop {
            match frames.next_frame() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});
