//! Where the repositories of a registry are asked for: containerd's hosts.toml, docker's folders of certificates, or
//! the registry itself if there is neither.
//!
//! Read for each pull, so that changes need no restart.

mod file;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderMap;

use super::circuit::Circuit;
use super::tls::Tls;
use crate::Error;

#[cfg(feature = "fuzzing")]
pub(super) use file::parse;

const FILE_BYTES_MAX: u64 = 1 << 20;
const FILE_NAME: &str = "hosts.toml";
/// For registries that have no folder of their own.
const DEFAULT_FOLDER: &str = "_default";
/// Docker's own registry, whatever it is called.
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_NAMES: [&str; 3] = ["registry-1.docker.io", DOCKER_HUB, "index.docker.io"];

/// How the administrator wants registries to be reached. Clones share what is known of mirrors that fail.
#[derive(Debug, Clone, Default)]
pub struct Registries {
    folders: Vec<PathBuf>,
    pub(super) circuit: Arc<Circuit>,
}

/// One server that is asked for a registry's repositories.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// `https://host/v2/`, always with the slash.
    pub(super) root: Url,
    /// Somebody wrote `http` or `https`. If nobody did, a registry on this machine may speak either.
    pub(super) has_scheme: bool,
    /// It is the registry itself and not a mirror: it gets the user's credentials.
    pub(super) is_registry: bool,
    pub(super) capabilities: BTreeSet<Capability>,
    pub(super) tls: Tls,
    /// Sent with each request, to it alone.
    pub(super) header: HeaderMap,
    pub(super) dial_timeout: Option<Duration>,
    pub(super) proxy: Option<Url>,
}

/// What a server is trusted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Capability {
    /// To give what has a known digest.
    Pull,
    /// To say which digest a tag has.
    Resolve,
    Push,
}

impl Capability {
    const ALL: [Capability; 3] = [Capability::Pull, Capability::Resolve, Capability::Push];
}

impl Registries {
    /// The configuration in these folders, each with a folder a registry: `registry.example:5000/hosts.toml`. The
    /// first folder that has one counts.
    pub fn in_folders(folders: impl IntoIterator<Item = PathBuf>) -> Registries {
        Registries {
            folders: folders.into_iter().collect(),
            circuit: Arc::default(),
        }
    }

    /// The servers to ask for the repositories of `host`, mirrors first. Blocks on files.
    pub(super) fn endpoints(&self, host: &str) -> Result<Vec<Endpoint>, Error> {
        let names = folder_names(host);
        let candidates = self
            .folders
            .iter()
            .flat_map(|folder| names.iter().map(move |name| folder.join(name)));
        let Some(folder) = candidates.into_iter().find(|folder| folder.is_dir()) else {
            return Ok(vec![itself(host)?]);
        };
        let path = folder.join(FILE_NAME);
        let refuse = |path: &Path, rule| Error::RegistryConfig {
            path: path.to_owned(),
            rule,
        };
        match path.try_exists() {
            Ok(false) => {
                let mut endpoint = itself(host)?;
                endpoint.tls = certificates_in(&folder).map_err(|rule| refuse(&folder, rule))?;
                Ok(vec![endpoint])
            }
            _ => read_bounded(&path)
                .and_then(|content| {
                    let text = std::str::from_utf8(&content).map_err(|e| e.to_string())?;
                    file::parse(text, &folder, host)
                })
                .map_err(|rule| refuse(&path, rule)),
        }
    }
}

/// The registry as a reference names it.
fn itself(host: &str) -> Result<Endpoint, Error> {
    let address = if host == DOCKER_HUB {
        DOCKER_HUB_NAMES[0]
    } else {
        host
    };
    let root = Url::parse(&format!("https://{address}/v2/")).map_err(|e| Error::Reference {
        reference: host.to_owned(),
        rule: e.to_string(),
    })?;
    Ok(Endpoint {
        root,
        has_scheme: false,
        is_registry: true,
        capabilities: BTreeSet::from(Capability::ALL),
        tls: Tls::default(),
        header: HeaderMap::new(),
        dial_timeout: None,
        proxy: None,
    })
}

/// Whether `root` is on the server that references call `host`.
fn is_of(root: &Url, host: &str) -> bool {
    let name = root.host_str().unwrap_or_default();
    if host == DOCKER_HUB {
        return DOCKER_HUB_NAMES.contains(&name) && root.scheme() == "https" && root.port().is_none();
    }
    // Without a port, the one that the scheme stands for.
    Url::parse(&format!("{}://{host}/", root.scheme())).is_ok_and(|url| url.origin() == root.origin())
}

/// Names of a registry's folder, as containerd looks for them. A colon in a path is more than some tools bear.
fn folder_names(host: &str) -> Vec<String> {
    let mut names = Vec::new();
    if let Some((name, port)) = host.rsplit_once(':')
        && port.bytes().all(|c| c.is_ascii_digit())
    {
        names.push(format!("{name}_{port}_"));
    }
    names.push(host.to_owned());
    names.push(DEFAULT_FOLDER.to_owned());
    names
}

