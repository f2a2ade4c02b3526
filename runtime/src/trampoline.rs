//! The last thing that runs before a container's own program: a sealed program of a few hundred bytes in memory.
//!
//! While `execve` resolves a script's or an ELF file's interpreter, /proc/self/exe still names the program that
//! calls it. A hostile image with `#!/proc/self/exe` would so get hold of the runtime's binary on the host and
//! could overwrite it later (CVE-2019-5736). Other runtimes copy or re-mount their whole binary and execute it
//! again at each start. Here init first executes this trampoline, and the trampoline executes the container's
//! program; then /proc/self/exe is worthless. It needs no system call but `execve`, so any seccomp profile that
//! can start a program at all lets it pass.

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::error::{Context, Result};
use crate::sys::trampoline::{MACHINE, code};

const BASE: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 56;
/// Says that the file is meant to be executed; kernels before 6.3 don't know the flag and need none.
const MFD_EXEC: u32 = 0x10;

/// The trampoline as an anonymous file that can't change any more.
pub(crate) fn make() -> Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let fd = memfd_create(c"trampoline", flags | MFdFlags::from_bits_retain(MFD_EXEC))
        .or_else(|_| memfd_create(c"trampoline", flags))
        .context(|| "make the trampoline's memory file".into())?;
    let mut file = File::from(fd);
    file.write_all(&elf(code()))
        .context(|| "write the trampoline".into())?;
    let seals =
        SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).context(|| "seal the trampoline".into())?;
    Ok(file.into())
}

/// What the trampoline takes as its arguments to run `program` with `arguments`.
pub(crate) fn arguments(program: CString, arguments: Vec<CString>) -> Vec<CString> {
    std::iter::once(program).chain(arguments).collect()
}

/// A static executable with one segment: headers, then `code`.
fn elf(code: &[u8]) -> Vec<u8> {
    let size = HEADERS + code.len() as u64;
    let mut file = Vec::with_capacity(size as usize);
    let mut put = |bytes: &[u8]| file.extend_from_slice(bytes);
    put(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"); // 64 bits, little endian, version 1
    put(&2_u16.to_le_bytes()); // executable
    put(&MACHINE.to_le_bytes());
    put(&1_u32.to_le_bytes());
    put(&(BASE + HEADERS).to_le_bytes()); // entry
    put(&64_u64.to_le_bytes()); // program headers
    put(&0_u64.to_le_bytes()); // no section headers
    put(&0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 64, 0, 0] {
        put(&half.to_le_bytes());
    }
    put(&1_u32.to_le_bytes()); // PT_LOAD
    put(&5_u32.to_le_bytes()); // read, execute
    for word in [0, BASE, BASE, size, size, 0x1000] {
        put(&word.to_le_bytes());
    }
    put(code);
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    fn through_trampoline(program: &str) -> std::process::Output {
        let fd = make().unwrap();
        Command::new(format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()))
            .arg0(program)
            .args(["sh", "-c", "echo $0 $X"])
            .env("X", "seen")
            .output()
            .unwrap()
    }

    #[test]
    fn the_trampoline_runs_a_program_with_its_arguments_and_environment() {
        let output = through_trampoline("/bin/sh");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "sh seen\n");
        assert!(output.status.success());
    }

    #[test]
    fn the_trampoline_tells_of_a_program_that_is_not_there() {
        let output = through_trampoline("/does/not/exist");
        assert_eq!(output.status.code(), Some(127));
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(told, "exec /does/not/exist: no such file or directory\n");
    }

    #[test]
    fn the_trampoline_can_not_be_changed() {
        let fd = make().unwrap();
        assert!(File::from(fd).write_all(b"x").is_err());
    }
}
