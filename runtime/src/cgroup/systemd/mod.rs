//! Groups that systemd makes (`--systemd-cgroup`): each container is a transient scope in a slice, and systemd knows
//! its limits. On hosts with v1 hierarchies systemd makes the scope's group in those that it manages, and we make it
//! at the same path in the others.
//!
//! systemd makes a scope around a process that exists. So init is born where the runtime is, waits until it is moved
//! ([`Scope::start`]), and only then enters its cgroup namespace and goes on. Everything later is done in the group's
//! files as always; [`Unit`] stays in the container's state, so that `update` can tell systemd, and `delete` end it.
//!
//! - [`mod@unit`] reads `slice:prefix:name`.
//! - [`properties`] and [`annotation`] tell systemd of limits, and what config.json has for it directly.
//! - [`manager`] makes the calls, over [`dbus`].

mod annotation;
mod dbus;
mod manager;
mod properties;
mod unit;

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxResources, Spec};

use self::dbus::Value;
use self::manager::Property;
use self::unit::Location;
use super::layout::{Layout, Version};
use super::make::is_rootless;
use crate::error::{Error, Result};

pub(super) use manager::Manager;
pub(super) use properties::CPU_PERIOD_USEC;
pub(super) use unit::Unit;

/// Every host that runs systemd has this folder, see `sd_booted(3)`.
const BOOTED: &str = "/run/systemd/system";

/// A container's scope before it is made, checked.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub(super) unit: Unit,
    /// The scope's group, below that of the systemd which has it.
    pub(super) path: PathBuf,
    properties: Vec<Property>,
}

/// Refuses hosts on which systemd can make no groups for us.
pub(super) fn check_host(layout: &Layout) -> Result<()> {
    let refuse = |rule: &str| Err(Error::Refused(format!("--systemd-cgroup: {rule}")));
    if !Path::new(BOOTED).is_dir() {
        return refuse(&format!(
            "systemd is not running on this host ({BOOTED} is not there)"
        ));
    }
    if !layout.is_unified() && is_rootless() {
        return refuse("the systemd of a user has no cgroup v1 groups to give (only cgroup v2)");
    }
    Ok(())
}

impl Scope {
    /// `resources` is valid, and for hosts with cgroup v2 alone, or not. Who has not the rights of root uses the systemd
    /// of the user.
    pub(super) fn from_spec(
        spec: &Spec,
        id: &str,
        resources: Option<&LinuxResources>,
        version: Version,
    ) -> Result<Self> {
        let user = is_rootless();
        let location = Location::from_spec(spec, id, user)?;
        let flag = |name: &str| (name.to_owned(), Value::Bool(true));
        let text = |name: &str, value: String| (name.to_owned(), Value::Text(value));
        let mut properties = vec![
            text("Description", format!("container {id}")),
            text("Slice", location.slice),
            // What is below the scope's group is the container's.
            flag("Delegate"),
            flag("CPUAccounting"),
            flag("MemoryAccounting"),
            flag("IOAccounting"),
            flag("TasksAccounting"),
            // Or the scope would be stopped with the host's services, before those that manage the container.
            ("DefaultDependencies".to_owned(), Value::Bool(false)),
            // It goes with its last process, also after an OOM kill.
            text("CollectMode", "inactive-or-failed".into()),
        ];
        properties.extend(annotation::properties(spec.annotations().as_ref())?);
        if let Some(resources) = resources {
            properties.extend(properties::of(resources, CPU_PERIOD_USEC, version)?);
        }
        Ok(Self {
            unit: Unit {
                name: location.name,
                user,
            },
            path: location.path,
            properties,
        })
    }

    /// Makes the scope and moves a process into it.
    pub(super) fn start(&self, manager: &mut Manager, pid: i32) -> Result<()> {
        let mut properties = self.properties.clone();
        let pids = Value::Array("u".into(), vec![Value::Uint32(pid.cast_unsigned())]);
        properties.push(("PIDs".to_owned(), pids));
        manager.start(&self.unit.name, properties)
    }
}

impl Unit {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the systemd of a user has it.
    pub(super) fn is_users(&self) -> bool {
        self.user
    }

    pub(super) fn manager(&self) -> Result<Manager> {
        Manager::connect(self.user)
    }

    /// Ends the unit, if it is still there.
    pub(super) fn stop(&self) -> Result<()> {
        self.manager()?.stop(&self.name)
    }

    /// Tells systemd of changed limits. `period` is the one in force, in microseconds.
    pub(super) fn update(&self, resources: &LinuxResources, period: u64, version: Version) -> Result<()> {
        let properties = properties::of(resources, period, version)?;
        if properties.is_empty() {
            return Ok(());
        }
        self.manager()?.set(&self.name, properties)
    }
}
