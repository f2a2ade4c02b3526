//! The URIs that name where a stream goes. Untrusted input: parsed here, fuzzed, and nothing is opened on the way.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::forward::{Format, ForwardSettings, Receiver};
use super::log::LogSettings;
use super::logger::LoggerUri;

#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// Nothing was asked for.
    Null,
    /// containerd's way: the path of a fifo, or of whatever lies there.
    Path(PathBuf),
    /// `file:///path`: append there.
    File(PathBuf),
    /// `binary:///path?args`: a process that reads the output.
    Logger(LoggerUri),
    /// `json-file:///path?settings`: the log that the shim writes itself, and what it sends to a receiver.
    ///
    /// | setting | |
    /// |---|---|
    /// | `max-size=BYTES`, `max-file=N` | rotate |
    /// | `attrs=JSON` | an object that each record has as `attrs` |
    /// | `keep=no` | write only while somebody has a lock on the file |
    /// | `to=unixgram:///PATH`, `unix:///PATH`, `udp://ADDRESS:PORT`, `tcp://ADDRESS:PORT` | send each line there too |
    /// | `format=journald`, `unix`, `rfc3164`, `rfc5424`, `rfc5424micro` | as what |
    /// | `facility=N`, `tag=TEXT` | for syslog |
    /// | `fields=LINES` | `NAME=VALUE`, each with a newline behind it, for journald |
    /// | `buffer=BYTES` | keep so much for a receiver that is slow, and lose what is more; else wait for it |
    Log(LogSettings, Option<Box<ForwardSettings>>),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("stream {0:?} is longer than {URI_BYTES_MAX} bytes")]
    TooLong(String),
    #[error("stream {uri:?} has the scheme {scheme:?}; known are a path, fifo, file, binary and json-file")]
    UnknownScheme { uri: String, scheme: String },
    #[error("stream {0:?} does not name an absolute path without NUL and without `..`")]
    BadPath(String),
    #[error("stream {uri:?} has a bad escape or is no query: {part:?}")]
    BadQuery { uri: String, part: String },
    #[error("stream {uri:?}: {key} must be {rule}")]
    BadValue {
        uri: String,
        key: &'static str,
        rule: &'static str,
    },
    #[error("stream {uri:?}: unknown setting {key:?}")]
    UnknownKey { uri: String, key: String },
}

const URI_BYTES_MAX: usize = 128 << 10;

impl Target {
    pub fn parse(uri: &str) -> Result<Self, TargetError> {
        if uri.is_empty() {
            return Ok(Target::Null);
        }
        if uri.len() > URI_BYTES_MAX {
            return Err(TargetError::TooLong(uri.chars().take(80).collect()));
        }
        let Some((scheme, rest)) = uri.split_once("://") else {
            return Ok(Target::Path(checked_path(uri, uri.into())?));
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = unescape(path).ok_or_else(|| TargetError::BadPath(uri.to_owned()))?;
        let path = checked_path(uri, OsString::from_vec(path).into())?;
        match scheme {
            "fifo" => Ok(Target::Path(path)),
            "file" => Ok(Target::File(path)),
            "binary" => Ok(Target::Logger(LoggerUri {
                path,
                arguments: query_pairs(uri, query)?,
            })),
            "json-file" => log_target(uri, path, query),
            _ => Err(TargetError::UnknownScheme {
                uri: uri.to_owned(),
                scheme: scheme.to_owned(),
            }),
        }
    }
}

fn checked_path(uri: &str, path: PathBuf) -> Result<PathBuf, TargetError> {
    let steps_up = path
        .components()
        .any(|part| part == std::path::Component::ParentDir);
    let has_nul = path.as_os_str().as_encoded_bytes().contains(&0);
    if !path.is_absolute() || path == Path::new("/") || steps_up || has_nul {
        return Err(TargetError::BadPath(uri.to_owned()));
    }
    Ok(path)
}

/// Percent-decoding. `None` for a `%` that two hexadecimal digits do not follow.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            decoded.push((digit()? << 4 | digit()?) as u8);
        } else {
            decoded.push(byte);
        }
    }
    Some(decoded)
}

fn query_pairs(uri: &str, query: &str) -> Result<Vec<(String, String)>, TargetError> {
    let decode = |part: &str| {
        unescape(&part.replace('+', " "))
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .filter(|text| !text.contains('\0'))
            .ok_or_else(|| TargetError::BadQuery {
                uri: uri.to_owned(),
                part: part.to_owned(),
            })
    };
    query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((decode(key)?, decode(value)?))
        })
        .collect()
}

