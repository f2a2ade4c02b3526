//! What a check can find, and how it is told.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Something in the store that is not as it should be.
#[derive(Debug)]
pub enum Finding {
    /// Content that is not what its digest says.
    Blob {
        /// An image that needs it; nothing if none does.
        image: Option<String>,
        /// The digest.
        digest: String,
        /// What is wrong with it.
        fault: Fault,
    },
    /// An unpacked layer as a whole.
    Layer {
        /// An image that has it.
        image: String,
        /// Its diffID.
        layer: String,
        /// What is wrong with it.
        fault: Fault,
    },
    /// One file, folder or the like of an unpacked layer.
    File {
        /// An image that has it.
        image: String,
        /// The layer's diffID.
        layer: String,
        /// From the layer's root, without a leading slash; empty for the root.
        path: Vec<u8>,
        /// All that differs from what the layer says.
        differences: Vec<Difference>,
    },
    /// A record of the database that contradicts the content.
    Record {
        /// The image, or nothing if it is the database itself.
        image: Option<String>,
        /// What is wrong with it.
        rule: String,
    },
    /// A file or folder that nothing needs and nobody makes.
    Leftover {
        /// Where it is.
        path: PathBuf,
    },
}

/// What is wrong with content or a layer.
#[derive(Debug)]
pub enum Fault {
    /// It is not there.
    Missing,
    /// It has this digest.
    Content(String),
    /// It cannot be read.
    Unreadable(io::Error),
    /// It cannot be unpacked, or is not the layer that the image's config says.
    Refused(String),
}

/// How a file differs from what its layer says: first that, then what was found.
#[derive(Debug)]
pub enum Difference {
    /// It is not there.
    Missing,
    /// The layer has no such file.
    Extra,
    /// It is of another kind.
    Kind(&'static str, &'static str),
    /// Permissions.
    Mode(u32, u32),
    /// User and group.
    Owner((u32, u32), (u32, u32)),
    /// The time of its last modification, in seconds and nanoseconds.
    Modified((i64, u32), (i64, u32)),
    /// Size in bytes.
    Size(u64, u64),
    /// The offset of the first byte that is another.
    Content(u64),
    /// Where a symbolic link leads.
    Target(Vec<u8>, Vec<u8>),
    /// Major and minor number of a device.
    Device((u32, u32), (u32, u32)),
    /// An extended attribute with another value, one too many or one too few.
    Xattr(Vec<u8>),
    /// How many names the file has.
    LinkCount(u64, u64),
    /// It is not one file with those that the layer links it to.
    Links,
    /// It cannot be read.
    Unreadable(io::Error),
}

impl Finding {
    /// One word for what it is about.
    pub fn kind(&self) -> &'static str {
        match self {
            Finding::Blob { .. } => "blob",
            Finding::Layer { .. } => "layer",
            Finding::File { .. } => "file",
            Finding::Record { .. } => "record",
            Finding::Leftover { .. } => "leftover",
        }
    }

    /// What is the matter, without saying where.
    pub fn what(&self) -> String {
        match self {
            Finding::Blob { fault, .. } | Finding::Layer { fault, .. } => fault.to_string(),
            Finding::File { differences, .. } => {
                let all: Vec<String> = differences.iter().map(Difference::to_string).collect();
                all.join("; ")
            }
            Finding::Record { rule, .. } => rule.clone(),
            Finding::Leftover { .. } => "nothing needs it: the next start of the manager removes it".into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Missing => f.write_str("it is not there"),
            Fault::Content(digest) => write!(f, "the content's digest is {digest}"),
            Fault::Unreadable(error) => write!(f, "it cannot be read: {error}"),
            Fault::Refused(rule) => f.write_str(rule),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = String::from_utf8_lossy;
        match self {
            Difference::Missing => f.write_str("it is not there"),
            Difference::Extra => f.write_str("the layer has no such file"),
            Difference::Kind(wanted, found) => write!(f, "it is a {found}, not a {wanted}"),
            Difference::Mode(wanted, found) => write!(f, "its mode is {found:o}, not {wanted:o}"),
            Difference::Owner(wanted, found) => {
                write!(
                    f,
                    "its owner is {}:{}, not {}:{}",
                    found.0, found.1, wanted.0, wanted.1
                )
            }
            Difference::Modified(wanted, found) => {
                write!(f, "its time is {}, not {}", moment(*found), moment(*wanted))
            }
            Difference::Size(wanted, found) => write!(f, "it has {found} bytes, not {wanted}"),
            Difference::Content(offset) => write!(f, "its content differs from byte {offset} on"),
            Difference::Target(wanted, found) => {
                write!(f, "it leads to {:?}, not to {:?}", shown(found), shown(wanted))
            }
            Difference::Device(wanted, found) => {
                write!(
                    f,
                    "it is device {}:{}, not {}:{}",
                    found.0, found.1, wanted.0, wanted.1
                )
            }
            Difference::Xattr(name) => write!(f, "its extended attribute {:?} differs", shown(name)),
            Difference::LinkCount(wanted, found) => write!(f, "it has {found} names, not {wanted}"),
            Difference::Links => f.write_str("it is not linked to the files that the layer links it to"),
            Difference::Unreadable(error) => write!(f, "it cannot be read: {error}"),
        }
    }
}

/// As people read it, if it is a time that a calendar has.
fn moment((seconds, nanoseconds): (i64, u32)) -> String {
    let nanoseconds = i32::try_from(nanoseconds).unwrap_or(0);
    jiff::Timestamp::new(seconds, nanoseconds).map_or_else(|_| format!("@{seconds}"), |time| time.to_string())
}
