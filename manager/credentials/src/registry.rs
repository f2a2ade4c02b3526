//! Names of registries, as people type them and as they stand in `config.json`.

/// Docker's own registry, and what its credentials are kept by.
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
const DOCKER_HUB_NAMES: [&str; 3] = [DOCKER_HUB, "index.docker.io", "registry-1.docker.io"];

/// The registry that somebody means by `server`: a host with or without a port, or a URL, of which the host counts.
/// Nothing stands for docker's own.
pub fn name(server: &str) -> &str {
    let host = host_of(server);
    if host.is_empty() || DOCKER_HUB_NAMES.contains(&host) {
        return DOCKER_HUB;
    }
    host
}

/// The host that an image's name begins with, if it begins with one, and what follows.
///
/// Docker's rule: the first component is a host if it has a dot, a port or an upper-case letter, which no repository may
/// have, or is `localhost`. Whoever asks a registry, and whoever looks for its credentials, has to ask here: where two
/// would tell hosts apart in two ways, a password could go to the wrong one.
pub fn split(name: &str) -> (Option<&str>, &str) {
    let is_host = |first: &str| {
        first == "localhost"
            || first.contains(['.', ':', '['])
            || first.bytes().any(|b| b.is_ascii_uppercase())
    };
    match name.split_once('/') {
        Some((first, rest)) if is_host(first) => (Some(first), rest),
        _ => (None, name),
    }
}

/// By what the credentials for `host` are kept.
pub(crate) fn key(host: &str) -> &str {
    if host == DOCKER_HUB { DOCKER_HUB_KEY } else { host }
}

/// Whether a key of the file, or of a helper, is that of `host`. Older files have URLs; podman's have repositories too,
/// of which nothing is known here.
pub(crate) fn matches(key: &str, host: &str) -> bool {
    let path = without_scheme(key).trim_end_matches('/').split('/').skip(1);
    name(key) == host
        && !key.is_empty()
        && path.clone().count() <= 1
        && path.clone().all(|p| p == "v1" || p == "v2")
}

fn host_of(server: &str) -> &str {
    without_scheme(server).split('/').next().unwrap_or_default()
}

fn without_scheme(text: &str) -> &str {
    text.strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"))
        .unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_by_their_hosts() {
        for (server, expected) in [
            ("", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("registry-1.docker.io", "docker.io"),
            ("registry.example:5000", "registry.example:5000"),
            ("https://registry.example/v2/", "registry.example"),
            ("http://localhost", "localhost"),
        ] {
            assert_eq!(name(server), expected, "{server}");
        }
    }

    #[test]
    fn hosts_are_told_from_namespaces_as_docker_does() {
        for (image, host, rest) in [
            ("debian:12", None, "debian:12"),
            ("user/app:1", None, "user/app:1"),
            ("MyOrg/app", Some("MyOrg"), "app"),
            ("localhost/app", Some("localhost"), "app"),
            ("localhost:5000/a/b", Some("localhost:5000"), "a/b"),
            ("[::1]/app", Some("[::1]"), "app"),
            ("quay.io/a/b", Some("quay.io"), "a/b"),
            ("/app", None, "/app"),
        ] {
            assert_eq!(split(image), (host, rest), "{image}");
        }
    }

    #[test]
    fn keys_are_found_in_all_forms() {
        for (key, host, expected) in [
            ("https://index.docker.io/v1/", "docker.io", true),
            ("docker.io", "docker.io", true),
            ("a.example:5000", "a.example:5000", true),
            ("a.example:5000", "a.example", false),
            ("https://a.example/v2/", "a.example", true),
            ("http://a.example/", "a.example", true),
            ("a.example/team", "a.example", false),
            ("", "docker.io", false),
        ] {
            assert_eq!(matches(key, host), expected, "{key} {host}");
        }
        assert!(matches(key("docker.io"), "docker.io"));
    }
}
