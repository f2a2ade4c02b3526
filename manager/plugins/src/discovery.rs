//! Which plugins there are, and where they listen: sockets in a folder, or files that name an address. Looked up at
//! each call, so that a plugin that is restarted, or comes later, is found without anybody saying so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;

use crate::call::{Effort, Endpoint, Retries};
use crate::volume::VolumeDriver;
use crate::{Config, Error};

/// Of a `.spec` or `.json` file.
const SPEC_BYTES_MAX: u64 = 64 << 10;
/// More entries of a folder are not looked at.
const ENTRIES_MAX: usize = 1000;
const NAME_BYTES_MAX: usize = 128;

/// All plugins of this machine.
#[derive(Debug)]
pub struct Plugins {
    config: Config,
    /// Those that have said what they are, by name; none that has been started anew since.
    known: Mutex<BTreeMap<String, Known>>,
}

#[derive(Debug, Clone)]
struct Known {
    stamp: Stamp,
    endpoint: Arc<Endpoint>,
    implements: Vec<String>,
}

/// What changes when a plugin makes its socket, or somebody its file, anew.
type Stamp = (PathBuf, u64, u64, i64, i64);

/// Where a plugin listens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) address: Address,
    pub(crate) tls: Option<TlsFiles>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Unix(PathBuf),
    /// `HOST:PORT`.
    Tcp(String),
}

impl Default for Address {
    fn default() -> Self {
        Address::Unix(PathBuf::new())
    }
}

/// The files of TLS that a `.json` names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct TlsFiles {
    #[serde(rename = "InsecureSkipVerify")]
    pub(crate) skip_verify: bool,
    #[serde(rename = "CAFile")]
    pub(crate) authority: PathBuf,
    #[serde(rename = "CertFile")]
    pub(crate) certificate: PathBuf,
    #[serde(rename = "KeyFile")]
    pub(crate) key: PathBuf,
}

impl Plugins {
    /// Nothing is looked for yet.
    pub fn new(config: Config) -> Plugins {
        Plugins {
            config,
            known: Mutex::default(),
        }
    }

    /// The names of those that there are, whatever they are.
    pub fn names(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for folder in &self.config.folders {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            for entry in entries.take(ENTRIES_MAX) {
                let file = PathBuf::from(entry.file_name());
                let stem = file.file_stem().and_then(|stem| stem.to_str());
                let is_one = match file.extension().and_then(|extension| extension.to_str()) {
                    Some("sock") => is_socket(&entry.path()),
                    Some("spec" | "json") => true,
                    // Docker finds NAME/NAME.sock too.
                    None => {
                        let inner = entry.path().join(&file).with_extension("sock");
                        is_socket(&inner)
                    }
                    Some(_) => false,
                };
                names.extend(
                    stem.filter(|stem| is_one && check_name(stem).is_ok())
                        .map(str::to_owned),
                );
            }
        }
        names
    }

    /// The plugin of this name, which has to be a volume driver.
    pub async fn volume_driver(&self, name: &str, effort: Effort) -> Result<VolumeDriver, Error> {
        check_name(name)?;
        let mut retries = Retries::new(effort, self.config.timeout);
        loop {
            let tried = self.known(name).await;
            match tried {
                Err(Error::NotFound { .. } | Error::Unreachable { .. }) if retries.wait().await => {}
                Err(error) => return Err(error),
                Ok(known) if known.implements.iter().any(|kind| kind == "VolumeDriver") => {
                    return Ok(VolumeDriver::new(known.endpoint, effort));
                }
                Ok(known) => {
                    return Err(Error::NotAVolumeDriver {
                        name: name.to_owned(),
                        implements: known.implements,
                    });
                }
            }
        }
    }

    /// Find it, and shake hands if that is not done yet.
    async fn known(&self, name: &str) -> Result<Known, Error> {
        let (path, stamp) = self.find(name)?;
        if let Some(known) = self.locked().get(name)
            && known.stamp == stamp
        {
            return Ok(known.clone());
        }
        let spec = read(name, &path)?;
        let endpoint = Arc::new(Endpoint::new(name, &spec, &path, self.config.timeout)?);
        let implements = endpoint.activate().await?;
        let known = Known {
            stamp,
            endpoint,
            implements,
        };
        self.locked().insert(name.to_owned(), known.clone());
        Ok(known)
    }

