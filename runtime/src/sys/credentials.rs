//! Users, groups and capability sets of the calling process.

use std::io;

use super::check;

/// The real and the effective user as whom this program was executed, which the runtime stays. The kernel has told
/// them with `execve`, so that nothing is asked.
pub(crate) fn own_users() -> (u32, u32) {
    // SAFETY: getauxval only reads what the kernel has put on our stack.
    unsafe {
        (
            libc::getauxval(libc::AT_UID) as u32,
            libc::getauxval(libc::AT_EUID) as u32,
        )
    }
}

/// Replaces the supplementary groups.
pub(crate) fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: pointer and length describe one slice that outlives the call. The raw call acts on this thread, the
    // only one.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// Sets real, effective and saved group.
pub(crate) fn set_gid(gid: u32) -> io::Result<()> {
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// Sets real, effective and saved user.
pub(crate) fn set_uid(uid: u32) -> io::Result<()> {
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Permitted capabilities survive the change from root to another user.
pub(crate) fn keep_capabilities(yes: bool) -> io::Result<()> {
    // SAFETY: plain integers.
    check(libc::c_long::from(unsafe {
        libc::prctl(libc::PR_SET_KEEPCAPS, libc::c_ulong::from(yes), 0, 0, 0)
    }))
    .map(drop)
}

/// Takes one capability out of the bounding set.
pub(crate) fn drop_bounding(capability: u8) -> io::Result<()> {
    // SAFETY: plain integers.
    check(libc::c_long::from(unsafe {
        libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0)
    }))
    .map(drop)
}

/// Adds one capability to the ambient set; it must be permitted and inheritable.
pub(crate) fn raise_ambient(capability: u8) -> io::Result<()> {
    // SAFETY: plain integers.
    check(libc::c_long::from(unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong,
            libc::c_ulong::from(capability),
            0,
            0,
        )
    }))
    .map(drop)
}

/// The three sets of `capset`, one bit a capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sets {
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;

/// The sets of this process.
pub(crate) fn capabilities() -> io::Result<Sets> {
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 has two data elements, and both structures outlive the call.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) })?;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(Sets {
        effective: join(data[0].effective, data[1].effective),
        permitted: join(data[0].permitted, data[1].permitted),
        inheritable: join(data[0].inheritable, data[1].inheritable),
    })
}

/// Replaces the sets of this process.
pub(crate) fn set_capabilities(sets: Sets) -> io::Result<()> {
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let half = |shift: u32| Data {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: as in `capabilities`.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}
