//! Dockerfile instructions that change an image's config, as `commit --change` and `import --change` take them.
//!
//! Pure: the instruction's text and the `config` object in, the object changed. Only instructions that need no build
//! are known. Source: the Dockerfile reference of docker's documentation, and moby's builder where that is silent.

mod healthcheck;
mod words;

use serde_json::{Map, Value, json};

use crate::Error;
use words::{Variables, expand, pairs, split};

/// Of one instruction.
const INSTRUCTION_BYTES_MAX: usize = 64 << 10;
/// Of one `EXPOSE`: a range could name them all.
const PORTS_MAX: u32 = 65_536;

/// Apply instructions to the `config` object of an image config, in their order.
pub fn apply(config: &mut Value, instructions: &[String]) -> Result<(), Error> {
    if !config.is_object() {
        *config = json!({});
    }
    let Some(fields) = config.as_object_mut() else {
        return Ok(());
    };
    let mut command_is_set = false;
    for text in instructions {
        apply_one(fields, text, &mut command_is_set).map_err(|rule| Error::Instruction {
            instruction: text.chars().take(200).collect(),
            rule,
        })?;
    }
    Ok(())
}

fn apply_one(config: &mut Map<String, Value>, text: &str, command_is_set: &mut bool) -> Result<(), String> {
    if text.len() > INSTRUCTION_BYTES_MAX {
        return Err(format!("it is longer than {INSTRUCTION_BYTES_MAX} bytes"));
    }
    if text.contains('\0') {
        return Err("it has a NUL byte".into());
    }
    let text = text.trim();
    let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    let name = name.to_ascii_uppercase();
    if rest.is_empty() {
        return Err(format!("{name} needs a value"));
    }
    let variables = Variables::of(config);
    let one = || expand(rest, &variables);
    match name.as_str() {
        "CMD" => {
            *command_is_set = true;
            config.insert("Cmd".into(), command(rest));
        }
        "ENTRYPOINT" => {
            config.insert("Entrypoint".into(), command(rest));
            // The old command would become arguments of another program.
            if !*command_is_set {
                config.remove("Cmd");
            }
        }
        "ENV" => {
            for (key, value) in pairs(rest, &variables)? {
                set_variable(config, &key, &value);
            }
        }
        "LABEL" => {
            for (key, value) in pairs(rest, &variables)? {
                object(config, "Labels").insert(key, value.into());
            }
        }
        "EXPOSE" => {
            for word in split(rest, &variables)? {
                for port in ports(&word)? {
                    object(config, "ExposedPorts").insert(port, json!({}));
                }
            }
        }
        "VOLUME" => {
            let volumes = match json_strings(rest) {
                Some(volumes) => volumes,
                None => split(rest, &variables)?,
            };
            if volumes.is_empty() || volumes.iter().any(|volume| volume.trim().is_empty()) {
                return Err("a volume needs a path".into());
            }
            for volume in volumes {
                object(config, "Volumes").insert(volume, json!({}));
            }
        }
        "USER" => _ = config.insert("User".into(), one()?.into()),
        "STOPSIGNAL" => _ = config.insert("StopSignal".into(), one()?.into()),
        "WORKDIR" => {
            let before = config.get("WorkingDir").and_then(Value::as_str).unwrap_or("/");
            let folder = join(before, &one()?);
            config.insert("WorkingDir".into(), folder.into());
        }
        "ONBUILD" => {
            let trigger = rest.split_whitespace().next().unwrap_or_default();
            let trigger = trigger.to_ascii_uppercase();
            if ["ONBUILD", "FROM", "MAINTAINER"].contains(&trigger.as_str()) {
                return Err(format!("{trigger} cannot be triggered by ONBUILD"));
            }
            match config.get_mut("OnBuild").and_then(Value::as_array_mut) {
                Some(triggers) => triggers.push(rest.into()),
                None => _ = config.insert("OnBuild".into(), json!([rest])),
            }
        }
        "HEALTHCHECK" => _ = config.insert("Healthcheck".into(), healthcheck::parse(rest)?),
        _ => {
            return Err(format!(
                "{name} is not one of CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, \
                 VOLUME and WORKDIR"
            ));
        }
    }
    Ok(())
}

/// An object in the config; made if there is none.
fn object<'a>(config: &'a mut Map<String, Value>, field: &str) -> &'a mut Map<String, Value> {
    let value = config.entry(field).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(object) => object,
        // It was made one above.
        _ => unreachable!("an object"),
    }
}

