//! `login` and `logout`: the manager asks the registry, and what it took is kept where docker keeps it.

use std::io::{self, Read as _};

use credentials::{Configuration, Place, Secret, registry_name};
use proto::v1::LoginRequest;

use super::credentials::{failure, message};
use crate::cli::{Login, Logout};
use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::{output, terminal};

const PASSWORD_BYTES_MAX: u64 = 64 << 10;

pub(super) async fn login(client: &Client, flags: Login) -> Result<u8> {
    let configuration = configuration()?;
    let registry = registry_name(&flags.server).to_owned();
    if flags.username.is_none()
        && flags.password.is_none()
        && let Some(secret) = configuration.find(&registry).map_err(|error| failure(&error))?
    {
        output::print_line("Authenticating with existing credentials...")?;
        match ask(client, &registry, &secret).await {
            Ok(_) => return succeeded(),
            // A person can type better ones; else that is the end.
            Err(refused) if !terminal::stdin_is_terminal() => return Err(refused),
            Err(refused) => refused.report(),
        }
    }
    let secret = given_or_typed(&flags).await?;
    let identity_token = ask(client, &registry, &secret).await?;
    let kept = match identity_token.as_str() {
        "" => secret,
        _ => Secret::IdentityToken(identity_token),
    };
    if let Place::File(path) = configuration
        .keep(&registry, &kept)
        .map_err(|error| failure(&error))?
    {
        eprintln!(
            "WARNING! The credentials are stored unencrypted in {}.\n\
             A credential helper keeps them better: https://docs.docker.com/go/credential-store/",
            path.display()
        );
    }
    succeeded()
}

pub(super) fn logout(flags: &Logout) -> Result<u8> {
    let registry = registry_name(&flags.server);
    output::print_line(&if configuration()?
        .forget(registry)
        .map_err(|error| failure(&error))?
    {
        format!("Removing login credentials for {registry}")
    } else {
        format!("Not logged in to {registry}")
    })?;
    Ok(0)
}

fn configuration() -> Result<Configuration> {
    Configuration::of_user().ok_or_else(|| {
        Failure::new("there is no place for credentials: neither DOCKER_CONFIG nor HOME is set")
    })
}

fn succeeded() -> Result<u8> {
    output::print_line("Login Succeeded")?;
    Ok(0)
}

/// Whether the registry takes it. The identity token that it wants instead from now on, or nothing.
async fn ask(client: &Client, registry: &str, secret: &Secret) -> Result<String> {
    let request = LoginRequest {
        registry: registry.to_owned(),
        credentials: Some(message(registry, secret.clone())),
    };
    let reply = client.images().login(request).await;
    Ok(reply
        .map_err(|status| client.failure(&status))?
        .into_inner()
        .identity_token)
}

async fn given_or_typed(flags: &Login) -> Result<Secret> {
    if flags.password.is_some() {
        eprintln!("WARNING! A password on the command line can be seen by others. Use --password-stdin.");
    }
    let is_typed = flags.username.is_none() || (flags.password.is_none() && !flags.password_stdin);
    if is_typed && !terminal::stdin_is_terminal() {
        return Err(Failure::new(
            "nobody can be asked for a user name and a password: stdin is not a terminal",
        )
        .with_hint("give them by --username and --password-stdin"));
    }
    let username = match &flags.username {
        Some(username) => username.clone(),
        None => terminal::ask("Username: ", true).await?.trim().to_owned(),
    };
    let password = match &flags.password {
        Some(password) => password.clone(),
        None if flags.password_stdin => from_stdin()?,
        None => terminal::ask("Password: ", false).await?,
    };
    if username.is_empty() || password.is_empty() {
        return Err(Failure::new(
            "a login needs a user name and a password, and one is empty",
        ));
    }
    Ok(Secret::Password { username, password })
}

/// All of stdin but the end of its last line.
fn from_stdin() -> Result<String> {
    let mut password = String::new();
    let mut input = io::stdin().lock().take(PASSWORD_BYTES_MAX + 1);
    input
        .read_to_string(&mut password)
        .map_err(|error| Failure::new(format!("read the password from stdin: {error}")))?;
    if password.len() as u64 > PASSWORD_BYTES_MAX {
        return Err(Failure::new(format!(
            "the password has more than {PASSWORD_BYTES_MAX} bytes"
        )));
    }
    let end = password.trim_end_matches(['\n', '\r']).len();
    password.truncate(end);
    Ok(password)
}
