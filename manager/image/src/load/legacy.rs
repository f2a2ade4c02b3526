//! A docker archive from before docker 1.10: each layer is an image of its own, `<id>/json` with `<id>/layer.tar`,
//! whose `parent` is below it; `repositories` names the topmost ones. Its config is made from those.
//!
//! Ids are random there, so no digest tells whether a layer is right. Source: moby's image/spec/v1.md.

use std::collections::BTreeMap;
use std::io::Read;

use serde_json::{Map, Value, json};

use super::files::Files;
use super::{Content, IMAGES_MAX, Planned, docker, refuse};
use crate::Error;
use crate::digest::{Digest, quote};
use crate::inflate::{Format, Inflated};
use crate::local::LocalLayer;
use crate::manifest::LAYERS_MAX;
use crate::reference::Reference;
use crate::unpack::Limits;

/// The images that `repositories` names.
pub(super) fn plan(files: &Files) -> Result<Vec<Planned>, Error> {
    let repositories: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_slice(&files.document("repositories")?).map_err(|e| {
            refuse(format!(
                "repositories is not the JSON of names, tags and ids: {e}"
            ))
        })?;
    let mut names: BTreeMap<String, Vec<Reference>> = BTreeMap::new();
    for (repository, tags) in repositories {
        for (tag, id) in tags {
            let name = Reference::parse_new_name(&format!("{repository}:{tag}"))?;
            names.entry(id).or_default().push(name);
        }
    }
    if names.is_empty() || names.len() > IMAGES_MAX {
        return Err(refuse(format!(
            "repositories names {} images, it needs 1 to {IMAGES_MAX}",
            names.len()
        )));
    }
    names
        .into_iter()
        .map(|(id, names)| image(files, &id, names))
        .collect()
}

fn image(files: &Files, id: &str, names: Vec<Reference>) -> Result<Planned, Error> {
    let steps = chain(files, id)?;
    let (mut layers, mut history) = (Vec::new(), Vec::new());
    for (id, step) in &steps {
        layers.push(layer(files, &format!("{id}/layer.tar"))?);
        let command = step["container_config"]["Cmd"].as_array();
        let words: Vec<&str> = command.into_iter().flatten().filter_map(Value::as_str).collect();
        history.push(json!({"created": step["created"], "created_by": words.join(" ")}));
    }
    let mut config = Map::new();
    if let Some((_, top)) = steps.last() {
        for field in ["architecture", "os", "created", "author", "config"] {
            if !top[field].is_null() {
                config.insert(field.into(), top[field].clone());
            }
        }
    }
    // The first versions told neither.
    for (field, usual) in [("architecture", "amd64"), ("os", "linux")] {
        config.entry(field).or_insert_with(|| usual.into());
    }
    let diff_ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    config.insert("rootfs".into(), json!({"type": "layers", "diff_ids": diff_ids}));
    config.insert("history".into(), history.into());
    Ok(Planned {
        names,
        content: Content::Image {
            manifest: None,
            config: Value::Object(config).to_string(),
            layers,
        },
        index: None,
    })
}

/// The images below this one and itself, base first.
fn chain(files: &Files, id: &str) -> Result<Vec<(String, Value)>, Error> {
    let mut steps = Vec::new();
    let mut next = Some(id.to_owned());
    while let Some(id) = next {
        if steps.len() == LAYERS_MAX {
            return Err(refuse(format!("an image has more than {LAYERS_MAX} layers")));
        }
        let step: Value = serde_json::from_slice(&files.document(&format!("{id}/json"))?)
            .map_err(|e| refuse(format!("image {}: its json is none: {e}", quote(&id))))?;
        next = step["parent"]
            .as_str()
            .filter(|parent| !parent.is_empty())
            .map(str::to_owned);
        steps.push((id, step));
    }
    steps.reverse();
    Ok(steps)
}

fn layer(files: &Files, path: &str) -> Result<LocalLayer, Error> {
    // What it is to unpack to is told by nobody: it is what it does unpack to.
    let mut layer = docker::layer(files, path, Digest::of(b""))?;
    let blob = layer.blob.path();
    let file = std::fs::File::open(blob).map_err(|e| Error::io("open", blob, e))?;
    let mut hasher = Digest::sha256_hasher();
    let read = || -> std::io::Result<()> {
        let mut inflated = Inflated::new(file, Format::Layer(layer.layer.compression), &Limits::default())?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            match inflated.read(&mut buffer)? {
                0 => return Ok(()),
                got => hasher.update(&buffer[..got]),
            }
        }
    };
    read().map_err(|e| refuse(format!("layer {}: {e}", quote(path))))?;
    layer.diff_id = hasher.finish();
    Ok(layer)
}
