//! The groups of a container that is being made, until [`Group::keep`].

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::devices;
use super::dir::Dir;
use super::filter;
use super::layout::{Version, systemd_group_of, unified_group_of};
use super::make::{self, tolerates_denial};
use super::paths::Paths;
use super::place::{self, Place};
use super::plan::{Limits, Plan};
use super::remove;
use super::setting;
use super::systemd::{Manager, Scope, Unit};
use super::tree;
use crate::error::{Context, Error, Result};
use crate::sys::fd::close_later;

/// Removes what it made when dropped.
#[derive(Debug)]
pub(crate) struct Group {
    places: Vec<Place>,
    limits: Limits,
    /// The places that exist, by index, and whether their leaf is new. Without root's rights some or all of
    /// `places` may be missing here.
    pub(super) joined: Vec<(usize, bool)>,
    /// Every directory that was made, parents first.
    pub(super) made: Vec<PathBuf>,
    pub(super) unified: Option<Dir>,
    /// With systemd.
    scope: Option<Scope>,
    pub(super) manager: Option<Manager>,
    kept: bool,
}

impl Group {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            places: plan.places.clone(),
            limits: plan.limits.clone(),
            joined: Vec::with_capacity(plan.places.len()),
            made: Vec::new(),
            unified: None,
            scope: plan.scope.clone(),
            manager: None,
            kept: false,
        }
    }

    /// Makes what [`Plan::begin`] has left out, while process `pid` is on its way already: the v1 groups, or with
    /// systemd the scope around it. It must not enter a cgroup namespace before.
    pub(crate) fn complete(&mut self, plan: &Plan, pid: i32) -> Result<()> {
        let (Some(scope), Some(manager)) = (&self.scope, &mut self.manager) else {
            return make::make_places(plan, Version::V1, self);
        };
        scope.start(manager, pid)?;
        let name = scope.unit.name();
        // Where the systemd of a user has its groups, only the kernel knows for certain.
        let Some(group) = systemd_group_of(pid)?.filter(|group| group.ends_with(name)) else {
            drop(scope.unit.stop());
            return Err(Error::Refused(format!(
                "systemd has started {name}, but process {pid} is not in it"
            )));
        };
        let below = group.strip_prefix("/").unwrap_or(&group);
        for (index, place) in self.places.iter_mut().enumerate() {
            place.path = place.mountpoint.join(below);
            // What systemd has set for the devices of a v1 group is not what a new one has.
            self.joined.push((index, place.version == Version::V2));
        }
        for place in &self.places {
            if place.version == Version::V1 {
                make::add(place)?;
                continue;
            }
            let dir = make::open(&place.path)?;
            // systemd passes those controllers on that it knows.
            make::enable(place, &dir, &self.limits, &[])?;
            self.unified = Some(dir);
        }
        Ok(())
    }

    /// The places that exist, by their index in the plan, for [`Plan::paths_of`].
    pub(crate) fn joined(&self) -> Vec<u8> {
        self.joined.iter().map(|(index, _)| *index as u8).collect()
    }

    pub(super) fn joined_places(&self) -> impl Iterator<Item = &Place> {
        self.joined.iter().map(|(index, _)| &self.places[*index])
    }

    /// The cgroup2 group, for `CLONE_INTO_CGROUP`. A hybrid host has one beside its v1 groups: the process belongs
    /// into it *and* into [`Group::entries`].
    #[allow(clippy::wrong_self_convention, reason = "named for CLONE_INTO_CGROUP")]
    pub(crate) fn into_fd(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }

    /// The `tasks` file of each v1 group, for [`enter`]. Empty with v2 alone.
    pub(crate) fn entries(&self) -> Result<Vec<OwnedFd>> {
        self.joined_places()
            .filter(|place| place.version == Version::V1)
            .map(make::open_entry)
            .collect()
    }

    /// Sets all limits and device rules. To be called once, before the container's program runs.
    pub(crate) fn limit(&self) -> Result<()> {
        for (index, settings) in &self.limits.settings {
            if settings.is_empty() {
                continue;
            }
            let dir = make::open(&self.places[*index].path)?;
            setting::apply(&dir, &settings.iter().collect::<Vec<_>>(), None)?;
        }
        match self.limit_devices() {
            // Nodes can't be made without root's rights, and opened only by file permission: no rule is needed.
            Err(Error::Kernel { source, .. })
                if matches!(source.raw_os_error(), Some(libc::EPERM | libc::EACCES))
                    && tolerates_denial() =>
            {
                Ok(())
            }
            result => result,
        }
    }

    fn limit_devices(&self) -> Result<()> {
        let Some(policy) = &self.limits.devices else {
            return Ok(());
        };
        let v1 = self
            .joined
            .iter()
            .find(|(index, _)| self.places[*index].has_v1("devices"));
        if let Some((index, fresh)) = v1 {
            let dir = make::open(&self.places[*index].path)?;
            let done = match fresh {
                true => devices::write_v1(&dir, &policy.changes_from(None)),
                false => devices::update_v1(&dir, policy),
            };
            close_later(dir.into_fd());
            return done;
        }
        match &self.unified {
            Some(dir) => filter::attach(dir, policy),
            None => Ok(()),
        }
    }

    /// What to keep in the container's state.
    pub(crate) fn paths(&self) -> Paths {
        let mut paths = Paths::new(self.joined_places().cloned().collect());
        paths.unit = self.scope.as_ref().map(|scope| scope.unit.clone());
        paths
    }

    /// The container lives: the groups stay.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if self.scope.is_some() {
            if !self.joined.is_empty() {
                drop(self.paths().remove());
            }
            return;
        }
        let is_leaf = |path: &&PathBuf| self.places.iter().any(|place| place.path == **path);
        let (leaves, parents): (Vec<_>, Vec<_>) = self.made.iter().partition(is_leaf);
        // Nobody is left to tell; the next create of the same name finds the group empty and takes it.
        drop(remove::remove_all(&leaves));
        for parent in parents.into_iter().rev() {
            drop(std::fs::remove_dir(parent));
        }
    }
}

