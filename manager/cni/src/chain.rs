//! Calling the plugins of a list one after the other: at ADD each gets what the one before it has answered, at DEL in the
//! reverse order what the last one had.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::list::declares;
use crate::program::{Outcome, call};
use crate::{Answer, Error, List};

/// One container's part of a network. The caller keeps it from before ADD until after DEL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// The configuration as it was: the file may be another one by the time of DEL.
    pub list: Value,
    /// The container's id.
    pub container_id: String,
    /// Its link's name inside.
    pub inside: String,
    /// What plugins are told that declare the capability.
    pub runtime: Map<String, Value>,
    /// For `CNI_ARGS`.
    pub arguments: Vec<(String, String)>,
    /// What the last plugin has answered; None: ADD has not come to its end.
    pub result: Option<Value>,
    /// DEL has begun.
    #[serde(default)]
    pub undoing: bool,
}

impl Attachment {
    /// What ADD has made, if nobody has begun to undo it.
    pub fn standing(&self) -> Option<&Value> {
        self.result.as_ref().filter(|_| !self.undoing)
    }
}

/// Who calls plugins.
#[derive(Debug, Clone, Copy)]
pub struct Runner<'a> {
    /// Where programs are looked for, first one first.
    pub folders: &'a [PathBuf],
    /// For each call of a plugin.
    pub timeout: Duration,
}

impl Runner<'_> {
    /// Whether all programs are there.
    ///
    /// # Errors
    /// [`Error::NoPlugin`] with the first one that is not.
    pub fn find_all(&self, list: &List) -> Result<(), Error> {
        list.plugins
            .iter()
            .try_for_each(|plugin| self.find(type_of(plugin)).map(drop))
    }

    /// Attach the container in `netns`. What the last plugin has answered, as it is and as it was read.
    ///
    /// # Errors
    /// The first plugin's that could not. What those before it have done is undone by [`Runner::del`].
    pub fn add(&self, attachment: &Attachment, netns: &Path) -> Result<(Value, Answer), Error> {
        let list = List::of(attachment.list.clone())?;
        let mut former = None;
        let mut answer = Answer::default();
        for plugin in &list.plugins {
            let told = self.ask("ADD", &list, plugin, attachment, Some(netns), former.as_ref())?;
            let malformed = |why: String| Error::Malformed {
                plugin: type_of(plugin).to_owned(),
                command: "ADD",
                why,
            };
            let value: Value = serde_json::from_slice(&told).map_err(|error| malformed(error.to_string()))?;
            answer = Answer::read(&value).map_err(malformed)?;
            former = Some(value);
        }
        Ok((former.unwrap_or_default(), answer))
    }

    /// Undo what [`Runner::add`] has done, or has begun; fine if that is nothing. `netns` is `None` when it is gone.
    ///
    /// # Errors
    /// The first one's. All plugins are asked nevertheless.
    pub fn del(&self, attachment: &Attachment, netns: Option<&Path>) -> Result<(), Error> {
        let list = List::of(attachment.list.clone())?;
        let former = attachment.result.as_ref().filter(|_| list.knows_former());
        let mut result = Ok(());
        for plugin in list.plugins.iter().rev() {
            let asked = self.ask("DEL", &list, plugin, attachment, netns, former);
            result = result.and(asked.map(drop));
        }
        result
    }

    /// Ask whether all is as ADD has left it. Lists that do not know this question pass.
    ///
    /// # Errors
    /// What a plugin misses.
    pub fn check(&self, attachment: &Attachment, netns: &Path) -> Result<(), Error> {
        let list = List::of(attachment.list.clone())?;
        let Some(former) = attachment.result.as_ref().filter(|_| list.has_check()) else {
            return Ok(());
        };
        list.plugins.iter().try_for_each(|plugin| {
            let asked = self.ask("CHECK", &list, plugin, attachment, Some(netns), Some(former));
            asked.map(drop)
        })
    }

    fn ask(
        &self,
        command: &'static str,
        list: &List,
        plugin: &Map<String, Value>,
        attachment: &Attachment,
        netns: Option<&Path>,
        former: Option<&Value>,
    ) -> Result<Vec<u8>, Error> {
        let kind = type_of(plugin);
        let program = self.find(kind)?;
        let netns = netns.map(Path::to_string_lossy).unwrap_or_default();
        let folders: Vec<_> = self
            .folders
            .iter()
            .map(|folder| folder.to_string_lossy())
            .collect();
        let arguments: Vec<_> = attachment
            .arguments
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let variables = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", attachment.container_id.as_str()),
            ("CNI_NETNS", &netns),
            ("CNI_IFNAME", &attachment.inside),
            ("CNI_ARGS", &arguments.join(";")),
            ("CNI_PATH", &folders.join(":")),
        ];
        let input = configuration(list, plugin, attachment, former)
            .to_string()
            .into_bytes();
        let outcome = call(&program, &variables, input, self.timeout).map_err(|source| Error::System {
            action: format!("run CNI plugin {}", program.display()),
            source,
        })?;
        let plugin = kind.to_owned();
        match outcome {
            Outcome::Answered(answer) => Ok(answer),
            Outcome::TimedOut => Err(Error::Timeout {
                plugin,
                command,
                timeout: self.timeout,
            }),
            Outcome::Refused {
                code,
                message,
                details,
            } => Err(Error::Refused {
                plugin,
                command,
                code,
                message,
                details,
            }),
        }
    }

    fn find(&self, plugin: &str) -> Result<PathBuf, Error> {
        let mut paths = self.folders.iter().map(|folder| folder.join(plugin));
        paths.find(|path| path.is_file()).ok_or_else(|| Error::NoPlugin {
            plugin: plugin.to_owned(),
            folders: self.folders.to_vec(),
        })
    }
}

