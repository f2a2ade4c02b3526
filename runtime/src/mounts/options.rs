//! The options of one mount: fstab words on one side, attributes of a mount, flags of a superblock and data for the
//! file system on the other. The words are those that runc knows; every other word is data that only the file
//! system can judge. Pure.

use libc::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_RELATIME,
    MOUNT_ATTR_STRICTATIME, MS_PRIVATE, MS_SHARED, MS_SLAVE, MS_UNBINDABLE,
};

use crate::sys::mount::Attributes;

/// More words than any caller has a use for.
const WORDS_MAX: usize = 4096;

/// A change of propagation, in the order in which the options name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Propagation {
    pub(crate) kind: u64,
    pub(crate) recursive: bool,
}

/// A parameter for the file system: `mode=755`, or the bare word `newinstance`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameter {
    pub(crate) key: String,
    pub(crate) value: Option<String>,
}

/// Whether files are shown with other owners, and on the mounts below too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdMap {
    Top,
    Recursive,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// For the mount itself.
    pub(crate) attributes: Attributes,
    /// For the mount and all below it (`rro` and the like).
    pub(crate) recursive: Attributes,
    pub(crate) propagation: Vec<Propagation>,
    /// `bind` or `rbind` was asked for; with `rbind` the mounts below come along.
    pub(crate) bind: bool,
    pub(crate) bind_recursive: bool,
    pub(crate) remount: bool,
    /// Words that each superblock understands: `sync`, `dirsync`, `mand`, `lazytime`, `silent`.
    pub(crate) superblock: Vec<&'static str>,
    pub(crate) data: Vec<Parameter>,
    /// Fill a new tmpfs with what it hides.
    pub(crate) copy_up: bool,
    pub(crate) idmap: Option<IdMap>,
}

impl Options {
    /// Reads the words in order; a later one wins over an earlier one. The error is the rule that a word breaks.
    pub(crate) fn parse<S: AsRef<str>>(words: &[S]) -> Result<Self, String> {
        if words.len() > WORDS_MAX {
            return Err(format!("has {} options, more than {WORDS_MAX}", words.len()));
        }
        let mut options = Self::default();
        for word in words {
            options.word(word.as_ref())?;
        }
        Ok(options)
    }

    pub(crate) fn read_only(&self) -> bool {
        self.attributes.set & MOUNT_ATTR_RDONLY != 0
    }

    fn word(&mut self, word: &str) -> Result<(), String> {
        if word.contains('\0') {
            return Err("contains a NUL byte".into());
        }
        if let Some((kind, recursive)) = propagation(word) {
            self.propagation.push(Propagation { kind, recursive });
            return Ok(());
        }
        if let Some((bits, on)) = attribute(word) {
            if chooses_access_time(bits) && !on {
                take_back(&mut self.attributes, bits);
            } else {
                change(&mut self.attributes, bits, on);
            }
            return Ok(());
        }
        if let Some((bits, on)) = word.strip_prefix('r').and_then(attribute) {
            change(&mut self.recursive, bits, on);
            return Ok(());
        }
        match word {
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.bind_recursive) = (true, true),
            "remount" => self.remount = true,
            "sync" => self.superblock("sync", true),
            "async" => self.superblock("sync", false),
            "dirsync" => self.superblock("dirsync", true),
            "mand" => self.superblock("mand", true),
            "nomand" => self.superblock("mand", false),
            "lazytime" => self.superblock("lazytime", true),
            "nolazytime" => self.superblock("lazytime", false),
            // The last four change what the kernel prints or no longer change anything; fsconfig does not know them.
            "" | "defaults" | "silent" | "loud" | "iversion" | "noiversion" => {}
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.idmap = Some(IdMap::Top),
            "ridmap" => self.idmap = Some(IdMap::Recursive),
            other => self.data.push(parameter(other)?),
        }
        Ok(())
    }

    fn superblock(&mut self, word: &'static str, on: bool) {
        self.superblock.retain(|have| *have != word);
        if on {
            self.superblock.push(word);
        }
    }

    /// The data as mount(2) takes it.
    pub(crate) fn data_line(&self) -> String {
        let words: Vec<String> = self.data.iter().map(Parameter::to_string).collect();
        words.join(",")
    }
}

impl std::fmt::Display for Parameter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}", self.key),
            None => f.write_str(&self.key),
        }
    }
}

fn propagation(word: &str) -> Option<(u64, bool)> {
    let (name, recursive) = match word.strip_prefix('r') {
        Some(name @ ("private" | "shared" | "slave" | "unbindable")) => (name, true),
        _ => (word, false),
    };
    let kind = match name {
        "private" => MS_PRIVATE,
        "shared" => MS_SHARED,
        "slave" => MS_SLAVE,
        "unbindable" => MS_UNBINDABLE,
        _ => return None,
    };
    Some((kind, recursive))
}

/// The attribute bits of a word and whether it sets or clears them.
fn attribute(word: &str) -> Option<(u64, bool)> {
    Some(match word {
        "ro" => (MOUNT_ATTR_RDONLY, true),
        "rw" => (MOUNT_ATTR_RDONLY, false),
        "nosuid" => (MOUNT_ATTR_NOSUID, true),
        "suid" => (MOUNT_ATTR_NOSUID, false),
        "nodev" => (MOUNT_ATTR_NODEV, true),
        "dev" => (MOUNT_ATTR_NODEV, false),
        "noexec" => (MOUNT_ATTR_NOEXEC, true),
        "exec" => (MOUNT_ATTR_NOEXEC, false),
        "nodiratime" => (MOUNT_ATTR_NODIRATIME, true),
        "diratime" => (MOUNT_ATTR_NODIRATIME, false),
        "nosymfollow" => (MOUNT_ATTR_NOSYMFOLLOW, true),
        "symfollow" => (MOUNT_ATTR_NOSYMFOLLOW, false),
        "noatime" => (MOUNT_ATTR_NOATIME, true),
        "atime" => (MOUNT_ATTR_NOATIME, false),
        "strictatime" => (MOUNT_ATTR_STRICTATIME, true),
        "nostrictatime" => (MOUNT_ATTR_STRICTATIME, false),
        "relatime" => (MOUNT_ATTR_RELATIME, true),
        "norelatime" => (MOUNT_ATTR_RELATIME, false),
        _ => return None,
    })
}

