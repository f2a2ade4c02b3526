//! Who to be at a registry: what the person has in docker's configuration, so that `docker login` serves both.

use credentials::{Configuration, Secret};
use proto::v1::Credentials;

use crate::failure::{Failure, Result};

/// Credentials for the registry of an image, if the person has any there.
pub(super) fn of_registry(reference: &str) -> Result<Option<Credentials>> {
    let Some(configuration) = Configuration::of_user() else {
        return Ok(None);
    };
    let registry = registry(reference);
    let secret = configuration.find(registry).map_err(|error| failure(&error))?;
    Ok(secret.map(|secret| message(registry, secret)))
}

/// As the API has them.
pub(super) fn message(registry: &str, secret: Secret) -> Credentials {
    let mut message = Credentials {
        registry: registry.to_owned(),
        ..Credentials::default()
    };
    match secret {
        Secret::Password { username, password } => {
            message.username = username;
            message.password = password;
        }
        Secret::IdentityToken(token) => message.identity_token = token,
        Secret::RegistryToken(token) => message.registry_token = token,
    }
    message
}

pub(super) fn failure(error: &credentials::Error) -> Failure {
    let failure = Failure::new(error.to_string());
    match error {
        credentials::Error::NoHelper { .. } => failure.with_hint(
            "credsStore or credHelpers in docker's config.json name it: install it, or take it out there",
        ),
        _ => failure,
    }
}

/// The registry that an image's name begins with, or docker's own.
fn registry(reference: &str) -> &str {
    let (host, _) = credentials::split_host(reference);
    credentials::registry_name(host.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_of_the_hub_is_no_registry() {
        assert_eq!(registry("debian"), "docker.io");
        assert_eq!(registry("user/app:1"), "docker.io");
        assert_eq!(registry("index.docker.io/user/app"), "docker.io");
        assert_eq!(registry("MyOrg/app"), "MyOrg", "the manager asks this host");
        assert_eq!(registry("localhost:5000/app"), "localhost:5000");
    }
}
