//! Groups below a container's own, into which `exec --cgroup` puts its process.

use std::path::{Component, Path};

use super::paths::Paths;
use crate::error::{Error, Result};

impl Paths {
    /// Of `[CONTROLLER[,CONTROLLER...]:]PATH`s: these groups with the paths appended, everywhere or in the named
    /// controllers' hierarchies. They must exist, and can't lead out of the container's own.
    pub(crate) fn below(&self, wanted: &[String]) -> Result<Self> {
        let mut paths = self.clone();
        for text in wanted {
            let refuse = |rule: &str| Err(Error::Refused(format!("--cgroup {text}: {rule}")));
            let (controllers, path) = text.rsplit_once(':').unwrap_or(("", text));
            let below = Path::new(path.trim_start_matches('/'));
            if below
                .components()
                .any(|part| !matches!(part, Component::Normal(_)))
            {
                return refuse("bad sub cgroup path: it must lie below the container's cgroup");
            }
            let names: Vec<&str> = controllers.split(',').filter(|name| !name.is_empty()).collect();
            for name in &names {
                let known = |place: &super::place::Place| place.controllers.iter().any(|each| each == name);
                if !self.places.iter().any(known) {
                    return refuse(&format!(
                        "unknown controller {name}: the container has no cgroup of it"
                    ));
                }
            }
            for (place, own) in paths.places.iter_mut().zip(&self.places) {
                let is_wanted = names
                    .iter()
                    .any(|name| own.controllers.iter().any(|each| each == name));
                if !names.is_empty() && !is_wanted {
                    continue;
                }
                place.path = own.path.join(below);
                if !place.path.is_dir() {
                    let path = place.path.display();
                    return refuse(&format!("error adding pid to {path}: no such file or directory"));
                }
            }
        }
        Ok(paths)
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::Version;
    use super::super::place::Place;
    use super::*;

    #[test]
    fn a_path_is_appended_where_it_is_wanted_and_never_leads_out() {
        let root = super::super::tests::scratch("below");
        for dir in ["cpu/box/a", "unified/box/a/b", "unified/box"] {
            std::fs::create_dir_all(root.join(dir)).unwrap();
        }
        let place = |version, controllers: &[&str], dir: &str| Place {
            version,
            controllers: controllers.iter().map(|&name| name.to_owned()).collect(),
            mountpoint: root.join(dir),
            path: root.join(dir).join("box"),
        };
        let paths = Paths::new(vec![
            place(Version::V1, &["cpu", "cpuacct"], "cpu"),
            place(Version::V2, &[], "unified"),
        ]);
        let below = |wanted: &str| paths.below(&[wanted.to_owned()]);
        let both = below("/a").unwrap();
        assert!(both.places.iter().all(|place| place.path.ends_with("box/a")));
        let one = below("cpu:a").unwrap();
        assert!(one.places[0].path.ends_with("box/a") && one.places[1].path.ends_with("box"));
        for wrong in ["../x", "a/../..", "memory:a", "a/b"] {
            let error = below(wrong).unwrap_err().to_string();
            assert!(error.starts_with(&format!("--cgroup {wrong}: ")), "{error}");
        }
        std::fs::remove_dir_all(root).unwrap();
    }
}
