//! Cgroups above those of containers that somebody has asked for by name: the runtime makes what is not there, and what
//! was made for a container goes with the last one in it. What was there before stays.
//!
//! Which were made is in a file of the state folder, written before the first container is in them: it goes with a
//! reboot, as they do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::Error;
use crate::config::Config;
use crate::spec::cgroups::Cgroups;

/// The groups that containers have asked for.
#[derive(Default)]
pub(crate) struct CgroupParents(Mutex<BTreeMap<String, BTreeSet<String>>>);

impl CgroupParents {
    /// `container` is about to run in the group `parent`, or does already.
    pub(crate) fn enter(&self, config: &Config, parent: &str, container: &str) -> Result<(), Error> {
        let parent = normal(parent);
        if parent.is_empty() {
            return Ok(());
        }
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (hierarchies, mut made) = (Cgroups::of_this_machine().hierarchies(), read(config)?);
        let known = made.len();
        let is_there = |level: &str| hierarchies.iter().any(|root| root.join(level).exists());
        made.extend(levels(&parent).filter(|level| !is_there(level)));
        if made.len() > known {
            write(config, &made)?;
        }
        users.entry(parent).or_default().insert(container.to_owned());
        Ok(())
    }

    /// `container` runs there no more: what was made and is empty goes.
    pub(crate) fn leave(&self, config: &Config, container: &str) -> Result<(), Error> {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = users.len();
        users.retain(|_, containers| {
            let left = containers.remove(container) && containers.is_empty();
            !left
        });
        if users.len() == before {
            return Ok(());
        }
        remove_unused(config, &users)
    }

    /// At the manager's start, when all that run have entered: the same for those whose end nobody has seen.
    pub(crate) fn restore(&self, config: &Config) -> Result<(), Error> {
        let users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        remove_unused(config, &users)
    }
}

/// Nobody enters meanwhile.
fn remove_unused(config: &Config, users: &BTreeMap<String, BTreeSet<String>>) -> Result<(), Error> {
    let mut made = read(config)?;
    if made.is_empty() {
        return Ok(());
    }
    let hierarchies = Cgroups::of_this_machine().hierarchies();
    let known = made.len();
    let used: BTreeSet<String> = users.keys().flat_map(|parent| levels(parent)).collect();
    // Those below another sort behind it.
    for level in made
        .clone()
        .into_iter()
        .rev()
        .filter(|level| !used.contains(level))
    {
        if hierarchies.iter().all(|root| is_gone(&root.join(&level))) {
            made.remove(&level);
        }
    }
    if made.len() < known {
        write(config, &made)?;
    }
    Ok(())
}

/// Remove a group, if the kernel lets it go: one that somebody is in, or has made a group in, stays.
fn is_gone(group: &Path) -> bool {
    match fs::remove_dir(group) {
        Ok(()) => true,
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

/// `a`, `a/b`, `a/b/c`.
fn levels(parent: &str) -> impl Iterator<Item = String> {
    let ends = parent.match_indices('/').map(|(index, _)| index);
    ends.chain([parent.len()]).map(|end| parent[..end].to_owned())
}

fn normal(parent: &str) -> String {
    let names: Vec<_> = parent.split('/').filter(|name| !name.is_empty()).collect();
    names.join("/")
}

fn path(config: &Config) -> PathBuf {
    config.state.join("cgroup-parents.json")
}

fn read(config: &Config) -> Result<BTreeSet<String>, Error> {
    let path = path(config);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| Error::file("read", &path)(error.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(Error::file("read", &path)(error)),
    }
}

fn write(config: &Config, made: &BTreeSet<String>) -> Result<(), Error> {
    let path = path(config);
    let new = path.with_extension("new");
    serde_json::to_vec(made)
        .map_err(std::io::Error::from)
        .and_then(|text| fs::write(&new, text))
        .and_then(|()| fs::rename(&new, &path))
        .map_err(Error::file("write", &path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_those_above_it() {
        assert_eq!(normal("//a/b/"), "a/b");
        assert_eq!(levels("a/b/c").collect::<Vec<_>>(), ["a", "a/b", "a/b/c"]);
        assert_eq!(levels("a").collect::<Vec<_>>(), ["a"]);
    }
}
