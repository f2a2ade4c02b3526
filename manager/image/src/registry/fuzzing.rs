//! Doors to the parsers of what registries, token servers and administrators say.

use std::path::Path;

pub(crate) use super::challenge::parse as parse_challenge;

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
