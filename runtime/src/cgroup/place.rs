//! The name of a container's group, and the directory it stands for in each hierarchy.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use super::controller::Controller;
use super::layout::{Hierarchy, Layout, Version};
use crate::error::{Error, Result};

/// A container's group in one hierarchy.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) version: Version,
    pub(super) controllers: Vec<String>,
    pub(super) mountpoint: PathBuf,
    pub(super) path: PathBuf,
}

impl Place {
    pub(super) fn has_v1(&self, controller: &str) -> bool {
        self.version == Version::V1 && self.controllers.iter().any(|name| name == controller)
    }

    /// The groups between the mount point and this one, top first, this one last.
    pub(super) fn chain(&self) -> Vec<PathBuf> {
        let below = self.path.strip_prefix(&self.mountpoint).unwrap_or(Path::new(""));
        let mut at = self.mountpoint.clone();
        let step = |part: Component<'_>| {
            at.push(part);
            at.clone()
        };
        below.components().map(step).collect()
    }
}

/// The v1 hierarchy that holds a controller.
pub(super) fn v1<'a>(places: &'a [Place], controller: &str) -> Option<&'a Place> {
    places.iter().find(|place| place.has_v1(controller))
}

/// The cgroup2 hierarchy.
pub(super) fn v2(places: &[Place]) -> Option<&Place> {
    places.iter().find(|place| place.version == Version::V2)
}

/// The version of a host's controllers: v1 on hybrid hosts too.
pub(super) fn version(places: &[Place]) -> Version {
    let first = places
        .iter()
        .map(|place| place.version)
        .find(|version| *version == Version::V1);
    first.unwrap_or(Version::V2)
}

/// Where a controller's files are: v1 goes first, as a controller is in one hierarchy only and a hybrid host has
/// most of them there.
pub(super) fn home(places: &[Place], controller: Controller) -> Option<usize> {
    let v1 = places.iter().position(|place| place.has_v1(controller.v1_name()));
    v1.or_else(|| {
        let name = controller.v2_name()?;
        let index = places.iter().position(|place| place.version == Version::V2)?;
        let offered = std::fs::read_to_string(places[index].mountpoint.join("cgroup.controllers")).ok()?;
        offered
            .split_whitespace()
            .any(|each| each == name)
            .then_some(index)
    })
}

/// `linux.cgroupsPath`, or the container's id where there is none. As in runc, an absolute path begins at the mount
/// point of each hierarchy, a relative one at our own group (v1) or beside it (v2, where a group with processes can't
/// have children with controllers).
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Name {
    pub(super) absolute: bool,
    path: PathBuf,
}

impl Name {
    pub(super) fn from_spec(spec: &Spec, id: &str) -> Result<Self> {
        let asked = spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.cgroups_path().as_deref());
        let asked = asked.filter(|path| !path.as_os_str().is_empty());
        let path = asked.unwrap_or(Path::new(id));
        let refuse = |rule: String| Err(Error::spec("linux.cgroupsPath", rule));
        let mut clean = PathBuf::new();
        for part in path.components() {
            match part {
                Component::Normal(name) => clean.push(name),
                // Never above the root, so `..` can't lead out.
                Component::ParentDir => drop(clean.pop()),
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            }
        }
        let bytes = clean.as_os_str().as_encoded_bytes();
        if bytes.iter().any(u8::is_ascii_control) {
            return refuse(format!("{} has control characters in it", path.display()));
        }
        if bytes.len() > 2048 || clean.components().any(|part| part.as_os_str().len() > 255) {
            return refuse(format!("{} is too long", path.display()));
        }
        if bytes.is_empty() {
            return refuse(format!("{} does not name a group below the root", path.display()));
        }
        Ok(Self {
            absolute: path.is_absolute(),
            path: clean,
        })
    }

    /// A path below the mount points that is known to be good.
    pub(super) fn absolute(path: &Path) -> Self {
        Self {
            absolute: true,
            path: path.to_owned(),
        }
    }

    pub(super) fn places(&self, layout: &Layout) -> Vec<Place> {
        let base = |hierarchy: &Hierarchy| match (self.absolute, hierarchy.version, layout.is_unified()) {
            (true, ..) => PathBuf::new(),
            (false, Version::V2, true) => hierarchy.own.parent().unwrap_or(Path::new("")).to_owned(),
            (false, ..) => hierarchy.own.clone(),
        };
        let place = |hierarchy: &Hierarchy| Place {
            version: hierarchy.version,
            controllers: hierarchy.controllers.clone(),
            mountpoint: hierarchy.mountpoint.clone(),
            path: hierarchy.mountpoint.join(base(hierarchy)).join(&self.path),
        };
        layout.hierarchies.iter().map(place).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(path: Option<&str>) -> Result<Name> {
        let json = match path {
            Some(path) => serde_json::json!({"ociVersion": "1.2.0", "linux": {"cgroupsPath": path}}),
            None => serde_json::json!({"ociVersion": "1.2.0"}),
        };
        Name::from_spec(&serde_json::from_value(json).unwrap(), "box")
    }

    fn paths(path: Option<&str>, v2_only: bool) -> Vec<String> {
        let hierarchy = |version, mountpoint: &str, own: &str| Hierarchy {
            version,
            controllers: Vec::new(),
            mountpoint: mountpoint.into(),
            own: own.into(),
        };
        let v2 = hierarchy(Version::V2, "/u", "user/session");
        let v1 = hierarchy(Version::V1, "/cpu", "own");
        let layout = Layout {
            hierarchies: if v2_only { vec![v2] } else { vec![v1, v2] },
        };
        let places = name(path).unwrap().places(&layout);
        places
            .iter()
            .map(|place| place.path.display().to_string())
            .collect()
    }

    #[test]
    fn absolute_paths_begin_at_the_mount_point() {
        assert_eq!(paths(Some("/a/b"), false), ["/cpu/a/b", "/u/a/b"]);
        assert_eq!(paths(Some("/a/b"), true), ["/u/a/b"]);
    }

    #[test]
    fn relative_and_absent_paths_begin_at_the_own_group() {
        assert_eq!(paths(Some("a"), false), ["/cpu/own/a", "/u/user/session/a"]);
        assert_eq!(paths(None, false), ["/cpu/own/box", "/u/user/session/box"]);
        assert_eq!(paths(None, true), ["/u/user/box"]);
        assert_eq!(paths(Some(""), true), ["/u/user/box"]);
    }

    #[test]
    fn dots_do_not_lead_out() {
        assert_eq!(
            paths(Some("../../../a/../b"), false),
            ["/cpu/own/b", "/u/user/session/b"]
        );
        assert_eq!(paths(Some("/../../a/./b/"), true), ["/u/a/b"]);
    }

    #[test]
    fn a_path_must_name_a_group() {
        let long = "x".repeat(256);
        for path in ["/", "/..", "a/..", "a\nb", "a\u{0}b", &long] {
            assert!(name(Some(path)).is_err(), "{path:?}");
        }
    }

    #[test]
    fn a_chain_leads_from_the_mount_point_to_the_group() {
        let place = Place {
            version: Version::V1,
            controllers: vec!["cpu".into()],
            mountpoint: "/cg/cpu".into(),
            path: "/cg/cpu/a/b".into(),
        };
        assert_eq!(place.chain(), [Path::new("/cg/cpu/a"), Path::new("/cg/cpu/a/b")]);
    }
}
