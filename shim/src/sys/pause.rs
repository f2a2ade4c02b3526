//! The program that keeps a pod's namespaces open (see `crate::sandbox`): a whole static executable of some 200 bytes,
//! headers and all. It has no data, no stack and no library, so that a pod costs one page of memory for it. As the
//! first process of a shared pid namespace it has the duty to reap orphans: a `SIGCHLD` that is ignored leaves that to
//! the kernel (sigaction(2)).

use std::slice;

macro_rules! executable {
    ($machine:literal, $($code:literal),+) => {
        std::arch::global_asm!(
            ".pushsection .rodata.pause, \"a\"",
            ".balign 16",
            ".hidden berth_pause_start",
            ".globl berth_pause_start",
            "berth_pause_start:",
            ".byte 0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0", // ELF, 64 bits, little endian, version 1
            ".8byte 0",
            ".2byte 2", // executable
            concat!(".2byte ", $machine),
            ".4byte 1",
            ".8byte 0x400078", // entry: behind the headers
            ".8byte 64, 0",    // program headers; no section headers
            ".4byte 0",
            ".2byte 64, 56, 1, 64, 0, 0",
            ".4byte 1, 5", // one segment: the file, to be read and executed
            ".8byte 0, 0x400000, 0x400000",
            ".8byte berth_pause_end - berth_pause_start, berth_pause_end - berth_pause_start, 0x1000",
            $($code,)+
            ".balign 8",
            "2: .8byte 1, 0, 0, 0", // struct sigaction: SIG_IGN, no flags, no restorer, empty mask
            ".hidden berth_pause_end",
            ".globl berth_pause_end",
            "berth_pause_end:",
            ".popsection",
        );
    };
}

#[cfg(target_arch = "x86_64")]
executable!(
    "62",
    "mov edi, 17", // SIGCHLD
    "lea rsi, [rip + 2f]",
    "xor edx, edx",
    "mov r10d, 8",
    "mov eax, 13", // rt_sigaction
    "syscall",
    "3:",
    "mov eax, 34", // pause
    "syscall",
    "jmp 3b"
);

#[cfg(target_arch = "aarch64")]
executable!(
    "183",
    "mov x0, #17", // SIGCHLD
    "adr x1, 2f",
    "mov x2, #0",
    "mov x3, #8",
    "mov x8, #134", // rt_sigaction
    "svc #0",
    "3:",
    "mov x0, #0",
    "mov x1, #0",
    "mov x2, #0",
    "mov x3, #0",
    "mov x8, #73", // ppoll of nothing, without end
    "svc #0",
    "b 3b"
);

unsafe extern "C" {
    #[link_name = "berth_pause_start"]
    static START: u8;
    #[link_name = "berth_pause_end"]
    static END: u8;
}

/// The executable, byte for byte.
pub(crate) fn pause_program() -> &'static [u8] {
    // SAFETY: both symbols lie in the one read-only section above, start before end.
    unsafe {
        let (start, end) = (&raw const START, &raw const END);
        slice::from_raw_parts(start, end as usize - start as usize)
    }
}
