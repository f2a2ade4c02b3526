//! The architectures that a filter can name, as the kernel tells them apart.

use oci_spec::runtime::Arch as SpecArch;

/// In the order of the columns of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arch {
    X86_64,
    X86,
    /// The kernel shows it as `x86_64`, with a bit set in the number.
    X32,
    Aarch64,
    Arm,
}

/// Set in the number of each x32 call.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// Where the private calls of 32-bit ARM begin, far above all others.
pub(super) const ARM_PRIVATE: u32 = 0x000f_0000;

impl Arch {
    /// What this program was built for; libseccomp adds it to each filter, named or not.
    #[cfg(target_arch = "x86_64")]
    pub(super) const NATIVE: Self = Self::X86_64;
    #[cfg(target_arch = "aarch64")]
    pub(super) const NATIVE: Self = Self::Aarch64;

    /// Nothing for those that this runtime has no table of.
    pub(super) fn from_spec(arch: SpecArch) -> Option<Self> {
        match arch {
            SpecArch::ScmpArchNative => Some(Self::NATIVE),
            SpecArch::ScmpArchX86_64 => Some(Self::X86_64),
            SpecArch::ScmpArchX86 => Some(Self::X86),
            SpecArch::ScmpArchX32 => Some(Self::X32),
            SpecArch::ScmpArchAarch64 => Some(Self::Aarch64),
            SpecArch::ScmpArchArm => Some(Self::Arm),
            _ => None,
        }
    }

    pub(super) fn column(self) -> usize {
        self as usize
    }

    /// `AUDIT_ARCH_*` in `struct seccomp_data`.
    pub(super) fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Only the low halves of the arguments count; as in libseccomp that goes for x32, too.
    pub(super) fn is_32_bit(self) -> bool {
        matches!(self, Self::X86 | Self::X32 | Self::Arm)
    }
}

/// Which call of 32-bit x86 a name also goes through, with which first argument and which bits of it
/// (`linux/net.h`, `linux/ipc.h`; the kernel ignores the upper half of the latter's).
pub(super) fn multiplexed(name: &str) -> Option<(&'static str, u64, u64)> {
    const SOCKET: [&str; 20] = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    const IPC: [(&str, u64); 12] = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ];
    if let Some(at) = SOCKET.iter().position(|call| *call == name) {
        return Some(("socketcall", at as u64 + 1, 0xffff_ffff));
    }
    let (_, selector) = IPC.iter().find(|(call, _)| *call == name)?;
    Some(("ipc", *selector, 0xffff))
}