/// A choice that is taken back is none: a bind keeps that of its source, and a new file system has the kernel's default.
fn take_back(attributes: &mut Attributes, choice: u64) {
    let chosen = attributes.clear & MOUNT_ATTR__ATIME != 0 && attributes.set & MOUNT_ATTR__ATIME == choice;
    if chosen {
        attributes.set &= !MOUNT_ATTR__ATIME;
        attributes.clear &= !MOUNT_ATTR__ATIME;
    }
}

fn chooses_access_time(bits: u64) -> bool {
    bits & MOUNT_ATTR__ATIME != 0 || bits == MOUNT_ATTR_RELATIME
}

/// Access times are one choice of three and not bits: the kernel wants the whole field cleared when one is chosen.
/// What takes a choice back on all mounts below (`ratime`, `rnostrictatime`) falls back to `relatime`, the kernel's
/// default.
fn change(attributes: &mut Attributes, bits: u64, on: bool) {
    if chooses_access_time(bits) {
        let chosen = attributes.set & MOUNT_ATTR__ATIME;
        attributes.clear |= MOUNT_ATTR__ATIME;
        if on {
            attributes.set = attributes.set & !MOUNT_ATTR__ATIME | bits;
        } else if chosen == bits {
            attributes.set &= !MOUNT_ATTR__ATIME;
        }
    } else if on {
        attributes.set |= bits;
        attributes.clear &= !bits;
    } else {
        attributes.set &= !bits;
        attributes.clear |= bits;
    }
}

fn parameter(word: &str) -> Result<Parameter, String> {
    match word.split_once('=') {
        Some(("", _)) => Err(format!("the option {word:?} has no name before its '='")),
        Some((key, value)) => Ok(Parameter {
            key: key.into(),
            value: Some(value.into()),
        }),
        None => Ok(Parameter {
            key: word.into(),
            value: None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Options {
        Options::parse(words).unwrap()
    }

    #[test]
    fn a_later_word_wins() {
        let options = parse(&["ro", "rw", "suid", "nosuid"]);
        assert_eq!(options.attributes.set, MOUNT_ATTR_NOSUID);
        assert_eq!(options.attributes.clear, MOUNT_ATTR_RDONLY);
        assert_eq!(parse(&["sync", "async", "dirsync"]).superblock, ["dirsync"]);
    }

    #[test]
    fn access_time_is_one_choice() {
        let options = parse(&["noatime", "strictatime"]);
        assert_eq!(options.attributes.set, MOUNT_ATTR_STRICTATIME);
        assert_eq!(options.attributes.clear, MOUNT_ATTR__ATIME);
        let options = parse(&["noatime", "nostrictatime"]);
        assert_eq!(options.attributes.set, MOUNT_ATTR_NOATIME);
        let options = parse(&["noatime", "atime", "nodiratime"]);
        assert_eq!(options.attributes.set, MOUNT_ATTR_NODIRATIME);
        assert_eq!(options.attributes.clear, 0);
    }

    #[test]
    fn a_bind_keeps_the_access_times_of_its_source_until_others_are_chosen() {
        for words in [
            &["atime"][..],
            &["nostrictatime"],
            &["norelatime"],
            &["noatime", "atime"],
        ] {
            assert_eq!(parse(words).attributes.clear & MOUNT_ATTR__ATIME, 0, "{words:?}");
        }
        assert_eq!(parse(&["relatime"]).attributes.clear, MOUNT_ATTR__ATIME);
    }

    #[test]
    fn recursive_attributes_stand_apart() {
        let options = parse(&["rbind", "rro", "rnosuid", "rrelatime", "noexec"]);
        assert!(options.bind && options.bind_recursive);
        assert_eq!(options.attributes.set, MOUNT_ATTR_NOEXEC);
        assert_eq!(options.recursive.set, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID);
        assert_eq!(options.recursive.clear, MOUNT_ATTR__ATIME);
        assert!(!options.read_only());
    }

    #[test]
    fn propagation_keeps_its_order() {
        let options = parse(&["rslave", "shared"]);
        assert_eq!(
            options.propagation,
            [
                Propagation {
                    kind: MS_SLAVE,
                    recursive: true
                },
                Propagation {
                    kind: MS_SHARED,
                    recursive: false
                },
            ]
        );
    }

    #[test]
    fn what_is_not_known_is_data() {
        let options = parse(&[
            "mode=755",
            "newinstance",
            "size=",
            "context=\"a:b,c\"",
            "tmpcopyup",
        ]);
        assert_eq!(
            options.data_line(),
            "mode=755,newinstance,size=,context=\"a:b,c\""
        );
        assert!(options.copy_up);
        assert_eq!(parse(&["roo", "rbindx"]).data_line(), "roo,rbindx");
    }

    #[test]
    fn broken_words_are_told() {
        assert!(Options::parse(&["=x"]).unwrap_err().contains("no name"));
        assert!(Options::parse(&["a\0b"]).unwrap_err().contains("NUL"));
        assert!(
            Options::parse(&vec!["ro"; WORDS_MAX + 1])
                .unwrap_err()
                .contains("more than")
        );
    }
}
