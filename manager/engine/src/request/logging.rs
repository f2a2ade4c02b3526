//! Where a container's output is kept and sent: docker's logging drivers and their options. Read to the end before
//! anything is made, so that a container whose logging is on record has a plan.

use std::collections::BTreeMap;

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::log_tag::Tag;
use crate::Error;
use crate::logs::syslog;

/// The drivers there are.
pub const LOG_DRIVERS: [&str; 5] = ["json-file", "local", "none", "journald", "syslog"];

const FIELD: &str = "log_driver";
const JSON_FILE: &str = "json-file";
/// What docker's `local` driver has where nothing else is said, and so the copy that is kept of what goes elsewhere.
const LOCAL_SIZE_BYTES: u64 = 20 << 20;
const LOCAL_FILES: u32 = 5;
/// For a slow receiver, where waiting was not wanted.
const BUFFER_BYTES: u64 = 1_000_000;
/// As the shim has it.
const FILES_MAX: u32 = 1000;

const FOR_ALL: [&str; 2] = ["mode", "max-buffer-size"];
const OF_FILES: [&str; 3] = ["max-size", "max-file", "compress"];
const OF_COPIES: [&str; 4] = [
    "cache-disabled",
    "cache-max-size",
    "cache-max-file",
    "cache-compress",
];
const OF_ATTRIBUTES: [&str; 5] = ["labels", "labels-regex", "env", "env-regex", "tag"];
const OF_SYSLOG: [&str; 3] = ["syslog-address", "syslog-facility", "syslog-format"];
const OF_TLS: [&str; 4] = [
    "syslog-tls-ca-cert",
    "syslog-tls-cert",
    "syslog-tls-key",
    "syslog-tls-skip-verify",
];

/// A logging driver and its options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Logging {
    /// Empty: the manager's default, and on record from before there was a choice `json-file`.
    pub driver: String,
    /// As docker has them.
    pub options: BTreeMap<String, String>,
}

/// What the options say.
pub(crate) struct Plan {
    pub(crate) file: FilePlan,
    pub(crate) receiver: Option<ReceiverPlan>,
    pub(crate) selection: Selection,
    pub(crate) tag: Option<Tag>,
}

#[derive(Clone, Copy)]
pub(crate) struct FilePlan {
    /// False: there is nothing to be read later.
    pub(crate) kept: bool,
    pub(crate) size_bytes_max: Option<u64>,
    /// Together with the current one.
    pub(crate) files_max: u32,
    /// Pack the others.
    pub(crate) compress: bool,
}

pub(crate) struct ReceiverPlan {
    pub(crate) kind: ReceiverKind,
    /// None: the container waits for it.
    pub(crate) buffer_bytes: Option<u64>,
}

pub(crate) enum ReceiverKind {
    Journald,
    Syslog(syslog::Settings),
}

/// Which labels and variables records have with them.
#[derive(Default)]
pub(crate) struct Selection {
    pub(crate) labels: Vec<String>,
    pub(crate) labels_regex: Option<Regex>,
    pub(crate) env: Vec<String>,
    pub(crate) env_regex: Option<Regex>,
}

impl Selection {
    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty()
            && self.labels_regex.is_none()
            && self.env.is_empty()
            && self.env_regex.is_none()
    }
}

impl Logging {
    /// The driver by its name.
    pub fn name(&self) -> &str {
        if self.driver.is_empty() {
            JSON_FILE
        } else {
            &self.driver
        }
    }

    /// Whether the driver is there, and the options are its own and have values that they can have.
    pub fn check(&self) -> Result<(), Error> {
        self.plan().map(drop)
    }

