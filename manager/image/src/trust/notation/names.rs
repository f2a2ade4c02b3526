//! Distinguished names: those of signers, and those that a policy trusts.

use std::fmt;

use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::oid::db::rfc4519::{C, CN, L, O, OU, POSTAL_CODE, SERIAL_NUMBER, ST, STREET};
use x509_cert::der::{Tag, Tagged as _};
use x509_cert::name::Name as X509Name;

use crate::digest::quote;

const PREFIX: &str = "x509.subject:";
/// Source: RFC 4514, section 3, and what else is common; others are told by their numbers.
const NAMES: [(ObjectIdentifier, &str); 9] = [
    (C, "C"),
    (ST, "ST"),
    (L, "L"),
    (O, "O"),
    (OU, "OU"),
    (CN, "CN"),
    (STREET, "STREET"),
    (POSTAL_CODE, "POSTALCODE"),
    (SERIAL_NUMBER, "SERIALNUMBER"),
];

/// Attributes of a subject, as `("O", "acme")`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Name(Vec<(String, String)>);

impl Name {
    /// One of `trustedIdentities`: `x509.subject: C=US, ST=WA, O=acme`.
    pub(super) fn parse(text: &str) -> Result<Name, String> {
        let list = text
            .strip_prefix(PREFIX)
            .ok_or_else(|| format!("trusted identity {} does not begin with {PREFIX}", quote(text)))?;
        let mut attributes: Vec<(String, String)> = Vec::new();
        for part in split(list) {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| format!("trusted identity {} has a part without `=`", quote(text)))?;
            let key = match key.trim().to_ascii_uppercase().as_str() {
                // RFC 4514 calls it ST; others write S.
                "S" => "ST".to_owned(),
                other => other.to_owned(),
            };
            if attributes.iter().any(|(known, _)| *known == key) {
                return Err(format!("trusted identity {} has {key} twice", quote(text)));
            }
            attributes.push((key, value.trim().to_owned()));
        }
        let has = |key: &str| {
            attributes
                .iter()
                .any(|(known, value)| known == key && !value.is_empty())
        };
        if !(has("C") && has("ST") && has("O")) {
            return Err(format!(
                "trusted identity {} has to have C, ST and O",
                quote(text)
            ));
        }
        Ok(Name(attributes))
    }

    /// That of a certificate.
    pub(super) fn of(name: &X509Name) -> Result<Name, String> {
        let attributes = name.0.iter().flat_map(|part| part.0.iter());
        let attributes = attributes.map(|attribute| {
            let known = NAMES.iter().find(|(oid, _)| *oid == attribute.oid);
            let key = known.map_or_else(|| attribute.oid.to_string(), |(_, key)| (*key).to_owned());
            Ok((key, text(attribute)?))
        });
        attributes.collect::<Result<_, String>>().map(Name)
    }

    /// Whether `whole` has all attributes of this one.
    pub(super) fn is_within(&self, whole: &Name) -> bool {
        self.0.iter().all(|attribute| whole.0.contains(attribute))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (key, value)) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { ", " };
            write!(f, "{comma}{key}={}", value.escape_debug())?;
        }
        Ok(())
    }
}

/// At commas that no backslash precedes.
fn split(list: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut characters = list.chars();
    while let Some(character) = characters.next() {
        let current = parts.last_mut().expect("there is always a last part");
        match character {
            '\\' => current.extend(characters.next()),
            ',' | ';' => parts.push(String::new()),
            other => current.push(other),
        }
    }
    parts
}

fn text(attribute: &AttributeTypeAndValue) -> Result<String, String> {
    let value = &attribute.value;
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::TeletexString => {
            String::from_utf8(value.value().to_vec()).map_err(|_| "its subject is not UTF-8".to_owned())
        }
        other => Err(format!("its subject has a {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trusted_identity_is_a_part_of_a_subject() {
        let subject = Name::parse("x509.subject: C=US, ST=WA, O=acme\\, inc, CN=ci").unwrap();
        assert_eq!(subject.to_string(), "C=US, ST=WA, O=acme, inc, CN=ci");
        for (text, expected) in [
            ("x509.subject: C=US, ST=WA, O=acme\\, inc", true),
            ("x509.subject:O=acme\\, inc,S=WA,C=US", true),
            ("x509.subject: C=US, ST=WA, O=acme", false),
            ("x509.subject: C=US, ST=WA, O=acme\\, inc, OU=x", false),
        ] {
            assert_eq!(Name::parse(text).unwrap().is_within(&subject), expected, "{text}");
        }
    }

    #[test]
    fn identities_that_would_trust_too_many_are_refused() {
        for text in [
            "",
            "C=US, ST=WA, O=a",
            "x509.subject: C=US, ST=WA",
            "x509.subject: C=US, ST=WA, O=a, O=b",
            "x509.subject: C, ST=WA, O=a",
            "x509.subject: C=US, ST=WA, O=",
        ] {
            assert!(Name::parse(text).is_err(), "{text}");
        }
    }
}
