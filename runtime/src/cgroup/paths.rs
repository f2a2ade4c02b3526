//! The groups of a container that exists, as its state file keeps them. What can be done with them is in the files
//! named for it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::place::Place;
use super::systemd::Unit;

/// See the [module](self).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Paths {
    pub(super) places: Vec<Place>,
    /// The systemd unit that the group belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unit: Option<Unit>,
}

impl Paths {
    pub(super) fn new(places: Vec<Place>) -> Self {
        Self { places, unit: None }
    }

    /// As in runc's state: a directory for each v1 controller, and for cgroup2 under the empty name.
    pub(crate) fn named(&self) -> BTreeMap<String, PathBuf> {
        let mut named = BTreeMap::new();
        for place in &self.places {
            if place.controllers.is_empty() {
                named.insert(String::new(), place.path.clone());
            }
            for controller in &place.controllers {
                named.insert(controller.clone(), place.path.clone());
            }
        }
        named
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::Version;
    use super::*;

    #[test]
    fn paths_survive_the_state_file_and_are_named_by_controller() {
        let place = |version, controllers: &[&str], path: &str| Place {
            version,
            controllers: controllers.iter().map(|&name| name.to_owned()).collect(),
            mountpoint: "/cg".into(),
            path: path.into(),
        };
        let paths = Paths::new(vec![
            place(Version::V1, &["cpu", "cpuacct"], "/cg/cpu/x"),
            place(Version::V2, &[], "/cg/unified/x"),
        ]);
        let json = serde_json::to_string(&paths).unwrap();
        let read: Paths = serde_json::from_str(&json).unwrap();
        assert_eq!(read.places, paths.places);
        let named: Vec<_> = read.named().into_iter().collect();
        assert_eq!(
            named,
            [
                (String::new(), "/cg/unified/x".into()),
                ("cpu".into(), "/cg/cpu/x".into()),
                ("cpuacct".into(), "/cg/cpu/x".into())
            ]
        );
    }
}