    /// What was left out is as `defaults` have it: the driver, and of the same driver the options.
    pub(crate) fn or(mut self, defaults: &Logging) -> Logging {
        if self.driver.is_empty() {
            defaults.name().clone_into(&mut self.driver);
        }
        if self.driver == defaults.name() {
            for (name, value) in &defaults.options {
                self.options.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        self
    }

    /// Whether rotated files are to be packed.
    pub(crate) fn packs(&self) -> bool {
        self.plan().is_ok_and(|plan| plan.file.compress)
    }

    pub(crate) fn plan(&self) -> Result<Plan, Error> {
        self.check_names()?;
        let buffer_bytes = self.buffer_bytes()?;
        let receiver = match self.name() {
            "journald" => Some(ReceiverKind::Journald),
            "syslog" => Some(ReceiverKind::Syslog(syslog::Settings::of(&self.options)?)),
            _ => None,
        };
        Ok(Plan {
            file: self.file_plan()?,
            receiver: receiver.map(|kind| ReceiverPlan { kind, buffer_bytes }),
            selection: self.selection()?,
            tag: self.text("tag").map(Tag::parse).transpose()?,
        })
    }

    fn check_names(&self) -> Result<(), Error> {
        let driver = self.name();
        let known: Vec<&str> = match driver {
            "none" if self.options.is_empty() => return Ok(()),
            "none" => return Err(invalid("invalid logging opts for driver none: it has none")),
            JSON_FILE => [&OF_FILES[..], &OF_ATTRIBUTES].concat(),
            "local" => OF_FILES.to_vec(),
            "journald" => [&OF_ATTRIBUTES[..], &OF_COPIES].concat(),
            "syslog" => [&OF_SYSLOG[..], &OF_ATTRIBUTES, &OF_COPIES].concat(),
            other => {
                let there = LOG_DRIVERS.join(", ");
                return Err(invalid(format!(
                    "no log driver named '{other}' is registered; there are {there}"
                )));
            }
        };
        let known = [&known[..], &FOR_ALL].concat();
        for name in self.options.keys().map(String::as_str) {
            if driver == "syslog" && OF_TLS.contains(&name) {
                return Err(invalid(format!(
                    "{name}: this version does not speak TLS with syslog servers: have a syslog server of this machine forward to them"
                )));
            }
            if !known.contains(&name) {
                let known = known.join(", ");
                return Err(invalid(format!(
                    "unknown log opt '{name}' for {driver} log driver; it has {known}"
                )));
            }
        }
        Ok(())
    }

    fn file_plan(&self) -> Result<FilePlan, Error> {
        let local = FilePlan {
            kept: true,
            size_bytes_max: Some(LOCAL_SIZE_BYTES),
            files_max: LOCAL_FILES,
            compress: true,
        };
        match self.name() {
            "none" => Ok(FilePlan::unkept()),
            "local" => self.files("", local),
            JSON_FILE => {
                let unbounded = FilePlan {
                    size_bytes_max: None,
                    files_max: 1,
                    compress: false,
                    ..local
                };
                let plan = self.files("", unbounded)?;
                if plan.compress && (plan.files_max < 2 || plan.size_bytes_max.is_none()) {
                    return Err(invalid(
                        "compress cannot be true when max-file is less than 2 or max-size is not set",
                    ));
                }
                Ok(plan)
            }
            _ if self.flag("cache-disabled")?.unwrap_or(false) => Ok(FilePlan::unkept()),
            _ => self.files("cache-", local),
        }
    }

    fn files(&self, prefix: &str, default: FilePlan) -> Result<FilePlan, Error> {
        let (size, count, compress) = (
            format!("{prefix}max-size"),
            format!("{prefix}max-file"),
            format!("{prefix}compress"),
        );
        let size_bytes_max =
            match self.text(&size) {
                None => default.size_bytes_max,
                Some(text) => Some(size_in_bytes(text, 1000).filter(|bytes| *bytes > 0).ok_or_else(
                    || {
                        invalid(format!(
                            "{size} must be a positive number of bytes, as 10m, and not {text:?}"
                        ))
                    },
                )?),
            };
        let files_max = match self.text(&count) {
            None => default.files_max,
            Some(text) => match text.parse() {
                Ok(0) => return Err(invalid(format!("{count} cannot be less than 1"))),
                Ok(count) if count <= FILES_MAX => count,
                _ => {
                    return Err(invalid(format!(
                        "{count} must be a number from 1 to {FILES_MAX}, and not {text:?}"
                    )));
                }
            },
        };
        Ok(FilePlan {
            kept: true,
            size_bytes_max,
            files_max,
            // One file has no others.
            compress: self.flag(&compress)?.unwrap_or(default.compress && files_max > 1),
        })
    }

    fn buffer_bytes(&self) -> Result<Option<u64>, Error> {
        let wanted = match self.text("mode").unwrap_or_default() {
            "" | "blocking" => false,
            "non-blocking" => true,
            other => return Err(invalid(format!("logging mode not supported: {other}"))),
        };
        match self.text("max-buffer-size") {
            None => Ok(wanted.then_some(BUFFER_BYTES)),
            Some(_) if !wanted => Err(invalid(
                "max-buffer-size option is only supported with 'mode=non-blocking'",
            )),
            Some(text) => match size_in_bytes(text, 1024) {
                Some(bytes) => Ok(Some(bytes)),
                None => Err(invalid(format!(
                    "error parsing option max-buffer-size: {text:?} is no number of bytes, as 4m"
                ))),
            },
        }
    }

    fn selection(&self) -> Result<Selection, Error> {
        let list = |name: &str| {
            let names = self.text(name).unwrap_or_default().split(',').map(str::trim);
            names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
        };
        let pattern = |name: &str| {
            let pattern = self.text(name).map(Regex::new).transpose();
            pattern.map_err(|error| invalid(format!("{name}: {error}")))
        };
        Ok(Selection {
            labels: list("labels"),
            labels_regex: pattern("labels-regex")?,
            env: list("env"),
            env_regex: pattern("env-regex")?,
        })
    }

    /// An option that has a value.
    fn text(&self, name: &str) -> Option<&str> {
        let value = self.options.get(name).map(String::as_str);
        value.filter(|value| !value.is_empty())
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, Error> {
        match self.text(name) {
            None => Ok(None),
            // As Go's ParseBool reads them.
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
            Some(other) => Err(invalid(format!(
                "{name} must be true or false, and not {other:?}"
            ))),
        }
    }
}

impl FilePlan {
    /// Bounded for a client that attaches: what it has taken goes.
    fn unkept() -> FilePlan {
        FilePlan {
            kept: false,
            size_bytes_max: Some(8 << 20),
            files_max: 1,
            compress: false,
        }
    }
}

pub(super) fn invalid(rule: impl Into<String>) -> Error {
    Error::invalid(FIELD, rule)
}

/// `10`, `10k`, `1.5MB`, `2GiB`, as docker reads sizes of memory: in units of 1024. None: it is no size.
pub fn memory_in_bytes(text: &str) -> Option<u64> {
    size_in_bytes(text, 1024)
}

/// `10`, `10k`, `1.5MB`, `2GiB`, as docker reads sizes.
fn size_in_bytes(text: &str, unit: u64) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let (number, rest) = text.split_at(digits.unwrap_or(text.len()));
    let rest = rest.trim_start();
    let letter = rest.trim_end_matches('b');
    let letter = letter.strip_suffix('i').unwrap_or(letter);
    if rest.len() - letter.len() > 2 || rest == "i" {
        return None;
    }
    let power = match letter {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let factor = unit.pow(power);
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a fraction of a size is not exact in the first place, and never negative"
    )]
    let bytes = number
        .parse::<f64>()
        .ok()
        .map(|number| (number * factor as f64) as u64);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logging(driver: &str, options: &[(&str, &str)]) -> Logging {
        Logging {
            driver: driver.to_owned(),
            options: options
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        }
    }

    #[test]
    fn each_driver_has_dockers_bounds() {
        let plan = |driver, options: &[_]| {
            let file = logging(driver, options).plan().unwrap().file;
            (file.kept, file.size_bytes_max, file.files_max, file.compress)
        };
        assert_eq!(plan("", &[]), (true, None, 1, false));
        assert_eq!(plan("local", &[]), (true, Some(20 << 20), 5, true));
        assert_eq!(plan("journald", &[]), (true, Some(20 << 20), 5, true));
        assert!(!plan("none", &[]).0);
        assert!(!plan("syslog", &[("cache-disabled", "true")]).0);
        let options = [("max-size", "10k"), ("max-file", "3"), ("compress", "true")];
        assert_eq!(plan("json-file", &options), (true, Some(10_000), 3, true));
        let options = [("cache-max-size", "1m"), ("cache-max-file", "1")];
        assert_eq!(plan("syslog", &options), (true, Some(1_000_000), 1, false));
    }

    #[test]
    fn what_a_driver_does_not_have_is_refused_by_what_it_has() {
        for (driver, option, value, why) in [
            (
                "json-file",
                "max-sise",
                "1m",
                "unknown log opt 'max-sise' for json-file log driver; it has max-size,",
            ),
            ("local", "tag", "x", "unknown log opt 'tag' for local log driver"),
            (
                "gelf",
                "tag",
                "x",
                "no log driver named 'gelf' is registered; there are json-file,",
            ),
            ("none", "max-size", "1m", "invalid logging opts for driver none"),
            ("json-file", "max-size", "0", "max-size must be a positive number"),
            (
                "json-file",
                "max-size",
                "1x",
                "max-size must be a positive number",
            ),
            ("json-file", "max-file", "0", "max-file cannot be less than 1"),
            ("json-file", "compress", "true", "compress cannot be true when"),
            ("json-file", "mode", "async", "logging mode not supported: async"),
            (
                "json-file",
                "max-buffer-size",
                "1m",
                "only supported with 'mode=non-blocking'",
            ),
            ("json-file", "labels-regex", "(", "labels-regex"),
            ("json-file", "tag", "{{.Nome}}", ".Name"),
            ("syslog", "syslog-facility", "x", "syslog-facility"),
            ("syslog", "syslog-format", "x", "syslog-format"),
            ("syslog", "syslog-address", "http://x", "unsupported scheme"),
            ("syslog", "syslog-address", "tcp+tls://x:1", "TLS"),
            ("syslog", "syslog-tls-key", "/k", "TLS"),
        ] {
            let error = logging(driver, &[(option, value)])
                .check()
                .unwrap_err()
                .to_string();
            assert!(error.contains(why), "{driver} {option}={value}: {error}");
        }
    }

    #[test]
    fn defaults_are_for_the_same_driver() {
        let defaults = logging("json-file", &[("max-size", "1m"), ("tag", "d")]);
        let merged = logging("", &[("tag", "own")]).or(&defaults);
        assert_eq!(
            merged,
            logging("json-file", &[("max-size", "1m"), ("tag", "own")])
        );
        assert_eq!(logging("none", &[]).or(&defaults), logging("none", &[]));
    }

    #[test]
    fn sizes_are_read_as_docker_does() {
        for (text, bytes) in [
            ("10", Some(10)),
            ("10b", Some(10)),
            ("10k", Some(10_000)),
            ("1.5MB", Some(1_500_000)),
            ("2 GiB", Some(2_000_000_000)),
            ("", None),
            ("k", None),
            ("-1", None),
            ("1kk", None),
            ("99999999999999999999", Some(u64::MAX)),
        ] {
            assert_eq!(size_in_bytes(text, 1000), bytes, "{text}");
        }
    }
}
