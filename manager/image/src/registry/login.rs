//! Asking a registry whether it takes somebody's credentials.

use ::credentials::Secret;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};

use super::Registry;
use crate::credentials::Credentials;
use crate::patience::{Attempts, Config};
use crate::reference::Reference;
use crate::{Error, blocking};

/// Ask the registry `host`, and give the identity token that it wants to see in the password's place from now on, if
/// it is one that gives such. A mirror is not asked: credentials are not for it.
pub(crate) async fn login(
    host: &str,
    credentials: &Credentials,
    config: &Config,
) -> Result<Option<String>, Error> {
    // Any repository will do: what is asked for is the API's root.
    let reference = Reference::parse(&format!("{host}/login"))
        .ok()
        .filter(|reference| reference.host == host || host == "index.docker.io")
        .ok_or_else(|| Error::Reference {
            reference: host.to_owned(),
            rule: "it is not the host of a registry".into(),
        })?;
    let (registries, name) = (config.registries.clone(), reference.host.clone());
    let endpoints = blocking(move || registries.endpoints(&name)).await?;
    let endpoint = endpoints
        .into_iter()
        .rfind(|endpoint| endpoint.is_registry)
        .ok_or_else(|| Error::Sources {
            registry: host.to_owned(),
            what: "place to log in to".into(),
            kind: crate::Kind::Unavailable,
            tried: "hosts.toml sends all that is for it to other hosts".into(),
        })?;
    let secret = credentials.for_registry(&reference.host)?;
    let registry = Registry::to_log_in(endpoint, &reference, secret, config).await?;
    registry.log_in().await?;
    Ok(registry
        .auth
        .identity_token()
        .await
        .filter(|token| *secret != Secret::IdentityToken(token.clone())))
}

impl Registry {
    async fn log_in(&self) -> Result<(), Error> {
        let mut attempts = Attempts::new(&self.config);
        loop {
            let attempt = match self.get(Method::GET, self.base.clone(), &HeaderMap::new()).await {
                Ok(response) if response.status() == StatusCode::OK => return Ok(()),
                Ok(response) => self.http.refusal(response).await,
                Err(attempt) => attempt,
            };
            self.pause("its API", &mut attempts, 0, attempt).await?;
        }
    }
}
