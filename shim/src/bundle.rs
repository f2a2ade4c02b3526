//! The files of a bundle that the shim reads and writes.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::task::Exit;
use crate::timestamp;

pub const CONFIG_FILE: &str = "config.json";
pub const ADDRESS_FILE: &str = "address";
pub const SHIM_PID_FILE: &str = "shim.pid";
pub const INIT_PID_FILE: &str = "init.pid";
/// The group that the container's configuration names, when no container has that name.
pub const GROUP_FILE: &str = "group";
pub const EXIT_FILE: &str = "exit.json";
/// The runtime options of a sandbox, as `start` was given them: a protobuf `Any`.
pub const OPTIONS_FILE: &str = "options.pb";

/// Annotation: how long the root is mounted in the bundle. [`UNTIL_CREATED`], or as long as there is a container.
const ROOTFS_MOUNTED: &str = "org.berth.rootfs-mounted";
/// The container has a mount of its own by then.
const UNTIL_CREATED: &str = "until-created";

/// The parts of `config.json` that matter to a shim; the runtime judges the rest.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Config {
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    #[serde(default)]
    linux: Option<Linux>,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
struct Linux {
    #[serde(default)]
    namespaces: Vec<Namespace>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: String,
}

/// `config.json`, as far as `T` knows it.
pub fn read_config<T: DeserializeOwned>(bundle: &Path) -> Result<T, String> {
    const CONFIG_BYTES_MAX: u64 = 16 << 20;
    let path = bundle.join(CONFIG_FILE);
    let failed = |error: &dyn std::fmt::Display| format!("read {}: {error}", path.display());
    let file = File::open(&path).map_err(|error| failed(&error))?;
    let mut text = Vec::new();
    file.take(CONFIG_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .map_err(|error| failed(&error))?;
    if text.len() as u64 > CONFIG_BYTES_MAX {
        return Err(failed(&format_args!("more than {CONFIG_BYTES_MAX} bytes")));
    }
    serde_json::from_slice(&text).map_err(|error| failed(&error))
}

impl Config {
    pub fn read(bundle: &Path) -> Result<Self, String> {
        read_config(bundle)
    }

    /// Whether all processes end with init.
    pub fn has_private_pids(&self) -> bool {
        let namespaces = self.linux.iter().flat_map(|linux| &linux.namespaces);
        namespaces
            .into_iter()
            .any(|namespace| namespace.kind == "pid" && namespace.path.is_empty())
    }

    /// Whether nobody looks for the root in the bundle once the container is created.
    pub(crate) fn lets_root_go(&self) -> bool {
        self.annotations.get(ROOTFS_MOUNTED).map(String::as_str) == Some(UNTIL_CREATED)
    }

    /// The container whose shim serves this one too: its pod's sandbox, or a group named outright.
    pub fn group(&self) -> Option<&str> {
        ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"]
            .into_iter()
            .find_map(|key| self.annotations.get(key))
            .map(String::as_str)
    }
}

/// `exit.json`, and for the process of an exec `EXEC.exit.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    pub id: String,
    pub pid: u32,
    pub exit_status: u32,
    pub exited_at_unix_nanos: u64,
    pub oom_killed: bool,
}

impl ExitRecord {
    pub fn new(id: &str, pid: u32, exit: Exit, oom_killed: bool) -> Self {
        Self {
            id: id.to_owned(),
            pid,
            exit_status: exit.status,
            exited_at_unix_nanos: timestamp::unix_nanos(exit.at),
            oom_killed,
        }
    }

