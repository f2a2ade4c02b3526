//! With `BERTH_ROOTLESS=1` in the environment, tests of the manager are of one that a normal user starts: the same tests,
//! but for those that integration/ROOTLESS.md names.

use crate::process::{binary, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Nobody on the machine has these ids.
const USER: u32 = 4711;
const FIRST: u32 = 3_000_000;

/// A user, with programs and an /etc of the test's own.
pub(crate) struct Rootless {
    folder: PathBuf,
}

impl Rootless {
    /// None: managers are root's. `folder` has those of the manager.
    pub(crate) fn asked_for(folder: &Path) -> Option<Self> {
        std::env::var_os("BERTH_ROOTLESS")?;
        // The build folder may be out of the user's reach.
        let programs = folder.join("bin");
        fs::create_dir_all(&programs).expect("make a folder");
        for name in ["manager", "shim", "runtime", "init"] {
            let program = binary(name);
            let place = programs.join(name);
            fs::hard_link(&program, &place)
                .or_else(|_| fs::copy(&program, &place).map(drop))
                .expect("copy a program");
        }
        let etc = folder.join("etc");
        run(Command::new("cp").arg("-a").arg("/etc").arg(&etc)).ok();
        let users = fs::read_to_string("/etc/passwd").expect("read the users");
        let user = format!("{users}berthtest:x:{USER}:{USER}::/nowhere:/bin/sh\n");
        fs::write(etc.join("passwd"), user).expect("write the users");
        for name in ["subuid", "subgid"] {
            fs::write(etc.join(name), format!("{USER}:{FIRST}:65536\n")).expect("write the ids");
        }
        for name in ["lib", "run", "home"] {
            fs::create_dir_all(folder.join(name)).expect("make a folder");
            chown(folder.join(name), Some(USER), Some(USER)).expect("give the folder away");
        }
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("open the folder");
        Some(Self {
            folder: folder.to_owned(),
        })
    }

    /// One of the programs, where the user reaches it.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    /// The user's `manager` on the host whose network is `netns`; it has the process id of what this starts.
    pub(crate) fn manager(&self, netns: &Path) -> Command {
        // Elsewhere udev lets everybody open this device.
        let script = format!(
            "mount -t tmpfs -o mode=755 tun /dev/net && mknod -m 666 /dev/net/tun c 10 200 && mount --bind {0}/etc /etc && \
             exec setpriv --reuid={USER} --regid={USER} --clear-groups --inh-caps=-all -- {0}/bin/manager \"$@\"",
            self.folder.display()
        );
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", netns.display()));
        command.args([
            "--",
            "unshare",
            "--mount",
            "--propagation",
            "slave",
            "--",
            "sh",
            "-c",
            &script,
            "sh",
        ]);
        command
            .env("HOME", self.folder.join("home"))
            .env("XDG_RUNTIME_DIR", self.folder.join("run"))
            .env_remove("XDG_CONFIG_HOME");
        command
    }

    /// The processes that outlive managers: the holder of the namespaces is the first.
    pub(crate) fn kept(&self) -> Vec<i32> {
        let record = fs::read_to_string(self.folder.join("run/namespaces")).unwrap_or_default();
        let numbers = record.split_ascii_whitespace().step_by(2);
        numbers.filter_map(|pid| pid.parse().ok()).collect()
    }

    /// The end of all that runs in the user's namespaces.
    pub(crate) fn end(&self) {
        let kept = self.kept();
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/user")).ok();
        let Some(own) = kept.first().and_then(|holder| namespace(&holder.to_string())) else {
            return;
        };
        let processes = fs::read_dir("/proc").expect("look at processes").flatten();
        let names = processes.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let inside = names.filter(|pid| namespace(pid).as_ref() == Some(&own));
        for pid in inside.filter_map(|pid| pid.parse().ok()).chain(kept) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}
