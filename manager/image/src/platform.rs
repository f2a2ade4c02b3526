//! Platforms (`linux/arm64/v8`): parsing, the machine's own, and the choice of one manifest of an index.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// An operating system, architecture and variant, in the words of the OCI image spec (Go's GOOS and GOARCH).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// Operating system: `linux`.
    pub os: String,
    /// CPU architecture: `amd64`, `arm64`, …
    pub architecture: String,
    /// Variant of the CPU: `v7`, `v8`; empty where there is none.
    pub variant: String,
}

impl Platform {
    /// The platform of this machine.
    pub fn host() -> Platform {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "aarch64" => ("arm64", "v8"),
            "arm" => ("arm", "v7"),
            "x86" => ("386", ""),
            "powerpc64" => ("ppc64le", ""),
            other => (other, ""),
        };
        Platform {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: variant.into(),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Platform, Error> {
        let invalid = || Error::Platform(text.to_owned());
        let word = |w: &str| {
            !w.is_empty()
                && w.len() <= 64
                && w.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        };
        let mut parts = text.split('/');
        let os = parts
            .next()
            .filter(|w| word(w))
            .ok_or_else(invalid)?
            .to_ascii_lowercase();
        let architecture = parts
            .next()
            .filter(|w| word(w))
            .ok_or_else(invalid)?
            .to_ascii_lowercase();
        let variant = match parts.next() {
            Some(v) if word(v) => v.to_ascii_lowercase(),
            Some(_) => return Err(invalid()),
            None => String::new(),
        };
        if parts.next().is_some() {
            return Err(invalid());
        }
        // The names that `uname -m` and docker's users know, and the variants that are the default.
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64".to_owned(), String::new()),
            ("x86_64" | "x86-64", _) => ("amd64".to_owned(), variant),
            ("i386" | "i686", _) => ("386".to_owned(), variant),
            ("aarch64" | "arm64", "" | "8" | "v8") => ("arm64".to_owned(), "v8".to_owned()),
            ("aarch64", _) => ("arm64".to_owned(), variant),
            ("armhf" | "arm", "" | "7") => ("arm".to_owned(), "v7".to_owned()),
            ("armel", "") => ("arm".to_owned(), "v6".to_owned()),
            _ => (architecture, variant),
        };
        Ok(Platform {
            os,
            architecture,
            variant,
        })
    }
}

impl Platform {
    /// How well an image for `self` serves on `wanted`: higher is better, `None` is not at all.
    pub(crate) fn fitness(&self, wanted: &Platform) -> Option<u32> {
        if self.os != wanted.os || self.architecture != wanted.architecture {
            return None;
        }
        if self.variant == wanted.variant {
            return Some(u32::MAX);
        }
        // Variants are levels of one instruction set, each running the code of those below it.
        let level = |variant: &str| match (self.architecture.as_str(), variant) {
            ("amd64", "") => Some(1),
            ("arm64", "") => Some(8),
            ("arm", "") => Some(7),
            (_, v) => v.strip_prefix('v')?.parse::<u32>().ok(),
        };
        let (own, ceiling) = (level(&self.variant)?, level(&wanted.variant)?);
        (own <= ceiling).then_some(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_in_the_ways_people_write_them() {
        for (text, read) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("Linux/aarch64", "linux/arm64/v8"),
            ("linux/arm64", "linux/arm64/v8"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("linux/riscv64", "linux/riscv64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), read);
        }
        for text in [
            "",
            "linux",
            "linux/",
            "/amd64",
            "linux/amd64/",
            "linux/a/b/c",
            "linux/a b",
            "li\nux/a",
        ] {
            assert!(text.parse::<Platform>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_cpu_runs_the_variants_below_its_own() {
        let fitness = |image: &str, wanted: &str| {
            image
                .parse::<Platform>()
                .unwrap()
                .fitness(&wanted.parse().unwrap())
        };
        assert!(fitness("linux/arm/v7", "linux/arm/v7") > fitness("linux/arm/v6", "linux/arm/v7"));
        assert_eq!(fitness("linux/arm/v7", "linux/arm/v6"), None);
        assert_eq!(fitness("linux/amd64/v3", "linux/amd64"), None);
        assert!(fitness("linux/amd64/v2", "linux/amd64/v3") > fitness("linux/amd64", "linux/amd64/v3"));
    }
}
