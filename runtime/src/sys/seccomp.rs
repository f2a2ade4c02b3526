//! seccomp(2) and the instructions of classic BPF.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

pub(crate) use libc::sock_filter as Instruction;
pub(crate) use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W,
    SECCOMP_FILTER_FLAG_LOG, SECCOMP_FILTER_FLAG_NEW_LISTENER, SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
};

/// The kernel's limit on the length of a program (`BPF_MAXINSNS`).
pub(crate) const INSTRUCTIONS_MAX: usize = 4096;

/// Puts the calling thread under a filter, for good. With `SECCOMP_FILTER_FLAG_NEW_LISTENER` returns the descriptor
/// on which notifications arrive. Needs `no_new_privs` or `CAP_SYS_ADMIN`.
pub(crate) fn set_filter(program: &[Instruction], flags: libc::c_ulong) -> io::Result<Option<OwnedFd>> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `program` points to `length` live instructions, which the kernel only reads.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if flags & SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with this flag the result is a descriptor that the kernel just made for us.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(result as libc::c_int) }))
}
