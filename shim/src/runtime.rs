//! The OCI runtime's command line, as runc defined it, and what its failures say.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::options::Options;
use crate::sys;

/// Where a runtime keeps its state when the client names no place.
const DEFAULT_ROOT: &str = "/run/berth/runtime";

/// One runtime as it is called for one container. Written into the bundle for `delete` after a dead shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Runtime {
    pub binary: PathBuf,
    pub root: PathBuf,
    pub systemd_cgroup: bool,
    /// The pid of the shim that calls it.
    pub shim: u32,
}

/// The bundle's file that keeps the above.
pub(crate) const RUNTIME_FILE: &str = "runtime.json";

impl Runtime {
    pub(crate) fn new(options: &Options, namespace: &str) -> Self {
        let root = if options.root.is_empty() {
            DEFAULT_ROOT
        } else {
            &options.root
        };
        Self {
            binary: binary(&options.binary_name),
            root: Path::new(root).join(namespace),
            systemd_cgroup: options.systemd_cgroup,
            shim: std::process::id(),
        }
    }

    pub(crate) fn read(bundle: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(bundle.join(RUNTIME_FILE)).ok()?).ok()
    }

    pub(crate) fn name(&self) -> String {
        self.binary
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    fn command(&self, log: &Path) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .arg("--root")
            .arg(&self.root)
            .arg("--log")
            .arg(log)
            .args(["--log-format", "json"]);
        if self.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    pub(crate) fn create(&self, id: &str, create: &Create) -> Command {
        let mut command = self.command(create.log);
        command.arg("create");
        create.add_to(&mut command);
        if create.no_new_keyring {
            command.arg("--no-new-keyring");
        }
        command.arg(id);
        command
    }

    /// `images` are CRIU's, and `work` is where its logs go.
    pub(crate) fn restore(&self, id: &str, images: &Path, work: &Path, create: &Create) -> Command {
        let mut command = self.command(create.log);
        command.args(["restore", "--detach", "--image-path"]).arg(images);
        command.arg("--work-path").arg(work);
        create.add_to(&mut command);
        command.arg(id);
        command
    }

    pub(crate) fn exec(&self, id: &str, exec: &Exec) -> Command {
        let mut command = self.command(exec.log);
        command
            .arg("exec")
            .arg("--process")
            .arg(exec.process)
            .arg("--detach")
            .arg("--pid-file")
            .arg(exec.pid_file);
        if let Some(socket) = exec.console_socket {
            command.arg("--console-socket").arg(socket);
        }
        command.arg(id);
        command
    }

    /// `start`, `pause`, `resume`: a verb and the container.
    pub(crate) fn simple(&self, verb: &str, id: &str, log: &Path) -> Command {
        let mut command = self.command(log);
        command.arg(verb).arg(id);
        command
    }

    pub(crate) fn kill(&self, id: &str, signal: u32, all: bool, log: &Path) -> Command {
        let mut command = self.command(log);
        command.arg("kill");
        if all {
            command.arg("--all");
        }
        command.arg(id).arg(signal.to_string());
        command
    }

    pub(crate) fn delete(&self, id: &str, force: bool, log: &Path) -> Command {
        let mut command = self.command(log);
        command.arg("delete");
        if force {
            command.arg("--force");
        }
        command.arg(id);
        command
    }

    /// The pid of a container's init that has not ended, as far as the runtime knows. It compares start times, so that no
    /// other process is meant.
    pub(crate) fn living_pid(&self, id: &str, log: &Path) -> Option<u32> {
        #[derive(Deserialize)]
        struct State {
            status: String,
            pid: u32,
        }
        let mut command = self.command(log);
        let output = command.args(["state", id]).stdout(Stdio::piped()).output().ok()?;
        let state: State = serde_json::from_slice(&output.stdout).ok()?;
        (output.status.success() && state.status != "stopped").then_some(state.pid)
    }

    /// `resources` is the JSON that the runtime reads from its stdin.
    pub(crate) fn update(&self, id: &str, resources: &[u8], log: &Path) -> io::Result<Command> {
        use io::Write;
        let mut input = sys::memfd("resources")?;
        input.write_all(resources)?;
        input.seek(SeekFrom::Start(0))?;
        let mut command = self.command(log);
        command.args(["update", "--resources=-", id]).stdin(input);
        Ok(command)
    }

    pub(crate) fn checkpoint(&self, id: &str, checkpoint: &Checkpoint, log: &Path) -> Command {
        let mut command = self.command(log);
        command
            .arg("checkpoint")
            .arg("--image-path")
            .arg(&checkpoint.image_path);
        if !checkpoint.work_path.is_empty() {
            command.arg("--work-path").arg(&checkpoint.work_path);
        }
        for (flag, wanted) in [
            ("--leave-running", !checkpoint.exit),
            ("--tcp-established", checkpoint.open_tcp),
            ("--ext-unix-sk", checkpoint.external_unix_sockets),
            ("--shell-job", checkpoint.terminal),
            ("--file-locks", checkpoint.file_locks),
        ] {
            if wanted {
                command.arg(flag);
            }
        }
        for namespace in &checkpoint.empty_namespaces {
            command.arg("--empty-ns").arg(namespace);
        }
        if !checkpoint.cgroups_mode.is_empty() {
            command.arg("--manage-cgroups-mode").arg(&checkpoint.cgroups_mode);
        }
        command.arg(id);
        command
    }

    /// What the runtime can do, as it tells itself.
    pub(crate) fn features(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("features").stdin(Stdio::null()).stderr(Stdio::null());
        command
    }
}

#[derive(Debug)]
pub(crate) struct Create<'a> {
    pub bundle: &'a Path,
    pub pid_file: &'a Path,
    pub console_socket: Option<&'a Path>,
    pub log: &'a Path,
    pub no_pivot_root: bool,
    pub no_new_keyring: bool,
}

