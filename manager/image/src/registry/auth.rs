//! Proving who we are at one registry: the `Authorization` header of the moment, for all that one pull or push asks.
//!
//! Rules: a password goes to the registry itself by Basic, or to the token server that the registry names
//! ([`TokenServer::named_by`]), never anywhere else. A token goes to the registry only.

use std::time::Instant;

use ::credentials::Secret;
use reqwest::header::{HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Response, Url};

use super::challenge::{self, Challenge};
use super::http::{Attempt, Http};
use super::scope::Scopes;
use super::token::{Token, TokenServer, basic, secret_header};

/// Who we are at one registry.
pub(super) struct Auth {
    /// Kept while it is good; all layers of a pull use one. Locked while a token is fetched, so that one is.
    state: tokio::sync::Mutex<State>,
    /// Whether to ask for an identity token: a login does.
    keep: bool,
}

struct State {
    secret: Option<Secret>,
    proof: Option<Proof>,
    /// Where the proof comes from, once the registry has told.
    token_server: Option<TokenServer>,
    /// What the next token is to allow.
    scopes: Scopes,
}

#[derive(Clone)]
struct Proof {
    header: HeaderValue,
    expires: Option<Instant>,
}

impl Proof {
    fn is_fresh(&self) -> bool {
        self.expires.is_none_or(|at| Instant::now() < at)
    }
}

impl Auth {
    pub(super) fn new(secret: Option<Secret>, keep: bool) -> Auth {
        Auth {
            state: tokio::sync::Mutex::new(State {
                secret,
                proof: None,
                token_server: None,
                scopes: Scopes::default(),
            }),
            keep,
        }
    }

    /// From now on, ask for `actions` on `repository` too.
    pub(super) async fn want(&self, repository: &str, actions: &[&str]) {
        let mut state = self.state.lock().await;
        if state.scopes.add(repository, actions) && state.token_server.is_some() {
            state.proof = None;
        }
    }

    /// The header to send, if one is known to be wanted. A token that has run out is renewed first: a request with a
    /// body would else be sent twice.
    pub(super) async fn header(&self, http: &Http) -> Result<Option<HeaderValue>, Attempt> {
        let mut state = self.state.lock().await;
        let is_fresh = state.proof.as_ref().is_some_and(Proof::is_fresh);
        if !is_fresh && state.token_server.is_some() {
            self.renew(&mut state, http).await?;
        }
        Ok(state.proof.as_ref().map(|proof| proof.header.clone()))
    }

    /// Get what a 401 answer asks for. `sent` is the header that was not enough.
    pub(super) async fn answer(
        &self,
        http: &Http,
        registry: &Url,
        refusal: &Response,
        sent: Option<&HeaderValue>,
    ) -> Result<(), Attempt> {
        let mut state = self.state.lock().await;
        // Another layer's request was refused too, and was quicker.
        let is_newer = |proof: &Proof| proof.is_fresh() && Some(&proof.header) != sent;
        if state.proof.as_ref().is_some_and(is_newer) {
            return Ok(());
        }
        let challenges: Vec<Challenge> = refusal
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        let bearer = challenges.iter().find(|c| matches!(c, Challenge::Bearer { .. }));
        match bearer.or(challenges.first()) {
            Some(Challenge::Bearer {
                realm,
                service,
                scope,
            }) => {
                state
                    .scopes
                    .merge(&Scopes::parse(scope.as_deref().unwrap_or_default()));
                if let Some(Secret::RegistryToken(token)) = &state.secret {
                    let header = secret_header(&format!("Bearer {token}"))
                        .ok_or_else(|| Attempt::Denied("no header can hold the registry token".into()))?;
                    return state.give(header, sent, "the registry token is not enough");
                }
                let server = TokenServer::named_by(registry, http.is_proved, realm, service.as_deref())?;
                state.token_server = Some(server);
                self.renew(&mut state, http).await
            }
            Some(Challenge::Basic) => match &state.secret {
                Some(Secret::Password { username, password }) => {
                    let header = basic(username, password)?;
                    state.give(header, sent, "the user name or password is wrong")
                }
                Some(_) => Err(Attempt::Denied(
                    "it wants a user name and a password, and a token was given".into(),
                )),
                None => Err(Attempt::Denied(
                    "credentials are needed, and none were given".into(),
                )),
            },
            None => Err(Attempt::Denied(
                "it asks for a proof that is not supported".into(),
            )),
        }
    }

    async fn renew(&self, state: &mut State, http: &Http) -> Result<(), Attempt> {
        let Some(server) = &state.token_server else {
            return Ok(());
        };
        let Token {
            header,
            expires,
            refresh,
        } = server
            .fetch(http, state.secret.as_ref(), &state.scopes, self.keep)
            .await?;
        state.proof = Some(Proof { header, expires });
        if let Some(token) = refresh {
            // The server may have made the older one invalid by this.
            state.secret = Some(Secret::IdentityToken(token));
        }
        Ok(())
    }

    /// Why it may have been refused, for people.
    pub(super) async fn explain(&self, reason: &str) -> String {
        match self.state.lock().await.secret {
            Some(_) => reason.to_owned(),
            None => format!("{reason}, and no credentials were given"),
        }
    }

    /// The identity token that the token server gave.
    pub(super) async fn identity_token(&self) -> Option<String> {
        match &self.state.lock().await.secret {
            Some(Secret::IdentityToken(token)) => Some(token.clone()),
            _ => None,
        }
    }
}

impl State {
    /// Use what never changes, unless it was refused already.
    fn give(
        &mut self,
        header: HeaderValue,
        sent: Option<&HeaderValue>,
        refused: &str,
    ) -> Result<(), Attempt> {
        if sent.is_some() {
            return Err(Attempt::Denied(refused.to_owned()));
        }
        self.proof = Some(Proof {
            header,
            expires: None,
        });
        Ok(())
    }
}
