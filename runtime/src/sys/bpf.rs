//! bpf(2), as far as device filters of cgroup v2 need it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `struct bpf_insn`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub(crate) struct Instruction {
    pub(crate) code: u8,
    /// Target in the low four bits, source in the high ones (little endian machines; the kernel's bit field is
    /// swapped on big endian ones).
    pub(crate) registers: u8,
    pub(crate) offset: i16,
    pub(crate) value: i32,
}

#[cfg(target_endian = "big")]
compile_error!("Instruction::registers is laid out for little endian machines");

// linux/bpf.h
const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_DETACH: libc::c_long = 9;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const PROG_QUERY: libc::c_long = 16;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
const REPLACE: u32 = 4;
/// The kernel refuses more programs on one group (`BPF_CGROUP_MAX_PROGS`).
const MAX_PROGRAMS: usize = 64;

#[derive(Default)]
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    instruction_address: u64,
    license_address: u64,
    log_level: u32,
    log_size: u32,
    log_address: u64,
}

#[derive(Default)]
#[repr(C)]
struct Attach {
    target_fd: u32,
    program_fd: u32,
    kind: u32,
    flags: u32,
    replaced_fd: u32,
}

#[derive(Default)]
#[repr(C)]
struct Query {
    target_fd: u32,
    kind: u32,
    flags: u32,
    attach_flags: u32,
    ids_address: u64,
    ids: u32,
    padding: u32,
}

#[derive(Default)]
#[repr(C)]
struct ById {
    id: u32,
    next_id: u32,
    flags: u32,
}

fn bpf<A>(command: libc::c_long, attributes: &mut A) -> io::Result<i32> {
    // SAFETY: `attributes` is a repr(C) prefix of `union bpf_attr` for `command` and lives through the call; the
    // addresses inside it point to buffers that the caller keeps alive.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            std::mem::size_of::<A>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as i32)
    }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just given us this descriptor (close-on-exec, as all of bpf(2)); nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// Has the kernel verify a device filter.
pub(crate) fn load_cgroup_device(program: &[Instruction]) -> io::Result<OwnedFd> {
    let mut attributes = Load {
        kind: TYPE_CGROUP_DEVICE,
        instructions: program.len() as u32,
        instruction_address: program.as_ptr() as u64,
        license_address: c"Apache".as_ptr() as u64,
        ..Load::default()
    };
    // BPF_PROG_LOAD gives EAGAIN when a signal comes during verification.
    for _ in 0..5 {
        match bpf(PROG_LOAD, &mut attributes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result.map(owned),
        }
    }
    bpf(PROG_LOAD, &mut attributes).map(owned)
}

/// The device filters that are attached to this very group.
pub(crate) fn attached_cgroup_device(group: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut ids = [0u32; MAX_PROGRAMS];
    let mut attributes = Query {
        target_fd: raw(group),
        kind: ATTACH_CGROUP_DEVICE,
        ids_address: ids.as_mut_ptr() as u64,
        ids: ids.len() as u32,
        ..Query::default()
    };
    bpf(PROG_QUERY, &mut attributes)?;
    let mut programs = Vec::new();
    for id in &ids[..(attributes.ids as usize).min(ids.len())] {
        match bpf(
            PROG_GET_FD_BY_ID,
            &mut ById {
                id: *id,
                ..ById::default()
            },
        ) {
            Ok(fd) => programs.push(owned(fd)),
            // Detached in between.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(programs)
}

/// Adds a device filter to a group. A device is allowed if all filters of the group and above allow it.
pub(crate) fn attach_cgroup_device(group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = Attach {
        target_fd: raw(group),
        program_fd: raw(program),
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
        ..Attach::default()
    };
    bpf(PROG_ATTACH, &mut attributes).map(drop)
}

/// Puts a device filter in the place of another in one step (Linux 5.6).
pub(crate) fn replace_cgroup_device(
    group: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replaced: BorrowedFd<'_>,
) -> io::Result<()> {
    let mut attributes = Attach {
        target_fd: raw(group),
        program_fd: raw(program),
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI | REPLACE,
        replaced_fd: raw(replaced),
    };
    bpf(PROG_ATTACH, &mut attributes).map(drop)
}

pub(crate) fn detach_cgroup_device(group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = Attach {
        target_fd: raw(group),
        program_fd: raw(program),
        kind: ATTACH_CGROUP_DEVICE,
        ..Attach::default()
    };
    bpf(PROG_DETACH, &mut attributes).map(drop)
}
