//! Ids and names of containers: how they are made, and what a name may look like.

use std::io::Read;

use crate::Error;

const ADJECTIVES: [&str; 32] = [
    "able", "brave", "bright", "calm", "clear", "deep", "eager", "early", "fair", "firm", "fresh", "gentle",
    "glad", "keen", "kind", "light", "lively", "merry", "neat", "noble", "open", "proud", "quick", "quiet",
    "ready", "sharp", "steady", "strong", "swift", "warm", "wide", "wise",
];

const NOUNS: [&str; 32] = [
    "anchor", "beacon", "bollard", "bow", "breeze", "buoy", "canal", "cargo", "compass", "crane", "current",
    "dock", "ferry", "fjord", "gull", "harbour", "helm", "jetty", "keel", "lagoon", "lantern", "lock",
    "mast", "oar", "pier", "quay", "reef", "rudder", "sail", "shore", "tide", "wharf",
];

/// Names may be this long; the longest that fits a DNS label with room for a suffix would be shorter, but
/// docker sets no bound at all, and people use that.
const NAME_MAX_BYTES: usize = 200;

/// 32 random bytes in hexadecimal: the form of every id here.
pub(crate) fn random_id() -> Result<String, Error> {
    let mut bytes = [0u8; 32];
    fill_random(&mut bytes)?;
    Ok(bytes.iter().fold(String::with_capacity(64), |mut id, byte| {
        for digit in [byte >> 4, byte & 15] {
            id.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
        id
    }))
}

/// A name for a container whose maker gave none: `adjective_noun`, and four more digits on a later attempt,
/// when the short names get scarce.
pub(crate) fn random_name(attempt: u32) -> Result<String, Error> {
    let mut bytes = [0u8; 4];
    fill_random(&mut bytes)?;
    let adjective = ADJECTIVES[usize::from(bytes[0]) % ADJECTIVES.len()];
    let noun = NOUNS[usize::from(bytes[1]) % NOUNS.len()];
    Ok(match attempt {
        0 => format!("{adjective}_{noun}"),
        _ => format!("{adjective}_{noun}_{:02x}{:02x}", bytes[2], bytes[3]),
    })
}

/// Docker's rule: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
pub(crate) fn check(name: &str) -> Result<(), Error> {
    let mut bytes = name.bytes();
    let well_formed = name.len() >= 2
        && bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if !well_formed {
        return Err(Error::invalid(
            "name",
            format!("{name:?} must be [a-zA-Z0-9][a-zA-Z0-9_.-]+: at least two characters of these"),
        ));
    }
    if name.len() > NAME_MAX_BYTES {
        return Err(Error::invalid(
            "name",
            format!("longer than {NAME_MAX_BYTES} bytes"),
        ));
    }
    Ok(())
}

fn fill_random(bytes: &mut [u8]) -> Result<(), Error> {
    let path = std::path::Path::new("/dev/urandom");
    std::fs::File::open(path)
        .and_then(|mut file| file.read_exact(bytes))
        .map_err(Error::file("read", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_dockers_rule() {
        for good in ["ab", "A0", "web-1", "a.b_c"] {
            check(good).unwrap();
        }
        for bad in ["", "a", "-ab", "_ab", ".ab", "a b", "a/b", "ä1", "a\n"] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        assert!(check(&"a".repeat(201)).is_err());
    }

    #[test]
    fn ids_are_64_hex_digits_and_differ() {
        let (one, two) = (random_id().unwrap(), random_id().unwrap());
        assert_eq!(one.len(), 64);
        assert!(one.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(one, two);
    }

    #[test]
    fn made_up_names_are_allowed_names() {
        for attempt in 0..50 {
            check(&random_name(attempt % 2).unwrap()).unwrap();
        }
    }
}