fn set_variable(config: &mut Map<String, Value>, key: &str, value: &str) {
    let entry = config.entry("Env").or_insert_with(|| json!([]));
    if !entry.is_array() {
        *entry = json!([]);
    }
    let variable = format!("{key}={value}");
    let Some(variables) = entry.as_array_mut() else {
        return;
    };
    let same = |old: &&mut Value| old.as_str().is_some_and(|old| old.split('=').next() == Some(key));
    match variables.iter_mut().find(same) {
        Some(old) => *old = variable.into(),
        None => variables.push(variable.into()),
    }
}

/// A JSON array of strings is taken as it is, anything else is for a shell.
fn command(text: &str) -> Value {
    match json_strings(text) {
        Some(words) => json!(words),
        None => json!(["/bin/sh", "-c", text]),
    }
}

fn json_strings(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

/// `80`, `80/udp`, `8000-8010/tcp`.
fn ports(text: &str) -> Result<Vec<String>, String> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(format!("port {text:?}: the protocol is tcp, udp or sctp"));
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| text.parse::<u16>().ok().map(u32::from);
    match (number(first), number(last)) {
        (Some(first), Some(last)) if 0 < first && first <= last && last < PORTS_MAX => {
            Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
        }
        _ => Err(format!(
            "port {text:?} is not a number from 1 to 65535, or a range of them"
        )),
    }
}

/// `WORKDIR` is relative to the one before it; the result has no `.` and `..`.
fn join(before: &str, to: &str) -> String {
    let path = if to.starts_with('/') {
        to.to_owned()
    } else {
        format!("{before}/{to}")
    };
    let mut components: Vec<&str> = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => _ = components.pop(),
            name => components.push(name),
        }
    }
    format!("/{}", components.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(config: Value, instructions: &[&str]) -> Value {
        let mut config = config;
        let instructions: Vec<String> = instructions.iter().map(|text| (*text).to_owned()).collect();
        apply(&mut config, &instructions).unwrap();
        config
    }

    fn refused(instruction: &str) -> String {
        apply(&mut json!({}), &[instruction.to_owned()])
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn commands_are_json_or_for_a_shell() {
        let config = applied(json!({}), &[r#"CMD ["a", "b c"]"#, "entrypoint echo $HOME"]);
        assert_eq!(config["Cmd"], json!(["a", "b c"]));
        assert_eq!(config["Entrypoint"], json!(["/bin/sh", "-c", "echo $HOME"]));
    }

    #[test]
    fn an_entrypoint_takes_the_old_command_away() {
        let config = applied(json!({"Cmd": ["old"]}), &[r#"ENTRYPOINT ["new"]"#]);
        assert_eq!(config, json!({"Entrypoint": ["new"]}));
    }

    #[test]
    fn variables_are_replaced_in_place_and_may_use_each_other() {
        let config = applied(
            json!({"Env": ["PATH=/bin", "A=1"]}),
            &[
                r#"ENV PATH=$PATH:/opt B="x y" C='$A'"#,
                "ENV A a ${B:-none} ${D:-none}",
            ],
        );
        assert_eq!(
            config["Env"],
            json!(["PATH=/bin:/opt", "A=a x y none", "B=x y", "C=$A"])
        );
    }

    #[test]
    fn sets_grow_and_lists_are_appended_to() {
        let config = applied(
            json!({"Labels": {"a": "1"}, "ExposedPorts": {"1/tcp": {}}, "OnBuild": ["RUN a"]}),
            &[
                "LABEL b=2 a=3",
                "EXPOSE 80 5000-5001/UDP",
                "VOLUME /a /b",
                r#"VOLUME ["/c d"]"#,
                "ONBUILD RUN b",
                "USER me:team",
                "STOPSIGNAL SIGINT",
                "WORKDIR /srv/a",
                "WORKDIR ../b/./c",
            ],
        );
        let expected = json!({
            "Labels": {"a": "3", "b": "2"},
            "ExposedPorts": {"1/tcp": {}, "80/tcp": {}, "5000/udp": {}, "5001/udp": {}},
            "Volumes": {"/a": {}, "/b": {}, "/c d": {}},
            "OnBuild": ["RUN a", "RUN b"], "User": "me:team", "StopSignal": "SIGINT", "WorkingDir": "/srv/b/c",
        });
        assert_eq!(config, expected);
    }

    #[test]
    fn what_needs_a_build_or_is_broken_is_refused_by_name() {
        for (instruction, word) in [
            ("RUN make", "RUN is not one of"),
            ("CMD", "needs a value"),
            ("ENV =a", "name"),
            ("ENV A='b", "quote"),
            ("EXPOSE 0", "65535"),
            ("EXPOSE 9-8", "65535"),
            ("EXPOSE 80/ip", "protocol"),
            ("VOLUME []", "path"),
            ("ONBUILD FROM x", "FROM"),
            ("USER a\0", "NUL"),
        ] {
            let error = refused(instruction);
            assert!(error.contains(word), "{instruction}: {error}");
        }
    }
}
