//! One value for one file of a cgroup, and how a list of them is carried out: in an order that the kernel accepts,
//! with the old values kept, so that a change which is refused halfway can be taken back whole.

use std::fmt::Display;
use std::io;

use nix::errno::Errno;

use super::dir::{Dir, is, is_gone};
use crate::error::{Context, Error, Result};

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Setting {
    /// The field of config.json that asks for it, for errors.
    pub(super) field: String,
    pub(super) file: String,
    pub(super) value: String,
    /// Another file and value with the same meaning, taken where the first file does not exist.
    pub(super) otherwise: Option<(String, String)>,
    /// The kernel that lacks the file already behaves as asked.
    pub(super) optional: bool,
    pub(super) undo: Undo,
}

/// How the text that is read from a file becomes the text that restores it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Undo {
    /// The same text.
    Whole,
    /// The line that begins with this key; if there is none, the text that stands for "no rule".
    Line { key: String, none: String },
    /// The value behind this key.
    Value { key: &'static str },
}

impl Setting {
    /// `field` is relative to `linux.resources`.
    pub(super) fn new(field: impl AsRef<str>, file: impl Into<String>, value: impl Display) -> Self {
        Self {
            field: format!("linux.resources.{}", field.as_ref()),
            file: file.into(),
            value: value.to_string(),
            otherwise: None,
            optional: false,
            undo: Undo::Whole,
        }
    }

    pub(super) fn or(mut self, file: impl Into<String>, value: impl Display) -> Self {
        self.otherwise = Some((file.into(), value.to_string()));
        self
    }

    pub(super) fn optional(mut self, optional: bool) -> Self {
        self.optional = optional;
        self
    }

    /// For files with one line a device or interface.
    pub(super) fn keyed(mut self, key: impl Into<String>, none: impl Into<String>) -> Self {
        self.undo = Undo::Line {
            key: key.into(),
            none: none.into(),
        };
        self
    }

    pub(super) fn valued(mut self, key: &'static str) -> Self {
        self.undo = Undo::Value { key };
        self
    }

    /// Writes; with `old`, notes what restores the former state.
    fn write(&self, dir: &Dir, mut old: Option<&mut Vec<Old>>) -> io::Result<()> {
        let first = (&self.file, &self.value);
        let second = self.otherwise.as_ref().map(|(file, value)| (file, value));
        let mut result = Ok(());
        for (file, value) in std::iter::once(first).chain(second) {
            let former = match &old {
                Some(_) => dir.read(file).ok().and_then(|text| self.undo.text(&text)),
                None => None,
            };
            result = dir.write(file, value);
            match &result {
                Ok(()) => {
                    if let (Some(old), Some(value)) = (old.as_deref_mut(), former) {
                        old.push(Old {
                            file: file.clone(),
                            value,
                        });
                    }
                    break;
                }
                Err(error) if is(error, Errno::ENOENT) => {}
                Err(_) => break,
            }
        }
        match result {
            Err(error) if self.optional && is(&error, Errno::ENOENT) => Ok(()),
            result => result,
        }
    }

    fn refused(&self, dir: &Dir, error: &io::Error) -> Error {
        let file = dir.path().join(&self.file);
        if is(error, Errno::ENOENT) && is_there(dir) {
            let rule = format!("this kernel has no {} in {}", self.file, dir.path().display());
            return Error::spec(&self.field, rule);
        }
        let hint = if is(error, Errno::EBUSY) {
            usage_hint(dir)
        } else {
            String::new()
        };
        let rule = format!(
            "the kernel refuses {:?} in {}: {error}{hint}",
            self.value,
            file.display()
        );
        Error::spec(&self.field, rule)
    }
}

impl Undo {
    fn text(&self, read: &str) -> Option<String> {
        match self {
            Self::Whole => Some(read.trim_end_matches('\n').to_owned()),
            Self::Line { key, none } => {
                let found = read.lines().find(|line| line.split(' ').next() == Some(key));
                Some(found.unwrap_or(none).to_owned())
            }
            Self::Value { key } => {
                let mut lines = read.lines();
                lines
                    .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
                    .map(str::to_owned)
            }
        }
    }
}