/// Moves the calling process, which must have one thread, into the groups whose `tasks` files these are. It needs no
/// rights of its own, as the opener's count.
pub(crate) fn enter(fds: &[OwnedFd]) -> Result<()> {
    for fd in fds {
        nix::unistd::write(fd, b"0").context(|| {
            let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
            format!("enter a cgroup through {}", link.unwrap_or_default().display())
        })?;
    }
    Ok(())
}

impl Paths {
    /// Whether [`Paths::admit`] can help where the kernel does not let a process in.
    pub(crate) fn can_admit(&self) -> bool {
        self.unit.as_ref().is_some_and(Unit::is_users)
    }

    /// Has systemd move a process of the caller's in.
    pub(crate) fn admit(&self, pid: i32) -> Result<()> {
        let (Some(unit), Some(place)) = (&self.unit, place::v2(&self.places)) else {
            return Err(Error::Refused(
                "the container's cgroup is not systemd's".to_owned(),
            ));
        };
        let below = place
            .path
            .components()
            .skip_while(|part| part.as_os_str() != unit.name());
        let below = Path::new("/").join(below.skip(1).collect::<PathBuf>());
        unit.manager()?.attach(unit.name(), &below, pid)
    }

    /// As [`Group::entries`], for a process that joins a running container.
    pub(crate) fn entries(&self) -> Result<Vec<OwnedFd>> {
        self.places
            .iter()
            .filter(|place| place.version == Version::V1)
            .map(make::open_entry)
            .collect()
    }

