//! Filters as the program under them notices them. The program is a few bytes of machine code: it makes one system call
//! and exits with its error number, so that no libc's calls are in the way.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use integration::{Bundle, Done, Runtime, Sandbox, eventually};
use serde_json::{Value, json};

const GETPID: u32 = 39;
const MKDIR: u32 = 83;
const GETPRIORITY: u32 = 140;
const OPEN_TREE_ATTR: u32 = 467;
const X32_BIT: u32 = 0x4000_0000;
const SIGSYS: i32 = 31;

/// How the program enters the kernel.
#[derive(Clone, Copy, PartialEq)]
enum Gate {
    Syscall,
    /// The way of 32-bit programs, open to all.
    Int80,
}

/// A static ELF program that makes one call and exits with 0 or the error number.
fn probe(path: &Path, gate: Gate, number: u32, arguments: [u64; 2]) {
    let mut code: Vec<u8> = Vec::new();
    let [first, second] = arguments;
    if gate == Gate::Syscall {
        code.extend([0x48, 0xbf]); // mov rdi, first
        code.extend(first.to_le_bytes());
        code.extend([0x48, 0xbe]); // mov rsi, second
        code.extend(second.to_le_bytes());
    } else {
        code.push(0xbb); // mov ebx, first
        code.extend((first as u32).to_le_bytes());
        code.push(0xb9); // mov ecx, second
        code.extend((second as u32).to_le_bytes());
    }
    code.push(0xb8); // mov eax, number
    code.extend(number.to_le_bytes());
    code.extend(if gate == Gate::Syscall {
        [0x0f, 0x05]
    } else {
        [0xcd, 0x80]
    });
    code.extend([0x31, 0xff, 0x85, 0xc0, 0x79, 0x04]); // xor edi, edi; test eax, eax; jns over the next two
    code.extend([0x89, 0xc7, 0xf7, 0xdf]); // mov edi, eax; neg edi
    code.extend([0xb8, 60, 0, 0, 0, 0x0f, 0x05]); // exit(edi)
    let size = 0x78 + code.len() as u64;
    let mut elf: Vec<u8> = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]); // an executable for x86-64
    for word in [0x40_0078_u64, 64, 0] {
        elf.extend(word.to_le_bytes()); // entry, program headers, no sections
    }
    elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    elf.extend([1, 0, 0, 0, 5, 0, 0, 0]); // one segment, readable and executable
    for word in [0_u64, 0x40_0000, 0x40_0000, size, size, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    assert_eq!(elf.len(), 0x78);
    elf.extend(code);
    fs::write(path, elf).expect("write the program");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("make it executable");
}

/// A profile that only cares about what is named.
fn open(syscalls: &Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": syscalls})
}

/// Runs the probe under a profile.
fn under(sandbox: &Sandbox, profile: &Value, gate: Gate, number: u32, arguments: [u64; 2]) -> Done {
    let runtime = Runtime::new(sandbox);
    let mut bundle = Bundle::named(sandbox, "bundle", &["/probe"]);
    probe(&bundle.rootfs().join("probe"), gate, number, arguments);
    bundle.set("/linux/seccomp", profile.clone());
    let done = runtime.run(&bundle, sandbox.id());
    fs::remove_dir_all(bundle.path()).expect("remove the bundle");
    done
}

#[track_caller]
fn errno(sandbox: &Sandbox, profile: &Value, number: u32, arguments: [u64; 2]) -> i32 {
    let done = under(sandbox, profile, Gate::Syscall, number, arguments);
    assert_eq!(done.stderr, "", "{done}");
    done.code
}

#[test]
fn each_rule_answers_with_its_own_error_number() {
    let sandbox = Sandbox::new();
    let profile = open(&json!([
        {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
        {"names": ["getpid", "no_such_call"], "action": "SCMP_ACT_ERRNO"},
        {"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99, "args": [
            {"index": 1, "value": 0x1_0000_0000_u64, "op": "SCMP_CMP_GE"}]},
        {"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 98, "args": [
            {"index": 0, "value": 0xff0, "valueTwo": 0x120, "op": "SCMP_CMP_MASKED_EQ"}]},
    ]));
    assert_eq!(errno(&sandbox, &profile, MKDIR, [0, 0]), 28);
    assert_eq!(errno(&sandbox, &profile, GETPID, [0, 0]), 1);
    assert_eq!(errno(&sandbox, &profile, GETPRIORITY, [0, 0]), 0);
    assert_eq!(errno(&sandbox, &profile, GETPRIORITY, [0, 0x1_0000_0000]), 99);
    assert_eq!(errno(&sandbox, &profile, GETPRIORITY, [0x129, 0]), 98);
    // EINVAL of the call itself: the filter let it through.
    assert_eq!(errno(&sandbox, &profile, GETPRIORITY, [0x139, 0]), 22);
}

