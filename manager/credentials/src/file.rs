//! Docker's `config.json`: read whole, and changed without touching what is not ours.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::helper::Helper;
use crate::{Error, Secret, registry};

const BYTES_MAX: u64 = 1 << 20;
const AUTHS: &str = "auths";

/// The content of the file; of one that is not there, nothing.
pub(crate) struct File {
    path: PathBuf,
    content: Map<String, Value>,
}

impl File {
    pub(crate) fn read(path: &Path) -> Result<File, Error> {
        let io = |source| Error::Io {
            action: "read",
            path: path.to_owned(),
            source,
        };
        let mut content = Vec::new();
        match fs::File::open(path) {
            Ok(file) => file.take(BYTES_MAX + 1).read_to_end(&mut content).map_err(io)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
            Err(e) => return Err(io(e)),
        };
        File::parse(path, &content)
    }

    pub(crate) fn parse(path: &Path, content: &[u8]) -> Result<File, Error> {
        let wrong = |rule: String| Error::File {
            path: path.to_owned(),
            rule,
        };
        if content.len() as u64 > BYTES_MAX {
            return Err(wrong(format!("it has more than {BYTES_MAX} bytes")));
        }
        let content = match content {
            // Docker takes an empty file for none.
            blank if blank.iter().all(u8::is_ascii_whitespace) => Map::new(),
            // The parser's message could quote a secret.
            text => serde_json::from_slice(text)
                .map_err(|e| wrong(format!("line {}: it is not docker's config.json", e.line())))?,
        };
        Ok(File {
            path: path.to_owned(),
            content,
        })
    }

    fn wrong(&self, rule: impl Into<String>) -> Error {
        Error::File {
            path: self.path.clone(),
            rule: rule.into(),
        }
    }

    /// The program that keeps what belongs to `host`: its own, or the one for all.
    pub(crate) fn helper(&self, host: &str) -> Result<Option<Helper>, Error> {
        let helpers = self.content.get("credHelpers").and_then(Value::as_object);
        let own = helpers
            .into_iter()
            .flatten()
            .find(|(key, _)| registry::matches(key, host))
            .map(|(_, name)| name);
        let name = own.or_else(|| self.content.get("credsStore"));
        match name {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(name)) if name.is_empty() => Ok(None),
            Some(Value::String(name)) => Helper::new(name).map(Some).map_err(|rule| self.wrong(rule)),
            Some(_) => Err(self.wrong("the name of a credential helper is not a text")),
        }
    }

    fn entries(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.content
            .get(AUTHS)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
    }

    pub(crate) fn has(&self, host: &str) -> bool {
        self.entries().any(|(key, _)| registry::matches(key, host))
    }

    /// What stands in the file itself. An entry without a secret says that a helper has it.
    pub(crate) fn entry(&self, host: &str) -> Result<Option<Secret>, Error> {
        let mut entries = self.entries().filter(|(key, _)| registry::matches(key, host));
        let found = entries.find_map(|(key, entry)| secret(entry).map_err(|rule| (key, rule)).transpose());
        found
            .transpose()
            .map_err(|(key, rule)| self.wrong(format!("auths[{key:?}]: {rule}")))
    }

    /// Make one entry for `host`, with or without its secret.
    pub(crate) fn set(&mut self, host: &str, secret: Option<&Secret>) {
        self.remove(host);
        let entry = match secret {
            None => json!({}),
            Some(Secret::Password { username, password }) => {
                json!({ "auth": STANDARD.encode(format!("{username}:{password}")) })
            }
            Some(Secret::IdentityToken(token)) => json!({ "identitytoken": token }),
            Some(Secret::RegistryToken(token)) => json!({ "registrytoken": token }),
        };
        let auths = self.content.entry(AUTHS).or_insert_with(|| json!({}));
        if !auths.is_object() {
            *auths = json!({});
        }
        auths[registry::key(host)] = entry;
    }

    pub(crate) fn remove(&mut self, host: &str) {
        if let Some(auths) = self.content.get_mut(AUTHS).and_then(Value::as_object_mut) {
            auths.retain(|key, _| !registry::matches(key, host));
        }
    }
}

fn secret(entry: &Value) -> Result<Option<Secret>, &'static str> {
    let text = |name: &str| match entry.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(_) => Err("a secret is not a text"),
    };
    if let Some(token) = text("registrytoken")? {
        return Ok(Some(Secret::RegistryToken(token)));
    }
    if let Some(token) = text("identitytoken")? {
        return Ok(Some(Secret::IdentityToken(token)));
    }
    if let Some(packed) = text("auth")? {
        let unpacked = STANDARD
            .decode(packed)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let unpacked = unpacked.ok_or("auth is not user:password in base64")?;
        let (username, password) = unpacked
            .split_once(':')
            .ok_or("auth is not user:password in base64")?;
        return Ok(Some(Secret::Password {
            username: username.to_owned(),
            // Older versions of docker padded with zero bytes.
            password: password.trim_end_matches('\0').to_owned(),
        }));
    }
    Ok(match (text("username")?, text("password")?) {
        (Some(username), Some(password)) => Some(Secret::Password { username, password }),
        _ => None,
    })
}

/// Read the file, change it, and put it in its place whole: readable by its owner only, on disk when this returns.
pub(crate) fn change(path: &Path, how: impl FnOnce(&mut File)) -> Result<(), Error> {
    // A link, to a file that other programs share, stays one.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let io = |action: &'static str| {
        let path = path.clone();
        move |source| Error::Io { action, path, source }
    };
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(io("make the folder of"))?;
    // Two logins at once: the second reads what the first has written.
    let locked = fs::File::open(folder).map_err(io("open the folder of"))?;
    locked.lock().map_err(io("lock the folder of"))?;
    let mut file = File::read(&path)?;
    how(&mut file);
    let text = serde_json::to_string_pretty(&file.content)
        .map_err(|e| file.wrong(format!("it cannot be written as JSON: {e}")))?;
    let new = folder.join(format!(".config.json.{}", std::process::id()));
    let written = write(&new, text.as_bytes(), &path)
        .and_then(|()| fs::rename(&new, &path))
        .and_then(|()| locked.sync_all());
    if written.is_err() {
        // What is there of it has a secret in it.
        let _ = fs::remove_file(&new);
    }
    written.map_err(io("write"))
}

fn write(new: &Path, content: &[u8], old: &Path) -> io::Result<()> {
    let mut file = fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(new)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    if let Ok(owner) = old.metadata() {
        // Under sudo the file may be another user's, and has to stay so. Who may not do that is the owner already.
        let _ = fchown(&file, Some(owner.uid()), Some(owner.gid()));
    }
    file.write_all(content)?;
    file.sync_all()
}