    /// As [`Group::into_fd`]. A container that manages cgroups itself (systemd) has moved its processes into groups
    /// below its own; as the kernel then takes no more at the top (EBUSY), a group that has one of them is given.
    #[allow(clippy::wrong_self_convention, reason = "named for CLONE_INTO_CGROUP")]
    pub(crate) fn into_fd(&self) -> Result<Option<OwnedFd>> {
        let Some(place) = place::v2(&self.places) else {
            return Ok(None);
        };
        let dir = make::open(&place.path)?;
        if !dir.get("cgroup.subtree_control")?.trim().is_empty() {
            for pid in tree::processes(&dir)? {
                // It may have ended meanwhile.
                let Ok(Some(group)) = unified_group_of(pid) else {
                    continue;
                };
                let path = place.mountpoint.join(group.strip_prefix("/").unwrap_or(&group));
                if path.starts_with(&place.path) {
                    return Ok(Some(make::open(&path)?.into_fd()));
                }
            }
        }
        Ok(Some(dir.into_fd()))
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::cgroup::Driver;
    use crate::cgroup::controller::Controller;
    use crate::cgroup::make::is_rootless;
    use crate::cgroup::oom::Oom;

    /// A plan on this host's hierarchies, or `None` (with the reason printed) without root.
    fn plan(name: &str, resources: &str) -> Option<Plan> {
        if is_rootless() {
            println!("skipped: makes cgroups, which needs root");
            return None;
        }
        let path = format!("/berth-test-{name}-{}/leaf", std::process::id());
        let json =
            format!(r#"{{"ociVersion":"1.2.0","linux":{{"cgroupsPath":"{path}","resources":{resources}}}}}"#);
        Some(Plan::from_spec(&serde_json::from_str(&json).unwrap(), "x", Driver::Filesystem).unwrap())
    }

    /// All of a plan's groups.
    fn make(plan: &Plan) -> Result<Group> {
        let mut group = plan.begin()?;
        group.complete(plan, 0)?;
        Ok(group)
    }

    /// Removes everything, also the parent, when the test ends.
    struct Cleaned(Paths);

    impl Drop for Cleaned {
        fn drop(&mut self) {
            drop(self.0.kill_all(libc::SIGKILL));
            drop(self.0.remove());
            for place in &self.0.places {
                drop(std::fs::remove_dir(place.path.parent().unwrap()));
            }
        }
    }

    /// A shell that moves itself in, through `tasks` as the runtime's child does, and then runs the program.
    fn spawn(group: &Group, program: &str) -> Child {
        let entries = group.entries().unwrap();
        let v1 = entries
            .iter()
            .map(|fd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap());
        let v2 = group.unified.as_ref().map(|dir| dir.path().join("cgroup.procs"));
        let moves: Vec<String> = v1
            .chain(v2)
            .map(|path| format!("echo 0 > {} && ", path.display()))
            .collect();
        Command::new("sh")
            .args(["-c", &format!("{}{program}", moves.concat())])
            .spawn()
            .unwrap()
    }

    fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_mins(1);
        while !condition() {
            assert!(Instant::now() < end, "waited too long for: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn made(name: &str, resources: &str) -> Option<(Group, Cleaned)> {
        let group = make(&plan(name, resources)?).unwrap();
        let cleaned = Cleaned(group.paths());
        Some((group, cleaned))
    }

    impl Cleaned {
        fn file(&self, controller: Controller, v1: &str, v2: &str) -> String {
            let place = &self.0.places[place::home(&self.0.places, controller).unwrap()];
            let file = if place.version == Version::V1 { v1 } else { v2 };
            let path = place.path.join(file);
            let text = std::fs::read_to_string(&path);
            text.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
                .trim()
                .to_owned()
        }

        fn memory_limit(&self) -> String {
            self.file(Controller::Memory, "memory.limit_in_bytes", "memory.max")
        }

        fn pids_limit(&self) -> String {
            self.file(Controller::Pids, "pids.max", "pids.max")
        }
    }

    #[test]
    fn limits_are_in_the_kernel_and_a_dropped_group_leaves_nothing() {
        let resources =
            r#"{"memory":{"limit":67108864},"pids":{"limit":7},"cpu":{"quota":20000,"period":50000}}"#;
        let Some((group, cleaned)) = made("drop", resources) else {
            return;
        };
        group.limit().unwrap();
        assert_eq!(cleaned.memory_limit(), "67108864");
        assert_eq!(cleaned.pids_limit(), "7");
        drop(group);
        for path in cleaned.0.named().values() {
            assert!(
                !path.exists() && !path.parent().unwrap().exists(),
                "{} was left",
                path.display()
            );
        }
    }

    #[test]
    fn a_group_in_use_is_refused_and_left_alone() {
        let Some((group, cleaned)) = made("used", "{}") else {
            return;
        };
        let mut child = spawn(&group, "exec sleep 1000");
        wait_for("the child to be in", || {
            !cleaned.0.processes().unwrap().is_empty()
        });
        group.keep();
        let error = make(&plan("used", "{}").unwrap()).unwrap_err().to_string();
        assert!(error.contains("exists already and holds 1 processes"), "{error}");
        assert_eq!(cleaned.0.processes().unwrap(), [child.id().cast_signed()]);
        cleaned.0.kill_all(libc::SIGKILL).unwrap();
        child.wait().unwrap();
        // Empty, it is taken over.
        make(&plan("used", "{}").unwrap()).unwrap().limit().unwrap();
    }

    #[test]
    fn freezing_stops_and_killing_ends_a_frozen_group() {
        let Some((group, cleaned)) = made("freeze", "{}") else {
            return;
        };
        group.limit().unwrap();
        let mut child = spawn(&group, "while :; do /bin/true & wait; done");
        group.keep();
        wait_for("the child to be in", || {
            !cleaned.0.processes().unwrap().is_empty()
        });
        assert!(!cleaned.0.is_frozen().unwrap());
        cleaned.0.freeze().unwrap();
        assert!(cleaned.0.is_frozen().unwrap());
        cleaned.0.thaw().unwrap();
        assert!(!cleaned.0.is_frozen().unwrap());
        cleaned.0.freeze().unwrap();
        cleaned.0.kill_all(libc::SIGKILL).unwrap();
        child.wait().unwrap();
        wait_for("all to be dead", || cleaned.0.processes().unwrap().is_empty());
        cleaned.0.remove().unwrap();
        assert!(!cleaned.0.is_frozen().unwrap());
    }

    #[test]
    fn nested_groups_are_removed_and_their_processes_found() {
        let Some((group, cleaned)) = made("nested", "{}") else {
            return;
        };
        group.limit().unwrap();
        for path in cleaned.0.named().values() {
            std::fs::create_dir_all(path.join("a/b")).unwrap();
            std::fs::create_dir_all(path.join("c")).unwrap();
        }
        let Some(listing) = cleaned
            .0
            .named()
            .get("devices")
            .or(cleaned.0.named().get(""))
            .cloned()
        else {
            return;
        };
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        std::fs::write(listing.join("a/b/cgroup.procs"), child.id().to_string()).unwrap();
        group.keep();
        assert_eq!(cleaned.0.processes().unwrap(), [child.id().cast_signed()]);
        cleaned.0.kill_all(libc::SIGKILL).unwrap();
        child.wait().unwrap();
        cleaned.0.remove().unwrap();
        assert!(cleaned.0.named().values().all(|path| !path.exists()));
        // Once more is no error.
        cleaned.0.remove().unwrap();
    }

    #[test]
    fn an_update_changes_what_it_names_or_nothing() {
        let resources = r#"{"memory":{"limit":67108864},"pids":{"limit":7}}"#;
        let Some((group, cleaned)) = made("update", resources) else {
            return;
        };
        group.limit().unwrap();
        group.keep();
        let update = |json: &str| cleaned.0.update(&serde_json::from_str(json).unwrap());
        update(r#"{"pids":{"limit":9}}"#).unwrap();
        assert_eq!(
            (cleaned.pids_limit(), cleaned.memory_limit()),
            ("9".into(), "67108864".into())
        );
        // Both limits of memory up and down again: each needs another order.
        if place::v1(&cleaned.0.places, "memory").is_some() {
            for bytes in ["33554432", "134217728", "16777216"] {
                update(&format!(r#"{{"memory":{{"limit":{bytes},"swap":{bytes}}}}}"#)).unwrap();
                assert_eq!(cleaned.memory_limit(), bytes);
            }
            update(r#"{"memory":{"limit":67108864,"swap":-1}}"#).unwrap();
        }
        update(r#"{"cpu":{"quota":50000,"period":100000,"burst":1000}}"#).unwrap();
        update(r#"{"cpu":{"quota":5000,"period":10000,"burst":50}}"#).unwrap();
        update(r#"{"cpu":{"quota":500000,"period":1000000,"burst":5000}}"#).unwrap();
        // The last is refused by the kernel: no such processor. All others are taken back.
        let error = update(r#"{"memory":{"limit":33554432},"cpu":{"shares":77,"cpus":"0,4000"}}"#);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("linux.resources.cpu.cpus"), "{error}");
        assert_eq!(cleaned.memory_limit(), "67108864");
        assert_eq!(
            cleaned.file(Controller::Cpu, "cpu.shares", "cpu.weight").trim(),
            match cleaned.0.places.len() {
                1 => "100",
                _ => "1024",
            }
        );
    }

    #[test]
    fn device_rules_hold_and_change() {
        let Some((group, cleaned)) = made("devices", r#"{"devices":[{"allow":false}]}"#) else {
            return;
        };
        group.limit().unwrap();
        devices_are_ruled(&group, &cleaned);
        group.keep();
    }

    /// The same through eBPF, which works in the cgroup2 hierarchy of a hybrid host as well.
    #[test]
    fn device_rules_hold_and_change_with_v2() {
        let Some(mut plan) = plan("devices-v2", r#"{"devices":[{"allow":false}]}"#) else {
            return;
        };
        plan.places.retain(|place| place.version == Version::V2);
        let group = make(&plan).unwrap();
        let cleaned = Cleaned(group.paths());
        group.limit().unwrap();
        devices_are_ruled(&group, &cleaned);
        let dir = make::open(&cleaned.0.places[0].path).unwrap();
        let programs = crate::sys::bpf::attached_cgroup_device(dir.as_fd()).unwrap();
        assert_eq!(programs.len(), 1, "updates left programs behind");
    }

    fn devices_are_ruled(group: &Group, cleaned: &Cleaned) {
        let opens = |device: &str| {
            spawn(group, &format!("exec 2>/dev/null; : < {device}"))
                .wait()
                .unwrap()
                .success()
        };
        assert!(opens("/dev/null") && opens("/dev/urandom"));
        assert!(!opens("/dev/kmsg"), "a device without a rule could be opened");
        let update = |json: &str| cleaned.0.update(&serde_json::from_str(json).unwrap()).unwrap();
        update(r#"{"devices":[{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]}"#);
        assert!(opens("/dev/kmsg") && opens("/dev/null"));
        update(r#"{"devices":[{"allow":true}]}"#);
        assert!(opens("/dev/kmsg"));
        update(r#"{"devices":[{"allow":true},{"allow":false,"type":"c","major":1,"minor":11}]}"#);
        assert!(!opens("/dev/kmsg") && opens("/dev/null"));
        update(r#"{"devices":[]}"#);
        assert!(!opens("/dev/kmsg") && opens("/dev/null"));
    }

    #[test]
    fn statistics_and_oom_are_told() {
        let Some((group, cleaned)) = made("oom", r#"{"memory":{"limit":16777216},"pids":{"limit":50}}"#)
        else {
            return;
        };
        group.limit().unwrap();
        let mut watch = cleaned.0.oom_watch().unwrap();
        assert_eq!(watch.take().unwrap(), Oom::None);
        let mut child = spawn(
            &group,
            "head -c 100000000 /dev/zero | tail -c 90000000 > /dev/null",
        );
        group.keep();
        child.wait().unwrap();
        wait_for("the OOM event", || watch.take().unwrap() == Oom::Happened);
        let stats = serde_json::to_value(cleaned.0.stats().unwrap()).unwrap();
        assert_eq!(stats["memory"]["usage"]["limit"], 16_777_216);
        assert!(
            stats["memory"]["usage"]["failcnt"].as_u64().unwrap() > 0,
            "{stats}"
        );
        assert_eq!(stats["pids"]["limit"], 50);
        assert!(stats["cpu"]["usage"]["total"].as_u64().unwrap() > 0, "{stats}");
        cleaned.0.remove().unwrap();
        wait_for("the end of the group", || watch.take().unwrap() == Oom::Gone);
    }

    /// As with systemd as init: the group at the top has controllers enabled and takes no process itself.
    #[test]
    fn joining_a_container_that_manages_cgroups_leads_below() {
        let Some((group, cleaned)) = made("below", "{}") else {
            return;
        };
        let Some(top) = &cleaned.0.named().remove("") else {
            return println!("skipped: no cgroup2 here");
        };
        let path = |fd: OwnedFd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
        assert_eq!(path(cleaned.0.into_fd().unwrap().unwrap()), *top);
        let mut child = spawn(&group, "exec sleep 1000");
        group.keep();
        wait_for("the child to be in", || {
            !tree::processes(&make::open(top).unwrap()).unwrap().is_empty()
        });
        std::fs::create_dir(top.join("init")).unwrap();
        std::fs::write(top.join("init/cgroup.procs"), child.id().to_string()).unwrap();
        let parent = top.parent().unwrap();
        let root = parent.parent().unwrap();
        let offered = std::fs::read_to_string(root.join("cgroup.controllers")).unwrap();
        let before = std::fs::read_to_string(root.join("cgroup.subtree_control")).unwrap();
        let controller = offered.split_whitespace().next();
        let mut joined = None;
        if let Some(controller) = controller {
            for above in [root, parent, top] {
                std::fs::write(above.join("cgroup.subtree_control"), format!("+{controller}")).unwrap();
            }
            joined = Some(path(cleaned.0.into_fd().unwrap().unwrap()));
        }
        cleaned.0.kill_all(libc::SIGKILL).unwrap();
        child.wait().unwrap();
        drop(cleaned);
        let Some(controller) = controller else {
            return println!("skipped: the cgroup2 hierarchy has no controllers");
        };
        if !before.contains(controller) {
            std::fs::write(root.join("cgroup.subtree_control"), format!("-{controller}")).unwrap();
        }
        assert_eq!(joined, Some(top.join("init")));
    }
}
