//! `spec`: a config.json to start from, the same that runc writes.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::{getegid, geteuid};

use crate::error::{Context, Error, Result};

/// For root, on a host with cgroup v1 or both.
const TEXT: &str = include_str!("default_config.json");

/// Writes config.json into `dir`, where there must be none.
pub(crate) fn write(dir: &Path, rootless: bool) -> Result<()> {
    let unified = statfs("/sys/fs/cgroup").is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC);
    let text = text(
        rootless.then(|| (geteuid().as_raw(), getegid().as_raw())),
        unified,
    );
    let path = dir.join("config.json");
    let opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o666)
        .open(&path);
    if opened
        .as_ref()
        .is_err_and(|error| error.kind() == std::io::ErrorKind::AlreadyExists)
    {
        return Err(Error::Refused(format!(
            "File {} exists. Remove it first",
            path.display()
        )));
    }
    opened
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .context(|| format!("write {}", path.display()))
}

/// With the ids of the user, for a rootless container.
fn text(rootless: Option<(u32, u32)>, unified: bool) -> String {
    let mut text = TEXT.to_owned();
    if unified {
        let mount = "\t\t\t{\n\t\t\t\t\"type\": \"mount\"\n\t\t\t}";
        replace(
            &mut text,
            mount,
            &format!("{mount},\n\t\t\t{{\n\t\t\t\t\"type\": \"cgroup\"\n\t\t\t}}"),
        );
    }
    let Some((uid, gid)) = rootless else { return text };
    // Only the one group is mapped, so tty can't own the terminals.
    replace(
        &mut text,
        "\t\t\t\t\"mode=0620\",\n\t\t\t\t\"gid=5\"\n",
        "\t\t\t\t\"mode=0620\"\n",
    );
    // sysfs belongs to the network namespace, which is the host's.
    replace(
        &mut text,
        "\"type\": \"sysfs\",\n\t\t\t\"source\": \"sysfs\",\n\t\t\t\"options\": [\n",
        "\"type\": \"none\",\n\t\t\t\"source\": \"/sys\",\n\t\t\t\"options\": [\n\t\t\t\t\"rbind\",\n",
    );
    let resources_start = text.find("\t\t\"resources\"").unwrap_or(0);
    let resources_end = text.find("\t\t\"namespaces\"").unwrap_or(resources_start);
    let mapping = |name: &str, id: u32| {
        format!(
            "\t\t\"{name}\": [\n\t\t\t{{\n\t\t\t\t\"containerID\": 0,\n\t\t\t\t\"hostID\": {id},\n\
             \t\t\t\t\"size\": 1\n\t\t\t}}\n\t\t],\n"
        )
    };
    let mappings = mapping("uidMappings", uid) + &mapping("gidMappings", gid);
    text.replace_range(resources_start..resources_end, &mappings);
    replace(
        &mut text,
        "\t\t\t{\n\t\t\t\t\"type\": \"network\"\n\t\t\t},\n",
        "",
    );
    let last = if unified { "cgroup" } else { "mount" };
    let last = format!("\t\t\t{{\n\t\t\t\t\"type\": \"{last}\"\n\t\t\t}}\n");
    replace(
        &mut text,
        &last,
        &format!(
            "{},\n\t\t\t{{\n\t\t\t\t\"type\": \"user\"\n\t\t\t}}\n",
            last.trim_end()
        ),
    );
    text
}

/// Replaces the one place where `from` is.
fn replace(text: &mut String, from: &str, to: &str) {
    debug_assert_eq!(text.matches(from).count(), 1, "{from:?}");
    *text = text.replacen(from, to, 1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate;

    #[test]
    fn every_variant_is_a_sound_configuration() {
        for rootless in [None, Some((1000, 1001))] {
            for unified in [false, true] {
                let text = text(rootless, unified);
                let spec: oci_spec::runtime::Spec = serde_json::from_str(&text).unwrap();
                validate::spec(&spec).unwrap();
                assert_eq!(text.contains("\"hostID\": 1001"), rootless.is_some());
                assert_eq!(text.contains("\"user\"\n"), rootless.is_some());
                assert_eq!(text.contains("\"type\": \"cgroup\"\n\t\t\t}"), unified);
            }
        }
    }
}
