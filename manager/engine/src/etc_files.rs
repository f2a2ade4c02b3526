//! The files in /etc that a container has of its own: hosts, hostname, resolv.conf. Written anew at each start
//! and mounted over the image's; while it runs, they follow the networks it is on.

mod follow;

use std::fmt::Write;
use std::fs::{self, Permissions};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::Error;
use crate::links::Linked;
use crate::request::{CreateRequest, Names, Network};
pub(crate) use follow::{follow_hosts, follow_name_server};

/// systemd's stub listens on the host's loopback; behind it is the file with the real servers.
const STUB_UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";
/// The host's own.
pub(crate) const HOST_RESOLV: &str = "/etc/resolv.conf";
const RESOLV_MAX_BYTES: u64 = 64 << 10;

/// Write them into `folder`. `gateway` is the host's address on the bridge; `links` are others that it has names for;
/// `asks_us`: it has a name server of ours.
pub(crate) fn write(
    folder: &Path,
    hostname: &str,
    addresses: &[IpAddr],
    gateway: Ipv4Addr,
    links: &[Linked],
    request: &CreateRequest,
    asks_us: bool,
) -> Result<(), Error> {
    let put = |name: &str, content: &str| {
        let path = folder.join(name);
        fs::write(&path, content)
            // Whatever this process masks: every user of the container reads them.
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o644)))
            .map_err(Error::file("write", &path))
    };
    let names = &request.names;
    let shares_network = request.network == Network::Host;
    put("hostname", &format!("{hostname}\n"))?;
    let of_host = |path: &str| {
        if shares_network {
            read_bounded(Path::new(path))
        } else {
            None
        }
    };
    let mut hosts = of_host("/etc/hosts").unwrap_or_else(|| hosts(hostname, addresses));
    let of_gateway = match request.network {
        Network::Bridge | Network::User => Some(gateway.into()),
        Network::Host => Some(Ipv4Addr::LOCALHOST.into()),
        // With another's network come its files.
        Network::None | Network::Container => None,
    };
    for link in links {
        let _ = writeln!(hosts, "{}", link.line());
    }
    for entry in &names.hosts {
        // Without a network there is no way to the host.
        if let Some(address) = entry.address(of_gateway) {
            let _ = writeln!(hosts, "{address}\t{}", entry.name);
        }
    }
    put("hosts", &hosts)?;
    let resolv = match of_host(HOST_RESOLV) {
        Some(own) => replaced(&own, names),
        None => follow::sealed(&resolv_conf(names, asks_us)),
    };
    put("resolv.conf", &resolv)
}

/// Give those in `folder` to the root of a container whose ids are not the host's: it may write them, as any other's may.
pub(crate) fn give(folder: &Path, (uid, gid): (u32, u32)) -> Result<(), Error> {
    for name in ["hostname", "hosts", "resolv.conf"] {
        let path = folder.join(name);
        std::os::unix::fs::chown(&path, Some(uid), Some(gid))
            .map_err(Error::file("change the owner of", &path))?;
    }
    Ok(())
}

/// What stands in the resolv.conf of a container with a network of its own.
fn resolv_conf(names: &Names, asks_us: bool) -> String {
    if asks_us {
        with_name_server(&read_bounded(Path::new(HOST_RESOLV)).unwrap_or_default(), names)
    } else {
        replaced(&of_hosts_servers(), names)
    }
}

fn hosts(hostname: &str, addresses: &[IpAddr]) -> String {
    let mut text = "127.0.0.1\tlocalhost\n\
        ::1\tlocalhost ip6-localhost ip6-loopback\n\
        fe00::\tip6-localnet\n\
        ff00::\tip6-mcastprefix\n\
        ff02::1\tip6-allnodes\n\
        ff02::2\tip6-allrouters\n"
        .to_owned();
    for address in addresses {
        text += &follow::line(*address, hostname);
    }
    text
}

