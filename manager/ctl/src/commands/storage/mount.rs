//! `--mount`: a bind, a volume, a tmpfs or an image, in the full form `type=…,source=…,target=…,…`.

use std::collections::HashMap;

use proto::v1::bind_mount::Recursion;
use proto::v1::mount::Kind;
use proto::v1::{BindMount, ImageMount, Mount, TmpfsMount, VolumeMount};

use super::{host_path, wrong};
use crate::csv;
use crate::failure::Result;
use crate::size;

/// The fields of an argument, before it is known what kind of mount they are of.
#[derive(Default)]
struct Fields {
    kind: String,
    source: String,
    target: String,
    read_only: bool,
    bind: BindMount,
    has_recursion: bool,
    volume: VolumeMount,
    tmpfs: TmpfsMount,
    image: ImageMount,
}

const KINDS: [&str; 4] = ["bind", "volume", "tmpfs", "image"];

/// Reads `KEY=VALUE,…`.
pub(super) fn parse(argument: &str) -> Result<Mount> {
    let fail = |what: &str| wrong("--mount", argument, what);
    let mut fields = Fields {
        kind: "volume".to_owned(),
        ..Fields::default()
    };
    // Of each kind, the first of its own keys.
    let mut own_keys: HashMap<&str, String> = HashMap::new();
    for field in csv::split(argument).map_err(fail)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        if let Some((kind, _)) = key.split_once('-') {
            let kind = KINDS.into_iter().find(|known| *known == kind);
            if let Some(kind) = kind {
                own_keys.entry(kind).or_insert_with(|| key.clone());
            }
        }
        fields.set(&key, value).map_err(|what| fail(&what))?;
    }
    for kind in KINDS {
        if let Some(key) = own_keys.get(kind)
            && kind != fields.kind
        {
            return Err(fail(&format!(
                "cannot mix {key} with mount type {:?}",
                fields.kind
            )));
        }
    }
    fields.into_mount(argument)
}

impl Fields {
    fn set(&mut self, key: &str, value: Option<&str>) -> std::result::Result<(), String> {
        // The only ones that mean something by themselves.
        match key {
            "readonly" | "ro" => {
                self.read_only = truth(key, value)?;
                return Ok(());
            }
            "volume-nocopy" => {
                self.volume.no_copy = truth(key, value)?;
                return Ok(());
            }
            "bind-nonrecursive" => {
                let recursion = if truth(key, value)? {
                    Recursion::Disabled
                } else {
                    Recursion::Enabled
                };
                return self.set_recursion(recursion);
            }
            "bind-create-src" => {
                self.bind.create_source = truth(key, value)?;
                return Ok(());
            }
            _ => {}
        }
        let value = value.ok_or_else(|| format!("invalid field {key:?} must be a key=value pair"))?;
        match key {
            "type" => self.kind = value.to_lowercase(),
            "source" | "src" => value.clone_into(&mut self.source),
            "target" | "dst" | "destination" => value.clone_into(&mut self.target),
            // For other systems.
            "consistency" => {}
            "bind-propagation" => self.bind.propagation = value.to_lowercase(),
            "bind-recursive" => {
                let recursion = match value {
                    "enabled" => Recursion::Enabled,
                    "disabled" => Recursion::Disabled,
                    "writable" => Recursion::Writable,
                    "readonly" => Recursion::ReadOnly,
                    _ => {
                        return Err(format!(
                            "invalid value for bind-recursive: {value:?}: enabled, disabled, writable or readonly"
                        ));
                    }
                };
                self.set_recursion(recursion)?;
            }
            "image-subpath" => value.clone_into(&mut self.image.subpath),
            "volume-subpath" => value.clone_into(&mut self.volume.subpath),
            "volume-driver" => value.clone_into(&mut self.volume.driver),
            "volume-label" => put(&mut self.volume.labels, value),
            "volume-opt" => put(&mut self.volume.options, value),
            "tmpfs-size" => {
                self.tmpfs.size_bytes =
                    size::parse_bytes(value).map_err(|what| format!("invalid value for {key}: {what}"))?;
            }
            "tmpfs-mode" => {
                self.tmpfs.mode = u32::from_str_radix(value, 8)
                    .map_err(|_| format!("invalid value for {key}: {value:?} is no octal number"))?;
            }
            _ => return Err(format!("unexpected key {key:?} in \"{key}={value}\"")),
        }
        Ok(())
    }

    fn set_recursion(&mut self, recursion: Recursion) -> std::result::Result<(), String> {
        if std::mem::replace(&mut self.has_recursion, true) {
            return Err("bind-recursive and bind-nonrecursive are two words for one thing: use one".into());
        }
        self.bind.set_recursion(recursion);
        Ok(())
    }

