//! A bundle: the folder with config.json. Read once, checked before anything is done with it.

use std::io::Read;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use oci_spec::runtime::{LinuxResources, Process, Spec};
use serde::de::DeserializeOwned;

use crate::config_text::{ProcessText, SpecText, drop_unset_pids};
use crate::error::{Context, Error, Result};
use crate::json_path;
use crate::sys::fd::{self, close_later};
use crate::validate;

/// More is no configuration but an attack on our memory.
const CONFIG_BYTES_MAX: u64 = 16 << 20;

const CONFIG_BYTES_USUAL: usize = 32 << 10;

/// A checked bundle.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// Absolute path of the folder.
    pub(crate) dir: PathBuf,
    /// The text of config.json, which the state directory keeps a copy of.
    pub(crate) config: Vec<u8>,
    pub(crate) spec: Spec,
}

impl Bundle {
    /// Reads and checks the bundle in `dir`.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let dir = std::path::absolute(dir).context(|| format!("find bundle {}", dir.display()))?;
        let config = read(&dir.join("config.json"))?;
        let spec = parse_spec(&config)?;
        validate::spec(&spec)?;
        Ok(Self { dir, config, spec })
    }

    /// Absolute path of the root file system.
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.spec
            .root()
            .as_ref()
            .map_or_else(|| self.dir.clone(), |root| self.dir.join(root.path()))
    }
}

/// Reads the file of a process for `exec --process`.
pub(crate) fn read_process(path: &Path) -> Result<Process> {
    Ok(parse::<ProcessText>(&read(path)?)?.into())
}

/// Reads a JSON file that the runtime wrote itself, for `restore`.
pub(crate) fn parse_file<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = read(path)?;
    serde_json::from_slice(&text).map_err(|e| Error::Refused(format!("{}: {e}", path.display())))
}

/// Reads a JSON file of bounded size.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let open = || format!("open {}", path.display());
    let file = fd::open(path, OFlag::O_RDONLY, Mode::empty()).context(open)?;
    // Most are smaller than this; a size that is asked for could be wrong by the time of reading.
    let mut text = Vec::with_capacity(CONFIG_BYTES_USUAL);
    (&file)
        .take(CONFIG_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .context(|| format!("read {}", path.display()))?;
    close_later(file.into());
    if text.len() as u64 > CONFIG_BYTES_MAX {
        return Err(Error::Refused(format!(
            "{} is larger than 16 MiB",
            path.display()
        )));
    }
    Ok(text)
}

/// Parses config.json.
pub(crate) fn parse_spec(text: &[u8]) -> Result<Spec> {
    let mut spec = Spec::from(parse::<SpecText>(text)?);
    let linux = spec.linux_mut().as_mut();
    if let Some(resources) = linux.and_then(|linux| linux.resources_mut().as_mut()) {
        drop_unset_pids(resources, text, "/linux/resources");
    }
    Ok(spec)
}

/// Parses the `resources` of `update`.
pub(crate) fn parse_resources(text: &[u8]) -> Result<LinuxResources> {
    let mut resources = parse(text)?;
    drop_unset_pids(&mut resources, text, "");
    Ok(resources)
}

/// Parses JSON of the runtime spec, naming the path of what is wrong.
pub(crate) fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(|error| {
        let path = json_path::path_at(text, error.line(), error.column());
        let path = if path.is_empty() {
            "(top level)".into()
        } else {
            path
        };
        Error::spec(path, error.to_string())
    })
}
