//! Contexts: managers that a person has given names to. Each is a folder below `contexts` with `context.json` and copies
//! of its certificates; the file `current` names the one in use.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};
use crate::host::{Certificates, Host, Target};

/// The name of what is there without a context.
pub(crate) const DEFAULT: &str = "default";
const NAME_BYTES_MAX: usize = 64;
/// Files here are small, and read whole.
const FILE_BYTES_MAX: u64 = 1 << 20;
const AUTHORITIES: &str = "ca.pem";
const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";

/// The person's contexts.
pub(crate) struct Contexts {
    folder: PathBuf,
}

/// One of them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Context {
    #[serde(skip_deserializing)]
    pub(crate) name: String,
    pub(crate) host: String,
    #[serde(default)]
    pub(crate) description: String,
}

impl Contexts {
    /// Those in the folder `BERTH_CONFIG`, else in the person's folder of configuration.
    pub(crate) fn open() -> Result<Contexts> {
        let variable = |name| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let folder = variable("BERTH_CONFIG")
            .or_else(|| Some(variable("XDG_CONFIG_HOME")?.join("berth")))
            .or_else(|| Some(variable("HOME")?.join(".config/berth")));
        match folder {
            Some(folder) => Ok(Contexts { folder }),
            None => Err(Failure::new(
                "there is no place for contexts: neither HOME nor BERTH_CONFIG is set",
            )),
        }
    }

    /// The name of the one in use.
    pub(crate) fn current(&self) -> Result<String> {
        let name = read(&self.folder.join("current"))?;
        Ok(name.map_or(DEFAULT.to_owned(), |name| name.trim().to_owned()))
    }

    /// Use `name` from now on.
    pub(crate) fn set_current(&self, name: &str) -> Result<()> {
        let path = self.folder.join("current");
        if name == DEFAULT {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(wrong("remove", &path, &error)),
                _ => Ok(()),
            };
        }
        self.get(name)?;
        let new = self.folder.join(format!(".current.{}", std::process::id()));
        write(&new, format!("{name}\n").as_bytes())?;
        fs::rename(&new, &path).map_err(|error| wrong("write", &path, &error))
    }

    /// All, by name, after the default one.
    pub(crate) fn all(&self) -> Result<Vec<Context>> {
        let entries = match fs::read_dir(self.contexts()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            entries => Some(entries.map_err(|error| wrong("read", &self.contexts(), &error))?),
        };
        let mut names: Vec<String> = entries
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| check(name).is_ok())
            .collect();
        names.sort();
        names.insert(0, DEFAULT.to_owned());
        names.iter().map(|name| self.get(name)).collect()
    }

    /// One.
    pub(crate) fn get(&self, name: &str) -> Result<Context> {
        if name == DEFAULT {
            return Ok(Context {
                name: DEFAULT.to_owned(),
                host: Target::of_this_machine()?.host.to_string(),
                description: "The manager of this machine".to_owned(),
            });
        }
        check(name)?;
        let path = self.contexts().join(name).join("context.json");
        let text = read(&path)?.ok_or_else(|| {
            Failure::new(format!("there is no context {name}"))
                .with_hint("`managerctl context ls` lists them")
        })?;
        let context: Context = serde_json::from_str(&text)
            .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        Ok(Context {
            name: name.to_owned(),
            ..context
        })
    }

    /// The manager of one.
    pub(crate) fn target(&self, name: &str) -> Result<Target> {
        if name == DEFAULT {
            return Target::of_this_machine();
        }
        let host = Host::parse(&self.get(name)?.host)?;
        let folder = self.contexts().join(name);
        let certificates = matches!(host, Host::Tcp(_)).then(|| Certificates {
            authorities: folder.join(AUTHORITIES),
            certificate: folder.join(CERTIFICATE),
            key: folder.join(KEY),
        });
        Ok(Target { host, certificates })
    }

    /// Remember a manager. The context is there whole or not at all.
    pub(crate) fn create(&self, name: &str, description: &str, target: &Target) -> Result<()> {
        check(name)?;
        if name == DEFAULT {
            return Err(Failure::new(
                "the context \"default\" is there already, and always this machine's manager",
            ));
        }
        let folder = self.contexts().join(name);
        let new = self.contexts().join(format!(".{name}.{}", std::process::id()));
        let made = fill(&new, description, target).and_then(|()| {
            // Onto a folder that is not empty, as each context's is, a rename is refused.
            fs::rename(&new, &folder).map_err(|error| match error.kind() {
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {
                    Failure::new(format!("the context {name} is there already"))
                        .with_hint(format!("`managerctl context rm {name}` forgets it"))
                }
                _ => wrong("make", &folder, &error),
            })
        });
        if made.is_err() {
            let _ = fs::remove_dir_all(&new);
        }
        made
    }

    /// Forget one; the one in use only by force.
    pub(crate) fn remove(&self, name: &str, force: bool) -> Result<()> {
        if name == DEFAULT {
            return Err(Failure::new("the context \"default\" cannot be removed"));
        }
        self.get(name)?;
        if self.current()? == name {
            if !force {
                return Err(Failure::new(format!("the context {name} is in use")).with_hint(
                    "use another one first (`managerctl context use default`), or remove it with -f",
                ));
            }
            self.set_current(DEFAULT)?;
        }
        let folder = self.contexts().join(name);
        fs::remove_dir_all(&folder).map_err(|error| wrong("remove", &folder, &error))
    }

    fn contexts(&self) -> PathBuf {
        self.folder.join("contexts")
    }
}

