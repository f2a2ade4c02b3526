//! The allocator's tuning, the environment, and descriptors that come by number: no crate wraps these as they are needed.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// glibc would give each thread memory of its own and keep it; this process has little to do at once.
pub(crate) fn few_arenas() {
    // SAFETY: changes a tuning value of the allocator before other threads exist.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
}

/// Take variables whose name begins so out of the environment where they are empty: the specification of OpenTelemetry
/// has an empty one mean the same as none, and libraries do not all know. To be called before there are threads.
pub(crate) fn forget_empty_variables(prefix: &str) {
    let empty = std::env::vars_os()
        .filter(|(name, value)| value.is_empty() && name.as_encoded_bytes().starts_with(prefix.as_bytes()));
    for (name, _) in empty.collect::<Vec<_>>() {
        // SAFETY: no other thread exists that could read the environment meanwhile.
        unsafe { std::env::remove_var(name) };
    }
}

/// Give the system back what is free, also between what is in use.
pub(crate) fn give_memory_back() {
    // SAFETY: takes an integer; the allocator locks its arenas itself.
    unsafe { libc::malloc_trim(0) };
}

/// The sockets that systemd has made for this process (`sd_listen_fds(3)`); to be called once.
pub(crate) fn activated_sockets() -> io::Result<Vec<OwnedFd>> {
    let numbers = sd_notify::listen_fds()?;
    // SAFETY: their numbers come from who started this process, for this process by its id, and the call that found
    // them would have failed if they were not open. Nobody else here takes them, as this is called once.
    Ok(numbers
        .map(|number| unsafe { OwnedFd::from_raw_fd(number) })
        .collect())
}
