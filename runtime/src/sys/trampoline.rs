//! The machine code of the trampoline (see `crate::trampoline`): a program without data or library that executes
//! `argv[0]` with the rest of its arguments and its own environment. When that fails it tells so on standard error, by
//! one writev of "exec ", the program's name and the reason.

use std::slice;

#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .rodata.trampoline, \"a\"",
    ".balign 16",
    ".globl berth_trampoline_start",
    ".hidden berth_trampoline_start",
    "berth_trampoline_start:",
    "mov rdi, [rsp + 8]",            // program = argv[0]
    "lea rsi, [rsp + 16]",           // arguments = argv + 1
    "mov rdx, [rsp]",                // argc
    "lea rdx, [rsp + rdx * 8 + 16]", // environment follows argv and its null
    "mov eax, 59",                   // execve
    "syscall",
    "neg eax",
    "mov r8d, 126",
    "cmp eax, 2",
    "je 3f",
    "cmp eax, 8",
    "je 4f",
    "cmp eax, 13",
    "je 5f",
    "lea rsi, [rip + 20f]",
    "lea rdx, [rip + 21f]",
    "jmp 6f",
    "3:",
    "mov r8d, 127",
    "lea rsi, [rip + 21f]",
    "lea rdx, [rip + 22f]",
    "jmp 6f",
    "4:",
    "lea rsi, [rip + 22f]",
    "lea rdx, [rip + 23f]",
    "jmp 6f",
    "5:",
    "lea rsi, [rip + 23f]",
    "lea rdx, [rip + 24f]",
    "6:",
    "sub rdx, rsi",
    "push rdx", // three of struct iovec, the last one first: the reason
    "push rsi",
    "xor eax, eax",
    "7:",
    "cmp byte ptr [rdi + rax], 0",
    "je 8f",
    "inc rax",
    "jmp 7b",
    "8:",
    "push rax", // the program's name
    "push rdi",
    "push 5", // "exec "
    "lea rsi, [rip + 19f]",
    "push rsi",
    "mov edi, 2", // standard error
    "mov rsi, rsp",
    "mov edx, 3",
    "mov eax, 20", // writev
    "syscall",
    "mov edi, r8d",
    "mov eax, 231", // exit_group
    "syscall",
    "ud2",
    "19: .ascii \"exec \"",
    "20: .ascii \": not possible\\n\"",
    "21: .ascii \": no such file or directory\\n\"",
    "22: .ascii \": exec format error\\n\"",
    "23: .ascii \": permission denied\\n\"",
    "24:",
    ".globl berth_trampoline_end",
    ".hidden berth_trampoline_end",
    "berth_trampoline_end:",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(
    ".pushsection .rodata.trampoline, \"a\"",
    ".balign 16",
    ".globl berth_trampoline_start",
    ".hidden berth_trampoline_start",
    "berth_trampoline_start:",
    "ldr x2, [sp]",           // argc
    "ldr x0, [sp, #8]",       // program = argv[0]
    "add x1, sp, #16",        // arguments = argv + 1
    "add x2, x1, x2, lsl #3", // environment follows argv and its null
    "mov x8, #221",           // execve
    "svc #0",
    "neg w4, w0",
    "mov w5, #126",
    "cmp w4, #2",
    "b.eq 3f",
    "cmp w4, #8",
    "b.eq 4f",
    "cmp w4, #13",
    "b.eq 5f",
    "adr x1, 20f",
    "adr x2, 21f",
    "b 6f",
    "3:",
    "mov w5, #127",
    "adr x1, 21f",
    "adr x2, 22f",
    "b 6f",
    "4:",
    "adr x1, 22f",
    "adr x2, 23f",
    "b 6f",
    "5:",
    "adr x1, 23f",
    "adr x2, 24f",
    "6:",
    "sub x2, x2, x1",
    "ldr x6, [sp, #8]", // the program's name
    "mov x7, #0",
    "7:",
    "ldrb w4, [x6, x7]",
    "cbz w4, 8f",
    "add x7, x7, #1",
    "b 7b",
    "8:",
    "stp x1, x2, [sp, #-16]!", // three of struct iovec, the last one first: the reason
    "stp x6, x7, [sp, #-16]!",
    "adr x1, 19f",
    "mov x2, #5", // "exec "
    "stp x1, x2, [sp, #-16]!",
    "mov x0, #2", // standard error
    "mov x1, sp",
    "mov x2, #3",
    "mov x8, #66", // writev
    "svc #0",
    "mov w0, w5",
    "mov x8, #94", // exit_group
    "svc #0",
    "brk #1",
    "19: .ascii \"exec \"",
    "20: .ascii \": not possible\\n\"",
    "21: .ascii \": no such file or directory\\n\"",
    "22: .ascii \": exec format error\\n\"",
    "23: .ascii \": permission denied\\n\"",
    "24:",
    ".globl berth_trampoline_end",
    ".hidden berth_trampoline_end",
    "berth_trampoline_end:",
    ".popsection",
);

/// The ELF machine number of `code`.
#[cfg(target_arch = "x86_64")]
pub(crate) const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
pub(crate) const MACHINE: u16 = 183;

unsafe extern "C" {
    #[link_name = "berth_trampoline_start"]
    static START: u8;
    #[link_name = "berth_trampoline_end"]
    static END: u8;
}

/// The program's bytes; position independent.
pub(crate) fn code() -> &'static [u8] {
    // SAFETY: both symbols lie in the one read-only section above, start before end.
    unsafe {
        let (start, end) = (&raw const START, &raw const END);
        slice::from_raw_parts(start, end as usize - start as usize)
    }
}
