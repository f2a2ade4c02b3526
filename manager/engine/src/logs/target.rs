//! What a container's shim is told of where its output goes: one URI, with all that the shim does not know by itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::Value;

use crate::container::Container;
use crate::engine::{Inner, blocking};
use crate::request::{Facts, Plan, ReceiverKind, Selection, Tag};
use crate::{Error, spec};

/// As the shim has it.
const URI_BYTES_MAX: usize = 128 << 10;

/// The name of the stream for both outputs.
pub(crate) async fn uri(engine: &Arc<Inner>, container: &Container) -> Result<String, Error> {
    let plan = container.request.logging.plan()?;
    let mut uri = format!(
        "json-file://{}",
        escaped(&engine.config.log(&container.id).to_string_lossy())
    );
    let mut separator = '?';
    let mut set = |name: &str, value: &str| {
        // Writing into memory does not fail.
        let _ = write!(uri, "{separator}{name}={}", escaped(value));
        separator = '&';
    };
    if let Some(max) = plan.file.size_bytes_max {
        set("max-size", &max.to_string());
    }
    set("max-file", &plan.file.files_max.to_string());
    if !plan.file.kept {
        set("keep", "no");
    }
    let Said { tag, attributes } = said(engine, container, &plan).await?;
    let Some(receiver) = &plan.receiver else {
        if !attributes.is_empty() {
            set("attrs", &serde_json::to_string(&attributes).unwrap_or_default());
        }
        return bounded(uri);
    };
    if let Some(buffer) = receiver.buffer_bytes {
        set("buffer", &buffer.to_string());
    }
    match &receiver.kind {
        ReceiverKind::Journald => {
            let socket = &engine.config.journal;
            if !socket.exists() {
                return Err(Error::invalid(
                    "log_driver",
                    format!(
                        "failed to initialize logging driver: journald is not enabled on this host: there is no {}",
                        socket.display()
                    ),
                ));
            }
            set("to", &format!("unixgram://{}", socket.display()));
            set("format", "journald");
            set("fields", &journal_fields(container, &tag, &attributes));
        }
        ReceiverKind::Syslog(settings) => {
            set("to", &settings.receiver().await?);
            set("format", settings.format);
            set("facility", &settings.facility.to_string());
            set("tag", &tag);
        }
    }
    bounded(uri)
}

fn bounded(uri: String) -> Result<String, Error> {
    if uri.len() > URI_BYTES_MAX {
        return Err(Error::invalid(
            "log_driver",
            format!(
                "the labels and variables that each record is to have take {} bytes: at most {URI_BYTES_MAX} are possible",
                uri.len()
            ),
        ));
    }
    Ok(uri)
}

/// What records tell of their container.
struct Said {
    tag: String,
    attributes: BTreeMap<String, String>,
}

async fn said(engine: &Arc<Inner>, container: &Container, plan: &Plan) -> Result<Said, Error> {
    let mut said = Said {
        tag: String::new(),
        attributes: BTreeMap::new(),
    };
    if !plan.selection.is_empty() {
        let (engine, image) = (Arc::clone(engine), container.image_id.clone());
        let config = blocking(move || Ok(engine.images.get(&image)?.config_json)).await?;
        let config: Value = serde_json::from_str(&config).unwrap_or_default();
        said.attributes = selected(container, &config, &plan.selection);
    }
    let usual = Tag::usual();
    let tag = match (&plan.tag, &plan.receiver) {
        (Some(tag), _) => tag,
        (None, Some(_)) => &usual,
        (None, None) => return Ok(said),
    };
    said.tag = tag.render(&Facts {
        id: &container.id,
        name: &container.name,
        image_id: &container.image_id,
        image_name: &container.request.image,
        command: &container.command.join(" "),
        hostname: &spec::hostname(container),
    });
    if plan.receiver.is_none() {
        said.attributes.insert("tag".to_owned(), said.tag.clone());
    }
    Ok(said)
}

/// Labels and variables, those of the image too, that were asked for by name or by pattern.
fn selected(container: &Container, image: &Value, selection: &Selection) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> = image["config"]["Labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect();
    labels.extend(container.request.labels.clone());
    let of_image = image["config"]["Env"].as_array().into_iter().flatten();
    let variables: BTreeMap<String, String> = of_image
        .filter_map(Value::as_str)
        .chain(container.request.env.iter().map(String::as_str))
        .filter_map(|variable| variable.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    labels.retain(|name, _| {
        let pattern = selection.labels_regex.as_ref();
        selection.labels.contains(name) || pattern.is_some_and(|pattern| pattern.is_match(name))
    });
    let variables = variables.into_iter().filter(|(name, _)| {
        let pattern = selection.env_regex.as_ref();
        selection.env.contains(name) || pattern.is_some_and(|pattern| pattern.is_match(name))
    });
    labels.extend(variables);
    labels
}

/// docker's fields, and labels and variables under names that journald takes.
fn journal_fields(container: &Container, tag: &str, attributes: &BTreeMap<String, String>) -> String {
    let mut fields = String::new();
    let mut field = |name: &str, value: &str| {
        let _ = writeln!(fields, "{name}={}", value.replace('\n', " "));
    };
    field("CONTAINER_ID", container.id.get(..12).unwrap_or(&container.id));
    field("CONTAINER_ID_FULL", &container.id);
    field("CONTAINER_NAME", &container.name);
    field("CONTAINER_TAG", tag);
    field("IMAGE_NAME", &container.request.image);
    field("SYSLOG_IDENTIFIER", tag);
    for (name, value) in attributes {
        let name: String = name
            .chars()
            .map(|letter| match letter.to_ascii_uppercase() {
                letter if letter.is_ascii_alphanumeric() => letter,
                _ => '_',
            })
            .collect();
        // journald drops fields that begin with `_`, which are its own, or with a digit.
        let name = name.trim_start_matches(|letter: char| letter == '_' || letter.is_ascii_digit());
        if !name.is_empty() {
            field(name, value);
        }
    }
    fields
}

/// Percent-encoded but for what stands for itself everywhere in a URI.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:[]".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_uri_gives_a_meaning_is_escaped() {
        assert_eq!(escaped("/a b/ü?&=%+"), "/a%20b/%C3%BC%3F%26%3D%25%2B");
    }
}
