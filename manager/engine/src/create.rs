//! The making of a container: checked whole, then its writable layer, then its record and address in one
//! transaction. A manager that dies in between leaves a layer without owner, which reconcile removes.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;

use serde_json::Value;

use crate::container::{Container, State, now_unix_nanos};
use crate::engine::{Engine, Inner, blocking, to_its_end};
use crate::lifecycle::Handle;
use crate::networks::Joining;
use crate::request::{CreateRequest, Healthcheck, Mount, Network};
use crate::spec::{self, cgroups::Cgroups, layers::Layers};
use crate::{Error, joined, links, names, userns, volumes};

/// Made-up names are short, so one may be taken; then another is tried.
const NAME_ATTEMPTS: u32 = 20;

impl Engine {
    /// Make a container. Its image has to be there. Besides, what of the image is not done here: a sentence each.
    pub async fn create(&self, mut request: CreateRequest) -> Result<(Arc<Container>, Vec<String>), Error> {
        let engine = &self.0;
        engine.defaults.get().fill(&mut request);
        request.validate()?;
        for wanted in &request.networks {
            engine.networks.find(&wanted.network)?.check_place(wanted)?;
        }
        if let Some(holder) = engine.containers.by_name(&request.name) {
            return Err(Error::NameTaken {
                name: request.name,
                holder: holder.id.clone(),
            });
        }
        let engine = Arc::clone(engine);
        to_its_end(async move {
            let (container, warnings, _claim) = prepare(&engine, request).await?;
            failpoint::reach("create.prepared");
            Ok((keep(&engine, container).await?, warnings))
        })
        .await
    }
}

/// Put a container that is prepared on record, and give it an owner.
async fn keep(engine: &Arc<Inner>, container: Container) -> Result<Arc<Container>, Error> {
    let id = container.id.clone();
    match record_with_volumes(engine, container).await {
        Ok(container) => {
            failpoint::reach("create.recorded");
            let handle = Handle::new(engine, container);
            let container = handle.snapshot().container;
            engine.adopt(handle);
            engine.events.tell(&container, "create", &[]);
            Ok(container)
        }
        Err(error) => {
            undo(engine, id).await;
            Err(error)
        }
    }
}

/// A container that is not on record yet, what of its image is not done, and a claim to its ids.
type Prepared = (Container, Vec<String>, Option<userns::Claim>);

/// Resolve all that the image decides, take its lease, and make the writable layer.
async fn prepare(engine: &Arc<Inner>, mut request: CreateRequest) -> Result<Prepared, Error> {
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
        joined::resolve(&engine, &mut request)?;
        links::resolve(&engine, &mut request)?;
        let command = spec::process::command(&request, &image.config)?;
        let stop_signal = spec::process::stop_signal(&request, &image.config)?;
        let config: Value = serde_json::from_str(&image.config_json).unwrap_or_default();
        request.healthcheck = Healthcheck::resolve(request.healthcheck.as_ref(), &config);
        if matches!(request.network, Network::Bridge | Network::User) {
            // What the image exposes is read at each start: it has to be right from the beginning.
            request.ports.wanted(spec::process::exposed(&image.config))?;
        }
        if request.has_init() && !engine.config.init.is_file() {
            let path = engine.config.init.display();
            return Err(Error::invalid(
                "init",
                format!("{path} is not there: `manager --init-path` says where the program is"),
            ));
        }
        let cgroups = Cgroups::of_this_machine();
        spec::resources::check_here(&request.resources, &cgroups)?;
        engine.config.groups.check(&request)?;
        let (_, discarded) = spec::resources::usable(&request, &cgroups);
        let id = names::random_id()?;
        let claim = userns::assign(&engine, &mut request)?;
        let owners = request.isolation.owners.as_ref();
        let mounts = volumes::resolve(&engine, &request, &config)?;
        let mounted = mounts.iter().filter_map(Mount::image);
        let mounted: Vec<String> = mounted.map(|image| image.id.clone()).collect();
        let rootfs = engine.images.prepare_with_mounts(&image, &id, owners, &mounted)?;
        failpoint::reach("create.leased");
        let wanted = spec::process::wanted_user(&request, &image.config);
        let user = spec::user::resolve(&Layers::new(&rootfs), wanted, &request.isolation.group_add);
        let made = user
            .and_then(|user| userns::check_user(owners, wanted, &user))
            .and_then(|()| owners.map_or(Ok(()), |owners| userns::mounts::check(&rootfs.lower[0], owners)))
            .and_then(|()| {
                let folder = engine.config.container(&id);
                let made = DirBuilder::new().mode(0o700).create(&folder);
                made.map_err(Error::file("make the folder", &folder))
            });
        if let Err(error) = made {
            release(&engine, &id);
            return Err(error);
        }
        let mut warnings = warnings(&config);
        warnings.extend(request.ports.warning(request.network));
        warnings.extend(discarded);
        let container = Container {
            id,
            name: request.name.clone(),
            image_id: image.id,
            command,
            stop_signal,
            request: Arc::new(request),
            mounts,
            state: State::Created,
            pid: 0,
            runs: 0,
            exit: None,
            created_unix_nanos: now_unix_nanos(),
            started_unix_nanos: 0,
            address: None,
            bridge_slot: 0,
            ports: Vec::new(),
            error: String::new(),
            restarts: 0,
            stopped_by_hand: false,
            update_pending: false,
            health: None,
        };
        Ok((container, warnings, claim))
    })
    .await
}

