//! From what was asked for, what the image declares and what other containers have, to the mounts of a container.

use std::path::Path;

use serde_json::Value;

use crate::engine::Inner;
use crate::request::storage::{LOCAL, check_mounts, parse_volumes_from};
use crate::request::{BindSource, CreateRequest, ImageSource, Mount, Source, VolumeSource};
use crate::{Error, names};

/// All mounts of a new container, but for the drivers of volumes whose name may be a plugin's. Its own come before those of other containers, and those before the image's.
pub(crate) fn resolve(
    engine: &Inner,
    request: &CreateRequest,
    image_config: &Value,
) -> Result<Vec<Mount>, Error> {
    let mut mounts = own_mounts(request);
    check_mounts(&mounts)?;
    check_sources(&mounts)?;
    let own = mounts.len();
    for from in &request.storage.volumes_from {
        let (container, read_only) = parse_volumes_from(from)?;
        let container = engine.containers.find(container)?.snapshot().container;
        for mount in &container.mounts {
            let mut mount = mount.clone();
            mount.read_only |= read_only;
            match &mut mount.source {
                Source::Tmpfs(_) => continue,
                // It is the other container's: that one's image fills it.
                Source::Volume(volume) => volume.no_copy = true,
                Source::Bind(_) | Source::Image(_) => {}
            }
            if mounts[..own].iter().any(|other| other.has_target_of(&mount)) {
                continue;
            }
            // Of two containers, the one that is named last.
            mounts.retain(|other| !other.has_target_of(&mount));
            mounts.push(mount);
        }
    }
    for target in declared(image_config) {
        let mount = Mount {
            target,
            read_only: false,
            source: Source::Volume(VolumeSource::default()),
        };
        if !mounts.iter().any(|other| other.has_target_of(&mount)) {
            mounts.push(mount);
        }
    }
    // What the image declares is a stranger's text.
    check_mounts(&mounts)?;
    for mount in &mut mounts {
        if let Source::Image(image) = &mut mount.source {
            find_image(engine, image)?;
            mount.read_only = true;
        }
        if let Source::Volume(volume) = &mut mount.source {
            if volume.driver.is_empty() {
                request.storage.volume_driver.clone_into(&mut volume.driver);
            }
            if volume.name.is_empty() {
                volume.name = names::random_id()?;
                volume.anonymous = true;
                if volume.driver.is_empty() {
                    LOCAL.clone_into(&mut volume.driver);
                }
            }
        }
    }
    Ok(mounts)
}

/// Which image is meant. It has to be here, as with docker; that of another container's mount is known already.
fn find_image(engine: &Inner, wanted: &mut ImageSource) -> Result<(), Error> {
    if !wanted.id.is_empty() {
        return Ok(());
    }
    let image = engine
        .images
        .get(&wanted.image)
        .map_err(|error| match error.kind() {
            image::Kind::NotFound => Error::invalid(
                "mounts.image.source",
                format!(
                    "{error}; what is to be mounted is not pulled by itself: `managerctl pull {}`",
                    wanted.image
                ),
            ),
            _ => error.into(),
        })?;
    engine.images.check_trust(&wanted.image, &image)?;
    if image.config.rootfs().diff_ids().is_empty() {
        let rule = format!("{} has no layers: there are no files to mount", wanted.image);
        return Err(Error::invalid("mounts.image.source", rule));
    }
    wanted.id = image.id;
    Ok(())
}

/// What a request asks for by itself.
pub(crate) fn own_mounts(request: &CreateRequest) -> Vec<Mount> {
    let binds = request.binds.iter().map(|bind| Mount {
        target: bind.target.clone(),
        read_only: bind.read_only,
        source: Source::Bind(BindSource {
            path: bind.source.clone(),
            create: true,
            ..BindSource::default()
        }),
    });
    binds.chain(request.storage.mounts.iter().cloned()).collect()
}

fn check_sources(mounts: &[Mount]) -> Result<(), Error> {
    for mount in mounts {
        if let Source::Bind(bind) = &mount.source
            && !bind.create
            && !Path::new(&bind.path).exists()
        {
            return Err(Error::invalid(
                "mounts.bind.source",
                format!("bind source path does not exist: {}", bind.path),
            ));
        }
    }
    Ok(())
}

/// The paths that an image's config has as `Volumes`.
fn declared(image_config: &Value) -> Vec<String> {
    let volumes = image_config["config"]["Volumes"].as_object();
    volumes
        .into_iter()
        .flat_map(|volumes| volumes.keys().cloned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_declares_the_places_of_volumes() {
        let declared = |text: &str| declared(&serde_json::from_str(text).unwrap_or_default());
        let config = r#"{"config":{"Volumes":{"/data":{},"/logs/":{}}}}"#;
        assert_eq!(declared(config), ["/data", "/logs/"]);
        for nothing in ["", "{}", r#"{"config":{"Volumes":null}}"#] {
            assert!(declared(nothing).is_empty(), "{nothing}");
        }
    }
}