fn log_target(uri: &str, path: PathBuf, query: &str) -> Result<Target, TargetError> {
    let mut log = LogSettings::new(path);
    let mut forward = ForwardSettings::default();
    let mut receiver = None;
    for (key, value) in query_pairs(uri, query)? {
        let bad = |key, rule| TargetError::BadValue {
            uri: uri.to_owned(),
            key,
            rule,
        };
        match key.as_str() {
            "max-size" => {
                let size = value.parse().ok().filter(|size| *size > 0);
                log.size_bytes_max = Some(size.ok_or_else(|| bad("max-size", "a number of bytes"))?);
            }
            "max-file" => {
                log.files_max = value
                    .parse()
                    .ok()
                    .filter(|count| (1..=LogSettings::FILES_MAX).contains(count))
                    .ok_or_else(|| bad("max-file", "a number from 1 to 1000"))?;
            }
            "attrs" => {
                let is_object = serde_json::from_str::<BTreeMap<String, String>>(&value).is_ok();
                log.attributes = Some(value)
                    .filter(|_| is_object)
                    .ok_or_else(|| bad("attrs", "a JSON object of strings"))?;
            }
            "keep" => {
                log.kept = match value.as_str() {
                    "yes" => true,
                    "no" => false,
                    _ => return Err(bad("keep", "yes or no")),
                }
            }
            "to" => {
                let parsed = Receiver::parse(&value);
                receiver = Some(parsed.ok_or_else(|| bad("to", Receiver::RULE))?);
            }
            "format" => {
                forward.format = Format::parse(&value).ok_or_else(|| bad("format", Format::RULE))?;
            }
            "facility" => {
                let facility = value.parse().ok().filter(|facility| *facility < 24);
                forward.facility = facility.ok_or_else(|| bad("facility", "a number from 0 to 23"))?;
            }
            "tag" => forward.tag = value,
            "fields" => forward.fields = value,
            "buffer" => {
                let size = value.parse().ok();
                forward.buffer_bytes = Some(size.ok_or_else(|| bad("buffer", "a number of bytes"))?);
            }
            _ => {
                return Err(TargetError::UnknownKey {
                    uri: uri.to_owned(),
                    key,
                });
            }
        }
    }
    let forward = receiver.map(|receiver| Box::new(ForwardSettings { receiver, ..forward }));
    Ok(Target::Log(log, forward))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_schemes_are_told_apart() {
        assert_eq!(Target::parse("").unwrap(), Target::Null);
        assert_eq!(Target::parse("/run/f").unwrap(), Target::Path("/run/f".into()));
        assert_eq!(
            Target::parse("fifo:///run/f").unwrap(),
            Target::Path("/run/f".into())
        );
        assert_eq!(
            Target::parse("file:///a%20b").unwrap(),
            Target::File("/a b".into())
        );
        let Target::Logger(uri) = Target::parse("binary:///bin/l?id=x&flag&k=a%26b").unwrap() else {
            panic!()
        };
        assert_eq!(uri.path, Path::new("/bin/l"));
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            uri.arguments,
            [pair("id", "x"), pair("flag", ""), pair("k", "a&b")]
        );
    }

    #[test]
    fn log_settings_are_read_with_their_bounds() {
        let parsed = Target::parse(
            "json-file:///l/log.json?max-size=10000&max-file=3&attrs=%7B%22a%22:%22b%22%7D&keep=no",
        );
        let Target::Log(settings, None) = parsed.unwrap() else {
            panic!()
        };
        assert_eq!(
            settings,
            LogSettings {
                path: "/l/log.json".into(),
                size_bytes_max: Some(10_000),
                files_max: 3,
                attributes: r#"{"a":"b"}"#.to_owned(),
                kept: false,
            }
        );
        for bad in [
            "max-size=0",
            "max-size=-1",
            "max-size=ten",
            "max-file=0",
            "max-file=1001",
            "attrs=1",
            "attrs=%7B%22a%22:1%7D",
            "keep=maybe",
            "to=unixgram://relative",
            "to=udp://name:514",
            "to=tcp://127.0.0.1",
            "format=json",
            "facility=24",
            "buffer=-1",
            "compress=1",
            "max-size=%",
        ] {
            assert!(Target::parse(&format!("json-file:///l?{bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_receiver_is_read_with_what_it_gets() {
        let parsed = Target::parse(
            "json-file:///l?to=udp://127.0.0.1:514&format=rfc3164&facility=3&tag=a%20b&buffer=1000",
        );
        let Target::Log(_, Some(forward)) = parsed.unwrap() else {
            panic!()
        };
        let expected = ForwardSettings {
            receiver: Receiver::Udp("127.0.0.1:514".parse().unwrap()),
            format: Format::Rfc3164,
            facility: 3,
            tag: "a b".to_owned(),
            fields: String::new(),
            buffer_bytes: Some(1000),
        };
        assert_eq!(*forward, expected);
    }

    #[test]
    fn what_is_no_target_is_refused_by_name() {
        for bad in [
            "relative",
            "http://x/y",
            "file://relative",
            "file:///a/../b",
            "file:///a%0",
            "file:///%00",
            "/",
        ] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
        assert!(
            Target::parse("syslog:///x")
                .unwrap_err()
                .to_string()
                .contains("syslog")
        );
        assert!(Target::parse(&format!("/{}", "a".repeat(200_000))).is_err());
    }
}