#[test]
fn killing_actions_kill() {
    let sandbox = Sandbox::new();
    for action in [
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_TRAP",
    ] {
        let profile = open(&json!([{"names": ["mkdir"], "action": action}]));
        let done = under(&sandbox, &profile, Gate::Syscall, MKDIR, [0, 0]);
        assert_eq!(done.code, 128 + SIGSYS, "{action}: {done}");
    }
    let log = open(&json!([{"names": ["getpid"], "action": "SCMP_ACT_LOG"}]));
    assert_eq!(errno(&sandbox, &log, GETPID, [0, 0]), 0);
}

#[test]
fn a_hook_in_the_container_is_under_its_filter_and_told_to_be() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::named(&sandbox, "box", &["/bin/true"]);
    let rule = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}]);
    bundle.set("/linux/seccomp", open(&rule));
    bundle.set(
        "/hooks/startContainer",
        json!([{"path": "/bin/mkdir", "args": ["mkdir", "/made"]}]),
    );
    let refused = runtime.run(&bundle, sandbox.id()).refused();
    for part in [
        "startContainer hook #0: /bin/mkdir",
        "bad system call",
        "linux.seccomp",
    ] {
        assert!(refused.contains(part), "{refused}");
    }
}

#[test]
fn numbers_of_other_architectures_are_no_way_around() {
    let sandbox = Sandbox::new();
    let mut profile = open(&json!([{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]));
    // By x32 and by int 0x80, where mkdir is 39.
    let x32 = under(&sandbox, &profile, Gate::Syscall, X32_BIT | MKDIR, [0, 0]);
    assert_eq!(x32.code, 128 + SIGSYS, "{x32}");
    let int80 = under(&sandbox, &profile, Gate::Int80, 39, [0, 0]);
    assert_eq!(int80.code, 128 + SIGSYS, "{int80}");
    profile["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    assert_eq!(errno(&sandbox, &profile, X32_BIT | MKDIR, [0, 0]), 28);
    let int80 = under(&sandbox, &profile, Gate::Int80, 39, [0, 0]);
    assert_eq!(int80.code, 28, "{int80}");
}

#[test]
fn a_closed_profile_refuses_what_it_knows_and_calls_what_is_newer_unknown() {
    let sandbox = Sandbox::new();
    // What a runtime may need between the filter and the program, and the newest call that the profile knows.
    let needed = [
        "execve",
        "execveat",
        "exit",
        "exit_group",
        "read",
        "write",
        "close",
        "close_range",
        "fcntl",
        "prctl",
        "capget",
        "capset",
        "setuid",
        "setgid",
        "setresuid",
        "setresgid",
        "setgroups",
        "sendmsg",
        "recvmsg",
        "sendto",
        "recvfrom",
        "mmap",
        "munmap",
        "mprotect",
        "brk",
        "futex",
        "rt_sigaction",
        "rt_sigprocmask",
        "rt_sigreturn",
        "sigaltstack",
        "openat",
        "fstat",
        "newfstatat",
        "chdir",
        "getcwd",
        "umask",
        "poll",
        "ppoll",
        "dup2",
        "dup3",
        "getpid",
        "gettid",
        "tgkill",
        "setsid",
        "ioctl",
        "fchdir",
        "statx",
        "mseal",
    ];
    let profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "syscalls": [{"names": needed.as_slice(), "action": "SCMP_ACT_ALLOW"}],
    });
    assert_eq!(errno(&sandbox, &profile, GETPID, [0, 0]), 0);
    assert_eq!(errno(&sandbox, &profile, MKDIR, [0, 0]), 1);
    assert_eq!(errno(&sandbox, &profile, OPEN_TREE_ATTR, [0, 0]), 38);
}

