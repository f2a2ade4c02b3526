//! Mounts and volumes, between messages and the engine's types.

use engine::{
    BindSource, Error, ImageSource, Mount, Recursion, Source, Storage, TmpfsSource, Volume, VolumeSource,
};
use proto::v1;
use proto::v1::mount::Kind;

pub(crate) fn storage(message: v1::Storage) -> Result<Storage, Error> {
    Ok(Storage {
        mounts: message.mounts.into_iter().map(mount).collect::<Result<_, _>>()?,
        volumes_from: message.volumes_from,
        volume_driver: message.volume_driver,
    })
}

pub(crate) fn storage_message(storage: &Storage) -> Option<v1::Storage> {
    let message = v1::Storage {
        mounts: storage.mounts.iter().map(mount_message).collect(),
        volumes_from: storage.volumes_from.clone(),
        volume_driver: storage.volume_driver.clone(),
    };
    (message != v1::Storage::default()).then_some(message)
}

fn mount(message: v1::Mount) -> Result<Mount, Error> {
    let source = match message.kind {
        Some(Kind::Bind(bind)) => Source::Bind(BindSource {
            recursion: match bind.recursion() {
                v1::bind_mount::Recursion::Enabled => Recursion::Enabled,
                v1::bind_mount::Recursion::Disabled => Recursion::Disabled,
                v1::bind_mount::Recursion::Writable => Recursion::Writable,
                v1::bind_mount::Recursion::ReadOnly => Recursion::ReadOnly,
            },
            path: bind.source,
            propagation: bind.propagation,
            create: bind.create_source,
        }),
        Some(Kind::Volume(volume)) => Source::Volume(VolumeSource {
            name: volume.name,
            driver: volume.driver,
            labels: volume.labels.into_iter().collect(),
            options: volume.options.into_iter().collect(),
            no_copy: volume.no_copy,
            subpath: volume.subpath,
            anonymous: false,
        }),
        Some(Kind::Tmpfs(tmpfs)) => Source::Tmpfs(TmpfsSource {
            size_bytes: tmpfs.size_bytes,
            mode: tmpfs.mode,
            options: tmpfs.options,
        }),
        Some(Kind::Image(image)) => Source::Image(ImageSource {
            image: image.source,
            subpath: image.subpath,
            id: String::new(),
        }),
        None => {
            return Err(Error::Invalid {
                field: "storage.mounts.kind",
                rule: "is missing: bind, volume, tmpfs or image".to_owned(),
            });
        }
    };
    Ok(Mount {
        target: message.target,
        read_only: message.read_only,
        source,
    })
}

pub(crate) fn mount_message(mount: &Mount) -> v1::Mount {
    let kind = match mount.source.clone() {
        Source::Bind(bind) => Kind::Bind(v1::BindMount {
            source: bind.path,
            propagation: bind.propagation,
            recursion: match bind.recursion {
                Recursion::Enabled => v1::bind_mount::Recursion::Enabled,
                Recursion::Disabled => v1::bind_mount::Recursion::Disabled,
                Recursion::Writable => v1::bind_mount::Recursion::Writable,
                Recursion::ReadOnly => v1::bind_mount::Recursion::ReadOnly,
            }
            .into(),
            create_source: bind.create,
        }),
        Source::Volume(volume) => Kind::Volume(v1::VolumeMount {
            name: volume.name,
            driver: volume.driver,
            labels: volume.labels.into_iter().collect(),
            options: volume.options.into_iter().collect(),
            no_copy: volume.no_copy,
            subpath: volume.subpath,
            anonymous: volume.anonymous,
        }),
        Source::Tmpfs(tmpfs) => Kind::Tmpfs(v1::TmpfsMount {
            size_bytes: tmpfs.size_bytes,
            mode: tmpfs.mode,
            options: tmpfs.options,
        }),
        Source::Image(image) => Kind::Image(v1::ImageMount {
            source: image.image,
            subpath: image.subpath,
            id: image.id,
        }),
    };
    v1::Mount {
        target: mount.target.clone(),
        read_only: mount.read_only,
        kind: Some(kind),
    }
}

pub(crate) fn volume(volume: Volume) -> v1::Volume {
    v1::Volume {
        name: volume.name,
        driver: volume.driver,
        mountpoint: volume.mountpoint,
        scope: if volume.is_global { "global" } else { "local" }.to_owned(),
        status_json: volume.status_json,
        labels: volume.labels.into_iter().collect(),
        options: volume.options.into_iter().collect(),
        created_unix_nanos: volume.created_unix_nanos,
        anonymous: volume.anonymous,
        containers: volume.containers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_survives_the_way_there_and_back() {
        let mount = |kind| v1::Mount {
            target: "/a".to_owned(),
            read_only: true,
            kind: Some(kind),
        };
        let pair = |text: &str| [(text.to_owned(), text.to_owned())].into();
        let message = v1::Storage {
            mounts: vec![
                mount(Kind::Bind(v1::BindMount {
                    source: "/b".to_owned(),
                    propagation: "rslave".to_owned(),
                    recursion: v1::bind_mount::Recursion::Writable.into(),
                    create_source: true,
                })),
                mount(Kind::Volume(v1::VolumeMount {
                    name: "data".to_owned(),
                    driver: "local".to_owned(),
                    labels: pair("l"),
                    options: pair("o"),
                    no_copy: true,
                    subpath: "sub".to_owned(),
                    anonymous: false,
                })),
                mount(Kind::Tmpfs(v1::TmpfsMount {
                    size_bytes: 1,
                    mode: 2,
                    options: vec!["exec".to_owned()],
                })),
                mount(Kind::Image(v1::ImageMount {
                    source: "box".to_owned(),
                    subpath: "sub".to_owned(),
                    id: String::new(),
                })),
            ],
            volumes_from: vec!["c:ro".to_owned()],
            volume_driver: "local".to_owned(),
        };
        let there = storage(message.clone()).unwrap();
        assert_eq!(storage_message(&there), Some(message));
        assert_eq!(storage_message(&Storage::default()), None);
        assert!(
            storage(v1::Storage {
                mounts: vec![v1::Mount::default()],
                ..Default::default()
            })
            .is_err()
        );
    }
}
