//! Where the process begins. The standard library's own start (a look at every stream, a guard for the main
//! thread's stack found in /proc/self/maps, an alternative signal stack) is for programs that live longer.

use std::ffi::{CStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::sync::OnceLock;

static ARGUMENTS: OnceLock<Vec<OsString>> = OnceLock::new();

/// What the C library calls.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
extern "C" fn main(count: libc::c_int, words: *const *const libc::c_char) -> libc::c_int {
    // SAFETY: nothing else runs yet. A write to a closed pipe shall be an error of that write, as everywhere in Rust.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    fill_standard_streams();
    // SAFETY: `words` has `count` strings that live as long as the process.
    let word = |index| unsafe { CStr::from_ptr(*words.add(index)) };
    let words = (0..count as usize).map(|index| OsString::from_vec(word(index).to_bytes().to_vec()));
    let _ = ARGUMENTS.set(words.collect());
    crate::begin()
}

/// Puts the null device under standard streams that the caller has closed: what is opened next would take their place,
/// and be written to for standard error, or be the container's.
fn fill_standard_streams() {
    let mut streams = [0, 1, 2].map(|fd| libc::pollfd {
        fd,
        events: 0,
        revents: 0,
    });
    // SAFETY: pointer and count are of one array that outlives the call.
    unsafe { libc::poll(streams.as_mut_ptr(), 3, 0) };
    for stream in streams {
        if stream.revents & libc::POLLNVAL != 0 {
            // SAFETY: the path is a C string. The lowest free number is this stream's, as those below are open.
            unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
        }
    }
}

/// The command line, the program's name first. `std::env::args` knows it only where the C library tells it beside
/// `main`, which musl does not.
pub(crate) fn arguments() -> &'static [OsString] {
    ARGUMENTS.get().map_or(&[], Vec::as_slice)
}
