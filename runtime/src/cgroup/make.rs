//! Making a container's groups: the leaf is made with one call where its parents exist, as they do after the first
//! container. A leaf that is there already is taken only if it is empty and not frozen.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::errno::Errno;
// `openat`, as musl's `open` sets FD_CLOEXEC once more.
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Uid, mkdir};

use super::dir::{Dir, read_piece, write_once};
use super::freezer;
use super::group::Group;
use super::layout::Version;
use super::place::Place;
use super::plan::{Limits, Plan};
use super::tree;
use crate::error::{Context, Error, Result};
use crate::sys::fd::close_later;

/// Controllers that count what `events --stats` tells. They are enabled where that is possible, limits or not.
const COUNTING: [&str; 4] = ["cpu", "memory", "pids", "io"];

/// Makes the cgroup2 group, in which a process is born.
pub(super) fn begin(plan: &Plan) -> Result<Group> {
    let mut group = Group::new(plan);
    if let Some(scope) = &plan.scope {
        group.manager = Some(scope.unit.manager()?);
        return Ok(group);
    }
    make_places(plan, Version::V2, &mut group)?;
    let unified = group
        .joined_places()
        .find(|place| place.version == Version::V2)
        .cloned();
    if let Some(place) = unified {
        let dir = open(&place.path)?;
        // On a hybrid host the v1 hierarchies count; only what a limit needs is enabled.
        let counting: &[&str] = if plan.places.len() == 1 { &COUNTING } else { &[] };
        enable(&place, &dir, &plan.limits, counting)?;
        group.unified = Some(dir);
    }
    Ok(group)
}

