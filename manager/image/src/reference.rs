//! Names of images: docker's grammar and its normalisation of short forms.
//!
//! `debian` is `docker.io/library/debian:latest`; `localhost:5000/a` names a host because it has a port; a digest
//! wins over a tag. The grammar is that of the distribution project's reference package, bounds included.

use std::fmt;

use crate::Error;
use crate::digest::Digest;

const DEFAULT_HOST: &str = "docker.io";
const LEGACY_DEFAULT_HOST: &str = "index.docker.io";
const OFFICIAL_PREFIX: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// Bound of host and repository together.
const NAME_LENGTH_MAX: usize = 255;
const TAG_LENGTH_MAX: usize = 128;
/// A name, a tag and a sha512 digest.
const REFERENCE_LENGTH_MAX: usize = NAME_LENGTH_MAX + 1 + TAG_LENGTH_MAX + 1 + 135;

/// A normalised reference: what to ask which registry for, and the name under which it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Host and port as written, `docker.io` for docker's own.
    pub(crate) host: String,
    /// `library/debian`.
    pub(crate) repository: String,
    /// The tag, if one was written or no digest was.
    pub(crate) tag: Option<String>,
    /// The digest, if one was written.
    pub(crate) digest: Option<Digest>,
}

impl Reference {
    /// Parse and normalise.
    pub(crate) fn parse(text: &str) -> Result<Reference, Error> {
        parse(text).map_err(|rule| Error::Reference {
            reference: cut(text),
            rule,
        })
    }

    /// A name that an image is to get here.
    pub(crate) fn parse_new_name(text: &str) -> Result<Reference, Error> {
        let reference = Reference::parse(text)?;
        if reference.digest.is_some() {
            return Err(Error::Reference {
                reference: cut(text),
                rule: "a digest cannot be given as a name: it is what the content has".into(),
            });
        }
        Ok(reference)
    }

    /// A repository, without a tag or digest.
    pub(crate) fn parse_repository(text: &str) -> Result<Reference, Error> {
        let reference = Reference::parse(text)?;
        if text.contains('@') || text.rsplit('/').next().is_some_and(|last| last.contains(':')) {
            return Err(Error::Reference {
                reference: cut(text),
                rule: "all tags of a repository are meant, and it names one or a digest".into(),
            });
        }
        Ok(reference)
    }

    /// The registry in a term of a search, as a reference to nothing in particular, and the term without it.
    pub(crate) fn of_search(text: &str) -> Result<(Reference, String), Error> {
        let refuse = |rule: &str| Error::Reference {
            reference: cut(text),
            rule: rule.to_owned(),
        };
        if text.trim().is_empty() || text.len() > NAME_LENGTH_MAX {
            return Err(refuse("a search needs a term, of at most 255 bytes"));
        }
        let (host, term) = match text.split_once('/') {
            Some((_, _)) => split_host(text),
            None => (DEFAULT_HOST.to_owned(), text.to_owned()),
        };
        check_host(&host).map_err(|rule| refuse(&rule))?;
        let reference = Reference {
            host,
            repository: "search".into(),
            tag: Some(DEFAULT_TAG.into()),
            digest: None,
        };
        // Docker's own images have no namespace in its index.
        let term = term.strip_prefix(OFFICIAL_PREFIX).unwrap_or(&term);
        Ok((reference, term.to_owned()))
    }

    /// Tag or digest: the last part of the manifest's URL.
    pub(crate) fn target(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }

    /// Host, repository and tag, or digest where one was given: the name under which an image is kept.
    ///
    /// As with docker, a pull by tag and digest keeps only the digest: the tag was not asked of the registry.
    pub(crate) fn name(&self) -> String {
        let separator = if self.digest.is_some() { '@' } else { ':' };
        format!("{}{separator}{}", self.full_repository(), self.target())
    }

    /// Host and repository.
    pub(crate) fn full_repository(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn parse(text: &str) -> Result<Reference, String> {
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if text.len() > REFERENCE_LENGTH_MAX {
        return Err(format!("it is longer than {REFERENCE_LENGTH_MAX} bytes"));
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(Digest::parse(digest)?)),
        None => (text, None),
    };
    // A colon after the last slash begins the tag: one before it belongs to the host's port.
    let after_slash = rest.rfind('/').map_or(0, |i| i + 1);
    let (name, tag) = match rest[after_slash..].find(':') {
        Some(i) => (&rest[..after_slash + i], Some(&rest[after_slash + i + 1..])),
        None => (rest, None),
    };
    if digest.is_none() && tag.is_none() && name.len() == 64 && name.bytes().all(is_hex) {
        return Err("64 hexadecimal digits name an image id, not a repository".into());
    }
    let (host, repository) = split_host(name);
    check_host(&host)?;
    check_repository(&repository)?;
    if host.len() + 1 + repository.len() > NAME_LENGTH_MAX {
        return Err(format!(
            "host and repository together are longer than {NAME_LENGTH_MAX} bytes"
        ));
    }
    let tag = match (tag, &digest) {
        (Some(tag), _) => {
            check_tag(tag)?;
            Some(tag.to_owned())
        }
        (None, Some(_)) => None,
        (None, None) => Some(DEFAULT_TAG.to_owned()),
    };
    Ok(Reference {
        host,
        repository,
        tag,
        digest,
    })
}

/// The host of a name, and its repository.
fn split_host(name: &str) -> (String, String) {
    let (host, rest) = ::credentials::split_host(name);
    let host = match host {
        None | Some(LEGACY_DEFAULT_HOST) => DEFAULT_HOST,
        Some(host) => host,
    };
    if host == DEFAULT_HOST && !rest.contains('/') {
        return (host.to_owned(), format!("{OFFICIAL_PREFIX}{rest}"));
    }
    (host.to_owned(), rest.to_owned())
}

fn check_host(host: &str) -> Result<(), String> {
    let (name, port) = if let Some(rest) = host.strip_prefix('[') {
        let (address, after) = rest.split_once(']').ok_or("the host's `[` is not closed")?;
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(format!("host [{address}] is not an IPv6 address"));
        }
        match after.strip_prefix(':') {
            Some(port) => ("", Some(port)),
            None if after.is_empty() => ("", None),
            None => return Err("only a port may follow the host's `]`".into()),
        }
    } else {
        let (name, port) = match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        };
        let label = |l: &str| {
            !l.is_empty()
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !l.starts_with('-')
                && !l.ends_with('-')
        };
        if !name.split('.').all(label) {
            return Err(format!(
                "host {name:?} has a component that is not letters, digits and inner `-`"
            ));
        }
        (name, port)
    };
    let _ = name;
    if let Some(port) = port
        && (port.len() > 5
            || !port.bytes().all(|b| b.is_ascii_digit())
            || port.parse::<u16>().is_ok_and(|p| p == 0)
            || port.parse::<u16>().is_err())
    {
        return Err(format!("port {port:?} is not a number from 1 to 65535"));
    }
    Ok(())
}

