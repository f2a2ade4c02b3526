//! Credentials from docker's `config.json`: the `auths` that `docker login` leaves there.
//!
//! Credential stores and helpers are other programs; they are not run yet, and an error for lack of credentials says so.

use std::collections::HashMap;
use std::path::PathBuf;

use base64::Engine as _;
use serde::Deserialize;

use crate::Credentials;

const FILE_BYTES_MAX: u64 = 1 << 20;
/// Under which docker keeps those of its own registry.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// What proves who we are at a registry.
#[derive(Clone)]
pub(crate) enum Secret {
    Password(Credentials),
    /// An `OAuth2` refresh token, good at the registry's token server only.
    IdentityToken(String),
}

/// What was found for one registry.
#[derive(Clone, Default)]
pub(crate) struct Found {
    pub(crate) secret: Option<Secret>,
    /// For the error message if the registry wants credentials: why none were found.
    pub(crate) hint: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ConfigFile {
    auths: HashMap<String, Auth>,
    creds_store: Option<String>,
    cred_helpers: HashMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Auth {
    /// User name and password, joined by a colon, in base64.
    #[serde(rename = "auth")]
    packed: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// Look `host` up in the file of the user that runs this process.
pub(crate) fn lookup(host: &str) -> Found {
    let folder = std::env::var_os("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")));
    let Some(path) = folder.map(|folder| folder.join("config.json")) else {
        return Found::default();
    };
    match path.metadata() {
        Ok(metadata) if metadata.len() <= FILE_BYTES_MAX => {}
        Ok(_) => {
            return Found {
                secret: None,
                hint: Some(format!("{} is too large", path.display())),
            };
        }
        Err(_) => return Found::default(),
    }
    match std::fs::read(&path) {
        Ok(content) => find(&content, host).unwrap_or_else(|rule| Found {
            secret: None,
            hint: Some(format!("{} cannot be used: {rule}", path.display())),
        }),
        Err(e) => Found {
            secret: None,
            hint: Some(format!("{} cannot be read: {e}", path.display())),
        },
    }
}

fn find(content: &[u8], host: &str) -> Result<Found, String> {
    // The parser's message could quote a secret.
    let file: ConfigFile = serde_json::from_slice(content)
        .map_err(|e| format!("line {}: it is not docker's config.json", e.line()))?;
    let entry = file
        .auths
        .iter()
        .find(|(key, _)| matches_host(key, host))
        .map(|(_, auth)| auth);
    if let Some(secret) = entry.map(secret).transpose()?.flatten() {
        return Ok(Found {
            secret: Some(secret),
            hint: None,
        });
    }
    let helper = file.cred_helpers.get(host).or(file.creds_store.as_ref());
    let hint = helper.map(|h| format!("credential helper {h:?} is not supported, use `auths` or give them"));
    Ok(Found { secret: None, hint })
}

/// Keys are hosts, or URLs in older files.
fn matches_host(key: &str, host: &str) -> bool {
    if host == "docker.io" && (key == DOCKER_HUB_KEY || key == "index.docker.io") {
        return true;
    }
    let key = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    key.split('/').next() == Some(host)
        && key
            .trim_end_matches('/')
            .split('/')
            .skip(1)
            .all(|p| p == "v1" || p == "v2")
}

fn secret(auth: &Auth) -> Result<Option<Secret>, String> {
    if let Some(token) = auth.identitytoken.as_ref().filter(|t| !t.is_empty()) {
        return Ok(Some(Secret::IdentityToken(token.clone())));
    }
    if let Some(packed) = auth.packed.as_ref().filter(|a| !a.is_empty()) {
        let text = base64::engine::general_purpose::STANDARD
            .decode(packed)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or("an `auth` is not base64")?;
        let (username, password) = text.split_once(':').ok_or("an `auth` has no colon")?;
        let (username, password) = (username.to_owned(), password.trim_end_matches('\0').to_owned());
        return Ok(Some(Secret::Password(Credentials { username, password })));
    }
    Ok(match (&auth.username, &auth.password) {
        (Some(username), Some(password)) if !username.is_empty() => Some(Secret::Password(Credentials {
            username: username.clone(),
            password: password.clone(),
        })),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(content: &str, host: &str) -> Option<String> {
        match find(content.as_bytes(), host).unwrap().secret? {
            Secret::Password(c) => Some(format!("{}:{}", c.username, c.password)),
            Secret::IdentityToken(token) => Some(token),
        }
    }

    #[test]
    fn entries_are_found_by_host_in_all_forms() {
        let file = r#"{"auths":{
            "https://index.docker.io/v1/":{"auth":"aHViOnB3"},
            "registry.example:5000":{"username":"a","password":"b"},
            "https://old.example/v2/":{"auth":"bzpw"},
            "token.example":{"auth":"eDp5","identitytoken":"T"},
            "empty.example":{}}}"#;
        for (host, found) in [
            ("docker.io", Some("hub:pw")),
            ("registry.example:5000", Some("a:b")),
            ("registry.example", None),
            ("old.example", Some("o:p")),
            ("token.example", Some("T")),
            ("empty.example", None),
            ("example", None),
        ] {
            assert_eq!(user(file, host).as_deref(), found, "{host}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_told_without_the_secret() {
        assert!(
            find(br#"{"credsStore":"pass"}"#, "a.b")
                .unwrap()
                .hint
                .unwrap()
                .contains("pass")
        );
        assert!(find(br#"{"auths":{"a.b":{"auth":"%%"}}}"#, "a.b").is_err());
        let error = find(br#"{"auths":{"a.b":{"auth":12345}}}"#, "a.b").err().unwrap();
        assert!(!error.contains("12345"), "{error}");
    }
}
