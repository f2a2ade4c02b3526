//! Changing the files of a container that runs. It has these very files mounted, so they are changed in place; it may
//! read them at any moment, and the manager may be killed at any.

use std::fs::OpenOptions;
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;

use flate2::Crc;

use super::{read_bounded, resolv_conf};
use crate::Error;
use crate::request::Names;

/// Begins the last line of a resolv.conf that nobody has changed; its checksum follows.
const SEAL: &str = "# Berth changes this file with the container's networks, until somebody else does: ";

/// A container's line in its own hosts.
pub(super) fn line(address: IpAddr, hostname: &str) -> String {
    format!("{address}\t{hostname}\n")
}

/// `text` with what tells later whether somebody has changed it.
pub(super) fn sealed(text: &str) -> String {
    format!("{text}{SEAL}{:08x}\n", checksum(text))
}

fn is_as_written(text: &str) -> bool {
    let Some((before, sum)) = text.rsplit_once(SEAL) else {
        return false;
    };
    sum.trim_end() == format!("{:08x}", checksum(before))
}

fn checksum(text: &str) -> u32 {
    let mut sum = Crc::new();
    sum.update(text.as_bytes());
    sum.sum()
}

/// Let a container's resolv.conf in `folder` name the name server of ours, or no more. One that somebody has changed
/// stays, as with docker.
pub(crate) fn follow_name_server(folder: &Path, names: &Names, asks_us: bool) -> Result<(), Error> {
    let path = folder.join("resolv.conf");
    let written = read_bounded(&path).unwrap_or_default();
    let ours = format!("nameserver {}", network::RESOLVER_ADDRESS);
    let does_ask = written.lines().any(|line| line == ours);
    if does_ask == asks_us || !is_as_written(&written) {
        return Ok(());
    }
    overwrite(&path, &written, &sealed(&resolv_conf(names, asks_us)))
}

/// Let a container's hosts in `folder` have its name for each address of `there`, and not for those of `gone`. All other
/// lines stay.
pub(crate) fn follow_hosts(
    folder: &Path,
    hostname: &str,
    there: &[IpAddr],
    gone: &[IpAddr],
) -> Result<(), Error> {
    if there.is_empty() && gone.is_empty() {
        return Ok(());
    }
    let path = folder.join("hosts");
    let Some(written) = read_bounded(&path) else {
        // Somebody has made it very large, or taken it away.
        return Ok(());
    };
    let gone: Vec<_> = gone.iter().map(|address| line(*address, hostname)).collect();
    let lines = written.split_inclusive('\n');
    let mut text: String = lines
        .filter(|line| !gone.iter().any(|gone| gone == line))
        .collect();
    for address in there {
        let line = line(*address, hostname);
        if !text.split_inclusive('\n').any(|known| known == line) {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text += &line;
        }
    }
    if text == written {
        return Ok(());
    }
    overwrite(&path, &written, &text)
}

/// One write puts all of it in place, with empty lines where the old text was longer; these go afterwards.
fn overwrite(path: &Path, old: &str, new: &str) -> Result<(), Error> {
    let surplus = old.len().saturating_sub(new.len());
    let padded = [new, &"\n".repeat(surplus)].concat();
    let write = || {
        let file = OpenOptions::new().write(true).open(path)?;
        file.write_all_at(padded.as_bytes(), 0)?;
        file.set_len(new.len() as u64)
    };
    write().map_err(Error::file("write", path))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_change_by_anybody_breaks_the_seal() {
        let text = sealed("nameserver 10.0.0.1\n");
        assert!(is_as_written(&text), "{text}");
        assert!(
            is_as_written(&format!("{text}\n\n")),
            "a kill may leave empty lines"
        );
        assert!(!is_as_written(&text.replace("10.0.0.1", "10.0.0.2")));
        assert!(!is_as_written(&format!("{text}nameserver 10.0.0.2\n")));
        assert!(!is_as_written("nameserver 10.0.0.1\n") && !is_as_written(""));
    }

    #[test]
    fn lines_of_others_in_hosts_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        let [one, two] = [IpAddr::from([10, 0, 0, 2]), IpAddr::from([10, 1, 0, 2])];
        fs::write(
            &path,
            "127.0.0.1\tlocalhost\n10.0.0.2\tweb\n10.0.0.2 web\n10.9.9.9\tdb",
        )
        .unwrap();
        follow_hosts(folder.path(), "web", &[one, two], &[]).unwrap();
        let both = "127.0.0.1\tlocalhost\n10.0.0.2\tweb\n10.0.0.2 web\n10.9.9.9\tdb\n10.1.0.2\tweb\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), both);
        follow_hosts(folder.path(), "web", &[one], &[two]).unwrap();
        let one = "127.0.0.1\tlocalhost\n10.0.0.2\tweb\n10.0.0.2 web\n10.9.9.9\tdb\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), one);
    }
}