fn check_repository(repository: &str) -> Result<(), String> {
    if repository.is_empty() {
        return Err("it has no repository".into());
    }
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("the repository must be in lower case".into());
    }
    match repository.split('/').find(|c| !is_path_component(c)) {
        None => Ok(()),
        Some(bad) => Err(format!(
            "repository component {bad:?} is not lower-case letters and digits, separated by one `.`, one or two `_`, or dashes"
        )),
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    if !bytes.first().is_some_and(|b| alphanumeric(*b)) || !bytes.last().is_some_and(|b| alphanumeric(*b)) {
        return false;
    }
    bytes.split(|b| alphanumeric(*b)).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
    })
}

fn check_tag(tag: &str) -> Result<(), String> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if tag.is_empty() || tag.len() > TAG_LENGTH_MAX {
        return Err(format!(
            "the tag has {} bytes, it needs 1 to {TAG_LENGTH_MAX}",
            tag.len()
        ));
    }
    if !word(tag.as_bytes()[0]) || !tag.bytes().all(|b| word(b) || b == b'.' || b == b'-') {
        return Err(format!(
            "tag {tag:?} is not letters, digits, `_`, `.` and `-`, begun by one of the first three"
        ));
    }
    Ok(())
}

fn is_hex(b: u8) -> bool {
    b.is_ascii_digit() || (b'a'..=b'f').contains(&b)
}

fn cut(text: &str) -> String {
    let mut cut: String = text.chars().take(200).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn short_forms_are_normalised_as_docker_does() {
        for (short, full) in [
            ("debian", "docker.io/library/debian:latest"),
            ("debian:12", "docker.io/library/debian:12"),
            ("index.docker.io/debian", "docker.io/library/debian:latest"),
            ("docker.io/debian", "docker.io/library/debian:latest"),
            ("me/app", "docker.io/me/app:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app:v1", "localhost:5000/app:v1"),
            ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("[2001:db8::1]/app", "[2001:db8::1]/app:latest"),
            ("quay.io/a/b__c-d.e:T_1.2-3", "quay.io/a/b__c-d.e:T_1.2-3"),
            ("Registry/app", "Registry/app:latest"),
            ("a--b/c---d", "docker.io/a--b/c---d:latest"),
        ] {
            assert_eq!(Reference::parse(short).unwrap().name(), full, "{short}");
        }
    }

    #[test]
    fn a_digest_wins_over_a_tag() {
        let both = Reference::parse(&format!("debian:12@{D}")).unwrap();
        assert_eq!(both.target(), D);
        assert_eq!(both.name(), format!("docker.io/library/debian@{D}"));
        assert_eq!(both.to_string(), format!("docker.io/library/debian:12@{D}"));
        assert_eq!(Reference::parse(&format!("debian@{D}")).unwrap().tag, None);
    }

    #[test]
    fn what_breaks_the_grammar_is_refused_with_the_rule() {
        let long = format!("a/{}", "b".repeat(250));
        let tag = format!("a:{}", "t".repeat(129));
        let bare_id = "a".repeat(64);
        for (text, part) in [
            ("", "empty"),
            ("Debian", "lower case"),
            ("a/B", "lower case"),
            ("a//b", "component"),
            ("/a", "component"),
            ("a/", "component"),
            ("a..b", "component"),
            ("a___b", "component"),
            ("-a", "component"),
            ("../a", "component"),
            ("a b", "component"),
            ("a:", "tag"),
            ("a:.x", "tag"),
            ("a:x/y", "port"),
            ("a@sha256:12", "64"),
            ("a@sha1:12", "algorithm"),
            ("host:99999/a", "port"),
            ("host:0/a", "port"),
            ("[::1/a", "closed"),
            ("[::zz]/a", "IPv6"),
            ("-x.io/a", "host"),
            ("x..io/a", "host"),
            (&long, "longer"),
            (&tag, "tag"),
            (&bare_id, "image id"),
            ("a\0b", "component"),
            ("ä", "component"),
        ] {
            let error = Reference::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["debian", "localhost:5000/a/b:c", "[::1]:5000/app"] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(Reference::parse(&reference.name()).unwrap(), reference);
        }
    }
}