    fn into_mount(self, argument: &str) -> Result<Mount> {
        let fail = |what: &str| wrong("--mount", argument, what);
        if self.target.is_empty() {
            return Err(fail("target is required"));
        }
        let kind = match self.kind.as_str() {
            "bind" if self.source.is_empty() => return Err(fail("source is required for a bind")),
            "bind" => Kind::Bind(BindMount {
                source: host_path(&self.source).map_err(|error| fail(&error.to_string()))?,
                ..self.bind
            }),
            "volume" => Kind::Volume(VolumeMount {
                name: self.source,
                ..self.volume
            }),
            "tmpfs" if !self.source.is_empty() => return Err(fail("a tmpfs has no source")),
            "tmpfs" => Kind::Tmpfs(self.tmpfs),
            "image" if self.source.is_empty() => return Err(fail("source is required for an image")),
            "image" => Kind::Image(ImageMount {
                source: self.source,
                ..self.image
            }),
            "cluster" | "npipe" => {
                return Err(fail(&format!("the type {:?} is not supported", self.kind)));
            }
            other => {
                return Err(fail(&format!(
                    "mount type unknown: {other:?}: it is bind, volume, tmpfs or image"
                )));
            }
        };
        Ok(Mount {
            target: self.target,
            read_only: self.read_only,
            kind: Some(kind),
        })
    }
}

fn put(map: &mut HashMap<String, String>, pair: &str) {
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    map.insert(key.to_owned(), value.to_owned());
}

fn truth(key: &str, value: Option<&str>) -> std::result::Result<bool, String> {
    match value {
        None | Some("1" | "true") => Ok(true),
        Some("0" | "false") => Ok(false),
        Some(other) => Err(format!("invalid value for {key}: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(argument: &str) -> String {
        parse(argument).unwrap_err().message
    }

    #[test]
    fn a_bind_in_full() {
        let mount = parse("type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave,bind-recursive=writable");
        let mount = mount.unwrap();
        let Some(Kind::Bind(bind)) = mount.kind else {
            panic!()
        };
        assert_eq!((bind.source.as_str(), mount.target.as_str()), ("/a", "/b"));
        assert_eq!(
            (bind.recursion(), bind.create_source),
            (Recursion::Writable, false)
        );
        assert!(mount.read_only && bind.propagation == "rslave");
    }

    #[test]
    fn a_volume_in_full() {
        let mount = parse(
            "source=data,target=/b,volume-nocopy,volume-subpath=a/b,volume-label=x=y,volume-opt=type=nfs,\"volume-opt=o=addr=1.2.3.4,rw\"",
        );
        let Some(Kind::Volume(volume)) = mount.unwrap().kind else {
            panic!()
        };
        assert_eq!((volume.name.as_str(), volume.subpath.as_str()), ("data", "a/b"));
        assert_eq!(
            (volume.options["o"].as_str(), volume.labels["x"].as_str()),
            ("addr=1.2.3.4,rw", "y")
        );
        assert!(volume.no_copy);
    }

    #[test]
    fn a_tmpfs_in_full() {
        let mount = parse("type=tmpfs,destination=/b,tmpfs-size=1m,tmpfs-mode=1770").unwrap();
        let Some(Kind::Tmpfs(tmpfs)) = mount.kind else {
            panic!()
        };
        assert_eq!((tmpfs.size_bytes, tmpfs.mode), (1 << 20, 0o1770));
    }

    #[test]
    fn an_image_in_full() {
        let mount = parse("type=image,source=box:1,target=/b,image-subpath=etc").unwrap();
        let Some(Kind::Image(image)) = mount.kind else {
            panic!()
        };
        assert_eq!((image.source.as_str(), image.subpath.as_str()), ("box:1", "etc"));
    }

    #[test]
    fn what_means_nothing_is_refused_by_name() {
        for (argument, word) in [
            ("type=bind,src=/a", "target is required"),
            ("type=bind,dst=/a", "source is required"),
            ("type=tape,dst=/a", "tape"),
            ("type=image,dst=/a", "source is required"),
            ("type=cluster,src=a,dst=/a", "not supported"),
            ("type=image,src=a,dst=/a,volume-subpath=b", "mix volume-subpath"),
            ("type=tmpfs,src=a,dst=/a", "no source"),
            ("dst=/a,volume-nocopy=maybe", "volume-nocopy"),
            ("dst=/a,tmpfs-size=1m", "mix tmpfs-size"),
            ("type=tmpfs,dst=/a,volume-driver=local", "mix volume-driver"),
            ("type=tmpfs,dst=/a,tmpfs-mode=9", "octal"),
            ("type=bind,src=/a,dst=/b,bind-recursive=maybe", "maybe"),
            (
                "type=bind,src=/a,dst=/b,bind-nonrecursive,bind-recursive=enabled",
                "one thing",
            ),
            ("dst=/a,colour=red", "\"colour\""),
            ("dst=/a,source", "key=value"),
            ("dst=/a,\"source=b", "no end"),
            ("dst=/a,\"source=b\"c", "quoted"),
        ] {
            assert!(refused(argument).contains(word), "{}", refused(argument));
        }
    }
}
