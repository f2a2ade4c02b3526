//! The allocator's tuning, which no crate wraps.

/// glibc would give each thread memory of its own and keep it; this process has little to do at once.
pub(crate) fn few_arenas() {
    // SAFETY: changes a tuning value of the allocator before other threads exist.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
}

/// Give the system back what is free, also between what is in use.
pub(crate) fn give_memory_back() {
    // SAFETY: takes an integer; the allocator locks its arenas itself.
    unsafe { libc::malloc_trim(0) };
}
