//! A user's credentials for registries, where docker keeps them: `config.json` and the `docker-credential-*` programs.
//!
//! `managerctl` reads and writes them for the user who runs it, and sends with each request what the request needs. The
//! manager itself never looks at any user's configuration. All functions block on files and programs.
//!
//! - [`Configuration::find`]: what the user has for a registry.
//! - [`Configuration::keep`], [`Configuration::forget`]: what a login and a logout do.

mod error;
mod file;
mod helper;
mod registry;

#[cfg(feature = "fuzzing")]
pub mod fuzzing;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use error::Error;
pub use registry::{name as registry_name, split as split_host};

use file::File;

const FILE_NAME: &str = "config.json";

/// What proves at a registry who the user is.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// A name and a password.
    Password {
        /// User name.
        username: String,
        /// Password or access token.
        password: String,
    },
    /// An `OAuth2` refresh token.
    IdentityToken(String),
    /// A bearer token for the registry as it is.
    RegistryToken(String),
}

/// Where credentials were put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The program `docker-credential-NAME` has them.
    Helper(String),
    /// They are in this file, readable by whoever can read it.
    File(PathBuf),
}

/// One user's configuration.
#[derive(Debug, Clone)]
pub struct Configuration {
    path: PathBuf,
}

impl Configuration {
    /// That of the user who runs this process: in `$DOCKER_CONFIG`, else in `~/.docker`. None: there is no home.
    pub fn of_user() -> Option<Configuration> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Configuration::from(set("DOCKER_CONFIG"), set("HOME"))
    }

    fn from(folder: Option<OsString>, home: Option<OsString>) -> Option<Configuration> {
        let folder = folder.map(PathBuf::from);
        let folder = folder.or_else(|| home.map(|home| Path::new(&home).join(".docker")))?;
        Some(Configuration::in_folder(&folder))
    }

    /// The one in a folder.
    pub fn in_folder(folder: &Path) -> Configuration {
        Configuration {
            path: folder.join(FILE_NAME),
        }
    }

    /// What the user has for the registry `host`: from its helper, from the store for all, or from the file.
    pub fn find(&self, host: &str) -> Result<Option<Secret>, Error> {
        let file = File::read(&self.path)?;
        if let Some(helper) = file.helper(host)?
            && let Some(secret) = helper.get(registry::key(host))?
        {
            return Ok(Some(secret));
        }
        file.entry(host)
    }

    /// Keep a secret, and say where.
    pub fn keep(&self, host: &str, secret: &Secret) -> Result<Place, Error> {
        if let Some(helper) = File::read(&self.path)?.helper(host)? {
            helper.store(registry::key(host), secret)?;
            // As docker does it; and what stood there in plain text goes.
            file::change(&self.path, |file| file.set(host, None))?;
            Ok(Place::Helper(helper.name().to_owned()))
        } else {
            file::change(&self.path, |file| file.set(host, Some(secret)))?;
            Ok(Place::File(self.path.clone()))
        }
    }

    /// Take away all that is kept for a registry. Whether there was something.
    pub fn forget(&self, host: &str) -> Result<bool, Error> {
        let file = File::read(&self.path)?;
        let mut is_known = file.has(host);
        if let Some(helper) = file.helper(host)? {
            // Older programs kept them by URL.
            for key in helper.list()?.iter().filter(|key| registry::matches(key, host)) {
                helper.erase(key)?;
                is_known = true;
            }
        }
        if file.has(host) {
            file::change(&self.path, |file| file.remove(host))?;
        }
        Ok(is_known)
    }
}

#[cfg(test)]
mod tests;
