//! An image of what a container has become: its image, what it has written, and how it was asked to run.
//!
//! While its files are packed, the container's processes are paused, unless the client wants otherwise: what may refuse
//! the commit comes before, and what makes the image of the packed files after.

mod pause;

pub(crate) use pause::{Pauses, Turn, forget_interrupted, is_not_paused, resume_interrupted};

use std::sync::Arc;

use image::{Description, Image, Images, apply_instructions};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::archives::until_dropped;
use crate::container::Container;
use crate::engine::{Engine, Inner, blocking, joined};
use crate::request::CreateRequest;
use crate::{Error, spec};
use pause::Paused;

/// What is to be committed, and as what.
#[derive(Debug, Clone, Default)]
pub struct CommitRequest {
    /// Id, name, or prefix of an id.
    pub container: String,
    /// The image's name; empty: none.
    pub name: String,
    /// Who made it.
    pub author: String,
    /// A comment in the image's history.
    pub message: String,
    /// Dockerfile instructions that change the image's config.
    pub changes: Vec<String>,
    /// Stop the container's processes meanwhile.
    pub pause: bool,
}

impl Engine {
    /// Make an image of a container.
    pub async fn commit(&self, request: CommitRequest) -> Result<Image, Error> {
        if !request.name.is_empty() {
            Images::check_name(&request.name)?;
        }
        let handle = self.0.containers.find(&request.container)?;
        let (engine, container) = (Arc::clone(&self.0), handle.snapshot().container);
        let pause = request.pause;
        let (cancelled, _guard) = until_dropped();
        // In a task of its own: a client that goes away must not leave the container paused.
        let work = tokio::spawn(async move {
            let description = weigh(&engine, &container, request, &cancelled).await?;
            let paused = if pause {
                Some(Paused::begin(&engine, &handle).await?)
            } else {
                None
            };
            let (of, packing) = (Arc::clone(&engine), Arc::clone(&container));
            let packed = blocking(move || {
                let mount_points = spec::mount_points(&packing.request);
                Ok(of.images.pack_changes(&packing.id, &mount_points, &cancelled)?)
            })
            .await;
            if let Some(paused) = paused {
                paused.end().await;
            }
            let (changes, of) = (packed?, Arc::clone(&engine));
            let image = blocking(move || Ok(of.images.commit(changes, &description)?)).await?;
            engine
                .events
                .tell(&container, "commit", &[("imageID", image.id.clone())]);
            Ok(image)
        });
        joined(work).await
    }
}

/// Do all that can refuse a commit while the container still runs; and read what packing will look at, which makes that
/// faster. Gives what is to be said of the image.
async fn weigh(
    engine: &Arc<Inner>,
    container: &Arc<Container>,
    request: CommitRequest,
    cancelled: &CancellationToken,
) -> Result<Description, Error> {
    let (engine, container, cancelled) = (Arc::clone(engine), Arc::clone(container), cancelled.clone());
    blocking(move || {
        let image = engine.images.get(&container.image_id)?;
        let base: Value = serde_json::from_str(&image.config_json).unwrap_or_default();
        let mut config = config(&base["config"], &container.request);
        apply_instructions(&mut config, &request.changes)?;
        engine
            .images
            .weigh_changes(&container.id, &spec::mount_points(&container.request), &cancelled)?;
        Ok(Description {
            name: Some(request.name).filter(|name| !name.is_empty()),
            author: request.author,
            comment: request.message,
            created_by: container.command.join(" "),
            config,
            platform: None,
        })
    })
    .await
}

/// The `config` object of the image: its base's, with what the container was asked to be.
fn config(base: &Value, request: &CreateRequest) -> Value {
    let mut config = if base.is_object() { base.clone() } else { json!({}) };
    if let Some(fields) = config.as_object_mut() {
        // Triggers are for builds from the base, of which this is no more one.
        fields.remove("OnBuild");
        if let Some(entrypoint) = &request.entrypoint {
            fields.remove("Entrypoint");
            fields.remove("Cmd");
            if entrypoint.iter().any(|word| !word.is_empty()) {
                fields.insert("Entrypoint".to_owned(), json!(entrypoint));
            }
        }
    }
    if !request.command.is_empty() {
        config["Cmd"] = json!(request.command);
    }
    let texts = [
        ("User", &request.user),
        ("WorkingDir", &request.working_dir),
        ("StopSignal", &request.stop_signal),
    ];
    for (field, value) in texts {
        if !value.is_empty() {
            config[field] = json!(value);
        }
    }
    if !request.labels.is_empty() {
        let mut labels = base["Labels"].as_object().cloned().unwrap_or_default();
        labels.extend(
            request
                .labels
                .iter()
                .map(|(key, value)| (key.clone(), json!(value))),
        );
        config["Labels"] = labels.into();
    }
    if !request.env.is_empty() {
        let key = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
        let mut variables: Vec<String> = base["Env"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|variable| variable.as_str().map(str::to_owned))
            .collect();
        for variable in &request.env {
            variables.retain(|old| key(old) != key(variable));
            variables.push(variable.clone());
        }
        config["Env"] = json!(variables);
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_committed_image_runs_as_the_container_did() {
        let base = json!({
            "Env": ["PATH=/bin", "A=1"], "Cmd": ["sh"], "Labels": {"a": "1"}, "OnBuild": ["RUN x"], "Volumes": {"/v": {}},
        });
        let request = CreateRequest {
            command: vec!["run".into()],
            env: vec!["A=2".into(), "B=3".into()],
            user: "me".into(),
            labels: [("b".to_owned(), "2".to_owned())].into(),
            ..CreateRequest::default()
        };
        let expected = json!({
            "Env": ["PATH=/bin", "A=2", "B=3"], "Cmd": ["run"], "Labels": {"a": "1", "b": "2"}, "Volumes": {"/v": {}},
            "User": "me",
        });
        assert_eq!(config(&base, &request), expected);
        assert_eq!(config(&Value::Null, &CreateRequest::default()), json!({}));
    }

    #[test]
    fn an_entrypoint_of_the_containers_own_puts_the_images_command_aside() {
        let base = json!({"Entrypoint": ["old"], "Cmd": ["old"]});
        let with = |entrypoint: &str| CreateRequest {
            entrypoint: Some(vec![entrypoint.to_owned()]),
            ..CreateRequest::default()
        };
        assert_eq!(config(&base, &with("new")), json!({"Entrypoint": ["new"]}));
        assert_eq!(config(&base, &with("")), json!({}));
    }
}
