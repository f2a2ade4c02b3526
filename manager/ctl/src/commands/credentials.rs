//! Who to be at a registry: what the person has in docker's configuration, so that `docker login` serves both.

use credentials::{Configuration, Secret};
use proto::v1::Credentials;

use crate::failure::{Failure, Result};

/// Credentials for the registry of an image, if the person has any there.
pub(super) fn of_registry(reference: &str) -> Result<Option<Credentials>> {
    let Some(configuration) = Configuration::of_user() else {
        return Ok(None);
    };
    let secret = configuration
        .find(registry(reference))
        .map_err(|error| failure(&error))?;
    Ok(secret.map(message))
}

/// As the API has them.
pub(super) fn message(secret: Secret) -> Credentials {
    let mut message = Credentials::default();
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

/// The part of a reference before the first slash names a registry if it looks like a host (docker's rule).
fn registry(reference: &str) -> &str {
    let name = match reference.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "",
    };
    credentials::registry_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_told_from_namespaces_as_docker_does() {
        assert_eq!(registry("debian"), "docker.io");
        assert_eq!(registry("user/app:1"), "docker.io");
        assert_eq!(registry("index.docker.io/user/app"), "docker.io");
        assert_eq!(registry("localhost/app"), "localhost");
        assert_eq!(registry("localhost:5000/app"), "localhost:5000");
        assert_eq!(registry("quay.io/a/b"), "quay.io");
    }
}
