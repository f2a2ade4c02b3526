//! Whole ranges of file descriptors, and descriptors that came to us by number.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

use super::check;

/// Sets close-on-exec on every descriptor from `first` on, so that none but the wanted ones reaches the container
/// (CVE-2024-21626 was one leaked directory).
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: plain integers; the flag closes nothing now.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// So many may wait to be closed: fewer than any sensible limit of open descriptors.
const SPENT_MAX: usize = 128;

thread_local! {
    static SPENT: RefCell<Vec<OwnedFd>> = const { RefCell::new(Vec::new()) };
}

/// Puts a descriptor aside for [`close_spent`]. A start of a container uses some eighty of them for a moment each;
/// their numbers follow each other, so that one call closes them all.
pub(crate) fn close_later(spent: OwnedFd) {
    let full = SPENT.with_borrow_mut(|all| {
        all.push(spent);
        all.len() >= SPENT_MAX
    });
    if full {
        close_spent();
    }
}

/// Closes what was put aside, one call for each run of numbers.
pub(crate) fn close_spent() {
    let mut numbers: Vec<RawFd> = SPENT.take().into_iter().map(IntoRawFd::into_raw_fd).collect();
    numbers.sort_unstable();
    for run in numbers.chunk_by(|a, b| a + 1 == *b) {
        let (first, last) = (run[0], run[run.len() - 1]);
        // SAFETY: the numbers are those of descriptors that we owned and have let go of just now.
        let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        if closed < 0 {
            // A filter around us that does not know the call.
            for number in run {
                // SAFETY: as above.
                unsafe { libc::close(*number) };
            }
        }
    }
}

/// Whether the descriptor number is open.
pub(crate) fn is_open(number: i32) -> bool {
    // SAFETY: F_GETFD only reads a flag.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

/// Makes `fd` the standard stream `number` (0, 1 or 2).
pub(crate) fn become_standard(fd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    // SAFETY: the standard streams are not owned by any `OwnedFd` of this crate.
    check(libc::c_long::from(unsafe { libc::dup2(fd.as_raw_fd(), number) })).map(drop)
}

/// The name of the file system behind `fd`, as its magic number.
pub(crate) fn file_system(fd: BorrowedFd<'_>) -> io::Result<i64> {
    Ok(nix::sys::statfs::fstatfs(fd)?.filesystem_type().0 as i64)
}