impl Create<'_> {
    fn add_to(&self, command: &mut Command) {
        command.arg("--bundle").arg(self.bundle);
        command.arg("--pid-file").arg(self.pid_file);
        if let Some(socket) = self.console_socket {
            command.arg("--console-socket").arg(socket);
        }
        if self.no_pivot_root {
            command.arg("--no-pivot");
        }
    }
}

#[derive(Debug)]
pub(crate) struct Exec<'a> {
    pub process: &'a Path,
    pub pid_file: &'a Path,
    pub console_socket: Option<&'a Path>,
    pub log: &'a Path,
}

#[derive(Debug, Default)]
pub(crate) struct Checkpoint {
    pub image_path: String,
    pub work_path: String,
    pub exit: bool,
    pub open_tcp: bool,
    pub external_unix_sockets: bool,
    pub terminal: bool,
    pub file_locks: bool,
    pub empty_namespaces: Vec<String>,
    pub cgroups_mode: String,
}

/// The client's choice, or the `runtime` that lies beside this binary, or that in PATH.
fn binary(name: &str) -> PathBuf {
    if !name.is_empty() {
        return name.into();
    }
    let beside = std::env::current_exe()
        .and_then(std::fs::canonicalize)
        .map(|shim| shim.with_file_name("runtime"))
        .ok()
        .filter(|path| path.is_file());
    beside.unwrap_or_else(|| "runtime".into())
}

/// The runtime's log of one call: what it wrote after the call began.
#[derive(Debug)]
pub(crate) struct CallLog {
    path: PathBuf,
    start: u64,
    /// The file is this call's own and goes when the call ends.
    private: bool,
}

impl CallLog {
    /// The log that all calls for a container share.
    pub(crate) fn shared(bundle: &Path) -> Self {
        let path = bundle.join("log.json");
        let start = path.metadata().map_or(0, |file| file.len());
        Self {
            path,
            start,
            private: false,
        }
    }

    /// A log of its own for each exec: many run at once, and each must report its own failure.
    pub(crate) fn private(bundle: &Path, exec: &str) -> Self {
        Self {
            path: bundle.join(format!("{exec}.log.json")),
            start: 0,
            private: true,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The last error in it.
    pub(crate) fn last_error(&self) -> Option<String> {
        const TAIL_BYTES: u64 = 64 << 10;
        let mut file = File::open(&self.path).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(self.start.max(length.saturating_sub(TAIL_BYTES))))
            .ok()?;
        let mut text = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut text).ok()?;
        last_error(&String::from_utf8_lossy(&text))
    }
}

impl Drop for CallLog {
    fn drop(&mut self) {
        if self.private {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn last_error(log: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        level: String,
        msg: String,
    }
    let entries: Vec<Entry> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let worst = entries
        .iter()
        .rev()
        .find(|entry| matches!(entry.level.as_str(), "error" | "fatal" | "panic"));
    worst.or(entries.last()).map(|entry| entry.msg.clone())
}

/// The words of a runtime's error without those that only repeat which command failed: `runc create failed: `.
pub(crate) fn without_verb<'a>(text: &'a str, verb: &str) -> &'a str {
    match text.split_once(&format!("{verb} failed: ")) {
        Some((name, reason)) if is_name(name) => reason,
        _ => text,
    }
}

/// Whether this is nothing, or the name of a runtime and the space behind it.
fn is_name(text: &str) -> bool {
    text.is_empty()
        || text
            .strip_suffix(' ')
            .is_some_and(|name| !name.is_empty() && !name.contains([' ', ':']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_found_behind_later_warnings() {
        let log = "{\"level\":\"error\",\"msg\":\"old\"}\n\
                   {\"level\":\"error\",\"msg\":\"no such file\",\"time\":\"x\"}\n\
                   {\"level\":\"warning\",\"msg\":\"cleanup\"}\nnot json\n";
        assert_eq!(last_error(log).as_deref(), Some("no such file"));
        assert_eq!(last_error("{\"msg\":\"only\"}").as_deref(), Some("only"));
        assert_eq!(last_error(""), None);
    }

    #[test]
    fn only_errors_of_the_call_count() {
        let bundle = tempfile::tempdir().unwrap();
        std::fs::write(
            bundle.path().join("log.json"),
            "{\"level\":\"error\",\"msg\":\"earlier\"}\n",
        )
        .unwrap();
        let log = CallLog::shared(bundle.path());
        assert_eq!(log.last_error(), None);
    }

    #[test]
    fn an_error_says_once_which_command_failed() {
        for (text, reason) in [
            ("runtime create failed: exec: no such file", "exec: no such file"),
            ("runc create failed: unable to start", "unable to start"),
            ("create failed: it did", "it did"),
            ("hook x: create failed: no", "hook x: create failed: no"),
            ("mount /proc: EPERM", "mount /proc: EPERM"),
        ] {
            assert_eq!(without_verb(text, "create"), reason);
        }
    }

    #[test]
    fn commands_are_those_of_runc() {
        let runtime = Runtime {
            binary: "/bin/r".into(),
            root: "/run/x".into(),
            systemd_cgroup: true,
            shim: 1,
        };
        let command = runtime.kill("c1", 9, true, Path::new("/b/log.json"));
        let arguments: Vec<_> = command
            .get_args()
            .map(|argument| argument.to_str().unwrap())
            .collect();
        let expected = [
            "--root",
            "/run/x",
            "--log",
            "/b/log.json",
            "--log-format",
            "json",
            "--systemd-cgroup",
            "kill",
            "--all",
            "c1",
            "9",
        ];
        assert_eq!(arguments, expected);
    }
}
