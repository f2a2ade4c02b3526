//! What the host's administrator has written of a network: a list of plugins, or one plugin.

use std::fs;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use crate::Error;

/// The capability of a plugin that publishes ports of the host.
pub const CAPABILITY_PORT_MAPPINGS: &str = "portMappings";
/// The capability of a plugin that gives the addresses it is told.
pub const CAPABILITY_IPS: &str = "ips";
/// The capability of a plugin that gives the MAC address it is told.
pub const CAPABILITY_MAC: &str = "mac";

/// Nobody writes more by hand.
const FILE_BYTES_MAX: u64 = 1 << 20;
const PLUGINS_MAX: usize = 64;
/// Those whose answers are alike, oldest first.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// The first one with CHECK, and with the former answer at DEL.
const WITH_CHECK: &str = "0.4.0";

/// A network's plugins, in the order in which they are called for ADD.
#[derive(Debug, Clone, PartialEq)]
pub struct List {
    /// Of the network.
    pub name: String,
    /// Of the specification, which plugins are told.
    pub version: String,
    pub(crate) disables_check: bool,
    pub(crate) plugins: Vec<Map<String, Value>>,
    whole: Value,
}

impl List {
    /// Read a configuration: `{"name": …, "plugins": [{"type": …}, …]}`, or one plugin with a name.
    ///
    /// # Errors
    /// It is none, or of a version of the specification that is not known here.
    pub fn parse(bytes: &[u8]) -> Result<List, Error> {
        let whole = serde_json::from_slice(bytes).map_err(|error| bad("", error.to_string()))?;
        List::of(whole)
    }

    /// The same of what [`List::to_json`] has given.
    ///
    /// # Errors
    /// As of [`List::parse`].
    pub fn of(whole: Value) -> Result<List, Error> {
        let text = |key: &str| {
            whole
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let name = text("name");
        if !is_name(&name) {
            let rule = "\"name\" must be letters, digits, '_', '.' and '-', beginning with a letter or digit";
            return Err(bad(&name, rule));
        }
        let version = version(&whole, &name)?;
        let plugins = match whole.get("plugins") {
            Some(Value::Array(plugins)) => plugins.clone(),
            Some(_) => return Err(bad(&name, "\"plugins\" must be a list")),
            None => vec![whole.clone()],
        };
        if plugins.is_empty() || plugins.len() > PLUGINS_MAX {
            return Err(bad(&name, format!("\"plugins\" must be from 1 to {PLUGINS_MAX}")));
        }
        let plugin = |plugin: Value| match plugin {
            Value::Object(plugin) if plugin.get("type").and_then(Value::as_str).is_some_and(is_name) => {
                Ok(plugin)
            }
            _ => Err(bad(
                &name,
                "each plugin must have a \"type\", the name of its program without a folder",
            )),
        };
        let plugins = plugins.into_iter().map(plugin).collect::<Result<_, _>>()?;
        let disables_check = whole
            .get("disableCheck")
            .is_some_and(|value| value == &Value::Bool(true));
        Ok(List {
            name,
            version,
            disables_check,
            plugins,
            whole,
        })
    }

    /// The network `name` of the files in `folder`, of which the first by name counts.
    ///
    /// # Errors
    /// There is none, or it is not right. Files of other networks that are not right are passed over.
    pub fn find(folder: &Path, name: &str) -> Result<List, Error> {
        let system = |source| Error::System {
            action: format!("read the folder {} of CNI configurations", folder.display()),
            source,
        };
        let missing = || Error::NoSuchList {
            name: name.to_owned(),
            folder: folder.to_owned(),
        };
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(missing()),
            entries => entries.map_err(system)?,
        };
        let is_meant = |path: &Path| {
            let ending = path.extension().and_then(|ending| ending.to_str());
            matches!(ending, Some("conflist" | "conf" | "json"))
        };
        let mut paths: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| is_meant(path))
            .collect();
        paths.sort();
        for path in paths {
            // By the file's name it may be meant too, and then the error is worth telling.
            let is_of_file = path.file_stem().is_some_and(|stem| stem == name);
            match List::read(&path) {
                Ok(list) if list.name == name => return Ok(list),
                Err(error) if is_of_file => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Err(missing())
    }

    /// What is in one file.
    ///
    /// # Errors
    /// It cannot be read, or is not right.
    pub fn read(path: &Path) -> Result<List, Error> {
        let system = |source| Error::System {
            action: format!("read {}", path.display()),
            source,
        };
        // Whoever has a pipe there waits for nobody.
        if !fs::metadata(path).map_err(system)?.is_file() {
            return Err(bad(&path.to_string_lossy(), "it is no plain file"));
        }
        let mut bytes = Vec::new();
        let file = fs::File::open(path).map_err(system)?;
        file.take(FILE_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(system)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(bad(&path.to_string_lossy(), "it is larger than 1 MiB"));
        }
        List::parse(&bytes).map_err(|error| match error {
            Error::BadList { why, .. } => bad(&path.to_string_lossy(), why),
            other => other,
        })
    }

    /// All of it, for whoever keeps it.
    pub fn to_json(&self) -> &Value {
        &self.whole
    }

    /// Whether one of the plugins says that it can do this.
    pub fn declares(&self, capability: &str) -> bool {
        self.plugins.iter().any(|plugin| declares(plugin, capability))
    }

    /// Whether plugins may be asked if all is as they left it.
    pub(crate) fn has_check(&self) -> bool {
        !self.disables_check && self.knows_former()
    }

    /// Whether plugins are told at DEL what they answered at ADD.
    pub(crate) fn knows_former(&self) -> bool {
        let number = |version: &str| VERSIONS.iter().position(|known| *known == version);
        number(&self.version) >= number(WITH_CHECK)
    }
}

pub(crate) fn declares(plugin: &Map<String, Value>, capability: &str) -> bool {
    let declared = plugin.get("capabilities").and_then(|all| all.get(capability));
    declared.is_some_and(|value| value == &Value::Bool(true))
}

/// The newest of `cniVersions` that is known here, else `cniVersion`.
fn version(whole: &Value, name: &str) -> Result<String, Error> {
    let single = whole.get("cniVersion").and_then(Value::as_str);
    let several = whole.get("cniVersions").and_then(Value::as_array);
    let offered: Vec<_> = several
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .chain(single)
        .collect();
    let newest = VERSIONS.iter().rev().find(|known| offered.contains(known));
    newest.map(|version| (*version).to_owned()).ok_or_else(|| {
        let found = if offered.is_empty() {
            "none".to_owned()
        } else {
            offered.join(", ")
        };
        let rule = format!(
            "\"cniVersion\" is {found}; those done in this version are {}",
            VERSIONS.join(", ")
        );
        bad(name, rule)
    })
}

/// Names go into paths and arguments.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    name.bytes()
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric())
        && name.bytes().all(allowed)
}

