//! `linux.intelRdt`: a share of the processor's caches and memory bandwidth, by the kernel's resctrl file system.
//! A group that config.json names by `closID` belongs to somebody else and stays; one named for the container is made
//! at create and removed at delete. Monitoring groups are always the container's own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{FsType, statfs};
use oci_spec::runtime::{Linux, LinuxIntelRdt};

use crate::error::{Context, Error, Result};
use crate::log;

const ROOT: &str = "/sys/fs/resctrl";
const RDTGROUP_SUPER_MAGIC: FsType = FsType(0x0765_5821);

/// A container's groups, as config.json wants them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct IntelRdt {
    group: PathBuf,
    /// The group is named for the container, which makes and removes it.
    own: bool,
    /// Lines for `schemata`.
    schemata: Vec<String>,
    monitor: Option<PathBuf>,
}

impl IntelRdt {
    /// `None` where config.json has none. Refused on a host without a mounted resctrl.
    pub(crate) fn from_spec(linux: Option<&Linux>, id: &str) -> Result<Option<Self>> {
        let Some(wanted) = linux.and_then(|linux| linux.intel_rdt().as_ref()) else {
            return Ok(None);
        };
        let mounted = statfs(ROOT).is_ok_and(|found| found.filesystem_type() == RDTGROUP_SUPER_MAGIC);
        if !mounted {
            let rule = format!("needs a resctrl file system at {ROOT}, which is not mounted");
            return Err(Error::spec("linux.intelRdt", rule));
        }
        read(wanted, id, Path::new(ROOT)).map(Some)
    }

    /// Makes what is missing, sets the schemata and puts process `pid` in. On an error nothing new is left.
    pub(crate) fn apply(&self, pid: i32) -> Result<()> {
        let made = self.make()?;
        let done = self.set_and_enter(pid);
        if done.is_err() {
            for dir in made.iter().rev() {
                let _ = fs::remove_dir(dir);
            }
        }
        done
    }

    /// Puts one more process in.
    pub(crate) fn enter(&self, pid: i32) -> Result<()> {
        // A monitoring group belongs to the control group above it, and whoever enters it enters both.
        let dir = self.monitor.as_ref().unwrap_or(&self.group);
        write(&dir.join("tasks"), &pid.to_string())
    }

    /// Sets some lines of the schemata; the others stay.
    pub(crate) fn update(&self, schemata: &[&str]) -> Result<()> {
        let lines = schemata.iter().filter(|line| !line.is_empty());
        let text: String = lines.flat_map(|line| [line, "\n"]).collect();
        write(&self.group.join("schemata"), &text)
    }

    /// Removes what is the container's own. A group that is gone is no error.
    fn remove(&self) -> Result<()> {
        let own = self.own.then_some(&self.group);
        for dir in self.monitor.iter().chain(own) {
            match fs::remove_dir(dir) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other.context(|| format!("remove resctrl group {}", dir.display()))?,
            }
        }
        Ok(())
    }

    fn make(&self) -> Result<Vec<&Path>> {
        let mut made = Vec::new();
        // A named group without schemata is to be there, as runc has it.
        if !self.own && self.schemata.is_empty() && !self.group.is_dir() {
            let rule = format!(
                "{} is not there, and no schemata say how to make it",
                self.group.display()
            );
            return Err(Error::spec("linux.intelRdt.closID", rule));
        }
        for dir in std::iter::once(&self.group).chain(&self.monitor) {
            match fs::create_dir(dir) {
                Ok(()) => made.push(dir.as_path()),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => {
                    for dir in made.iter().rev() {
                        let _ = fs::remove_dir(dir);
                    }
                    return Err(e).context(|| format!("make resctrl group {}", dir.display()));
                }
            }
        }
        Ok(made)
    }

    fn set_and_enter(&self, pid: i32) -> Result<()> {
        if !self.schemata.is_empty() {
            write(&self.group.join("schemata"), &(self.schemata.join("\n") + "\n"))?;
        }
        self.enter(pid)
    }
}

/// Takes back what is the container's own. That can't stop its end, so what goes wrong is only told.
pub(crate) fn give_back(groups: Option<&IntelRdt>) {
    if let Some(Err(error)) = groups.map(IntelRdt::remove) {
        log::warn(&error.to_string());
    }
}

