//! Proving who we are: tokens and passwords for one repository of one registry.
//!
//! Rules: a password goes to the registry itself by Basic, or to the token server that the registry names, never
//! anywhere else, and never unencrypted but to this machine. A token goes to the registry only.

use std::time::{Duration, Instant};

use base64::Engine as _;
use reqwest::header::{HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;

use super::challenge::{self, Challenge};
use super::http::{Attempt, Http, read_bounded};
use super::is_loopback;
use crate::credentials::{Found, Secret};

const TOKEN_ANSWER_BYTES_MAX: u64 = 1 << 20;
/// What the token specification says when the answer does not.
const TOKEN_LIFE_DEFAULT: Duration = Duration::from_mins(1);
const CLIENT_ID: &str = "berth";

/// The `Authorization` header of the moment.
pub(super) struct Auth {
    credentials: Found,
    /// Kept while it is good; all layers of a pull use one.
    current: tokio::sync::Mutex<Option<Proof>>,
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

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Auth {
    pub(super) fn new(credentials: Found) -> Auth {
        Auth {
            credentials,
            current: tokio::sync::Mutex::new(None),
        }
    }

    /// The header to send, if one is known to be wanted.
    pub(super) async fn header(&self) -> Option<HeaderValue> {
        let current = self.current.lock().await;
        current
            .as_ref()
            .filter(|proof| proof.is_fresh())
            .map(|proof| proof.header.clone())
    }

    /// Get what a 401 answer asks for. `sent` is the header that was not enough.
    pub(super) async fn answer(
        &self,
        http: &Http,
        refusal: &Response,
        repository: &str,
        sent: Option<&HeaderValue>,
    ) -> Result<(), Attempt> {
        let mut current = self.current.lock().await;
        // Another layer's request was refused too, and was quicker.
        if current
            .as_ref()
            .is_some_and(|proof| proof.is_fresh() && Some(&proof.header) != sent)
        {
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
        *current = Some(match (bearer, challenges.first()) {
            (
                Some(Challenge::Bearer {
                    realm,
                    service,
                    scope,
                }),
                _,
            ) => {
                let scope = scope
                    .clone()
                    .unwrap_or_else(|| format!("repository:{repository}:pull"));
                self.token(http, realm, service.as_deref(), &scope).await?
            }
            (_, Some(Challenge::Basic)) => match &self.credentials.secret {
                // The same password would be refused again.
                Some(Secret::Password(_)) if sent.is_some() => {
                    return Err(Attempt::Denied("the user name or password is wrong".into()));
                }
                Some(Secret::Password(credentials)) => Proof {
                    header: basic(&credentials.username, &credentials.password)?,
                    expires: None,
                },
                _ => return Err(Attempt::Denied(self.missing("credentials are needed"))),
            },
            _ => {
                return Err(Attempt::Denied(
                    "it asks for a proof that is not supported".into(),
                ));
            }
        });
        Ok(())
    }

    /// Why it may have been refused, for people.
    pub(super) fn missing(&self, reason: &str) -> String {
        match (&self.credentials.secret, &self.credentials.hint) {
            (Some(_), _) => reason.to_owned(),
            (None, Some(hint)) => format!("{reason}, and none were found: {hint}"),
            (None, None) => format!("{reason}, and none were given"),
        }
    }

    async fn token(
        &self,
        http: &Http,
        realm: &str,
        service: Option<&str>,
        scope: &str,
    ) -> Result<Proof, Attempt> {
        let denied = |rule: &str| Attempt::Denied(format!("its token server {realm:?} {rule}"));
        let mut url = Url::parse(realm).map_err(|_| denied("is not a URL"))?;
        let is_safe = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url));
        if !is_safe {
            return Err(denied("is not reached by https"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(denied("has credentials in its URL"));
        }
        let response = match &self.credentials.secret {
            Some(Secret::IdentityToken(token)) => {
                let form = url::form([
                    ("grant_type", "refresh_token"),
                    ("client_id", CLIENT_ID),
                    ("service", service.unwrap_or_default()),
                    ("scope", scope),
                    ("refresh_token", token),
                ]);
                http.exchange(
                    http.client
                        .post(url)
                        .body(form)
                        .header("content-type", "application/x-www-form-urlencoded"),
                )
                .await?
            }
            secret => {
                let scopes = scope.split(' ').filter(|s| !s.is_empty()).map(|s| ("scope", s));
                url.query_pairs_mut()
                    .extend_pairs(service.map(|s| ("service", s)))
                    .extend_pairs(scopes)
                    .append_pair("client_id", CLIENT_ID);
                let mut request = http.client.request(Method::GET, url);
                if let Some(Secret::Password(credentials)) = secret {
                    request = request.header(
                        reqwest::header::AUTHORIZATION,
                        basic(&credentials.username, &credentials.password)?,
                    );
                }
                http.exchange(request).await?
            }
        };
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
                return Err(denied(&self.missing("refused the credentials")));
            }
            _ => return Err(http.refusal(response).await),
        }
        let content = read_bounded(http, response, TOKEN_ANSWER_BYTES_MAX).await?;
        let answer: TokenAnswer = serde_json::from_slice(&content)
            .map_err(|_| denied("did not answer with the JSON of a token"))?;
        let token = answer
            .token
            .filter(|t| !t.is_empty())
            .or(answer.access_token)
            .ok_or_else(|| denied("answered without a token"))?;
        let header = secret_header(&format!("Bearer {token}"))
            .ok_or_else(|| denied("answered with a token that no header can hold"))?;
        let life = answer.expires_in.map_or(TOKEN_LIFE_DEFAULT, Duration::from_secs);
        // A little early, so that it does not run out between here and there.
        let expires = Instant::now().checked_add(life.mul_f64(0.9));
        Ok(Proof { header, expires })
    }
}

fn basic(username: &str, password: &str) -> Result<HeaderValue, Attempt> {
    if username.contains(':') {
        return Err(Attempt::Denied("a user name cannot have a colon".into()));
    }
    let packed = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    secret_header(&format!("Basic {packed}"))
        .ok_or_else(|| Attempt::Denied("no header can hold the password".into()))
}

fn secret_header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

mod url {
    /// A form body, encoded as in a query.
    pub(super) fn form<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
        let mut url = reqwest::Url::parse("http://form/").expect("a constant URL");
        url.query_pairs_mut().extend_pairs(pairs);
        url.query().unwrap_or_default().to_owned()
    }
}