/// `resolv` with what `names` has in the place of its lines of the same kind.
fn replaced(resolv: &str, names: &Names) -> String {
    let replacing = |word: &str| match word {
        "nameserver" => !names.servers.is_empty(),
        "search" | "domain" => !names.search.is_empty(),
        "options" => !names.options.is_empty(),
        _ => false,
    };
    let kept = resolv
        .lines()
        .filter(|line| !line.split_whitespace().next().is_some_and(replacing));
    let mut text: String = kept.flat_map(|line| [line, "\n"]).collect();
    for server in &names.servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    // A single dot is docker's word for none.
    if !names.search.is_empty() && names.search != ["."] {
        let _ = writeln!(text, "search {}", names.search.join(" "));
    }
    if !names.options.is_empty() {
        let _ = writeln!(text, "options {}", names.options.join(" "));
    }
    text
}

/// The resolv.conf of a container that has a name server of ours: with that alone, and without what comes of a search
/// that adds a domain to every name of a container's first, as docker has it.
fn with_name_server(host: &str, names: &Names) -> String {
    let ours = Names {
        servers: vec![network::RESOLVER_ADDRESS.to_string()],
        ..names.clone()
    };
    let mut text = replaced(host, &ours);
    if ndots(&text).is_none() {
        text.push_str("options ndots:0\n");
    }
    text
}

/// Whether the resolver of a container that has a name server of ours completes names without a dot by itself.
pub(crate) fn completes_names(names: &Names) -> bool {
    let host = read_bounded(Path::new(HOST_RESOLV)).unwrap_or_default();
    ndots(&with_name_server(&host, names)).is_some_and(|ndots| ndots > 0)
}

/// The number of dots with which a name is complete; the last that is said counts.
fn ndots(resolv: &str) -> Option<u32> {
    let options = resolv
        .lines()
        .map(str::split_whitespace)
        .filter_map(|mut words| (words.next() == Some("options")).then_some(words));
    options
        .flatten()
        .filter_map(|option| option.strip_prefix("ndots:")?.parse().ok())
        .next_back()
}

fn of_hosts_servers() -> String {
    let own = read_bounded(Path::new(HOST_RESOLV)).unwrap_or_default();
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
    fn what_is_asked_for_takes_the_place_of_the_hosts() {
        let resolv = "nameserver 10.0.0.1\nsearch example.org\noptions edns0\n";
        let mut names = Names::default();
        assert_eq!(replaced(resolv, &names), resolv);
        names.servers = vec!["192.0.2.1".to_owned(), "::2".to_owned()];
        names.options = vec!["ndots:1".to_owned(), "rotate".to_owned()];
        assert_eq!(
            replaced(resolv, &names),
            "search example.org\nnameserver 192.0.2.1\nnameserver ::2\noptions ndots:1 rotate\n"
        );
        names = Names {
            search: vec![".".to_owned()],
            ..Names::default()
        };
        assert_eq!(replaced(resolv, &names), "nameserver 10.0.0.1\noptions edns0\n");
    }

    #[test]
    fn a_name_server_of_ours_is_the_only_one() {
        let host = "nameserver 127.0.0.53\nnameserver 10.0.0.1\nsearch example.org\noptions edns0 trust-ad\n";
        let mut names = Names::default();
        assert_eq!(
            with_name_server(host, &names),
            "search example.org\noptions edns0 trust-ad\nnameserver 127.0.0.11\noptions ndots:0\n"
        );
        names.servers = vec!["192.0.2.1".to_owned()];
        names.search = vec!["one.example".to_owned()];
        names.options = vec!["ndots:2".to_owned()];
        assert_eq!(
            with_name_server(host, &names),
            "nameserver 127.0.0.11\nsearch one.example\noptions ndots:2\n"
        );
    }

    #[test]
    fn the_last_word_on_dots_counts() {
        assert_eq!(ndots("options rotate\n"), None);
        assert_eq!(
            ndots("options ndots:5 edns0\noptions ndots:1\n#options ndots:3\n"),
            Some(1)
        );
    }

    #[test]
    fn a_container_knows_its_own_name() {
        let text = hosts("web", &[Ipv4Addr::new(172, 30, 0, 2).into()]);
        assert!(text.starts_with("127.0.0.1\tlocalhost\n") && text.ends_with("172.30.0.2\tweb\n"));
    }
}