/// Makes the groups in the hierarchies of a version.
pub(super) fn make_places(plan: &Plan, version: Version, group: &mut Group) -> Result<()> {
    for (index, place) in plan.places.iter().enumerate() {
        if place.version != version {
            continue;
        }
        match make_place(place, &mut group.made) {
            Ok(fresh) => group.joined.push((index, fresh)),
            Err(error) if may_do_without(&error) => {
                if let Some(field) = plan.limits.field_of_place(index) {
                    let rule = format!("can't be limited without the right to make cgroups ({error})");
                    return Err(Error::spec(field, rule));
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(super) fn open(path: &Path) -> Result<Dir> {
    Dir::open(path).context(|| format!("open cgroup {}", path.display()))
}

/// Whether the error is a lack of rights that is usual for a runtime without root's: then a container without limits
/// runs in the group of its creator, as with runc.
fn may_do_without(error: &Error) -> bool {
    let Error::Kernel { source, .. } = error else {
        return false;
    };
    let denied = [Errno::EACCES, Errno::EPERM, Errno::EROFS].map(|errno| Some(errno as i32));
    denied.contains(&source.raw_os_error()) && tolerates_denial()
}

/// What `--rootless` says, when it says true or false.
static ROOTLESS: OnceLock<bool> = OnceLock::new();

/// Takes the value of `--rootless`. Called once, before anything is done.
pub(crate) fn set_rootless(value: Option<&str>) -> Result<()> {
    let rootless = match value {
        None | Some("" | "auto") => return Ok(()),
        Some("true") => true,
        Some("false") => false,
        Some(other) => {
            return Err(Error::Refused(format!(
                "--rootless {other:?}: must be true, false or auto"
            )));
        }
    };
    let _ = ROOTLESS.set(rootless);
    Ok(())
}

/// Whether a container may do without the groups that can't be made for want of rights.
pub(super) fn tolerates_denial() -> bool {
    ROOTLESS.get().copied().unwrap_or_else(is_rootless)
}

/// Not root, or root of a user namespace only.
pub(crate) fn is_rootless() -> bool {
    let whole = |map: String| map.split_whitespace().eq(["0", "0", "4294967295"]);
    !Uid::effective().is_root() || std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !whole(map))
}

/// Whether the leaf is new. What was made is noted in `made`, parents first.
fn make_place(place: &Place, made: &mut Vec<PathBuf>) -> Result<bool> {
    let cpuset = place.has_v1("cpuset");
    match make_dir(&place.path) {
        Ok(()) => made.push(place.path.clone()),
        Err(Errno::EEXIST) => return check_unused(place).map(|()| false),
        Err(Errno::ENOENT) => {
            let chain = place.chain();
            for (index, path) in chain.iter().enumerate() {
                match make_dir(path) {
                    Ok(()) => made.push(path.clone()),
                    Err(Errno::EEXIST) => continue,
                    Err(errno) => return Err(errno).context(|| format!("make cgroup {}", path.display())),
                }
                if cpuset && index + 1 < chain.len() {
                    fill_cpuset(path, &place.mountpoint)?;
                    // So that this costs nothing for the groups below: they copy from here as they are made.
                    open(path)?.set("cgroup.clone_children", "1")?;
                }
            }
        }
        Err(errno) => return Err(errno).context(|| format!("make cgroup {}", place.path.display())),
    }
    if cpuset {
        fill_cpuset(&place.path, &place.mountpoint)?;
    }
    Ok(true)
}

/// Makes a v1 group of systemd's that systemd has not made itself, as it does not manage every controller.
pub(super) fn add(place: &Place) -> Result<()> {
    if place.path.is_dir() {
        return Ok(());
    }
    make_place(place, &mut Vec::new()).map(drop)
}

fn make_dir(path: &Path) -> nix::Result<()> {
    mkdir(path, Mode::from_bits_truncate(0o755))
}

fn check_unused(place: &Place) -> Result<()> {
    let path = place.path.display();
    let dir = open(&place.path)?;
    if freezer::is_marked(&dir, place.version)? {
        return Err(Error::Refused(format!(
            "container's cgroup unexpectedly frozen: {path} exists already, and would never let it run"
        )));
    }
    match tree::processes(&dir)?.len() {
        0 => Ok(()),
        count => Err(Error::Refused(format!(
            "container's cgroup is not empty: {path} exists already and holds {count} processes"
        ))),
    }
}

/// A new v1 cpuset group has no processors and no memory nodes, and nobody can enter it. Only if its parent has
/// `cgroup.clone_children`, the kernel has filled in both; the topmost group has not, as a rule.
fn fill_cpuset(path: &Path, mountpoint: &Path) -> Result<()> {
    let open = |path: &Path, access| {
        let file = openat(AT_FDCWD, path, access | OFlag::O_CLOEXEC, Mode::empty());
        file.map(File::from)
            .context(|| format!("open {}", path.display()))
    };
    let value = |path: &Path| -> Result<String> {
        let mut file = open(path, OFlag::O_RDONLY)?;
        let text = read_piece(&mut file).context(|| format!("read {}", path.display()))?;
        close_later(file.into());
        Ok(text.trim().to_owned())
    };
    let parent = path.parent().unwrap_or(path);
    if parent != mountpoint && !value(&path.join("cpuset.cpus"))?.is_empty() {
        return Ok(());
    }
    for file in ["cpuset.cpus", "cpuset.mems"] {
        // Groups that somebody else made, a pod's perhaps or one of a moment ago, may not be filled.
        let (mut empty, mut above) = (vec![path], parent);
        let mut text = value(&above.join(file))?;
        while text.is_empty() && above != mountpoint {
            empty.push(above);
            above = above.parent().unwrap_or(mountpoint);
            text = value(&above.join(file))?;
        }
        for target in empty.iter().rev().map(|group| group.join(file)) {
            let mut file = open(&target, OFlag::O_WRONLY)?;
            write_once(&mut file, &text).context(|| format!("write {text:?} to {}", target.display()))?;
            close_later(file.into());
        }
    }
    Ok(())
}

/// Makes sure that the controllers which `limits` needs reach the group: each has to be enabled in the
/// `cgroup.subtree_control` of every group above, top first.
pub(super) fn enable(place: &Place, dir: &Dir, limits: &Limits, counting: &[&str]) -> Result<()> {
    let needed: Vec<&str> = limits.controllers.iter().map(String::as_str).collect();
    let wanted: Vec<&str> = needed.iter().chain(counting).copied().collect();
    if wanted.is_empty() || missing(dir, &wanted)?.is_empty() {
        return Ok(());
    }
    let mut refusal = String::new();
    let mut above = vec![place.mountpoint.clone()];
    above.extend(place.chain());
    above.pop();
    for path in above {
        let dir = open(&path)?;
        let enabled = dir.get("cgroup.subtree_control")?;
        let offered = dir.get("cgroup.controllers")?;
        for controller in &wanted {
            let is_in = |list: &str| list.split_whitespace().any(|each| each == *controller);
            if is_in(&enabled) || !is_in(&offered) {
                continue;
            }
            if let Err(error) = dir.write("cgroup.subtree_control", &format!("+{controller}")) {
                let hint = match error.raw_os_error() {
                    // The "no internal processes" rule.
                    Some(libc::EBUSY) => " (it holds processes itself)",
                    Some(libc::EOPNOTSUPP) => " (it is in threaded mode)",
                    _ => "",
                };
                refusal = format!(": enable it below {}: {error}{hint}", path.display());
            }
        }
    }
    match missing(dir, &needed)?.first() {
        None => Ok(()),
        Some(controller) => {
            let rule = format!("the cgroup controller {controller} is not to be had here{refusal}");
            Err(Error::spec(limits.field_of_controller(controller), rule))
        }
    }
}

fn missing<'a>(dir: &Dir, wanted: &[&'a str]) -> Result<Vec<&'a str>> {
    let there = dir.get("cgroup.controllers")?;
    let is_there = |controller: &&str| there.split_whitespace().any(|each| each == *controller);
    Ok(wanted
        .iter()
        .filter(|controller| !is_there(controller))
        .copied()
        .collect())
}

/// A file through which a process enters.
pub(super) fn open_entry(place: &Place) -> Result<std::os::fd::OwnedFd> {
    let path = place.path.join("tasks");
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    openat(AT_FDCWD, &path, flags, Mode::empty()).context(|| format!("open {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::setting::Setting;

    /// A fake cgroup2 mount with one parent and one leaf.
    fn fake(offered: &str, leaf: &str) -> (PathBuf, Place) {
        let root = super::super::tests::scratch(&format!("enable-{}", leaf.len()));
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        for (path, controllers) in [("", offered), ("a", offered), ("a/b", leaf)] {
            std::fs::write(root.join(path).join("cgroup.controllers"), controllers).unwrap();
            std::fs::write(root.join(path).join("cgroup.subtree_control"), "cpu\n").unwrap();
        }
        let place = Place {
            version: Version::V2,
            controllers: Vec::new(),
            mountpoint: root.clone(),
            path: root.join("a/b"),
        };
        (root, place)
    }

    fn limits() -> Limits {
        let setting = Setting::new("pids.limit", "pids.max", 5);
        Limits {
            settings: vec![(0, vec![setting])],
            controllers: vec!["pids".into()],
            devices: None,
        }
    }

    #[test]
    fn controllers_are_enabled_from_the_top_and_only_where_missing() {
        let (root, place) = fake("cpu pids memory\n", "cpu\n");
        let dir = Dir::open(&place.path).unwrap();
        // A plain folder does not pass the controller on, so the last check fails; the writes count here.
        let error = enable(&place, &dir, &limits(), &["cpu"]).unwrap_err().to_string();
        let text =
            "config.json: linux.resources.pids.limit: the cgroup controller pids is not to be had here";
        assert_eq!(error, text);
        let read =
            |path: &str| std::fs::read_to_string(root.join(path).join("cgroup.subtree_control")).unwrap();
        assert_eq!([read(""), read("a"), read("a/b")], ["+pids", "+pids", "cpu\n"]);
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn nothing_is_written_where_the_controllers_are_there() {
        let (root, place) = fake("cpu pids memory\n", "cpu pids memory io\n");
        let dir = Dir::open(&place.path).unwrap();
        enable(&place, &dir, &limits(), &COUNTING).unwrap();
        let control = std::fs::read_to_string(root.join("cgroup.subtree_control")).unwrap();
        assert_eq!(control, "cpu\n");
        std::fs::remove_dir_all(root).unwrap();
    }
}