#[test]
fn exec_is_under_the_containers_filter() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(&sandbox, "sleep 1000");
    probe(&bundle.rootfs().join("probe"), Gate::Syscall, MKDIR, [0, 0]);
    bundle.set(
        "/linux/seccomp",
        open(&json!([{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}])),
    );
    runtime.detach(&bundle, sandbox.id());
    assert_eq!(runtime.call(&["exec", sandbox.id(), "/probe"]).code, 28);
    runtime.delete(sandbox.id());
}

#[test]
fn a_filter_is_there_without_no_new_privs_too() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    for no_new_privs in [false, true] {
        let name = format!("bundle-{no_new_privs}");
        let script = "grep -E 'Seccomp:|NoNewPrivs' /proc/self/status";
        let mut bundle = Bundle::named(&sandbox, &name, &["/bin/sh", "-c", script]);
        bundle.set("/process/noNewPrivileges", json!(no_new_privs));
        bundle.set(
            "/linux/seccomp",
            open(&json!([{"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}])),
        );
        let output = runtime.run(&bundle, sandbox.id()).ok();
        let words: Vec<&str> = output.split_whitespace().collect();
        assert_eq!(
            words,
            [
                "NoNewPrivs:",
                if no_new_privs { "1" } else { "0" },
                "Seccomp:",
                "2"
            ]
        );
    }
}

#[test]
fn the_listener_gets_the_containers_state_and_a_descriptor() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let path = sandbox.path().join("listener.sock");
    let listener = UnixListener::bind(&path).expect("listen for the filter");
    let mut bundle = Bundle::named(&sandbox, "bundle", &["/probe"]);
    probe(&bundle.rootfs().join("probe"), Gate::Syscall, MKDIR, [0, 0]);
    let mut profile = open(&json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]));
    profile["listenerPath"] = json!(path);
    profile["listenerMetadata"] = json!("who asks");
    bundle.set("/linux/seccomp", profile);
    let running = runtime.spawn(&bundle, sandbox.id());
    let (message, descriptors) = receive(&listener);
    assert_eq!(message["fds"], json!(["seccompFd"]), "{message}");
    assert_eq!(message["metadata"], "who asks", "{message}");
    assert_eq!(message["state"]["id"], sandbox.id(), "{message}");
    assert!(message["pid"].as_i64().is_some_and(|pid| pid > 0), "{message}");
    assert_eq!(descriptors.len(), 1);
    let kind = fs::read_link(format!("/proc/self/fd/{}", descriptors[0].as_raw_fd())).expect("read the link");
    assert_eq!(kind.to_str(), Some("anon_inode:seccomp notify"));
    // Nobody answers any more: the kernel says ENOSYS for the call that waits.
    drop(descriptors);
    let done = runtime.finish(running);
    assert_eq!(done.code, 38, "{done}");
}

/// One message of JSON with the descriptors that came along.
fn receive(listener: &UnixListener) -> (Value, Vec<OwnedFd>) {
    let (connection, _) = listener.accept().expect("the runtime connects");
    let mut text = Vec::new();
    let mut descriptors = Vec::new();
    let message = eventually("a whole message", || {
        let mut buffer = vec![0; 65536];
        let (bytes, came) = integration::receive(&connection, &mut buffer).expect("receive");
        descriptors.extend(came);
        text.extend_from_slice(&buffer[..bytes]);
        serde_json::from_slice(&text).ok()
    });
    (message, descriptors)
}

#[test]
fn what_a_profile_can_not_mean_is_refused_by_field() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let refused = |name: &str, profile: Value, says: &str| {
        let mut bundle = Bundle::named(&sandbox, name, &["/bin/true"]);
        bundle.set("/linux/seccomp", profile);
        let error = runtime.run(&bundle, sandbox.id()).refused();
        assert!(error.contains(says), "{error} should say {says}");
        sandbox.assert_clean();
    };
    refused(
        "action",
        json!({"defaultAction": "SCMP_ACT_DANCE"}),
        "linux.seccomp.defaultAction",
    );
    refused(
        "arch",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_MIPS"]}),
        "linux.seccomp.architectures[0]: SCMP_ARCH_MIPS is not supported",
    );
    refused(
        "index",
        open(&json!([{"names": ["read"], "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}])),
        "linux.seccomp.syscalls[0].args[0]",
    );
    refused(
        "listener",
        open(&json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}])),
        "linux.seccomp.listenerPath",
    );
}
