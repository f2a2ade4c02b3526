//! Which root a state folder belongs to. Bundles without a record are removed at the start of the manager, so one
//! that is given the state of another root, or whose root is not mounted, would end all of the other's
//! containers: it has to be refused before anything is put right.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::config::Config;

/// Before the database is opened: one that is to be made knows none of the containers that are there.
pub(crate) fn check_before(config: &Config) -> Result<(), Error> {
    if config.database().exists() || !has_bundles(config) {
        return Ok(());
    }
    let owner = match read(&path(config))? {
        Some(owner) => owner.trim().replace('\n', ", "),
        None => "unknown".to_owned(),
    };
    Err(others(config, owner))
}

/// Take the state folder for the root with this id. One without containers may be taken from another root.
pub(crate) fn claim(config: &Config, root_id: &str) -> Result<(), Error> {
    let path = path(config);
    let mine = format!("id {root_id}\nat {}\n", config.root.display());
    let found = read(&path)?;
    let known = found.as_deref().and_then(|text| text.lines().next());
    if let Some(owner) = known
        && owner != format!("id {root_id}")
        && has_bundles(config)
    {
        return Err(others(
            config,
            found.unwrap_or_default().trim().replace('\n', ", "),
        ));
    }
    if found.as_deref() == Some(mine.as_str()) {
        return Ok(());
    }
    let new = path.with_extension("new");
    fs::write(&new, mine)
        .and_then(|()| fs::rename(&new, &path))
        .map_err(Error::file("write", &path))
}

fn path(config: &Config) -> PathBuf {
    config.state.join("root")
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", path)(error)),
    }
}

fn has_bundles(config: &Config) -> bool {
    fs::read_dir(config.bundles()).is_ok_and(|mut entries| entries.next().is_some())
}

fn others(config: &Config, owner: String) -> Error {
    Error::OthersState {
        state: config.state.clone(),
        root: config.root.clone(),
        owner,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folder: &Path, root: &str) -> Config {
        Config {
            root: folder.join(root),
            state: folder.join("state"),
            socket: folder.join("socket"),
            shim: "shim".into(),
            runtime: None,
            init: "init".into(),
            trust_policy: image::PolicyFile::Nowhere,
            bridge: network::Bridge::default(),
            registries: Vec::new(),
            layers: image::Layers::default(),
            defaults: crate::Defaults::default(),
            cni: crate::CniConfig::default(),
            journal: PathBuf::new(),
            outside: None,
            groups: crate::Groups::default(),
            userns_remap: None,
            plugins: plugins::Config {
                folders: Vec::new(),
                timeout: std::time::Duration::ZERO,
            },
        }
    }

    #[test]
    fn a_state_folder_with_containers_stays_with_its_root() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (config(folder.path(), "first"), config(folder.path(), "second"));
        fs::create_dir_all(first.bundles()).unwrap();
        check_before(&first).unwrap();
        claim(&first, "aa").unwrap();
        // Nobody's containers are there.
        check_before(&second).unwrap();
        claim(&second, "bb").unwrap();
        fs::create_dir(first.bundle("c")).unwrap();
        claim(&second, "bb").unwrap();
        for refused in [claim(&first, "aa"), check_before(&first)] {
            let refused = refused.unwrap_err().to_string();
            assert!(
                refused.contains("id bb") && refused.contains("second") && refused.contains("state"),
                "{refused}"
            );
        }
    }
}
