//! Who to be at a registry: from docker's own configuration file, so that `docker login` and `podman login
//! --authfile` serve both. Only the `auths` in the file; credential helpers are programs that are not asked.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proto::v1::Credentials;
use serde::Deserialize;

use crate::failure::{Failure, Result};

#[derive(Deserialize)]
struct Configuration {
    #[serde(default)]
    auths: HashMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
}

/// Credentials for the registry of an image, if the person has any there.
pub(super) fn of_registry(reference: &str) -> Result<Option<Credentials>> {
    let Some(path) = configuration_path() else {
        return Ok(None);
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::new(format!("read {}: {error}", path.display()))),
    };
    find(&text, registry(reference)).map_err(|what| Failure::new(format!("{}: {what}", path.display())))
}

fn configuration_path() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let folder = set("DOCKER_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| set("HOME").map(|home| Path::new(&home).join(".docker")))?;
    Some(folder.join("config.json"))
}

/// The part of a reference before the first slash names a registry if it looks like a host (docker's rule).
fn registry(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

fn find(configuration: &str, registry: &str) -> std::result::Result<Option<Credentials>, String> {
    let configuration: Configuration =
        serde_json::from_str(configuration).map_err(|error| error.to_string())?;
    // docker.io is in the file by the address of its old index.
    let is_it = |key: &str| {
        let host = key.split_once("://").map_or(key, |(_, rest)| rest);
        let host = host.split('/').next().unwrap_or(host);
        host == registry || (registry == "docker.io" && host == "index.docker.io")
    };
    let found = configuration
        .auths
        .iter()
        .find(|(key, entry)| is_it(key) && !entry.auth.is_empty());
    let Some((key, entry)) = found else {
        return Ok(None);
    };
    let decoded = STANDARD
        .decode(&entry.auth)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    match decoded.as_deref().and_then(|text| text.split_once(':')) {
        Some((username, password)) => {
            // Docker pads with zero bytes what older versions wrote.
            let password = password.trim_end_matches('\0').to_owned();
            Ok(Some(Credentials {
                username: username.to_owned(),
                password,
                ..Credentials::default()
            }))
        }
        None => Err(format!("auths[{key:?}].auth is not user:password in base64")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_told_from_namespaces_as_docker_does() {
        assert_eq!(registry("debian"), "docker.io");
        assert_eq!(registry("user/app:1"), "docker.io");
        assert_eq!(registry("localhost/app"), "localhost");
        assert_eq!(registry("localhost:5000/app"), "localhost:5000");
        assert_eq!(registry("quay.io/a/b"), "quay.io");
    }

    #[test]
    fn credentials_are_found_by_registry() {
        let file = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dTpwOnc="}, "r:5000": {"auth": "dQ=="},
            "empty": {}}}"#;
        let found = find(file, "docker.io").unwrap().unwrap();
        assert_eq!((found.username.as_str(), found.password.as_str()), ("u", "p:w"));
        assert!(find(file, "r:5000").unwrap_err().contains("r:5000"));
        assert!(find(file, "empty").unwrap().is_none());
        assert!(find(file, "other").unwrap().is_none());
        assert!(find("{}", "docker.io").unwrap().is_none());
        assert!(find("[", "docker.io").is_err());
    }
}
