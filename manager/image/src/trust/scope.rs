//! Scopes of the policy for registries: from one tag to all subdomains of a host.

use crate::reference::Reference;

/// The scopes that an image is in, the narrowest first.
///
/// Name with tag or digest, repository, the namespaces above it, host, wildcards for the host's domains, everything.
pub(super) fn of(reference: &Reference) -> Vec<String> {
    let mut scopes = vec![reference.name()];
    let mut name = format!("{}/{}", reference.host, reference.repository);
    while let Some(slash) = name.rfind('/') {
        scopes.push(name.clone());
        name.truncate(slash);
    }
    scopes.push(name);
    let mut domain = reference.host.as_str();
    while let Some((_, parent)) = domain.split_once('.') {
        scopes.push(format!("*.{parent}"));
        domain = parent;
    }
    scopes.push(String::new());
    scopes
}

/// Refuse a scope that no image is ever in: its rule would be one that its author believes in and nobody obeys.
pub(super) fn check(scope: &str) -> Result<(), String> {
    if scope.is_empty() {
        return Ok(());
    }
    if let Some(domain) = scope.strip_prefix("*.") {
        return if domain.is_empty() || domain.contains(['/', '*']) {
            Err("is not `*.` and a domain".into())
        } else {
            Ok(())
        };
    }
    let host = scope.split('/').next().unwrap_or_default();
    if !host.contains(['.', ':', '[']) && host != "localhost" && host == host.to_lowercase() {
        return Err(format!(
            "names no registry: short names are not expanded here, write \"docker.io/library/{scope}\" for docker's own"
        ));
    }
    if scope.ends_with('/') {
        return Err("ends with a slash".into());
    }
    // A host alone, or a namespace, becomes a reference with one more component.
    let fits = |text: &str| Reference::parse(text).is_ok();
    if fits(&format!("{scope}/x")) || (scope.contains('/') && fits(scope)) {
        Ok(())
    } else {
        Err("is not host, host/namespace, host/repository, or that with :tag or @digest".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_in_its_name_its_namespaces_its_host_and_its_domains() {
        let reference = Reference::parse("r.example.org:5000/a/b:1").unwrap();
        assert_eq!(
            of(&reference),
            [
                "r.example.org:5000/a/b:1",
                "r.example.org:5000/a/b",
                "r.example.org:5000/a",
                "r.example.org:5000",
                "*.example.org:5000",
                "*.org:5000",
                "",
            ]
        );
        assert_eq!(
            of(&Reference::parse("debian").unwrap())[..2],
            ["docker.io/library/debian:latest", "docker.io/library/debian"]
        );
    }

    #[test]
    fn scopes_in_which_no_image_can_be_are_refused() {
        for good in [
            "",
            "*.example.org",
            "docker.io",
            "docker.io/library",
            "docker.io/library/busybox",
            "localhost:5000/a/b:tag",
            "localhost",
            "[::1]:5000/a",
        ] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "busybox",
            "library/busybox",
            "docker.io/",
            "docker.io/Upper",
            "docker.io/*",
            "*.",
            "*.a/b",
            "https://docker.io",
            "docker.io/a:b:c",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
