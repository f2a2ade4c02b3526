//! The files in /etc that a container has of its own: hosts, hostname, resolv.conf. Written anew at each start
//! and mounted over the image's.

use std::fmt::Write;
use std::fs::{self, Permissions};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::Error;
use crate::request::Network;

/// systemd's stub listens on the host's loopback; behind it is the file with the real servers.
const STUB_UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";
const RESOLV_MAX_BYTES: u64 = 64 << 10;

/// Write them into `folder`.
pub(crate) fn write(
    folder: &Path,
    hostname: &str,
    address: Option<Ipv4Addr>,
    network: Network,
) -> Result<(), Error> {
    let put = |name: &str, content: &str| {
        let path = folder.join(name);
        fs::write(&path, content)
            // Whatever this process masks: every user of the container reads them.
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o644)))
            .map_err(Error::file("write", &path))
    };
    let host = network == Network::Host;
    put("hostname", &format!("{hostname}\n"))?;
    let of_host = |path: &str| if host { read_bounded(Path::new(path)) } else { None };
    put(
        "hosts",
        &of_host("/etc/hosts").unwrap_or_else(|| hosts(hostname, address)),
    )?;
    put(
        "resolv.conf",
        &of_host("/etc/resolv.conf").unwrap_or_else(resolv_conf),
    )
}

fn hosts(hostname: &str, address: Option<Ipv4Addr>) -> String {
    let mut text = "127.0.0.1\tlocalhost\n\
        ::1\tlocalhost ip6-localhost ip6-loopback\n\
        fe00::\tip6-localnet\n\
        ff00::\tip6-mcastprefix\n\
        ff02::1\tip6-allnodes\n\
        ff02::2\tip6-allrouters\n"
        .to_owned();
    if let Some(address) = address {
        let _ = writeln!(text, "{address}\t{hostname}");
    }
    text
}

fn resolv_conf() -> String {
    let own = read_bounded(Path::new("/etc/resolv.conf")).unwrap_or_default();
    match reachable(&own) {
        Some(text) => text,
        None => read_bounded(Path::new(STUB_UPSTREAM))
            .and_then(|upstream| reachable(&upstream))
            .unwrap_or_else(|| "# the host has no name server that a container could reach\n".to_owned()),
    }
}

/// The host's file without the servers on its loopback, which in a container is another one. None if no
/// server is left.
fn reachable(resolv: &str) -> Option<String> {
    let mut servers = 0;
    let mut text = String::new();
    for line in resolv.lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some("nameserver") {
            let address = words.next().unwrap_or_default();
            // A link-local address has a zone, which means nothing in another namespace.
            match address.parse::<IpAddr>() {
                Ok(address) if !address.is_loopback() => servers += 1,
                _ => continue,
            }
        }
        text.push_str(line);
        text.push('\n');
    }
    (servers > 0).then_some(text)
}

fn read_bounded(path: &Path) -> Option<String> {
    (fs::metadata(path).ok()?.len() <= RESOLV_MAX_BYTES)
        .then(|| fs::read_to_string(path).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_on_the_hosts_loopback_are_left_out() {
        let resolv =
            "search example.org\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver ::1\noptions edns0\n";
        assert_eq!(
            reachable(resolv).as_deref(),
            Some("search example.org\nnameserver 10.0.0.1\noptions edns0\n")
        );
        assert_eq!(reachable("nameserver 127.0.0.1\n"), None);
    }

    #[test]
    fn a_container_knows_its_own_name() {
        let text = hosts("web", Some(Ipv4Addr::new(172, 30, 0, 2)));
        assert!(text.starts_with("127.0.0.1\tlocalhost\n") && text.ends_with("172.30.0.2\tweb\n"));
    }
}