fn type_of(plugin: &Map<String, Value>) -> &str {
    plugin.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// What one plugin reads: its part of the list, with what is known of the network and of this container.
fn configuration(
    list: &List,
    plugin: &Map<String, Value>,
    attachment: &Attachment,
    former: Option<&Value>,
) -> Value {
    let mut configuration = plugin.clone();
    configuration.remove("capabilities");
    configuration.insert("name".to_owned(), json!(list.name));
    configuration.insert("cniVersion".to_owned(), json!(list.version));
    let told: Map<_, _> = attachment
        .runtime
        .iter()
        .filter(|(capability, _)| declares(plugin, capability))
        .map(|(capability, value)| (capability.clone(), value.clone()))
        .collect();
    if !told.is_empty() {
        configuration.insert("runtimeConfig".to_owned(), Value::Object(told));
    }
    if let Some(former) = former {
        configuration.insert("prevResult".to_owned(), former.clone());
    }
    Value::Object(configuration)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use tempfile::TempDir;

    /// A folder with plugins, each a shell script that keeps what it was told.
    fn plugins(scripts: &[(&str, &str)]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, script) in scripts {
            let path = folder.path().join(name);
            let here = folder.path().display();
            let text = format!(
                "#!/bin/sh\ncat >{here}/$CNI_COMMAND.{name}\nenv >{here}/env.{name}\necho {name} >>{here}/order\n{script}\n"
            );
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        folder
    }

    fn attachment(plugins: &Value) -> Attachment {
        Attachment {
            list: json!({"cniVersion": "1.0.0", "name": "lan", "plugins": plugins}),
            container_id: "4f66".to_owned(),
            inside: "eth0".to_owned(),
            runtime: [("mac".to_owned(), json!("02:00:00:00:00:01"))]
                .into_iter()
                .collect(),
            arguments: vec![
                ("IgnoreUnknown".to_owned(), "1".to_owned()),
                ("IP".to_owned(), "10.0.0.9".to_owned()),
            ],
            result: None,
            undoing: false,
        }
    }

    fn with<R>(folder: &TempDir, timeout: Duration, work: impl FnOnce(Runner<'_>) -> R) -> R {
        let folders = ["/nowhere".into(), folder.path().to_owned()];
        work(Runner {
            folders: &folders,
            timeout,
        })
    }

    const PATIENCE: Duration = Duration::from_mins(1);

    #[test]
    fn plugins_are_called_in_order_and_told_what_they_declare() {
        let answer = r#"echo '{"ips":[{"address":"10.0.0.9/24"}]}'"#;
        let folder = plugins(&[("first", answer), ("second", answer)]);
        let mut attached = attachment(
            &json!([{"type": "first", "x": 1}, {"type": "second", "capabilities": {"mac": true}}]),
        );
        with(&folder, PATIENCE, |runner| {
            let (result, answer) = runner.add(&attached, Path::new("/proc/1/ns/net")).unwrap();
            assert_eq!(answer.ips.len(), 1);
            attached.result = Some(result);
            runner.check(&attached, Path::new("/proc/1/ns/net")).unwrap();
            runner.del(&attached, None).unwrap();
        });
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        let json = |name: &str| serde_json::from_str::<Value>(&read(name)).unwrap();
        assert_eq!(read("order"), "first\nsecond\nfirst\nsecond\nsecond\nfirst\n");
        assert_eq!(
            json("ADD.first"),
            json!({"type": "first", "x": 1, "name": "lan", "cniVersion": "1.0.0"})
        );
        let second = json("ADD.second");
        assert_eq!(second["runtimeConfig"]["mac"], "02:00:00:00:00:01");
        assert_eq!(second["prevResult"]["ips"][0]["address"], "10.0.0.9/24");
        assert_eq!(second.get("capabilities"), None);
        assert_eq!(json("DEL.first")["prevResult"], second["prevResult"]);
        let environment = read("env.first");
        for line in [
            "CNI_ARGS=IgnoreUnknown=1;IP=10.0.0.9",
            "CNI_CONTAINERID=4f66",
            "CNI_IFNAME=eth0",
            "CNI_NETNS=",
        ] {
            assert!(
                environment.lines().any(|found| found == line),
                "{line}: {environment}"
            );
        }
    }

    #[test]
    fn refusals_tell_code_words_and_details_and_all_are_asked_to_undo() {
        let folder = plugins(&[
            ("good", "echo '{}'"),
            (
                "bad",
                r#"echo '{"code": 11, "msg": "try again", "details": "no leases"}'; exit 1"#,
            ),
            ("mute", "echo why >&2; exit 3"),
            ("odd", "echo nonsense"),
        ]);
        let said = |kind: &str| {
            let attached = attachment(&json!([{"type": "good"}, {"type": kind}]));
            with(&folder, PATIENCE, |runner| {
                runner
                    .add(&attached, Path::new("/proc/1/ns/net"))
                    .unwrap_err()
                    .to_string()
            })
        };
        assert_eq!(said("bad"), "CNI plugin bad, ADD: try again (code 11): no leases");
        assert!(said("mute").contains("exit status: 3") && said("mute").contains("why"));
        assert!(said("odd").contains("malformed"));
        assert!(said("none").contains("/nowhere") && said("none").contains("--cni-bin-dir"));
        fs::remove_file(folder.path().join("order")).unwrap();
        let attached = attachment(&json!([{"type": "good"}, {"type": "bad"}]));
        with(&folder, PATIENCE, |runner| {
            runner.del(&attached, None).unwrap_err()
        });
        assert_eq!(
            fs::read_to_string(folder.path().join("order")).unwrap(),
            "bad\ngood\n"
        );
    }

    #[test]
    fn one_that_hangs_is_ended_with_what_it_has_started() {
        let folder = plugins(&[("slow", "sleep 1234 & echo $! >$0.pid; wait")]);
        let attached = attachment(&json!([{"type": "slow"}]));
        let error = with(&folder, Duration::from_millis(700), |runner| {
            runner.add(&attached, Path::new("/proc/1/ns/net")).unwrap_err()
        });
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
        let pid = fs::read_to_string(folder.path().join("slow.pid")).unwrap_or_default();
        let line = fs::read_to_string(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default();
        assert!(pid.is_empty() || !line.contains("1234"), "{line}");
    }
}
