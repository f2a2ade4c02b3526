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

/// Give the system back what is free, also between what is in use, and unmap this program's code: what of it is wanted
/// again is mapped from the page cache, from which the system takes the rest without a look at who has it mapped. The
/// kernel maps sixteen pages for each that is wanted, so that nearly all of the code would stay mapped.
pub(crate) fn give_memory_back() {
    // SAFETY: takes an integer; the allocator locks its arenas itself.
    unsafe { libc::malloc_trim(0) };
    for (start, length) in code().unwrap_or_default() {
        // SAFETY: a mapping of a file that nobody has ever been able to write to: its pages are read again as they are,
        // and a thread that executes one of them waits for that. Nothing else is there, as code is never unmapped.
        unsafe {
            libc::madvise(
                std::ptr::with_exposed_provenance_mut(start),
                length,
                libc::MADV_DONTNEED,
            )
        };
    }
}

/// Where this program's executable code is mapped, and how many bytes of it.
fn code() -> io::Result<Vec<(usize, usize)>> {
    let program = std::fs::read_link("/proc/self/exe")?;
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let mapping = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (access, rest) = rest.split_once(' ')?;
        let path = rest.splitn(4, ' ').nth(3)?.trim_start();
        if access != "r-xp" || program.as_os_str() != path {
            return None;
        }
        let (start, end) = range.split_once('-')?;
        let (start, end) = (
            usize::from_str_radix(start, 16).ok()?,
            usize::from_str_radix(end, 16).ok()?,
        );
        Some((start, end - start))
    };
    Ok(maps.lines().filter_map(mapping).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_that_is_unmapped_is_this_programs_and_still_there_afterwards() {
        let here = give_memory_back as fn() as usize;
        let holds = |&(start, length): &(usize, usize)| (start..start + length).contains(&here);
        assert!(code().unwrap().iter().any(holds));
        give_memory_back();
        assert!(code().unwrap().iter().any(holds));
    }
}
