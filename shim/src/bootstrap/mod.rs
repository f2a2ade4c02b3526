//! The short-lived half of the shim: `start` makes the daemon, `delete` cleans up after a dead one, `-info` tells what
//! this shim is.

mod calls;
mod cleanup;
mod farewell;
mod info;
mod living;
pub mod params;
mod start;

pub use cleanup::delete;
pub use info::info;
pub(crate) use start::GO;
pub use start::start;

use std::io::{self, Read};

/// Reads stdin, bounded, unless it is a terminal (a person who calls the shim by hand).
fn read_stdin() -> io::Result<Vec<u8>> {
    use std::io::IsTerminal;
    const INPUT_BYTES_MAX: u64 = 10 << 20;
    let mut input = Vec::new();
    if !io::stdin().is_terminal() {
        io::stdin().lock().take(INPUT_BYTES_MAX).read_to_end(&mut input)?;
    }
    Ok(input)
}
