//! What a volume driver is asked.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::Error;
use crate::call::{Effort, Endpoint};

/// Of a mount point.
const PATH_BYTES_MAX: usize = 4095;

/// A plugin that has volumes.
#[derive(Debug, Clone)]
pub struct VolumeDriver {
    endpoint: Arc<Endpoint>,
    effort: Effort,
}

/// A volume as its plugin tells of it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct VolumeOfPlugin {
    /// Unique in the plugin.
    #[serde(rename = "Name")]
    pub name: String,
    /// Where it is mounted now; empty: nowhere.
    #[serde(rename = "Mountpoint")]
    pub mountpoint: String,
    /// Whatever the plugin has to say: an object, or null.
    #[serde(rename = "Status")]
    pub status: Value,
}

/// How far a driver's volumes reach.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scope {
    /// This machine.
    #[default]
    Local,
    /// All machines that have the driver.
    Global,
}

/// An answer of which only the error counts, if it has one.
#[derive(Deserialize)]
struct Done {}

#[derive(Deserialize)]
struct Mounted {
    #[serde(rename = "Mountpoint", default)]
    mountpoint: String,
}

impl VolumeDriver {
    pub(crate) fn new(endpoint: Arc<Endpoint>, effort: Effort) -> VolumeDriver {
        VolumeDriver { endpoint, effort }
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        method: &'static str,
        question: Value,
    ) -> Result<T, Error> {
        self.endpoint.ask(method, Some(&question), self.effort).await
    }

    /// Make a volume.
    pub async fn create(&self, volume: &str, options: &BTreeMap<String, String>) -> Result<(), Error> {
        let question = json!({"Name": volume, "Opts": options});
        let Done {} = self.ask("VolumeDriver.Create", question).await?;
        Ok(())
    }

    /// Remove a volume, with what is in it.
    pub async fn remove(&self, volume: &str) -> Result<(), Error> {
        let Done {} = self.ask("VolumeDriver.Remove", json!({"Name": volume})).await?;
        Ok(())
    }

    /// Mount it for the user `id`: where it is from now on, a directory or file that is there.
    pub async fn mount(&self, volume: &str, id: &str) -> Result<PathBuf, Error> {
        const METHOD: &str = "VolumeDriver.Mount";
        let mounted: Mounted = self.ask(METHOD, json!({"Name": volume, "ID": id})).await?;
        let unusable = |why| self.endpoint.unusable(METHOD, why);
        let path = check_mountpoint(&mounted.mountpoint).map_err(unusable)?;
        // What hangs there hangs its own thread alone.
        let looked_at = path.clone();
        let look = tokio::task::spawn_blocking(move || std::fs::metadata(&looked_at).map(drop));
        match tokio::time::timeout(self.endpoint.timeout, look).await {
            Ok(Ok(Ok(()))) => Ok(path),
            Ok(Ok(Err(error))) => Err(unusable(format!("Mountpoint {}: {error}", path.display()))),
            Ok(Err(_)) | Err(_) => Err(unusable(format!(
                "Mountpoint {}: it does not answer",
                path.display()
            ))),
        }
    }

    /// The user `id` needs it no longer.
    pub async fn unmount(&self, volume: &str, id: &str) -> Result<(), Error> {
        let question = json!({"Name": volume, "ID": id});
        let Done {} = self.ask("VolumeDriver.Unmount", question).await?;
        Ok(())
    }

    /// Where it is mounted now; None: nowhere.
    pub async fn path(&self, volume: &str) -> Result<Option<PathBuf>, Error> {
        const METHOD: &str = "VolumeDriver.Path";
        let mounted: Mounted = self.ask(METHOD, json!({"Name": volume})).await?;
        if mounted.mountpoint.is_empty() {
            return Ok(None);
        }
        let path =
            check_mountpoint(&mounted.mountpoint).map_err(|why| self.endpoint.unusable(METHOD, why))?;
        Ok(Some(path))
    }

    /// What it tells of one volume. A plugin says with an error that there is none.
    pub async fn get(&self, volume: &str) -> Result<VolumeOfPlugin, Error> {
        #[derive(Deserialize)]
        struct Got {
            #[serde(rename = "Volume", default)]
            volume: Option<VolumeOfPlugin>,
        }
        const METHOD: &str = "VolumeDriver.Get";
        let got: Got = self.ask(METHOD, json!({"Name": volume})).await?;
        let mut found = got
            .volume
            .ok_or_else(|| self.endpoint.unusable(METHOD, "it has no Volume".to_owned()))?;
        if found.name != volume {
            let other = found.name.escape_debug().take(100).collect::<String>();
            return Err(self
                .endpoint
                .unusable(METHOD, format!("it is of another volume, {other:?}")));
        }
        found.mountpoint = harmless(found.mountpoint);
        Ok(found)
    }

    /// All volumes that it has.
    pub async fn list(&self) -> Result<Vec<VolumeOfPlugin>, Error> {
        #[derive(Deserialize)]
        struct Listed {
            #[serde(rename = "Volumes", default)]
            volumes: Option<Vec<VolumeOfPlugin>>,
        }
        let listed: Listed = self.ask("VolumeDriver.List", json!({})).await?;
        let mut volumes = listed.volumes.unwrap_or_default();
        for volume in &mut volumes {
            volume.mountpoint = harmless(std::mem::take(&mut volume.mountpoint));
        }
        Ok(volumes)
    }

    /// How far its volumes reach. Older plugins do not know the question: theirs reach as far as this machine.
    pub async fn scope(&self) -> Result<Scope, Error> {
        #[derive(Deserialize, Default)]
        struct Capabilities {
            #[serde(rename = "Scope", default)]
            scope: String,
        }
        #[derive(Deserialize)]
        struct Told {
            #[serde(rename = "Capabilities", default)]
            capabilities: Capabilities,
        }
        match self.ask::<Told>("VolumeDriver.Capabilities", json!({})).await {
            Ok(told) if told.capabilities.scope.eq_ignore_ascii_case("global") => Ok(Scope::Global),
            Ok(_) => Ok(Scope::Local),
            Err(error) if error.is_refusal() => Ok(Scope::Local),
            Err(error) => Err(error),
        }
    }
}

/// A path that is no path is not shown to anybody.
fn harmless(path: String) -> String {
    if check_mountpoint(&path).is_ok() {
        path
    } else {
        String::new()
    }
}

fn check_mountpoint(text: &str) -> Result<PathBuf, String> {
    let shown = || text.escape_debug().take(200).collect::<String>();
    if text.is_empty() {
        return Err("it has no Mountpoint".to_owned());
    }
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(format!("Mountpoint \"{}\" is no absolute path", shown()));
    }
    let goes_up = path.components().any(|part| part == Component::ParentDir);
    if goes_up || text.chars().any(char::is_control) || text.len() > PATH_BYTES_MAX {
        return Err(format!("Mountpoint \"{}\" is no plain path", shown()));
    }
    Ok(path.to_owned())
}

#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(bytes: &[u8]) {
    if let Ok(volume) = serde_json::from_slice::<VolumeOfPlugin>(bytes)
        && let Ok(path) = check_mountpoint(&volume.mountpoint)
    {
        assert!(path.is_absolute() && !path.components().any(|part| part == Component::ParentDir));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_is_a_plain_absolute_path() {
        for bad in ["", "data", "./data", "/a/../b", "/a\n", "/a\0b"] {
            assert!(check_mountpoint(bad).is_err(), "{bad:?}");
        }
        assert!(check_mountpoint(&format!("/{}", "a".repeat(5000))).is_err());
        check_mountpoint("/var/lib/plugin/a..b").unwrap();
    }
}
