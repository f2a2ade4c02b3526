//! What config.json asks of cgroups, checked and resolved to directories, files and values. Nothing is changed here.

use oci_spec::runtime::{LinuxResources, Spec};

use super::controller::Controller;
use super::devices::Policy;
use super::group::Group;
use super::layout::{Layout, Version};
use super::make;
use super::paths::Paths;
use super::place::{self, Name, Place};
use super::setting::Setting;
use super::systemd::{self, Scope};
use super::validate;
use crate::error::{Error, Result};

/// Who makes the groups.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Driver {
    /// We do.
    Filesystem,
    /// systemd does, when asked over D-Bus.
    Systemd,
    /// Nobody: the container stays in the groups of who starts it.
    Disabled,
}

/// See the [module](super).
#[derive(Debug)]
pub(crate) struct Plan {
    pub(super) places: Vec<Place>,
    pub(super) limits: Limits,
    /// With systemd. The places are then where the scope of the host's systemd will be.
    pub(super) scope: Option<Scope>,
}

/// Limits that were resolved for a list of places.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// Place (by index) and what to set there, one entry a controller.
    pub(super) settings: Vec<(usize, Vec<Setting>)>,
    /// cgroup2 controllers that the settings need.
    pub(super) controllers: Vec<String>,
    /// `None` leaves the device rules as they are.
    pub(super) devices: Option<Policy>,
}

impl Plan {
    /// Reads `linux.cgroupsPath` and `linux.resources`.
    pub(crate) fn from_spec(spec: &Spec, id: &str, driver: Driver) -> Result<Self> {
        let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        if let Some(resources) = resources {
            validate::check(resources)?;
        }
        let devices = Policy::from_resources(resources)?;
        if driver == Driver::Disabled {
            return Self::without_groups(resources);
        }
        let (name, layout) = if driver == Driver::Systemd {
            let layout = Layout::find(false)?;
            systemd::check_host(&layout)?;
            (None, layout)
        } else {
            let name = Name::from_spec(spec, id)?;
            let layout = Layout::find(!name.absolute)?;
            (Some(name), layout)
        };
        if layout.hierarchies.is_empty() {
            return Err(Error::Refused(
                "no cgroup hierarchy is mounted on this host".to_owned(),
            ));
        }
        let (places, scope) = if let Some(name) = name {
            (name.places(&layout), None)
        } else {
            let version = if layout.is_unified() {
                Version::V2
            } else {
                Version::V1
            };
            let scope = Scope::from_spec(spec, id, resources, version)?;
            (Name::absolute(&scope.path).places(&layout), Some(scope))
        };
        let mut limits = Limits::resolve(resources, &places)?;
        limits.devices = Some(devices);
        Ok(Self {
            places,
            limits,
            scope,
        })
    }

    /// Without groups there are no limits, but that only nodes can be opened which are in the container.
    fn without_groups(resources: Option<&LinuxResources>) -> Result<Self> {
        for controller in Controller::ALL {
            if let Some(field) = resources
                .map(|resources| controller.wanted_by(resources))
                .transpose()?
                .flatten()
            {
                let rule = "needs a cgroup, and --cgroup-manager disabled makes none";
                return Err(Error::spec(field, rule));
            }
        }
        Ok(Self {
            places: Vec::new(),
            limits: Limits {
                settings: Vec::new(),
                controllers: Vec::new(),
                devices: None,
            },
            scope: None,
        })
    }

    /// Whether a process can enter its groups only after it is born: it has to wait for [`Group::complete`].
    pub(crate) fn is_completed_later(&self) -> bool {
        self.scope.is_some() || self.places.iter().any(|place| place.version == Version::V1)
    }

    /// The groups that a process was told to be in, by their places in this plan.
    pub(crate) fn paths_of(&self, joined: &[u8]) -> Paths {
        let place = |index: &u8| self.places.get(usize::from(*index)).cloned();
        Paths::new(joined.iter().filter_map(place).collect())
    }

    /// Where the groups are, whether they have been made or not.
    pub(crate) fn paths(&self) -> Result<Paths> {
        let mut paths = Paths::new(self.places.clone());
        if let Some(scope) = &self.scope {
            if scope.unit.is_users() {
                let top = scope.unit.manager()?.control_group()?;
                for place in &mut paths.places {
                    place.path = place.mountpoint.join(&top).join(&scope.path);
                }
            }
            paths.unit = Some(scope.unit.clone());
        }
        Ok(paths)
    }

    /// Makes the group that a process can be born in, empty and without limits: that of cgroup2. Dropping the result
    /// removes it. The others follow with [`Group::complete`].
    pub(crate) fn begin(&self) -> Result<Group> {
        make::begin(self)
    }
}

impl Limits {
    /// All but the device rules. `resources` is valid.
    pub(super) fn resolve(resources: Option<&LinuxResources>, places: &[Place]) -> Result<Self> {
        let mut limits = Self {
            settings: Vec::new(),
            controllers: Vec::new(),
            devices: None,
        };
        let Some(resources) = resources else {
            return Ok(limits);
        };
        for controller in Controller::ALL {
            let Some(field) = controller.wanted_by(resources)? else {
                continue;
            };
            let Some(home) = place::home(places, controller) else {
                // On v2 some have no controller at all: that has its own words.
                if places.iter().all(|place| place.version == Version::V2) {
                    controller.settings(Version::V2, resources)?;
                }
                let rule = format!("this host offers no {} controller", controller.v1_name());
                return Err(Error::spec(field, rule));
            };
            let version = places[home].version;
            let settings = controller.settings(version, resources)?;
            if version == Version::V2 && !settings.is_empty() {
                limits.controllers.extend(controller.v2_name().map(str::to_owned));
            }
            limits.settings.push((home, settings));
        }
        limits.resolve_unified(resources, places)?;
        Ok(limits)
    }

