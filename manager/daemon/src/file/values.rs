//! The forms that values of the configuration's file can have: those of docker's daemon.json and command line, and the
//! natural ones of TOML.

use std::fmt;
use std::str::FromStr;

use engine::{AddressPool, Range, Ulimit};
use serde::de::{Error, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};

/// A value that is written as its type reads it.
pub(super) fn parsed<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map(Some)
        .map_err(|error| D::Error::custom(format_args!("{text:?}: {error}")))
}

/// Folders, as a list or with colons between them, as PATH has it.
#[derive(Debug)]
pub(crate) struct Folders(pub(crate) String);

impl<'de> Deserialize<'de> for Folders {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Folders, D::Error> {
        struct Wanted;
        impl<'de> Visitor<'de> for Wanted {
            type Value = Folders;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of folders, or a string of them with colons between")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Folders, E> {
                Ok(Folders(text.to_owned()))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Folders, A::Error> {
                let mut folders = Vec::new();
                while let Some(folder) = list.next_element::<String>()? {
                    if folder.contains(':') {
                        let rule = format_args!("{folder:?}: a folder of a list has no colon in its name");
                        return Err(A::Error::custom(rule));
                    }
                    folders.push(folder);
                }
                Ok(Folders(folders.join(":")))
            }
        }
        deserializer.deserialize_any(Wanted)
    }
}

/// Options of the log driver.
#[derive(Debug, Default)]
pub(crate) struct LogOptions(pub(crate) Vec<(String, String)>);

/// One value of them: docker wants strings, people write numbers.
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scalar, D::Error> {
        struct Wanted;
        impl Visitor<'_> for Wanted {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a whole number, true or false")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.to_owned()))
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
            fn visit_bool<E: Error>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
        }
        deserializer.deserialize_any(Wanted)
    }
}

impl<'de> Deserialize<'de> for LogOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LogOptions, D::Error> {
        let pairs: Pairs<Scalar> = Pairs::deserialize(deserializer)?;
        let pairs = pairs.0.into_iter().map(|(name, value)| (name, value.0));
        Ok(LogOptions(pairs.collect()))
    }
}

/// A table, in the order in which it is written.
struct Pairs<T>(Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pairs<T>, D::Error> {
        struct Wanted<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Wanted<T> {
            type Value = Pairs<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<T>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Wanted(std::marker::PhantomData))
    }
}

/// Bytes: `64m`, as docker has sizes, or a number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size(pub(crate) u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
        struct Wanted;
        impl Visitor<'_> for Wanted {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size above 0, as \"64m\" or a number of bytes")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
                match engine::memory_in_bytes(text) {
                    Some(bytes) if bytes > 0 => Ok(Size(bytes)),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Size, E> {
                match u64::try_from(number) {
                    Ok(bytes) if bytes > 0 => Ok(Size(bytes)),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Signed(number), &self)),
                }
            }
        }
        deserializer.deserialize_any(Wanted)
    }
}

/// Limits by name: `nofile = "1024:2048"`, `core = 0`, `nproc = { soft = 5, hard = -1 }`.
#[derive(Debug, Default)]
pub(crate) struct Ulimits(pub(crate) Vec<Ulimit>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SoftAndHard {
    soft: i64,
    hard: i64,
}

struct Limit(i64, i64);

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Limit, D::Error> {
        struct Wanted;
        impl<'de> Visitor<'de> for Wanted {
            type Value = Limit;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a limit, as 1024, \"SOFT:HARD\" or { soft = 1024, hard = 2048 }, -1 for none")
            }
            fn visit_i64<E: Error>(self, both: i64) -> Result<Limit, E> {
                Ok(Limit(both, both))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Limit, E> {
                let (soft, hard) = text.split_once(':').unwrap_or((text, text));
                match (soft.parse(), hard.parse()) {
                    (Ok(soft), Ok(hard)) => Ok(Limit(soft, hard)),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Limit, A::Error> {
                let SoftAndHard { soft, hard } = SoftAndHard::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Limit(soft, hard))
            }
        }
        deserializer.deserialize_any(Wanted)
    }
}

impl<'de> Deserialize<'de> for Ulimits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Ulimits, D::Error> {
        let pairs: Pairs<Limit> = Pairs::deserialize(deserializer)?;
        let limits = pairs.0.into_iter();
        let limits = limits.map(|(name, Limit(soft, hard))| Ulimit { name, soft, hard });
        Ok(Ulimits(limits.collect()))
    }
}

/// Addresses for networks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pool {
    #[serde(deserialize_with = "range")]
    base: Range,
    size: u8,
}

fn range<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Range, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(D::Error::custom)
}

impl From<&Pool> for AddressPool {
    fn from(pool: &Pool) -> AddressPool {
        AddressPool {
            base: pool.base,
            size: pool.size,
        }
    }
}
