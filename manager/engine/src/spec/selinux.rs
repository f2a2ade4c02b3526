//! What `--security-opt label=…` says, in the place of parts of the policy's own labels for containers (`SELinux`).

use std::fs;

/// Where policies say with which labels containers begin; that is how libselinux finds it.
const CONFIG: &str = "/etc/selinux/config";
const PROCESS: &str = "system_u:system_r:container_t:s0";
const FILE: &str = "system_u:object_r:container_file_t:s0";

/// Parts of a label that are asked for; empty: the policy's.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label<'a> {
    pub(crate) user: &'a str,
    pub(crate) role: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) level: &'a str,
}

impl Label<'_> {
    /// The labels of the container's processes and of what is mounted for it. None: none are asked for.
    pub(super) fn labels(&self) -> Option<(String, String)> {
        if *self == Label::default() {
            return None;
        }
        let policy = contexts().unwrap_or_default();
        let of_policy = |name: &str, fallback: &str| value(&policy, name).unwrap_or(fallback).to_owned();
        Some(self.replaced(&of_policy("process", PROCESS), &of_policy("file", FILE)))
    }

    /// As with docker: all parts count for processes, for files the level alone.
    fn replaced(&self, process: &str, file: &str) -> (String, String) {
        let pick = |asked: &str, own: &str| if asked.is_empty() { own } else { asked }.to_owned();
        let mut parts = process.splitn(4, ':');
        let mut next = |asked: &str| pick(asked, parts.next().unwrap_or_default());
        let process = [
            next(self.user),
            next(self.role),
            next(self.kind),
            next(self.level),
        ]
        .join(":");
        let parts: Vec<_> = file.splitn(4, ':').collect();
        let (of_file, level) = parts.split_at(parts.len().min(3));
        let level = pick(self.level, level.first().copied().unwrap_or_default());
        (process, format!("{}:{level}", of_file.join(":")))
    }
}

/// The file of the policy in use.
fn contexts() -> Option<String> {
    let config = fs::read_to_string(CONFIG).ok()?;
    let policy = value(&config, "SELINUXTYPE")?;
    fs::read_to_string(format!("/etc/selinux/{policy}/contexts/lxc_contexts")).ok()
}

/// `name = "value"`, one a line.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_takes_the_place_of_the_policys() {
        let label = Label {
            kind: "web_t",
            level: "s0:c1,c2",
            ..Label::default()
        };
        assert_eq!(
            label.replaced(PROCESS, FILE),
            (
                "system_u:system_r:web_t:s0:c1,c2".to_owned(),
                "system_u:object_r:container_file_t:s0:c1,c2".to_owned()
            )
        );
        let label = Label {
            user: "u",
            role: "r",
            ..Label::default()
        };
        assert_eq!(label.replaced(PROCESS, FILE).0, "u:r:container_t:s0");
        assert_eq!(label.replaced(PROCESS, FILE).1, FILE);
        assert_eq!(Label::default().labels(), None);
    }

    #[test]
    fn a_policys_labels_are_read_as_it_writes_them() {
        let text = "process = \"system_u:system_r:container_t:s0\"\ncontent = \"x\"\nfile = \"a:b:c:s0\"\n";
        assert_eq!(value(text, "file"), Some("a:b:c:s0"));
        assert_eq!(
            value("# a\nSELINUXTYPE=targeted\n", "SELINUXTYPE"),
            Some("targeted")
        );
    }
}
