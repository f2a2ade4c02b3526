//! The NUMA memory policy of the calling process.

use std::io;

use super::check;

/// Sets the policy that `execve` keeps. `nodes` are bits, lowest node first; none means no node mask.
pub(crate) fn set_policy(mode: i32, nodes: &[u64]) -> io::Result<()> {
    // The kernel reads one bit less than it is told.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let mask = if nodes.is_empty() {
        std::ptr::null()
    } else {
        nodes.as_ptr()
    };
    // SAFETY: pointer and length in bits describe one slice that outlives the call, or nothing at all.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}
