//! The owners that a container's user namespace gives to files: which ids of the host stand for its own.
//!
//! An image is unpacked once, with the owners that its layers name. A container of a user namespace gets the same
//! folders through mounts that shift owners (`mount_setattr(2)`, `MOUNT_ATTR_IDMAP`), so that containers of
//! different mappings share them and nothing is copied. Source: the kernel's Documentation/filesystems/idmappings.rst.

mod shift;

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// The kernel takes as many ranges (`UID_GID_MAP_MAX_EXTENTS`).
const RANGES_MAX: usize = 340;

/// What a process sees of owners that its user namespace lacks (`/proc/sys/kernel/overflowuid`, if nobody changed it).
const NOBODY: u32 = 65_534;

/// Ids in a row, as a line of `/proc/PID/uid_map` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first id in the container.
    pub container: u32,
    /// The first id on the host.
    pub host: u32,
    /// How many.
    pub size: u32,
}

/// Ranges of users, or of groups.
///
/// As text it is what mount options have: `CONTAINER:HOST:SIZE`, comma-separated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMap(Vec<IdRange>);

/// A container's users and groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owners {
    /// The mapping of users.
    pub uids: IdMap,
    /// The mapping of groups.
    pub gids: IdMap,
}

impl IdMap {
    /// Ranges that the kernel takes, and that have a root: without one, the container's `/` would be nobody's.
    pub fn new(ranges: Vec<IdRange>) -> Result<IdMap, Error> {
        let map = IdMap(ranges);
        let invalid = |rule: String| {
            Err(Error::IdMap {
                map: map.to_string(),
                rule,
            })
        };
        if map.0.len() > RANGES_MAX {
            return invalid(format!("more than {RANGES_MAX} ranges"));
        }
        for (number, range) in map.0.iter().enumerate() {
            // The highest id means "no change" to chown(2), and is no owner.
            let fits = |first: u32| first.checked_add(range.size).is_some();
            if range.size == 0 || !fits(range.container) || !fits(range.host) {
                return invalid(format!("{range} is empty or goes beyond the highest id"));
            }
            if let Some(other) = map.0[..number].iter().find(|other| range.overlaps(other)) {
                return invalid(format!("{other} and {range} overlap"));
            }
        }
        if map.to_host(0).is_none() {
            return invalid("it has no range for the container's root (0)".into());
        }
        Ok(map)
    }

    /// The host's id for one of the container.
    pub fn to_host(&self, id: u32) -> Option<u32> {
        self.0.iter().find_map(|range| {
            let behind = id.checked_sub(range.container)?;
            (behind < range.size).then(|| range.host + behind)
        })
    }

    /// The container's id for one of the host.
    pub fn to_container(&self, id: u32) -> Option<u32> {
        self.0.iter().find_map(|range| {
            let behind = id.checked_sub(range.host)?;
            (behind < range.size).then(|| range.container + behind)
        })
    }

    /// Its ranges, in the order in which they were given.
    pub fn ranges(&self) -> &[IdRange] {
        &self.0
    }

    /// The host's id for one that the container must have.
    pub(crate) fn mapped(&self, id: u32) -> Result<u32, Error> {
        self.to_host(id).ok_or_else(|| Error::IdMap {
            map: self.to_string(),
            rule: format!("it lacks {id}, which the image's / belongs to"),
        })
    }
}

impl Owners {
    /// The user and group of the host that are the container's root.
    pub fn root(&self) -> (u32, u32) {
        // Both maps have one: see IdMap::new.
        let root = |map: &IdMap| map.to_host(0).unwrap_or(NOBODY);
        (root(&self.uids), root(&self.gids))
    }
}

impl IdRange {
    fn overlaps(&self, other: &IdRange) -> bool {
        let meet = |a: u32, b: u32| a < b + other.size && b < a + self.size;
        meet(self.container, other.container) || meet(self.host, other.host)
    }
}

impl fmt::Display for IdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.container, self.host, self.size)
    }
}

impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, range) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{range}")?;
        }
        Ok(())
    }
}

impl FromStr for IdMap {
    type Err = Error;

    fn from_str(text: &str) -> Result<IdMap, Error> {
        let range = |text: &str| {
            let numbers: Result<Vec<u32>, _> = text.split(':').map(str::parse).collect();
            match numbers.as_deref() {
                Ok(&[container, host, size]) => Some(IdRange {
                    container,
                    host,
                    size,
                }),
                _ => None,
            }
        };
        let ranges: Option<Vec<IdRange>> = text.split(',').map(range).collect();
        IdMap::new(ranges.ok_or_else(|| Error::IdMap {
            map: text.to_owned(),
            rule: "it has to be CONTAINER:HOST:SIZE, comma-separated".into(),
        })?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_shifts_each_of_its_ranges() {
        let map: IdMap = "0:1000:1,1:100000:65535".parse().unwrap();
        assert_eq!(map.to_string(), "0:1000:1,1:100000:65535");
        let hosts = [0, 1, 65535, 65536].map(|id| map.to_host(id));
        assert_eq!(hosts, [Some(1000), Some(100_000), Some(165_534), None]);
        let back = [1000, 100_000, 165_534, 0, 165_535].map(|id| map.to_container(id));
        assert_eq!(back, [Some(0), Some(1), Some(65535), None, None]);
    }

    #[test]
    fn what_the_kernel_would_refuse_is_refused_with_its_reason() {
        for (text, reason) in [
            ("", "CONTAINER:HOST:SIZE"),
            ("0:1000", "CONTAINER:HOST:SIZE"),
            ("0:-1:1", "CONTAINER:HOST:SIZE"),
            ("0:0:0", "empty"),
            ("0:4294967295:1", "highest"),
            ("1:1000:10", "root"),
            ("0:1000:10,9:2000:10", "overlap"),
            ("0:1000:10,10:1009:10", "overlap"),
        ] {
            let refused = text.parse::<IdMap>().unwrap_err().to_string();
            assert!(refused.contains(reason), "{text}: {refused}");
        }
        let many = (0..341).map(|id| IdRange {
            container: id,
            host: id,
            size: 1,
        });
        assert!(IdMap::new(many.collect()).is_err());
    }
}
