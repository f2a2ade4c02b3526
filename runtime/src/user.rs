//! Users as the container's /etc/passwd knows them. The file is the image's, so it is read as what it is: input.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::sys::fd::open;

/// More is no list of users.
const PASSWD_BYTES_MAX: u64 = 4 << 20;

/// The home directory of `uid`; `/` for a user who has none.
pub(crate) fn home_of(uid: u32) -> String {
    open_regular("/etc/passwd")
        .and_then(|file| find_home(file, uid))
        .unwrap_or_else(|| "/".into())
}

/// The name of `uid`, if it has one.
pub(crate) fn name_of(uid: u32) -> Option<String> {
    let file = open_regular("/etc/passwd")?;
    lines(file).find_map(|line| {
        let entry = Entry::parse(&line)?;
        (entry.uid == uid).then(|| entry.name.to_owned())
    })
}

/// Opens without blocking on a fifo and without taking a device for a file.
fn open_regular(path: &str) -> Option<impl BufRead> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = open(Path::new(path), flags, Mode::empty()).ok()?;
    file.metadata()
        .ok()?
        .is_file()
        .then(|| BufReader::new(file.take(PASSWD_BYTES_MAX)))
}

fn lines(file: impl BufRead) -> impl Iterator<Item = String> {
    file.split(b'\n')
        .map_while(Result::ok)
        .map(|line| String::from_utf8_lossy(&line).into_owned())
}

pub(crate) fn find_home(file: impl BufRead, uid: u32) -> Option<String> {
    lines(file).find_map(|line| {
        let entry = Entry::parse(&line)?;
        (entry.uid == uid && entry.home.starts_with('/')).then(|| entry.home.to_owned())
    })
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    home: &'a str,
}

impl<'a> Entry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.trim().split(':');
        let name = fields
            .next()
            .filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let uid = fields.nth(1)?.parse().ok()?;
        Some(Self {
            name,
            uid,
            home: fields.nth(2).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"# c\nroot:x:0:0:root:/root:/bin/sh\n\nbroken\nx:y:z\n\xff:x:7:7::/seven:\nalice:x:1000:1000::/home/alice:/bin/sh\nlost:x:5:5\n";

    #[test]
    fn homes_are_found_between_broken_lines() {
        assert_eq!(find_home(PASSWD, 0).as_deref(), Some("/root"));
        assert_eq!(find_home(PASSWD, 1000).as_deref(), Some("/home/alice"));
        assert_eq!(find_home(PASSWD, 7).as_deref(), Some("/seven"));
        assert_eq!(find_home(PASSWD, 5), None);
        assert_eq!(find_home(PASSWD, 42), None);
    }

    #[test]
    fn root_has_a_name_here() {
        assert_eq!(name_of(0).as_deref(), Some("root"));
    }
}