    pub fn read(bundle: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(bundle.join(EXIT_FILE)).ok()?).ok()
    }

    /// Safe from the death of this process at once, and on disk when this returns.
    pub fn write(&self, bundle: &Path) -> io::Result<()> {
        write_durably(bundle, EXIT_FILE, &serde_json::to_vec(self)?)
    }

    /// Safe from the death of this process when this returns. No process of an exec outlives the machine, so there is
    /// no wait for the disk; and one call writes it: a death before that leaves an empty file, which tells as much as none.
    pub fn write_for_exec(&self, bundle: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(exec_exit(bundle, &self.id))?;
        file.write_all(&serde_json::to_vec(self)?)
    }

    pub fn exit(&self) -> Exit {
        Exit {
            status: self.exit_status,
            at: timestamp::from_unix_nanos(self.exited_at_unix_nanos),
        }
    }
}

fn exec_exit(bundle: &Path, exec: &str) -> PathBuf {
    bundle.join(format!("{exec}.{EXIT_FILE}"))
}

/// The exit of an exec was told, and its client has deleted it.
pub fn forget_exec_exit(bundle: &Path, exec: &str) {
    let _ = std::fs::remove_file(exec_exit(bundle, exec));
}

/// Replaces a file of the bundle at once, without waiting for the disk.
pub fn write_file(bundle: &Path, name: &str, contents: &[u8]) -> io::Result<()> {
    replace(bundle, name, contents, false)
}

/// Replaces a file of the bundle at once; the change is on disk when this returns. Others see it before that: a disk may
/// take its time, and what this process knows must not die with it meanwhile. After a crash of the machine in between the
/// file may be empty.
pub fn write_durably(bundle: &Path, name: &str, contents: &[u8]) -> io::Result<()> {
    replace(bundle, name, contents, true)
}

fn replace(bundle: &Path, name: &str, contents: &[u8], durable: bool) -> io::Result<()> {
    let temporary = bundle.join(format!(".{name}.tmp"));
    let result = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(contents)?;
        std::fs::rename(&temporary, bundle.join(name))?;
        if durable {
            file.sync_all()?;
            File::open(bundle)?.sync_all()
        } else {
            Ok(())
        }
    })();
    if result.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    result
}

pub fn read_pid(path: &Path) -> Option<u32> {
    std::fs::read_to_string(path)
        .ok()?
        .trim()
        .parse()
        .ok()
        .filter(|pid| *pid > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_namespace_with_a_path_is_shared() {
        let parse = |text: &str| serde_json::from_str::<Config>(text).unwrap();
        assert!(parse(r#"{"linux":{"namespaces":[{"type":"pid"}]}}"#).has_private_pids());
        assert!(
            !parse(r#"{"linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"}]}}"#).has_private_pids()
        );
        assert!(!parse(r#"{"linux":{"namespaces":[{"type":"ipc"}]}}"#).has_private_pids());
        assert!(!parse("{}").has_private_pids());
    }

    #[test]
    fn a_configuration_that_would_fill_memory_is_refused() {
        let bundle = tempfile::tempdir().unwrap();
        let path = bundle.path().join(CONFIG_FILE);
        std::fs::write(&path, "{}").unwrap();
        assert_eq!(Config::read(bundle.path()), Ok(Config::default()));
        File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_len(1 << 40))
            .unwrap();
        let said = read_config::<serde_json::Value>(bundle.path()).unwrap_err();
        assert!(said.ends_with("config.json: more than 16777216 bytes"), "{said}");
    }

    #[test]
    fn groups_come_from_annotations() {
        let config: Config =
            serde_json::from_str(r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}"#).unwrap();
        assert_eq!(config.group(), Some("pod"));
        assert_eq!(Config::default().group(), None);
    }

    #[test]
    fn an_exit_record_comes_back() {
        let bundle = tempfile::tempdir().unwrap();
        let record = ExitRecord {
            id: "c".into(),
            pid: 7,
            exit_status: 137,
            exited_at_unix_nanos: 12,
            oom_killed: true,
        };
        record.write(bundle.path()).unwrap();
        assert_eq!(ExitRecord::read(bundle.path()), Some(record));
        assert_eq!(std::fs::read_dir(bundle.path()).unwrap().count(), 1);
    }
}