fn read(wanted: &LinuxIntelRdt, id: &str, root: &Path) -> Result<IntelRdt> {
    let clos = wanted.clos_id().as_deref().unwrap_or_default();
    let legal = !clos.contains(['/', '\0', '\n']) && clos != "." && clos != "..";
    let group = match clos {
        "" => root.join(id),
        // The default group, as the spec has it since 1.3.
        "/" => root.to_owned(),
        name if legal => root.join(name),
        name => {
            let rule = format!("{name:?} is not the name of a group");
            return Err(Error::spec("linux.intelRdt.closID", rule));
        }
    };
    let mut schemata = Vec::new();
    let given = [
        (
            "l3CacheSchema",
            wanted.l3_cache_schema().as_deref().unwrap_or_default(),
        ),
        (
            "memBwSchema",
            wanted.mem_bw_schema().as_deref().unwrap_or_default(),
        ),
    ];
    let whole = wanted.schemata().as_deref().unwrap_or_default();
    for (field, text) in given.into_iter().filter(|(_, text)| !text.is_empty()) {
        if !whole.is_empty() {
            let rule = "must not be given beside schemata";
            return Err(Error::spec(format!("linux.intelRdt.{field}"), rule));
        }
        // runc takes several lines in one field, and leaves out memory bandwidth in the cache's.
        let lines = text
            .lines()
            .filter(|line| field != "l3CacheSchema" || !line.starts_with("MB:"));
        schemata.extend(lines.map(str::to_owned));
    }
    if let Some(index) = whole
        .iter()
        .position(|line| line.is_empty() || line.contains(['\n', '\0']))
    {
        return Err(Error::spec(
            format!("linux.intelRdt.schemata[{index}]"),
            "must be one line",
        ));
    }
    schemata.extend(whole.iter().cloned());
    #[allow(deprecated, reason = "read as long as the spec names them")]
    let old = [wanted.enable_cmt(), wanted.enable_mbm()];
    let monitoring = old
        .into_iter()
        .chain([wanted.enable_monitoring()])
        .any(|on| *on == Some(true));
    Ok(IntelRdt {
        monitor: monitoring.then(|| group.join("mon_groups").join(id)),
        own: clos.is_empty(),
        group,
        schemata,
    })
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).context(|| format!("write {:?} to {}", text.trim_end(), path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str, root: &Path) -> Result<IntelRdt> {
        read(&serde_json::from_str(json).unwrap(), "box", root)
    }

    #[test]
    fn a_group_is_the_container_s_own_unless_it_is_named() {
        let root = Path::new("/r");
        let own = plan(r#"{"memBwSchema":"MB:0=50","enableMonitoring":true}"#, root).unwrap();
        assert_eq!(own.group, Path::new("/r/box"));
        assert!(own.own);
        assert_eq!(own.monitor.as_deref(), Some(Path::new("/r/box/mon_groups/box")));
        let named = plan(r#"{"closID":"gold","schemata":["L3:0=f","MB:0=50"]}"#, root).unwrap();
        assert_eq!((named.group.as_path(), named.own), (Path::new("/r/gold"), false));
        assert_eq!(named.schemata, ["L3:0=f", "MB:0=50"]);
        assert_eq!(plan(r#"{"closID":"/"}"#, root).unwrap().group, root);
    }

    #[test]
    fn names_that_lead_out_and_doubled_schemata_are_refused() {
        for json in [
            r#"{"closID":".."}"#,
            r#"{"closID":"a/b"}"#,
            r#"{"schemata":["L3:0=f\nMB:0=1"]}"#,
            r#"{"schemata":["L3:0=f"],"memBwSchema":"MB:0=50"}"#,
        ] {
            assert!(plan(json, Path::new("/r")).is_err(), "{json}");
        }
    }

    #[test]
    fn a_group_is_made_filled_and_removed_in_a_folder_that_stands_in() {
        let root = std::env::temp_dir().join(format!("resctrl-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        let plan = plan(r#"{"l3CacheSchema":"L3:0=f"}"#, &root).unwrap();
        plan.apply(42).unwrap();
        let read = |file: &str| fs::read_to_string(root.join("box").join(file)).unwrap();
        assert_eq!(
            (read("schemata"), read("tasks")),
            ("L3:0=f\n".into(), "42".into())
        );
        for file in ["schemata", "tasks"] {
            fs::remove_file(root.join("box").join(file)).unwrap();
        }
        plan.remove().unwrap();
        plan.remove().unwrap();
        fs::remove_dir(&root).unwrap();
    }

    #[test]
    fn a_group_that_can_not_be_whole_is_not_left_and_one_of_others_stays() {
        let root = std::env::temp_dir().join(format!("resctrl-broken-{}", std::process::id()));
        fs::create_dir_all(root.join("gold")).unwrap();
        // The kernel makes mon_groups with each group; without it no group in it can be made.
        let monitored = plan(r#"{"enableMonitoring":true,"schemata":["L3:0=f"]}"#, &root).unwrap();
        let error = monitored.apply(42).unwrap_err().to_string();
        assert!(
            error.contains("make resctrl group") && error.contains("mon_groups/box"),
            "{error}"
        );
        assert!(!root.join("box").exists());
        let missing = plan(r#"{"closID":"silver"}"#, &root).unwrap();
        let error = missing.apply(42).unwrap_err().to_string();
        assert!(
            error.contains("linux.intelRdt.closID") && error.contains("silver"),
            "{error}"
        );
        assert!(!root.join("silver").exists());
        // A schemata that the kernel does not take.
        fs::create_dir(root.join("gold/schemata")).unwrap();
        let named = plan(r#"{"closID":"gold","schemata":["L3:0=f","MB:0=50"]}"#, &root).unwrap();
        let error = named.apply(42).unwrap_err().to_string();
        assert!(
            error.contains("L3:0=f\\nMB:0=50") && error.contains("gold/schemata"),
            "{error}"
        );
        assert!(root.join("gold").exists());
        fs::remove_dir(root.join("gold/schemata")).unwrap();
        named.update(&["MB:0=20", ""]).unwrap();
        let written = fs::read_to_string(root.join("gold/schemata")).unwrap();
        assert_eq!(written, "MB:0=20\n");
        named.remove().unwrap();
        assert!(root.join("gold").exists());
        fs::create_dir_all(root.join("gold/mon_groups")).unwrap();
        let watched = plan(r#"{"closID":"gold","enableMonitoring":true}"#, &root).unwrap();
        watched.apply(42).unwrap();
        let tasks = root.join("gold/mon_groups/box/tasks");
        assert_eq!(fs::read_to_string(&tasks).unwrap(), "42");
        fs::remove_file(tasks).unwrap();
        watched.remove().unwrap();
        assert!(!root.join("gold/mon_groups/box").exists() && root.join("gold").exists());
        fs::remove_dir_all(&root).unwrap();
    }
}
