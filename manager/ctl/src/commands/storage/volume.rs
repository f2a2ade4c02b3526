//! `-v`: a volume, or what of this machine a container sees, in the short form.

use proto::v1::mount::Kind;
use proto::v1::{BindMount, Mount, VolumeMount};

use super::{host_path, wrong};
use crate::failure::Result;

/// Reads `[SOURCE:]TARGET[:OPTIONS]`. A source that begins with `/`, `.` or `~` is a path, another one a volume's name.
pub(super) fn parse(argument: &str) -> Result<Mount> {
    let fail = |what: &str| wrong("-v", argument, what);
    let parts: Vec<&str> = argument.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => ("", target, ""),
        // As docker does: `/data:ro` is a container's own volume, as `ro` is no path.
        [target, options] if !options.starts_with('/') && target.starts_with('/') && is_options(options) => {
            ("", target, options)
        }
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => return Err(fail("has more than three parts")),
    };
    if parts.len() > 1 && parts[0].is_empty() {
        return Err(fail("the source is empty"));
    }
    if !target.starts_with('/') {
        return Err(fail("the target is not an absolute path"));
    }
    let is_path = source.starts_with(['/', '.', '~']);
    if !is_path && source.contains('/') {
        return Err(fail(
            "this is no name of a volume; a directory of this machine begins with / or ./",
        ));
    }
    let mut read_only = false;
    let mut kind = if is_path {
        Kind::Bind(BindMount {
            source: host_path(source).map_err(|error| fail(&error.to_string()))?,
            create_source: true,
            ..BindMount::default()
        })
    } else {
        Kind::Volume(VolumeMount {
            name: source.to_owned(),
            ..VolumeMount::default()
        })
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match (option, &mut kind) {
            ("ro", _) => read_only = true,
            // Labels are for SELinux, which containers do not have here; consistency is for other systems.
            ("rw" | "z" | "Z" | "consistent" | "cached" | "delegated" | "default", _) => {}
            ("nocopy", Kind::Volume(volume)) => volume.no_copy = true,
            ("shared" | "rshared" | "slave" | "rslave" | "private" | "rprivate", Kind::Bind(bind)) => {
                option.clone_into(&mut bind.propagation);
            }
            _ if is_option(option) => {
                let of = if is_path {
                    "directories of this machine"
                } else {
                    "volumes"
                };
                return Err(fail(&format!("the option {option:?} is not for {of}")));
            }
            _ => return Err(fail(&format!("invalid mode: {option:?}"))),
        }
    }
    Ok(Mount {
        target: target.to_owned(),
        read_only,
        kind: Some(kind),
    })
}

fn is_options(text: &str) -> bool {
    text.split(',').all(is_option)
}

fn is_option(word: &str) -> bool {
    const WORDS: [&str; 15] = [
        "ro",
        "rw",
        "z",
        "Z",
        "nocopy",
        "consistent",
        "cached",
        "delegated",
        "default",
        "shared",
        "rshared",
        "slave",
        "rslave",
        "private",
        "rprivate",
    ];
    WORDS.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(argument: &str) -> (String, String, bool) {
        let mount = parse(argument).unwrap();
        match mount.kind {
            Some(Kind::Bind(bind)) => (bind.source, bind.propagation, mount.read_only),
            other => panic!("{argument}: {other:?}"),
        }
    }

    fn volume(argument: &str) -> (String, bool, bool) {
        let mount = parse(argument).unwrap();
        match mount.kind {
            Some(Kind::Volume(volume)) => (volume.name, volume.no_copy, mount.read_only),
            other => panic!("{argument}: {other:?}"),
        }
    }

    #[test]
    fn paths_are_of_this_machine_and_names_are_volumes() {
        assert_eq!(bind("/a:/b"), ("/a".into(), String::new(), false));
        assert_eq!(bind("/a:/b:ro,rslave"), ("/a".into(), "rslave".into(), true));
        let here = std::env::current_dir().unwrap().join("c");
        assert_eq!(bind("./c:/b").0, here.to_str().unwrap());
        assert_eq!(volume("data:/b"), ("data".into(), false, false));
        assert_eq!(volume("data:/b:nocopy,ro"), ("data".into(), true, true));
        assert_eq!(volume("/b"), (String::new(), false, false));
        assert_eq!(volume("/b:ro"), (String::new(), false, true));
        assert_eq!(volume("data:/b:z,cached").0, "data");
    }

    #[test]
    fn what_means_nothing_is_refused_by_name() {
        for (argument, word) in [
            ("/a:b", "absolute"),
            ("data", "absolute"),
            ("/a:/b:fast", "\"fast\""),
            ("/a:/b:nocopy", "not for directories"),
            ("data:/b:rshared", "not for volumes"),
            ("/a:/b:ro:x", "three parts"),
            (":/b", "empty"),
            ("a/b:/c", "no name of a volume"),
        ] {
            assert!(parse(argument).unwrap_err().message.contains(word), "{argument}");
        }
    }
}
