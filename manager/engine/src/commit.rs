//! An image of what a container has become: its image, what it has written, and how it was asked to run.
//!
//! While its layer is read, the container's processes are paused, unless the client wants otherwise. A file in the
//! bundle says so: a manager that dies meanwhile leaves it, and the next one lets the container run on.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use image::{Description, Image, Images, apply_instructions};
use serde_json::{Value, json};
use tokio::sync::OwnedMutexGuard;

use crate::container::Container;
use crate::engine::{Engine, Inner, blocking, joined};
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
        if !request.name.is_empty() {
            Images::check_name(&request.name)?;
        }
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
        joined(work).await
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

/// The containers that are paused for commits.
#[derive(Default)]
pub(crate) struct Pauses(Mutex<PausesState>);

#[derive(Default)]
struct PausesState {
    /// A container is paused by one commit at a time: the first to end would let it run on under the others.
    turns: HashMap<String, Arc<tokio::sync::Mutex<()>>>,
    paused: HashMap<String, Shim>,
    /// The manager is about to exit: nothing is paused any more, as nobody would be left to let it run on.
    closed: bool,
}

impl Pauses {
    fn state(&self) -> std::sync::MutexGuard<'_, PausesState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn turn(&self, id: &str) -> OwnedMutexGuard<()> {
        let turn = Arc::clone(self.state().turns.entry(id.to_owned()).or_default());
        turn.lock_owned().await
    }

    fn forget(&self, id: &str) {
        let mut state = self.state();
        state.paused.remove(id);
        // Two are ours: the map's, and that of the guard in our hands.
        if state
            .turns
            .get(id)
            .is_some_and(|turn| Arc::strong_count(turn) <= 2)
        {
            state.turns.remove(id);
        }
    }
}

impl Engine {
    /// Let all containers run on that are paused for commits, and pause no more: the manager is about to exit.
    pub async fn end_pauses(&self) {
        let paused = {
            let mut state = self.0.pauses.state();
            state.closed = true;
            std::mem::take(&mut state.paused)
        };
        for (id, shim) in paused {
            let_run(&shim, &id, &marker(&self.0, &id), true).await;
        }
    }
}

/// A container whose processes are stopped for a moment.
struct Paused {
    engine: Arc<Inner>,
    shim: Shim,
    id: String,
    _turn: OwnedMutexGuard<()>,
}

impl Paused {
    async fn begin(engine: &Arc<Inner>, id: &str, shim: Shim) -> Result<Paused, Error> {
        let turn = engine.pauses.turn(id).await;
        let marker = marker(engine, id);
        let paused = Paused {
            engine: Arc::clone(engine),
            shim,
            id: id.to_owned(),
            _turn: turn,
        };
        // Known before it is asked for: a shutdown meanwhile finds it.
        let closed = {
            let mut state = engine.pauses.state();
            if !state.closed {
                state.paused.insert(id.to_owned(), paused.shim.clone());
            }
            state.closed
        };
        let begun = async {
            if closed {
                return Err(Error::ShuttingDown);
            }
            fs::write(&marker, []).map_err(Error::file("write", &marker))?;
            let asked = paused.shim.pause().await;
            if let Err(error) = &asked {
                // After a timeout it may still be about to happen: only a refusal is final.
                let_run(&paused.shim, id, &marker, is_not_paused(error)).await;
            }
            asked
        };
        if let Err(error) = begun.await {
            engine.pauses.forget(id);
            return Err(error);
        }
        failpoint::reach("commit.paused");
        Ok(paused)
    }

    async fn end(self) {
        let_run(&self.shim, &self.id, &marker(&self.engine, &self.id), true).await;
        self.engine.pauses.forget(&self.id);
    }
}

/// Let a container run on. The marker stays for the next manager if that may have failed; `settled`: that it is not
/// paused now says that it will not be.
async fn let_run(shim: &Shim, id: &str, marker: &Path, settled: bool) {
    let runs = match shim.resume().await {
        Ok(()) => true,
        Err(error) => {
            // It has ended, mostly: a kill reaches a paused container too.
            tracing::warn!(id, %error, "could not let a container run on after its commit");
            settled && is_not_paused(&error)
        }
    };
    if runs {
        // It goes with the bundle if that is gone.
        let _ = fs::remove_file(marker);
    }
}

/// Whether the runtime refused because no processes are there, or none that are paused.
fn is_not_paused(error: &Error) -> bool {
    let Error::Runtime { why, .. } = error else {
        return false;
    };
    why.contains("not paused") || why.contains("not running")
}

fn marker(engine: &Inner, id: &str) -> PathBuf {
    engine.config.bundle(id).join("paused")
}

/// Let a container run on that a manager before this one has paused for a commit.
pub(crate) async fn resume_interrupted(engine: &Inner, id: &str, shim: &Shim) {
    let marker = marker(engine, id);
    if marker.exists() {
        tracing::info!(id, "a manager has ended during its commit: letting it run on");
        // It may have died before it paused.
        let_run(shim, id, &marker, true).await;
    }
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
