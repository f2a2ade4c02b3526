//! Files of containers, out of them and into them, as tar archives: what docker's `cp` asks for.
//!
//! A running container is seen through its main process's root, so with its volumes; one that does not run through a
//! mount of its layers that nobody else sees, without them. Either way paths mean what they mean in the container, and
//! lead nowhere else, whatever it does meanwhile.

mod root;

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use image::PathStat;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::Error;
use crate::archives::{until_dropped, with_client};
use crate::container::Container;
use crate::engine::{Engine, blocking};
use crate::lifecycle::Pace;
use crate::request::check_strings;
use crate::spec::{self, layers::Layers};
use crate::sys;
use root::Root;

/// An archive that is to be unpacked in a container.
#[derive(Debug, Clone, Default)]
pub struct CopyRequest {
    /// Id, name, or prefix of an id.
    pub container: String,
    /// A folder in the container.
    pub path: String,
    /// The files are to belong to the container's user, if it has one; else to whom the archive says.
    pub to_user: bool,
}

impl Engine {
    /// What is at a path of a container. A link as its last name is not followed.
    pub async fn stat_path(&self, container: &str, path: &str) -> Result<PathStat, Error> {
        let path = absolute(path)?;
        let pace = Pace::new(CancellationToken::new());
        pace.begun();
        let root = Root::open(&self.0, container, &pace).await?;
        blocking(move || {
            root.check(&path, false)?;
            Ok(root.tree().stat(path.as_bytes())?)
        })
        .await
    }

    /// Write what is at a path of a container as an archive, in which it is called `name`; empty: by its own name.
    /// `cut` tells that others want the container, and that the client has taken nothing for too long: writing has to
    /// fail from then on.
    pub async fn copy_from(
        &self,
        container: &str,
        path: &str,
        name: String,
        archive: impl Write + Send + 'static,
        cut: CancellationToken,
    ) -> Result<(), Error> {
        check_strings("name", std::slice::from_ref(&name))?;
        let path = absolute(path)?;
        let pace = Pace::new(cut);
        let root = Root::open(&self.0, container, &pace).await?;
        let container = Arc::clone(&root.container);
        let (cancelled, _guards) = while_it_lasts(&root);
        let (begun, archive) = (pace.clone(), pace.watch(archive));
        let work = with_client(move || {
            begun.begun();
            root.check(&path, false)?;
            Ok(root
                .tree()
                .pack(path.as_bytes(), name.as_bytes(), &cancelled, archive)?)
        });
        unless_cut(&pace, &container, work).await?;
        self.0.events.tell(&container, "archive-path", &[]);
        Ok(())
    }

    /// Unpack an archive in a folder of a container. `cut` tells that others want the container, and that the client has
    /// sent nothing for too long: reading has to fail from then on.
    pub async fn copy_to(
        &self,
        request: CopyRequest,
        archive: impl Read + Send + 'static,
        cut: CancellationToken,
    ) -> Result<(), Error> {
        let path = absolute(&request.path)?;
        let pace = Pace::new(cut);
        let root = Root::open(&self.0, &request.container, &pace).await?;
        let container = Arc::clone(&root.container);
        let (cancelled, _guards) = while_it_lasts(&root);
        let engine = Arc::clone(&self.0);
        let (begun, archive) = (pace.clone(), pace.watch(archive));
        let work = with_client(move || {
            begun.begun();
            root.check(&path, true)?;
            let user = if request.to_user {
                let image = engine.images.get(&root.container.image_id)?;
                let wanted = spec::process::wanted_user(&root.container.request, &image.config);
                let layers = Layers::new(&engine.images.rootfs(&root.container.id)?);
                let found = spec::user::resolve(&layers, wanted, &[])?;
                (!wanted.is_empty()).then_some((found.uid, found.gid))
            } else {
                None
            };
            if let Some(owners) = &root.container.request.isolation.owners {
                // This thread ends with the copy.
                sys::mapped::make_files_as(owners.root()).map_err(Error::file(
                    "take the ids of the root of",
                    Path::new(&root.container.name),
                ))?;
            }
            Ok(root.tree().unpack(path.as_bytes(), user, &cancelled, archive)?)
        });
        unless_cut(&pace, &container, work).await?;
        self.0.events.tell(&container, "extract-to-dir", &[]);
        Ok(())
    }
}

/// A copy, unless others want the container and the copy's client does nothing. A thread that has begun ends by itself,
/// and gives the container back then.
async fn unless_cut(
    pace: &Pace,
    container: &Container,
    work: impl Future<Output = Result<(), Error>>,
) -> Result<(), Error> {
    tokio::select! {
        biased;
        () = pace.cut.cancelled() => {
            let why = "it is wanted for something else, and the copy was at a standstill, or the container is removed by force";
            Err(Error::wrong_state("go on copying files of", container, why))
        }
        done = work => done,
    }
}

/// For work that is over when nobody waits for it any more, or the run has ended in which it began: the next run
/// mounts the same layers anew.
fn while_it_lasts(root: &Root) -> (CancellationToken, (DropGuard, DropGuard)) {
    let (cancelled, guard) = until_dropped();
    let (watching, watch_guard) = until_dropped();
    if let Some(mut state) = root.run() {
        let (run, ended) = (root.container.runs, cancelled.clone());
        tokio::spawn(async move {
            tokio::select! {
                _ = state.wait_for(|snapshot| snapshot.has_ended(run)) => ended.cancel(),
                () = watching.cancelled() => {}
            }
        });
    }
    (cancelled, (guard, watch_guard))
}

/// Docker takes paths from the root, however they begin.
fn absolute(path: &str) -> Result<String, Error> {
    check_strings("path", &[path.to_owned()])?;
    if path.is_empty() || path.len() >= 4096 {
        return Err(Error::invalid("path", "must have from 1 to 4095 bytes"));
    }
    Ok(if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    })
}
