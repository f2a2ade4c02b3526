//! The files of an image that a container is to see besides its own.
//!
//! They are mounted anew for each start where only the manager can change anything, until the runtime has them: a
//! container's own mount holds on to them, so that a manager that ends leaves nothing that another has to take over.

use image::Owners;

use super::part::MountPoint;
use crate::engine::Inner;
use crate::request::ImageSource;
use crate::{Error, userns};

/// Mount them, with the owners of the container's user namespace if it has one of its own.
pub(super) fn mount(
    engine: &Inner,
    wanted: &ImageSource,
    owners: Option<&Owners>,
) -> Result<MountPoint, Error> {
    let parts = engine.config.parts();
    let view = engine.images.view(&wanted.id)?;
    let (view, _layers) = userns::mounts::view(view, owners, &parts)?;
    let whole = MountPoint::make(&parts, |place| std::fs::create_dir(place))?;
    view.mount(&whole.place).map_err(|source| Error::ImageMount {
        image: wanted.image.clone(),
        layers: view.lower.len(),
        source,
    })?;
    if wanted.subpath.is_empty() {
        return Ok(whole);
    }
    MountPoint::of_image(&whole.place, &wanted.image, &wanted.subpath, &parts)
}