/// Docker's pattern: authorities in `*.crt`, client certificates in `*.cert` beside their `*.key`.
fn certificates_in(folder: &Path) -> Result<Tls, String> {
    let mut tls = Tls::default();
    let entries = std::fs::read_dir(folder).map_err(|e| e.to_string())?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in &paths {
        match path.extension().and_then(OsStr::to_str) {
            Some("crt") => tls.authorities.push(path.clone()),
            Some("cert") => {
                let key = path.with_extension("key");
                if !paths.contains(&key) {
                    return Err(format!("{} has no {} beside it", path.display(), key.display()));
                }
                tls.clients.push((path.clone(), Some(key)));
            }
            Some("key") if !paths.contains(&path.with_extension("cert")) => {
                let certificate = path.with_extension("cert");
                return Err(format!(
                    "{} has no {} beside it",
                    path.display(),
                    certificate.display()
                ));
            }
            _ => {}
        }
    }
    Ok(tls)
}

/// The content of a file of configuration; the error names it.
pub(super) fn read_bounded(path: &Path) -> Result<Vec<u8>, String> {
    let named = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut content = Vec::new();
    let file = std::fs::File::open(path).map_err(named)?;
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut content)
        .map_err(named)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("{} has more than {FILE_BYTES_MAX} bytes", path.display()));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(registries: &Registries, host: &str) -> Vec<String> {
        let endpoints = registries.endpoints(host).unwrap();
        endpoints
            .iter()
            .map(|endpoint| endpoint.root.to_string())
            .collect()
    }

    #[test]
    fn a_registry_without_a_folder_is_asked_itself() {
        let none = Registries::default();
        assert_eq!(roots(&none, "docker.io"), ["https://registry-1.docker.io/v2/"]);
        assert_eq!(roots(&none, "a.example:5000"), ["https://a.example:5000/v2/"]);
        let endpoint = &none.endpoints("a.example").unwrap()[0];
        assert!(endpoint.is_registry && !endpoint.has_scheme && endpoint.capabilities.len() == 3);
    }

    #[test]
    fn folders_are_found_by_containerds_names() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let write = |folder: &tempfile::TempDir, name: &str, server: &str| {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(
                folder.path().join(name).join(FILE_NAME),
                format!("server = {server:?}"),
            )
            .unwrap();
        };
        write(&first, "a.example:5000", "https://one");
        write(&second, "a.example_5000_", "https://two");
        write(&second, "b.example_5000_", "https://three");
        write(&second, "_default", "https://four");
        let folders = [first.path().to_owned(), second.path().to_owned()];
        let registries = Registries::in_folders(folders);
        assert_eq!(roots(&registries, "a.example:5000"), ["https://one/v2/"]);
        assert_eq!(roots(&registries, "b.example:5000"), ["https://three/v2/"]);
        assert_eq!(roots(&registries, "b.example"), ["https://four/v2/"]);
        // What changes is seen at once.
        std::fs::remove_dir_all(second.path().join("_default")).unwrap();
        assert_eq!(roots(&registries, "b.example"), ["https://b.example/v2/"]);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_not_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a.example")).unwrap();
        let path = folder.path().join("a.example").join(FILE_NAME);
        let registries = Registries::in_folders([folder.path().to_owned()]);
        for bad in ["server = [", "capabilties = [\"pull\"]"] {
            std::fs::write(&path, bad).unwrap();
            let error = registries.endpoints("a.example").unwrap_err().to_string();
            assert!(error.contains("a.example/hosts.toml"), "{error}");
        }
        std::fs::write(&path, vec![b'#'; FILE_BYTES_MAX as usize + 1]).unwrap();
        assert!(registries.endpoints("a.example").is_err());
    }

    #[test]
    fn dockers_certificates_are_found_in_pairs() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["ca.crt", "me.cert", "me.key", "readme"] {
            std::fs::write(path(name), "").unwrap();
        }
        let tls = certificates_in(folder.path()).unwrap();
        assert_eq!(tls.authorities, [path("ca.crt")]);
        assert_eq!(tls.clients, [(path("me.cert"), Some(path("me.key")))]);
        std::fs::write(path("you.cert"), "").unwrap();
        assert!(certificates_in(folder.path()).unwrap_err().contains("you.key"));
    }

    #[test]
    fn the_registry_itself_is_told_from_mirrors() {
        for (root, host, expected) in [
            ("https://a.example/v2/", "a.example", true),
            ("https://a.example:443/v2/", "a.example", true),
            ("http://a.example/v2/", "a.example", true),
            ("https://a.example/v2/", "a.example:443", true),
            ("https://a.example:5000/v2/", "a.example", false),
            ("https://a.example/v2/", "b.example", false),
            ("https://registry-1.docker.io/v2/", "docker.io", true),
            ("http://registry-1.docker.io/v2/", "docker.io", false),
            ("https://mirror.docker.io/v2/", "docker.io", false),
        ] {
            assert_eq!(is_of(&Url::parse(root).unwrap(), host), expected, "{root} {host}");
        }
    }
}