/// Put it on record with its volumes; these have their folders afterwards.
async fn record_with_volumes(engine: &Arc<Inner>, mut container: Container) -> Result<Container, Error> {
    if !container.has_volumes() {
        return record(engine, container).await;
    }
    volumes::settle_drivers(engine, &mut container).await?;
    let changes = engine.volumes.lock().await;
    let container = record(engine, container).await?;
    failpoint::reach("create.volumes-recorded");
    let mut made = volumes::make_folders(engine, &container).await;
    drop(changes);
    if made.is_ok() {
        made = volumes::make_anonymous(engine, &container).await;
    }
    if let Err(error) = made {
        engine.store.delete(&container.id, true).await?;
        engine.networks.forget(&container.id);
        volumes::finish_removals(engine, &container).await;
        return Err(error);
    }
    Ok(container)
}

/// Put it on record, with its address or its places on networks.
async fn insert(engine: &Inner, mut container: Container) -> Result<Container, Error> {
    if container.request.network != Network::User {
        let subnet = (container.request.network == Network::Bridge).then(|| engine.config.subnet());
        container.address = engine.store.insert(container.clone(), subnet).await?;
        return Ok(container);
    }
    let place = |wanted: &Joining| Ok((engine.networks.find(&wanted.network)?, wanted.clone()));
    let places = container
        .request
        .networks
        .iter()
        .map(place)
        .collect::<Result<_, Error>>()?;
    let joined = engine.store.insert_on_networks(container.clone(), places).await?;
    for joined in joined {
        engine.networks.join(&container.id, joined);
    }
    Ok(container)
}

async fn record(engine: &Inner, mut container: Container) -> Result<Container, Error> {
    if !container.name.is_empty() {
        return insert(engine, container).await;
    }
    let mut attempt = 0;
    loop {
        container.name = names::random_name(attempt)?;
        match insert(engine, container.clone()).await {
            Err(Error::NameTaken { .. }) if attempt < NAME_ATTEMPTS => attempt += 1,
            other => return other,
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
fn warnings(config: &Value) -> Vec<String> {
    let builds_on = config["config"]["OnBuild"]
        .as_array()
        .is_some_and(|steps| !steps.is_empty());
    builds_on
        .then(|| "the image's ONBUILD instructions are for builds, which this version does not do".to_owned())
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_image_asks_for_in_vain_is_told() {
        let warnings = |text: &str| warnings(&serde_json::from_str(text).unwrap_or_default());
        let asks = r#"{"config":{"OnBuild":["RUN x"]}}"#;
        assert!(warnings(asks).join("\n").contains("ONBUILD"));
        for nothing in ["", "{}", r#"{"config":{"OnBuild":[]}}"#] {
            assert!(warnings(nothing).is_empty(), "{nothing}");
        }
    }
}