/// The files of a context.
fn fill(folder: &Path, description: &str, target: &Target) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| wrong("make", folder, &error))?;
    let text = serde_json::json!({"host": target.host.to_string(), "description": description});
    write(&folder.join("context.json"), format!("{text}\n").as_bytes())?;
    let Some(files) = &target.certificates else {
        return Ok(());
    };
    for (source, name) in [
        (&files.authorities, AUTHORITIES),
        (&files.certificate, CERTIFICATE),
        (&files.key, KEY),
    ] {
        let pem = read(source)?.ok_or_else(|| Failure::new(format!("{} is not there", source.display())))?;
        write(&folder.join(name), pem.as_bytes())?;
    }
    Ok(())
}

/// A name that is a file's name too, and no option.
fn check(name: &str) -> Result<()> {
    let is_good = name.len() <= NAME_BYTES_MAX
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte));
    if is_good {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{name:?} is no name of a context: up to {NAME_BYTES_MAX} letters, digits, and -_.+ after the first"
    )))
}

fn read(path: &Path) -> Result<Option<String>> {
    let length = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata.map_err(|error| wrong("read", path, &error))?.len(),
    };
    if length > FILE_BYTES_MAX {
        return Err(Failure::new(format!(
            "{}: has more than {FILE_BYTES_MAX} bytes",
            path.display()
        )));
    }
    fs::read_to_string(path)
        .map(Some)
        .map_err(|error| wrong("read", path, &error))
}

/// Nobody else reads a key.
fn write(path: &Path, content: &[u8]) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(path)
        .and_then(|mut file| file.write_all(content))
        .map_err(|error| wrong("write", path, &error))
}

fn wrong(verb: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("{verb} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contexts() -> (tempfile::TempDir, Contexts) {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("berth");
        (home, Contexts { folder })
    }

    fn target(text: &str) -> Target {
        Target {
            host: Host::parse(text).unwrap(),
            certificates: None,
        }
    }

    #[test]
    fn a_context_is_used_until_another_is_or_it_goes() {
        let (_home, contexts) = contexts();
        assert_eq!(contexts.current().unwrap(), DEFAULT);
        contexts.create("far", "one", &target("ssh://far")).unwrap();
        contexts.set_current("far").unwrap();
        assert_eq!(
            contexts
                .target(&contexts.current().unwrap())
                .unwrap()
                .host
                .to_string(),
            "ssh://far"
        );
        let names: Vec<_> = contexts
            .all()
            .unwrap()
            .into_iter()
            .map(|context| context.name)
            .collect();
        assert_eq!(names, [DEFAULT, "far"]);
        assert!(contexts.create("far", "", &target("ssh://other")).is_err());
        assert!(contexts.remove("far", false).is_err());
        contexts.remove("far", true).unwrap();
        assert_eq!(contexts.current().unwrap(), DEFAULT);
        assert!(contexts.set_current("far").is_err() && contexts.target("far").is_err());
    }

    #[test]
    fn a_context_without_its_certificates_is_not_made() {
        let (home, contexts) = contexts();
        let missing = |name: &str| home.path().join(name);
        let target = Target {
            host: Host::parse("tcp://far:2376").unwrap(),
            certificates: Some(Certificates {
                authorities: missing("a"),
                certificate: missing("b"),
                key: missing("c"),
            }),
        };
        assert!(contexts.create("far", "", &target).is_err());
        assert_eq!(fs::read_dir(contexts.contexts()).unwrap().count(), 0);
    }

    #[test]
    fn names_lead_nowhere_else() {
        let (_home, contexts) = contexts();
        for name in ["", ".", "..", "../x", "a/b", "-x", ".hidden", "a b"] {
            assert!(contexts.create(name, "", &target("ssh://far")).is_err(), "{name}");
            assert!(contexts.get(name).is_err(), "{name}");
        }
    }
}
