//! Where the process begins. The standard library's own start (a look at every stream, a guard for the main
//! thread's stack found in /proc/self/maps, an alternative signal stack) is for programs that live longer.

/// What the C library calls.
#[unsafe(no_mangle)]
extern "C" fn main() -> libc::c_int {
    // SAFETY: nothing else runs yet. A write to a closed pipe shall be an error of that write, as everywhere in Rust.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    crate::begin()
}
