//! Which processes keep a user's namespaces and their network alive.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// A process that no other with its number is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// When it was started, in clock ticks since boot (`proc_pid_stat(5)`).
    started: u64,
}

impl Process {
    pub(super) fn of(pid: u32) -> anyhow::Result<Self> {
        let started = started(pid).with_context(|| format!("process {pid} has ended"))?;
        Ok(Self { pid, started })
    }

    pub(super) fn is_alive(&self) -> bool {
        started(self.pid) == Some(self.started)
    }
}

/// None: there is no such process, or it is a zombie.
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may have spaces and parentheses in it.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then(|| fields.nth(18)?.parse().ok())?
}

/// As `PID STARTED PID STARTED`: the holder, and who brings packets in and out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) holder: Process,
    pub(super) network: Process,
}

impl Record {
    fn path(runtime: &Path) -> PathBuf {
        runtime.join("namespaces")
    }

    /// None: there is none, or none that can be understood.
    pub(super) fn read(runtime: &Path) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(Self::path(runtime)).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_ascii_whitespace();
        let mut process = || {
            Some(Process {
                pid: numbers.next()?.parse().ok()?,
                started: numbers.next()?.parse().ok()?,
            })
        };
        Some(Self {
            holder: process()?,
            network: process()?,
        })
    }

    pub(super) fn write(&self, runtime: &Path) -> anyhow::Result<()> {
        let (path, new) = (Self::path(runtime), runtime.join("namespaces.new"));
        let Self { holder, network } = self;
        let text = format!(
            "{} {} {} {}\n",
            holder.pid, holder.started, network.pid, network.started
        );
        std::fs::write(&new, text)
            .and_then(|()| std::fs::rename(&new, &path))
            .with_context(|| format!("write {}", path.display()))
    }

    /// The unit of the user's systemd that these processes are in: those of no others have this name.
    pub(super) fn unit(&self) -> String {
        format!("berth-{}-{}.scope", self.holder.pid, self.holder.started)
    }

    pub(super) fn is_whole(&self) -> bool {
        self.holder.is_alive() && self.network.is_alive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_living_processes_and_no_others() {
        let folder = std::env::temp_dir().join(format!("berth-record-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let own = Process::of(std::process::id()).unwrap();
        let record = Record {
            holder: own,
            network: own,
        };
        record.write(&folder).unwrap();
        assert_eq!(Record::read(&folder), Some(record));
        assert!(record.is_whole());
        std::fs::remove_dir_all(&folder).unwrap();

        let other = Process {
            started: own.started + 1,
            ..own
        };
        assert!(
            !Record {
                holder: other,
                ..record
            }
            .is_whole()
        );
        assert_eq!(Record::parse("1 2 3"), None);
        assert_eq!(Record::parse("one 2 3 4"), None);
    }
}
