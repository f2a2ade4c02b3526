//! The making of a container: checked whole, then its writable layer, then its record and address in one
//! transaction. A manager that dies in between leaves a layer without owner, which reconcile removes.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;

use serde_json::Value;

use crate::container::{Container, State, now_unix_nanos};
use crate::engine::{Engine, Inner, blocking};
use crate::events::Event;
use crate::lifecycle::Handle;
use crate::request::{CreateRequest, Network};
use crate::spec::{self, cgroups::Cgroups, layers::Layers};
use crate::{Error, names};

/// Made-up names are short, so one may be taken; then another is tried.
const NAME_ATTEMPTS: u32 = 20;

impl Engine {
    /// Make a container. Its image has to be there. Besides, what of the image is not done here: a sentence each.
    pub async fn create(&self, request: CreateRequest) -> Result<(Arc<Container>, Vec<String>), Error> {
        request.validate()?;
        let engine = &self.0;
        if let Some(holder) = engine.containers.by_name(&request.name) {
            return Err(Error::NameTaken {
                name: request.name,
                holder: holder.id.clone(),
            });
        }
        let (container, warnings) = prepare(engine, request).await?;
        failpoint::reach("create.prepared");
        match record(engine, container.clone()).await {
            Ok(container) => {
                failpoint::reach("create.recorded");
                let handle = Handle::new(engine, container);
                let container = handle.snapshot().container;
                engine.adopt(handle);
                engine.events.send(Event::of_container(
                    "create",
                    &container.id,
                    container.attributes(),
                ));
                Ok((container, warnings))
            }
            Err(error) => {
                undo(engine, container.id).await;
                Err(error)
            }
        }
    }
}

/// Resolve all that the image decides, take its lease, and make the writable layer.
async fn prepare(engine: &Arc<Inner>, request: CreateRequest) -> Result<(Container, Vec<String>), Error> {
    let engine = Arc::clone(engine);
    let of_platform = match request.platform.as_str() {
        "" => None,
        platform => Some(engine.images.get_for(&request.image, platform.parse()?).await?),
    };
    blocking(move || {
        let image = match of_platform {
            Some(image) => image,
            None => engine.images.get(&request.image)?,
        };
        engine.images.check_trust(&request.image, &image)?;
        let command = spec::process::command(&request, &image.config)?;
        let stop_signal = spec::process::stop_signal(&request, &image.config)?;
        let cgroups = Cgroups::of_this_machine();
        spec::resources::check_here(&request.resources, &cgroups)?;
        let (_, discarded) = spec::resources::usable(&request, &cgroups);
        let id = names::random_id()?;
        let rootfs = engine.images.prepare(&image, &id)?;
        failpoint::reach("create.leased");
        let made = spec::user::resolve(
            &Layers::new(&rootfs),
            spec::process::wanted_user(&request, &image.config),
        )
        .and_then(|_| {
            let folder = engine.config.container(&id);
            DirBuilder::new()
                .mode(0o700)
                .create(&folder)
                .map_err(Error::file("make the folder", &folder))
        });
        if let Err(error) = made {
            release(&engine, &id);
            return Err(error);
        }
        let mut warnings = warnings(&image.config_json);
        warnings.extend(discarded);
        let container = Container {
            id,
            name: request.name.clone(),
            image_id: image.id,
            command,
            stop_signal,
            request: Arc::new(request),
            state: State::Created,
            pid: 0,
            runs: 0,
            exit: None,
            created_unix_nanos: now_unix_nanos(),
            started_unix_nanos: 0,
            address: None,
            error: String::new(),
        };
        Ok((container, warnings))
    })
    .await
}

async fn record(engine: &Inner, mut container: Container) -> Result<Container, Error> {
    let subnet = (container.request.network == Network::Bridge).then(|| engine.config.subnet());
    if !container.name.is_empty() {
        container.address = engine.store.insert(container.clone(), subnet).await?;
        return Ok(container);
    }
    let mut attempt = 0;
    loop {
        container.name = names::random_name(attempt)?;
        match engine.store.insert(container.clone(), subnet).await {
            Err(Error::NameTaken { .. }) if attempt < NAME_ATTEMPTS => attempt += 1,
            other => {
                container.address = other?;
                return Ok(container);
            }
        }
    }
}

async fn undo(engine: &Arc<Inner>, id: String) {
    let engine = Arc::clone(engine);
    let done = blocking(move || {
        release(&engine, &id);
        let folder = engine.config.container(&id);
        std::fs::remove_dir_all(&folder).map_err(Error::file("remove", &folder))
    });
    if let Err(error) = done.await {
        tracing::warn!(%error, "left behind, until the next start of the manager");
    }
}

fn release(engine: &Inner, id: &str) {
    if let Err(error) = engine.images.release(id) {
        tracing::warn!(id, %error, "left behind, until the next start of the manager");
    }
}

/// What an image's config asks for that is left out.
fn warnings(config_json: &str) -> Vec<String> {
    let config: Value = serde_json::from_str(config_json).unwrap_or_default();
    let is_set = |field: &str| match &config["config"][field] {
        Value::Object(entries) => !entries.is_empty(),
        Value::Array(entries) => !entries.is_empty(),
        _ => false,
    };
    let known = [
        (
            "Volumes",
            "the image declares volumes (VOLUME): they are kept in the container's writable layer, and go with it",
        ),
        (
            "Healthcheck",
            "the image's HEALTHCHECK is not run: this version has no health checks",
        ),
        (
            "OnBuild",
            "the image's ONBUILD instructions are for builds, which this version does not do",
        ),
    ];
    known
        .iter()
        .filter(|(field, _)| is_set(field))
        .map(|(_, words)| (*words).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_image_asks_for_in_vain_is_told() {
        let asks = r#"{"config":{"Volumes":{"/data":{}},"Healthcheck":{"Test":["CMD","true"]},"OnBuild":["RUN x"]}}"#;
        let told = warnings(asks).join("\n");
        for word in ["VOLUME", "HEALTHCHECK", "ONBUILD"] {
            assert!(told.contains(word), "{told}");
        }
        for nothing in [
            "",
            "{}",
            r#"{"config":{"Volumes":{},"Healthcheck":null,"OnBuild":[]}}"#,
        ] {
            assert!(warnings(nothing).is_empty(), "{nothing}");
        }
    }
}
