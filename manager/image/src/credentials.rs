//! What proves at a registry who somebody is.
//!
//! It comes with each request: the manager has no credentials of its own and reads nobody's configuration.

use std::fmt;

use ::credentials::{Secret, registry_name};

use crate::Error;

/// What a client has for one registry, and is for no other.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    registry: String,
    secret: Secret,
}

impl Credentials {
    /// A secret for `registry`, as a reference names it: `docker.io`, `registry.example:5000`.
    pub fn new(registry: &str, secret: Secret) -> Credentials {
        Credentials {
            registry: registry_name(registry).to_owned(),
            secret,
        }
    }

    /// A name and a password.
    pub fn password(registry: &str, username: impl Into<String>, password: impl Into<String>) -> Credentials {
        let secret = Secret::Password {
            username: username.into(),
            password: password.into(),
        };
        Credentials::new(registry, secret)
    }

    /// The secret, to be shown to `host` and to whom it names. The only way to it: what is for another is never sent.
    pub(crate) fn for_registry(&self, host: &str) -> Result<&Secret, Error> {
        if self.registry == registry_name(host) {
            return Ok(&self.secret);
        }
        Err(Error::OtherRegistry {
            registry: self.registry.clone(),
            host: host.to_owned(),
        })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.secret {
            Secret::Password { username, .. } => write!(f, "password of {username:?}")?,
            Secret::IdentityToken(_) => write!(f, "identity token")?,
            Secret::RegistryToken(_) => write!(f, "registry token")?,
        }
        write!(f, " at {}", self.registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_do_not_show_what_is_secret() {
        for secret in [
            Secret::Password {
                username: "me".into(),
                password: "secret".into(),
            },
            Secret::IdentityToken("secret".into()),
            Secret::RegistryToken("secret".into()),
        ] {
            let credentials = Credentials::new("docker.io", secret);
            assert!(!format!("{credentials:?}").contains("secret"));
        }
    }

    #[test]
    fn credentials_are_for_one_registry() {
        for (registry, host, is_for) in [
            ("docker.io", "docker.io", true),
            ("docker.io", "index.docker.io", true),
            ("docker.io", "MyOrg", false),
            ("a.example", "a.example:5000", false),
            ("a.example", "b.example", false),
            ("", "a.example", false),
        ] {
            let credentials = Credentials::password(registry, "me", "secret");
            assert_eq!(
                credentials.for_registry(host).is_ok(),
                is_for,
                "{registry:?} {host}"
            );
        }
    }
}