fn bad(what: &str, why: impl Into<String>) -> Error {
    Error::BadList {
        what: what.to_owned(),
        why: why.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_plugin_is_a_list_and_versions_are_chosen() {
        let list = List::parse(
            br#"{"cniVersion":"0.3.1","name":"lan","type":"bridge","capabilities":{"ips":true,"mac":false}}"#,
        )
        .unwrap();
        assert_eq!((list.plugins.len(), list.has_check()), (1, false));
        assert!(list.declares(CAPABILITY_IPS) && !list.declares(CAPABILITY_MAC));
        let list = List::parse(br#"{"cniVersions":["0.4.0","1.0.0","9.0.0"],"name":"lan","plugins":[{"type":"a"},{"type":"b"}]}"#).unwrap();
        assert_eq!((list.version.as_str(), list.has_check()), ("1.0.0", true));
        assert_eq!(List::of(list.to_json().clone()).unwrap(), list);
    }

    #[test]
    fn what_is_no_configuration_is_refused_with_what_it_should_be() {
        let refusal = |text: &str| List::parse(text.as_bytes()).unwrap_err().to_string();
        for (text, why) in [
            ("", "EOF"),
            ("[]", "\"name\""),
            (r#"{"name":"../x","cniVersion":"1.0.0","type":"a"}"#, "\"name\""),
            (r#"{"name":"x","cniVersion":"0.1.0","type":"a"}"#, "1.1.0"),
            (r#"{"name":"x","type":"a"}"#, "none"),
            (r#"{"name":"x","cniVersion":"1.0.0","plugins":[]}"#, "from 1"),
            (
                r#"{"name":"x","cniVersion":"1.0.0","plugins":[{"type":"/bin/sh"}]}"#,
                "\"type\"",
            ),
            (r#"{"name":"x","cniVersion":"1.0.0","plugins":{}}"#, "a list"),
        ] {
            assert!(refusal(text).contains(why), "{text}: {}", refusal(text));
        }
    }

    #[test]
    fn a_network_is_found_by_its_name_whatever_its_file_is_called() {
        let folder = tempfile::tempdir().unwrap();
        let put = |file: &str, text: &str| fs::write(folder.path().join(file), text).unwrap();
        put(
            "10-a.conflist",
            r#"{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"bridge"}]}"#,
        );
        put(
            "20-a.conflist",
            r#"{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"ptp"}]}"#,
        );
        put("broken.conf", "{");
        put(
            "readme.txt",
            r#"{"cniVersion":"1.0.0","name":"text","type":"ptp"}"#,
        );
        assert_eq!(
            List::find(folder.path(), "a").unwrap().plugins[0]["type"],
            "bridge"
        );
        assert!(
            List::find(folder.path(), "broken")
                .unwrap_err()
                .to_string()
                .contains("broken.conf")
        );
        for name in ["text", "b"] {
            assert!(
                List::find(folder.path(), name)
                    .unwrap_err()
                    .to_string()
                    .contains("no file")
            );
        }
        assert!(
            List::find(Path::new("/nowhere"), "a")
                .unwrap_err()
                .to_string()
                .contains("/nowhere")
        );
    }
}
