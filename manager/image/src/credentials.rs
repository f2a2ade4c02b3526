//! What proves at a registry who somebody is.
//!
//! It comes with each request: the manager has no credentials of its own and reads nobody's configuration.

use std::fmt;

/// What a client has for a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// For the registry itself, or for the token server that it names.
    Password {
        /// User name.
        username: String,
        /// Password or access token.
        password: String,
    },
    /// An `OAuth2` refresh token, good at the registry's token server only.
    IdentityToken(String),
    /// A bearer token, good at the registry as it is; nobody can renew it.
    RegistryToken(String),
}

impl Credentials {
    /// A name and a password.
    pub fn password(username: impl Into<String>, password: impl Into<String>) -> Credentials {
        Credentials::Password {
            username: username.into(),
            password: password.into(),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credentials::Password { username, .. } => write!(f, "password of {username:?}"),
            Credentials::IdentityToken(_) => write!(f, "identity token"),
            Credentials::RegistryToken(_) => write!(f, "registry token"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_do_not_show_what_is_secret() {
        for credentials in [
            Credentials::password("me", "secret"),
            Credentials::IdentityToken("secret".into()),
            Credentials::RegistryToken("secret".into()),
        ] {
            assert!(!format!("{credentials:?}").contains("secret"));
        }
    }
}
