//! An image of what a container has become: its image, what it has written, and how it was asked to run.
//!
//! While its layer is read, the container's processes are paused, unless the client wants otherwise. A file in the
//! bundle says so: a manager that dies meanwhile leaves it, and the next one lets the container run on.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use image::{Description, Image, apply_instructions};
use serde_json::{Value, json};

use crate::container::Container;
use crate::engine::{Engine, Inner, blocking};
use crate::events::Event;
use crate::request::CreateRequest;
use crate::shim::Shim;
use crate::{Error, spec};

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
        let snapshot = self.0.containers.find(&request.container)?.snapshot();
        let (engine, container) = (Arc::clone(&self.0), Arc::clone(&snapshot.container));
        let shim = snapshot.shim.filter(|_| request.pause);
        // In a task of its own: a client that goes away must not leave the container paused.
        let work = tokio::spawn(async move {
            let paused = match shim {
                Some(shim) => Some(Paused::begin(&engine, &container.id, shim).await?),
                None => None,
            };
            let committed = make(&engine, &container, request).await;
            if let Some(paused) = paused {
                paused.end().await;
            }
            let image = committed?;
            let mut attributes = container.attributes();
            attributes.push(("imageID".to_owned(), image.id.clone()));
            engine
                .events
                .send(Event::of_container("commit", &container.id, attributes));
            Ok(image)
        });
        match work.await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::ShuttingDown),
            },
        }
    }
}

async fn make(
    engine: &Arc<Inner>,
    container: &Arc<Container>,
    request: CommitRequest,
) -> Result<Image, Error> {
    let (engine, container) = (Arc::clone(engine), Arc::clone(container));
    blocking(move || {
        let image = engine.images.get(&container.image_id)?;
        let base: Value = serde_json::from_str(&image.config_json).unwrap_or_default();
        let mut config = config(&base["config"], &container.request);
        apply_instructions(&mut config, &request.changes)?;
        let description = Description {
            name: Some(request.name).filter(|name| !name.is_empty()),
            author: request.author,
            comment: request.message,
            created_by: container.command.join(" "),
            config,
            platform: None,
        };
        let mount_points = spec::mount_points();
        Ok(engine.images.commit(&container.id, &mount_points, &description)?)
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

/// A container whose processes are stopped for a moment.
struct Paused {
    shim: Shim,
    id: String,
    marker: PathBuf,
}

impl Paused {
    async fn begin(engine: &Inner, id: &str, shim: Shim) -> Result<Paused, Error> {
        let marker = marker(engine, id);
        fs::write(&marker, []).map_err(Error::file("write", &marker))?;
        let paused = Paused {
            shim,
            id: id.to_owned(),
            marker,
        };
        if let Err(error) = paused.shim.pause().await {
            let _ = fs::remove_file(&paused.marker);
            return Err(error);
        }
        failpoint::reach("commit.paused");
        Ok(paused)
    }

    async fn end(self) {
        if let Err(error) = self.shim.resume().await {
            // It has ended, mostly: a kill reaches a paused container too.
            tracing::warn!(id = self.id, %error, "could not let a container run on after its commit");
        }
        // It goes with the bundle if that is gone.
        let _ = fs::remove_file(&self.marker);
    }
}

fn marker(engine: &Inner, id: &str) -> PathBuf {
    engine.config.bundle(id).join("paused")
}

/// Let a container run on that a manager before this one has paused for a commit.
pub(crate) async fn resume_interrupted(engine: &Inner, id: &str, shim: &Shim) {
    let marker = marker(engine, id);
    if !marker.exists() {
        return;
    }
    match shim.resume().await {
        Ok(()) => tracing::info!(id, "runs on: the manager has ended during its commit"),
        // It may have died before it paused.
        Err(error) => {
            tracing::info!(id, %error, "could not let it run on; the manager has ended during its commit");
        }
    }
    let _ = fs::remove_file(&marker);
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
