//! Versions, and what kind of machine this is.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::engine::Engine;

const RUNTIME_TIMEOUT: Duration = Duration::from_secs(5);

/// What runs here.
#[derive(Debug, Clone)]
pub struct Version {
    /// Of the manager.
    pub version: &'static str,
    /// Of the runtime, as the first line of its `--version` has it; why it has none, otherwise.
    pub runtime_version: String,
    /// Of the kernel.
    pub kernel: String,
    /// `v1`, `v2` or `hybrid`.
    pub cgroups: &'static str,
    /// Where this manager keeps things.
    pub root: std::path::PathBuf,
    /// Of containers for which no other is asked.
    pub log_driver: String,
}

impl Engine {
    /// Versions of the manager and of what it uses.
    pub async fn version(&self) -> Version {
        let config = &self.0.config;
        let beside = || config.shim.with_file_name("runtime");
        let runtime = config.runtime.clone().unwrap_or_else(beside);
        Version {
            version: env!("CARGO_PKG_VERSION"),
            runtime_version: runtime_version(&runtime).await,
            kernel: kernel(),
            cgroups: cgroups(Path::new("/sys/fs/cgroup")),
            root: config.root.clone(),
            log_driver: self.defaults().logging.name().to_owned(),
        }
    }
}

/// The kernel's release.
pub fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map(|release| release.trim().to_owned())
        .unwrap_or_default()
}

async fn runtime_version(runtime: &Path) -> String {
    let output = Command::new(runtime)
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(RUNTIME_TIMEOUT, output).await {
        Ok(Ok(output)) => {
            let text = String::from_utf8_lossy(&output.stdout);
            let line = text.lines().next().unwrap_or_default();
            number_in(line).chars().take(200).collect()
        }
        Ok(Err(error)) => format!("unknown: {}: {error}", runtime.display()),
        Err(_) => format!("unknown: {} does not answer", runtime.display()),
    }
}

/// `runtime version 1.2.3` says what it is, which the reader knows.
fn number_in(line: &str) -> &str {
    line.strip_prefix("runtime version ").unwrap_or(line)
}

/// Which hierarchies are mounted at `root`.
fn cgroups(root: &Path) -> &'static str {
    if root.join("cgroup.controllers").exists() {
        "v2"
    } else if root.join("unified/cgroup.controllers").exists() {
        "hybrid"
    } else {
        "v1"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_cgroups_is_seen_by_what_is_mounted() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(cgroups(folder.path()), "v1");
        std::fs::create_dir(folder.path().join("unified")).unwrap();
        std::fs::write(folder.path().join("unified/cgroup.controllers"), "").unwrap();
        assert_eq!(cgroups(folder.path()), "hybrid");
        std::fs::write(folder.path().join("cgroup.controllers"), "").unwrap();
        assert_eq!(cgroups(folder.path()), "v2");
    }
}
