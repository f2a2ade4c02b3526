//! Whole ranges of file descriptors, and descriptors that came to us by number.

use std::ffi::{CStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;

use super::check;

/// Sets close-on-exec on every descriptor from `first` on, so that none but the wanted ones reaches the container
/// (CVE-2024-21626 was one leaked directory).
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: plain integers; the flag closes nothing now.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// Closes every descriptor from `first` on but `kept`, whoever owns it. Only for a process that neither uses nor drops
/// another one before it executes something or exits. A kernel without `close_range` leaves them open until then.
pub(crate) fn close_others_from(first: RawFd, kept: &[BorrowedFd]) {
    let mut kept: Vec<RawFd> = kept.iter().map(AsRawFd::as_raw_fd).collect();
    kept.sort_unstable();
    let mut from = first;
    for last in kept.into_iter().map(|fd| fd - 1).chain([RawFd::MAX]) {
        if from <= last {
            // SAFETY: plain integers; what is closed is not used any more, as said above.
            unsafe { libc::syscall(libc::SYS_close_range, from, last, 0) };
        }
        from = from.max(last.saturating_add(2));
    }
}

/// So many may wait to be closed: fewer than any sensible limit of open descriptors.
const SPENT_MAX: usize = 128;

/// Not of a thread, which a C library that we link statically makes a detour for.
static SPENT: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());

/// Puts a descriptor aside for [`close_spent`]. A start of a container uses some eighty of them for a moment each;
/// their numbers follow each other, so that one call closes them all.
pub(crate) fn close_later(spent: OwnedFd) {
    let mut all = SPENT.lock().unwrap_or_else(PoisonError::into_inner);
    all.push(spent);
    let full = all.len() >= SPENT_MAX;
    drop(all);
    if full {
        close_spent();
    }
}

/// Closes what was put aside, one call for each run of numbers.
pub(crate) fn close_spent() {
    let spent = std::mem::take(&mut *SPENT.lock().unwrap_or_else(PoisonError::into_inner));
    let mut numbers: Vec<RawFd> = spent.into_iter().map(IntoRawFd::into_raw_fd).collect();
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

/// Opens a file with one call. `File::open` is two with musl, whose `open` sets the close-on-exec flag once more.
pub(crate) fn open(path: &Path, flags: OFlag, mode: Mode) -> io::Result<File> {
    Ok(openat(AT_FDCWD, path, flags | OFlag::O_CLOEXEC, mode)?.into())
}

/// The names in an opened directory, without `.` and `..`. As the C library's `opendir`, without its memory and its
/// calls for that.
pub(crate) fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    /// Of `struct linux_dirent64`, getdents64(2): the length of the record is at this byte, and the name at that.
    const LENGTH_AT: usize = 16;
    const NAME_AT: usize = 19;
    #[repr(C, align(8))]
    struct Buffer([u8; 4096]);

    let mut buffer = Buffer([0; _]);
    let mut names = Vec::new();
    loop {
        let (number, room) = (directory.as_raw_fd(), buffer.0.len());
        // SAFETY: the kernel writes no more than it is told that there is room for.
        let filled =
            check(unsafe { libc::syscall(libc::SYS_getdents64, number, buffer.0.as_mut_ptr(), room) })?;
        let mut rest = &buffer.0[..filled as usize];
        if rest.is_empty() {
            return Ok(names);
        }
        while let Some(&[low, high]) = rest.get(LENGTH_AT..LENGTH_AT + 2) {
            let (record, next) = rest.split_at(usize::from(u16::from_ne_bytes([low, high])).min(rest.len()));
            let name = record
                .get(NAME_AT..)
                .and_then(|name| CStr::from_bytes_until_nul(name).ok());
            match name.map(CStr::to_bytes) {
                None => break,
                Some(b"." | b"..") => {}
                Some(name) => names.push(OsString::from_vec(name.to_vec())),
            }
            rest = next;
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn names_are_those_that_the_library_sees() {
        let folder = Path::new("/usr/bin");
        let opened = open(folder, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        let mut found = names(opened.as_fd()).unwrap();
        let mut expected: Vec<_> = folder
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
        // More than one buffer full.
        assert!(found.len() > 200, "{}", found.len());
    }
}