    fn find(&self, name: &str) -> Result<(PathBuf, Stamp), Error> {
        let folders = &self.config.folders;
        let sockets = folders.iter().flat_map(|folder| {
            let file = format!("{name}.sock");
            [folder.join(&file), folder.join(name).join(&file)]
        });
        let files = folders.iter().flat_map(|folder| {
            [
                folder.join(format!("{name}.spec")),
                folder.join(format!("{name}.json")),
            ]
        });
        let there = sockets
            .filter(|path| is_socket(path))
            .chain(files.filter(|path| path.is_file()))
            .find_map(|path| {
                let meta = path.metadata().ok()?;
                let stamp = (
                    path.clone(),
                    meta.dev(),
                    meta.ino(),
                    meta.ctime(),
                    meta.ctime_nsec(),
                );
                Some((path, stamp))
            });
        there.ok_or_else(|| Error::NotFound {
            name: name.to_owned(),
            folders: folders.clone(),
        })
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_socket(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.file_type().is_socket())
}

/// It becomes a part of paths.
fn check_name(name: &str) -> Result<(), Error> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins && name.len() <= NAME_BYTES_MAX && name.chars().all(fits) {
        return Ok(());
    }
    Err(Error::Name(name.to_owned()))
}

fn read(name: &str, path: &Path) -> Result<Spec, Error> {
    let wrong = |why: String| Error::Spec {
        name: name.to_owned(),
        path: path.to_owned(),
        why,
    };
    let extension = path.extension().and_then(|extension| extension.to_str());
    if extension == Some("sock") {
        return Ok(Spec {
            address: Address::Unix(path.to_owned()),
            tls: None,
        });
    }
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(SPEC_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|error| wrong(error.to_string()))?;
    if text.len() as u64 > SPEC_BYTES_MAX {
        return Err(wrong(format!("it has more than {SPEC_BYTES_MAX} bytes")));
    }
    parse(&text, extension == Some("json")).map_err(wrong)
}

fn parse(text: &str, is_json: bool) -> Result<Spec, String> {
    #[derive(Deserialize)]
    struct Json {
        #[serde(rename = "Addr")]
        address: String,
        #[serde(rename = "TLSConfig")]
        tls: Option<TlsFiles>,
    }
    if !is_json {
        return Ok(Spec {
            address: address(text.trim())?,
            tls: None,
        });
    }
    let json: Json = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let address = address(&json.address)?;
    let tls = json.tls;
    if let Some(tls) = &tls {
        if matches!(address, Address::Unix(_)) {
            return Err("TLSConfig is for an address that begins with tcp://".to_owned());
        }
        if tls.certificate.as_os_str().is_empty() != tls.key.as_os_str().is_empty() {
            return Err("CertFile and KeyFile belong together".to_owned());
        }
    }
    Ok(Spec { address, tls })
}

fn address(text: &str) -> Result<Address, String> {
    if let Some(path) = text.strip_prefix("unix://") {
        if path.starts_with('/') && !path.contains('\0') {
            return Ok(Address::Unix(path.into()));
        }
        return Err(format!("{text:?}: the path of a socket is absolute"));
    }
    let host = text
        .strip_prefix("tcp://")
        .ok_or_else(|| format!("{text:?} begins neither with unix:// nor with tcp://"))?;
    let (name, port) = host
        .rsplit_once(':')
        .ok_or_else(|| format!("{text:?} names no port"))?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    if name.is_empty() || !name.chars().all(is_name) || port.parse::<u16>().is_err() {
        return Err(format!("{text:?} is not tcp://HOST:PORT"));
    }
    Ok(Address::Tcp(host.to_owned()))
}

#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    for is_json in [false, true] {
        if let Ok(Spec {
            address: Address::Tcp(host),
            ..
        }) = parse(text, is_json)
        {
            assert!(
                !host.contains(['/', '@', '?', '#']),
                "it is put into a URL: {host}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_tell_where_a_plugin_listens() {
        let unix = Address::Unix("/run/p.sock".into());
        assert_eq!(parse("unix:///run/p.sock\n", false).unwrap().address, unix);
        let json = r#"{"Name":"p","Addr":"tcp://[::1]:99","TLSConfig":{"CAFile":"/ca.pem"}}"#;
        let spec = parse(json, true).unwrap();
        assert_eq!(spec.address, Address::Tcp("[::1]:99".into()));
        assert_eq!(spec.tls.unwrap().authority, Path::new("/ca.pem"));
        for (text, is_json, word) in [
            ("/run/p.sock", false, "neither"),
            ("unix://p.sock", false, "absolute"),
            ("tcp://host", false, "port"),
            ("tcp://a/b:1", false, "HOST:PORT"),
            ("tcp://user@b:1", false, "HOST:PORT"),
            ("{}", true, "Addr"),
            (r#"{"Addr":"unix:///p","TLSConfig":{}}"#, true, "tcp://"),
            (
                r#"{"Addr":"tcp://a:1","TLSConfig":{"KeyFile":"/k"}}"#,
                true,
                "together",
            ),
        ] {
            let refused = parse(text, is_json).unwrap_err();
            assert!(refused.contains(word), "{refused}");
        }
    }

    #[test]
    fn a_name_is_no_path() {
        for bad in ["", "..", "a/b", ".hidden", "vieux/sshfs:latest", "a:b"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        check_name("local-persist.v2").unwrap();
    }
}
