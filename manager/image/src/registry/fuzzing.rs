//! Doors to the parsers of what registries, token servers and administrators say.

use std::path::Path;

use reqwest::Url;

use super::challenge::{self, Challenge};
use super::token::TokenServer;
use super::{is_loopback, leads_safely};

/// A challenge that is written down again is the same; and a token server that is accepted is asked by https.
pub(crate) fn parse_challenge(header: &str) {
    let registry = Url::parse("https://registry.example/").expect("it is a URL");
    for challenge in challenge::parse(header) {
        let Challenge::Bearer {
            realm,
            service,
            scope,
        } = &challenge
        else {
            continue;
        };
        let parameters = [
            ("realm", Some(realm)),
            ("service", service.as_ref()),
            ("scope", scope.as_ref()),
        ];
        let written: Vec<String> = parameters
            .iter()
            .filter_map(|(key, value)| {
                let value = value.as_ref()?.replace('\\', r"\\").replace('"', r#"\""#);
                Some(format!("{key}=\"{value}\""))
            })
            .collect();
        let written = format!("Bearer {}", written.join(","));
        // Quoted, it may have become longer than a header may be.
        if written.len() <= header.len() {
            assert_eq!(challenge::parse(&written), std::slice::from_ref(&challenge));
        }
        if TokenServer::named_by(&registry, true, realm, None).is_ok() {
            let realm = Url::parse(realm).expect("a realm that was accepted is a URL");
            assert!(realm.scheme() == "https" && realm.username().is_empty() && realm.password().is_none());
        }
    }
}

/// Whatever a hosts.toml says, each server in it has a URL that repositories can be joined to.
pub(crate) fn parse_hosts(text: &str) {
    for endpoint in super::hosts::parse(text, Path::new("/"), "registry.example:5000").unwrap_or_default() {
        assert!(endpoint.root.path().ends_with('/') && !endpoint.root.cannot_be_a_base());
        assert!(endpoint.root.username().is_empty() && endpoint.root.password().is_none());
    }
}

/// A token that is accepted is a header's value that is never shown.
pub(crate) fn parse_token(content: &[u8]) {
    if let Ok(token) = super::token::parse_answer(content) {
        assert!(token.header.is_sensitive());
    }
}

/// Scopes that are asked for are those that were read.
pub(crate) fn parse_scopes(text: &str) {
    let scopes = super::scope::Scopes::parse(text);
    let joined: Vec<String> = scopes.texts().collect();
    let again = super::scope::Scopes::parse(&joined.join(" "));
    assert_eq!(again.texts().collect::<Vec<_>>(), joined);
}

/// Names and descriptions that are found can be shown on a terminal.
pub(crate) fn parse_search(content: &[u8]) {
    let is_plain = |text: &str| text.chars().all(|c| !c.is_control());
    for found in super::search::parse_search(content).unwrap_or_default() {
        assert!(is_plain(&found.name) && is_plain(&found.description));
    }
    for name in super::search::parse_catalog(content).unwrap_or_default() {
        assert!(is_plain(&name));
    }
    if let Ok(header) = std::str::from_utf8(content)
        && let Some(target) = super::page::next_link(header)
    {
        assert!(header.contains(target));
    }
}

/// Whatever it says, it is not more than there is.
pub(crate) fn parse_range(header: &str) {
    const SIZE: u64 = 1000;
    assert!(super::upload::received(header, SIZE).is_none_or(|count| count <= SIZE));
}

/// Where a header sends us that a registry gave: by https, or from this machine to this machine.
pub(crate) fn follow(header: &str) {
    for base in [
        "https://registry.example/v2/a/blobs/uploads/",
        "http://127.0.0.1:5000/v2/",
    ] {
        let base = Url::parse(base).expect("it is a URL");
        if let Ok(target) = base.join(header)
            && leads_safely(&base, &target)
        {
            let stays_here = is_loopback(&base) && is_loopback(&target);
            assert!(target.scheme() == "https" || (target.scheme() == "http" && stays_here));
        }
    }
}