fn is_there(dir: &Dir) -> bool {
    dir.read("cgroup.procs").is_ok() || dir.path().exists()
}

/// EBUSY on a memory limit means that more is in use than can be reclaimed.
fn usage_hint(dir: &Dir) -> String {
    match dir.read("memory.usage_in_bytes") {
        Ok(usage) => format!(" ({} bytes are in use)", usage.trim_end()),
        Err(_) => String::new(),
    }
}

#[derive(Debug)]
pub(super) struct Old {
    file: String,
    value: String,
}

/// Writes all settings of one controller. Limits depend on each other (memory ≤ memory+swap, quota/period ≤ the
/// parent's, burst ≤ quota), and which of two may be written first depends on what was there before. So what is
/// refused with EINVAL is tried again after the others, as long as that gets further.
pub(super) fn apply(dir: &Dir, settings: &[&Setting], mut old: Option<&mut Vec<Old>>) -> Result<()> {
    let mut pending: Vec<&Setting> = settings.to_vec();
    loop {
        let before = pending.len();
        let mut refused = Vec::new();
        let mut reason = None;
        for setting in pending {
            match setting.write(dir, old.as_deref_mut()) {
                Ok(()) => {}
                Err(error) if is(&error, Errno::EINVAL) => {
                    reason.get_or_insert((setting, error));
                    refused.push(setting);
                }
                Err(error) => return Err(setting.refused(dir, &error)),
            }
        }
        let Some((setting, error)) = reason else {
            return Ok(());
        };
        if refused.len() == before {
            return Err(setting.refused(dir, &error));
        }
        pending = refused;
    }
}

/// Takes back what [`apply`] noted, latest first: each step returns to a state that the kernel had accepted.
pub(super) fn restore(dir: &Dir, old: Vec<Old>) -> Result<()> {
    let mut result = Ok(());
    for Old { file, value } in old.into_iter().rev() {
        match dir.write(&file, &value) {
            Err(error) if !is_gone(&error) => {
                let what = || format!("restore {value:?} in {}", dir.path().join(&file).display());
                result = result.and(Err(error).context(what));
            }
            _ => {}
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(file: &str, value: &str) -> Setting {
        Setting::new("memory.limit", file, value)
    }

    #[test]
    fn the_second_name_of_a_file_is_taken_where_the_first_is_missing() {
        let path = super::super::tests::scratch("second-name");
        std::fs::write(path.join("blkio.bfq.weight"), "100\n").unwrap();
        let dir = Dir::open(&path).unwrap();
        let weight = setting("blkio.weight", "500").or("blkio.bfq.weight", 500);
        let mut old = Vec::new();
        apply(&dir, &[&weight], Some(&mut old)).unwrap();
        assert_eq!(dir.read("blkio.bfq.weight").unwrap(), "500");
        restore(&dir, old).unwrap();
        assert_eq!(dir.read("blkio.bfq.weight").unwrap(), "100");
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_missing_file_is_refused_by_field_unless_optional() {
        let path = super::super::tests::scratch("missing");
        let dir = Dir::open(&path).unwrap();
        let missing = setting("memory.none", "1");
        let error = apply(&dir, &[&missing], None).unwrap_err().to_string();
        assert!(
            error.starts_with("config.json: linux.resources.memory.limit: this kernel has no"),
            "{error}"
        );
        apply(&dir, &[&missing.optional(true)], None).unwrap();
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn old_text_of_keyed_files() {
        let line = Undo::Line {
            key: "8:0".into(),
            none: "8:0 rbps=max".into(),
        };
        assert_eq!(
            line.text("7:0 rbps=1\n8:0 rbps=5 wbps=max\n").unwrap(),
            "8:0 rbps=5 wbps=max"
        );
        assert_eq!(line.text("").unwrap(), "8:0 rbps=max");
        let value = Undo::Value {
            key: "oom_kill_disable",
        };
        assert_eq!(value.text("oom_kill_disable 1\nunder_oom 0\n").unwrap(), "1");
    }
}