    /// `unified` holds cgroup2 files as they are. They are written last, so that they win.
    fn resolve_unified(&mut self, resources: &LinuxResources, places: &[Place]) -> Result<()> {
        let Some(unified) = resources.unified().as_ref().filter(|unified| !unified.is_empty()) else {
            return Ok(());
        };
        let only = match places {
            [only] if only.version == Version::V2 => 0,
            _ => {
                let rule = "invalid configuration: needs a host with cgroup v2 alone";
                return Err(Error::spec("linux.resources.unified", rule));
            }
        };
        let mut keys: Vec<_> = unified.iter().collect();
        keys.sort();
        let mut settings = Vec::new();
        for (key, value) in keys {
            let controller = key.split('.').next().unwrap_or_default();
            if controller != "cgroup" && !self.controllers.iter().any(|known| known == controller) {
                self.controllers.push(controller.to_owned());
            }
            for line in value.lines() {
                settings.push(Setting::new(format!("unified.{key}"), key, line));
            }
        }
        self.settings.push((only, settings));
        Ok(())
    }

    /// The field that needs a place or a cgroup2 controller which could not be had.
    pub(super) fn field_of_place(&self, place: usize) -> Option<&str> {
        let (_, settings) = self
            .settings
            .iter()
            .find(|(index, settings)| *index == place && !settings.is_empty())?;
        settings.first().map(|setting| setting.field.as_str())
    }

    pub(super) fn field_of_controller(&self, controller: &str) -> &str {
        let fields = self.settings.iter().flat_map(|(_, settings)| settings);
        let prefix = format!("{controller}.");
        fields
            .clone()
            .find(|setting| setting.file.starts_with(&prefix))
            .map_or("linux.resources", |setting| setting.field.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(resources: &str) -> Result<Plan> {
        let json = format!(
            r#"{{"ociVersion":"1.2.0","linux":{{"cgroupsPath":"/berth-test-plan","resources":{resources}}}}}"#
        );
        Plan::from_spec(&serde_json::from_str(&json).unwrap(), "x", Driver::Filesystem)
    }

    fn place(version: Version, controllers: &[&str]) -> Place {
        Place {
            version,
            controllers: controllers.iter().map(|&name| name.to_owned()).collect(),
            mountpoint: "/none".into(),
            path: "/none/x".into(),
        }
    }

    #[test]
    fn a_plan_changes_nothing_and_names_bad_fields() {
        assert!(!plan("{}").unwrap().places.is_empty());
        let error = plan(r#"{"pids":{"limit":-3}}"#).unwrap_err().to_string();
        assert!(
            error.starts_with("config.json: linux.resources.pids.limit: "),
            "{error}"
        );
        let error = plan(r#"{"devices":[{"allow":true,"type":"p"}]}"#)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("config.json: linux.resources.devices[0].type: "),
            "{error}"
        );
    }

    #[test]
    fn systemd_is_refused_by_name_where_it_is_not() {
        let spec = serde_json::from_str(r#"{"ociVersion":"1.2.0"}"#).unwrap();
        match Plan::from_spec(&spec, "x", Driver::Systemd) {
            Ok(plan) => assert!(plan.places[0].path.ends_with("x.scope")),
            Err(error) => assert!(error.to_string().contains("--systemd-cgroup: "), "{error}"),
        }
    }

    #[test]
    fn a_limit_without_its_controller_is_refused_by_field() {
        let resources: LinuxResources = serde_json::from_str(r#"{"pids":{"limit":3}}"#).unwrap();
        let error = Limits::resolve(Some(&resources), &[place(Version::V1, &["cpu"])]).unwrap_err();
        let text = "config.json: linux.resources.pids.limit: this host offers no pids controller";
        assert_eq!(error.to_string(), text);
        Limits::resolve(Some(&resources), &[place(Version::V1, &["cpu", "pids"])]).unwrap();
    }

    #[test]
    fn unified_needs_v2_alone() {
        let resources: LinuxResources =
            serde_json::from_str(r#"{"unified":{"memory.high":"1","io.max":"8:0 rbps=1\n8:1 rbps=2"}}"#)
                .unwrap();
        let hybrid = [place(Version::V1, &["cpu"]), place(Version::V2, &[])];
        assert!(Limits::resolve(Some(&resources), &hybrid).is_err());
        let limits = Limits::resolve(Some(&resources), &hybrid[1..]).unwrap();
        assert_eq!(limits.controllers, ["io", "memory"]);
        let values: Vec<_> = limits.settings[0]
            .1
            .iter()
            .map(|setting| setting.value.as_str())
            .collect();
        assert_eq!(values, ["8:0 rbps=1", "8:1 rbps=2", "1"]);
        assert_eq!(
            limits.field_of_controller("memory"),
            "linux.resources.unified.memory.high"
        );
    }
}
