//! The token server that a registry names: who may be asked for tokens, and how.
//!
//! Source: the distribution project's token and `OAuth2` specifications.

use std::time::{Duration, Instant};

use ::credentials::Secret;
use base64::Engine as _;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;

use super::http::{Attempt, Http, read_bounded};
use super::is_loopback;
use super::scope::Scopes;

const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// What the specification says when the answer does not.
const LIFE_DEFAULT: Duration = Duration::from_mins(1);
const CLIENT_ID: &str = "berth";

/// A token server, as a challenge names it.
#[derive(Clone)]
pub(super) struct TokenServer {
    realm: Url,
    service: Option<String>,
}

/// What it gave.
pub(super) struct Token {
    pub(super) header: HeaderValue,
    pub(super) expires: Option<Instant>,
    /// The identity token to ask with next time, in the place of a password or of an older one.
    pub(super) refresh: Option<String>,
}

impl TokenServer {
    /// Judge what a challenge of `registry` names: credentials will go there.
    ///
    /// A registry that TLS has proved may name any other host, by https. One that nothing proves, because its
    /// administrator wants plain HTTP or unchecked certificates, may name itself only: else who sits in between could
    /// send the password anywhere. Programs on this machine are reached by what is on this machine too.
    pub(super) fn named_by(
        registry: &Url,
        is_proved: bool,
        realm: &str,
        service: Option<&str>,
    ) -> Result<TokenServer, Attempt> {
        let refuse = |rule: &str| Attempt::Rule(format!("its token server {realm:?} {rule}"));
        let realm_url = Url::parse(realm).map_err(|_| refuse("is not a URL"))?;
        if !realm_url.username().is_empty() || realm_url.password().is_some() {
            return Err(refuse("has credentials in its URL"));
        }
        let is_itself = realm_url.origin() == registry.origin();
        let is_here = is_loopback(registry) && is_loopback(&realm_url);
        let is_encrypted = realm_url.scheme() == "https";
        let is_plain = realm_url.scheme() == "http";
        if !is_itself && !(is_here && (is_plain || is_encrypted)) {
            if !is_encrypted {
                return Err(refuse("is not reached by https"));
            }
            if !is_proved && realm_url.host() != registry.host() {
                return Err(refuse(
                    "is another host, and nothing proves that the registry wants that",
                ));
            }
        }
        Ok(TokenServer {
            realm: realm_url,
            service: service.map(str::to_owned),
        })
    }

    /// Ask for a token. With `keep` the server is asked for an identity token too.
    pub(super) async fn fetch(
        &self,
        http: &Http,
        secret: Option<&Secret>,
        scopes: &Scopes,
        keep: bool,
    ) -> Result<Token, Attempt> {
        let response = match secret {
            Some(Secret::IdentityToken(token)) => {
                let grant = [("grant_type", "refresh_token"), ("refresh_token", token.as_str())];
                self.post(http, &grant, scopes, keep).await?
            }
            Some(Secret::Password { username, password }) => {
                let response = self.get(http, Some((username, password)), scopes, keep).await?;
                match response.status() {
                    // It has OAuth2 alone.
                    StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
                        let grant = [
                            ("grant_type", "password"),
                            ("username", username.as_str()),
                            ("password", password.as_str()),
                        ];
                        self.post(http, &grant, scopes, keep).await?
                    }
                    _ => response,
                }
            }
            Some(Secret::RegistryToken(_)) | None => self.get(http, None, scopes, keep).await?,
        };
        let refuse = |rule: &str| Attempt::Denied(format!("its token server {} {rule}", self.realm));
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
                return Err(refuse(match secret {
                    None => "wants credentials, and none were given",
                    Some(_) => "refused the credentials",
                }));
            }
            _ => {
                return Err(match http.refusal(response).await {
                    Attempt::NotFound => refuse("is not there"),
                    other => other.of(&format!("its token server {}", self.realm)),
                });
            }
        }
        let content = read_bounded(http, response, ANSWER_BYTES_MAX).await?;
        parse_answer(&content).map_err(|rule| refuse(&rule))
    }

    async fn get(
        &self,
        http: &Http,
        password: Option<(&String, &String)>,
        scopes: &Scopes,
        keep: bool,
    ) -> Result<Response, Attempt> {
        let mut url = self.realm.clone();
        url.query_pairs_mut()
            .extend_pairs(self.service.iter().map(|s| ("service", s)))
            .extend_pairs(scopes.texts().map(|s| ("scope", s)))
            .append_pair("client_id", CLIENT_ID);
        if keep {
            url.query_pairs_mut().append_pair("offline_token", "true");
        }
        if let Some((username, _)) = password {
            url.query_pairs_mut().append_pair("account", username);
        }
        let mut request = http.client(&url).get(url);
        if let Some((username, password)) = password {
            request = request.header(AUTHORIZATION, basic(username, password)?);
        }
        http.exchange(request).await
    }

    async fn post(
        &self,
        http: &Http,
        grant: &[(&str, &str)],
        scopes: &Scopes,
        keep: bool,
    ) -> Result<Response, Attempt> {
        let scope: Vec<String> = scopes.texts().collect();
        let scope = scope.join(" ");
        let mut form = Url::parse("http://form/").expect("a constant URL");
        form.query_pairs_mut()
            .extend_pairs(grant)
            .append_pair("client_id", CLIENT_ID)
            .append_pair("service", self.service.as_deref().unwrap_or_default())
            .extend_pairs((!scope.is_empty()).then_some(("scope", &scope)))
            .extend_pairs(keep.then_some(("access_type", "offline")));
        let request = http
            .client(&self.realm)
            .post(self.realm.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.query().unwrap_or_default().to_owned());
        http.exchange(request).await
    }
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    refresh_token: Option<String>,
    expires_in: Option<u64>,
}

/// The JSON of a token server's answer.
pub(super) fn parse_answer(content: &[u8]) -> Result<Token, String> {
    // The parser's message could quote a secret.
    let answer: Answer =
        serde_json::from_slice(content).map_err(|_| "did not answer with the JSON of a token")?;
    let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
    let token = filled(answer.token)
        .or(filled(answer.access_token))
        .ok_or("answered without a token")?;
    let header =
        secret_header(&format!("Bearer {token}")).ok_or("answered with a token that no header can hold")?;
    let life = match answer.expires_in {
        None | Some(0) => LIFE_DEFAULT,
        Some(seconds) => Duration::from_secs(seconds),
    };
    Ok(Token {
        header,
        // A little early, so that it does not run out between here and there.
        expires: Instant::now().checked_add(life / 10 * 9),
        refresh: filled(answer.refresh_token),
    })
}

/// The header of a name and a password.
pub(super) fn basic(username: &str, password: &str) -> Result<HeaderValue, Attempt> {
    if username.contains(':') {
        return Err(Attempt::Denied("a user name cannot have a colon".into()));
    }
    let packed = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    secret_header(&format!("Basic {packed}"))
        .ok_or_else(|| Attempt::Denied("no header can hold the password".into()))
}

/// A header's value that is shown nowhere.
pub(super) fn secret_header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_where_a_proved_registry_sends_them() {
        let may = |registry: &str, is_proved: bool, realm: &str| {
            TokenServer::named_by(&Url::parse(registry).unwrap(), is_proved, realm, None).is_ok()
        };
        let tls = "https://registry.example/v2/";
        for (registry, is_proved, realm, allowed) in [
            (tls, true, "https://auth.example/token", true),
            (tls, true, "http://auth.example/token", false),
            (tls, true, "http://registry.example/token", false),
            (tls, true, "http://127.0.0.1/token", false),
            (tls, true, "https://me:secret@auth.example/token", false),
            (tls, true, "ftp://auth.example/", false),
            (tls, true, "token", false),
            (tls, false, "https://auth.example/token", false),
            (tls, false, "https://registry.example:8443/token", true),
            (
                "http://10.0.0.1:5000/v2/",
                false,
                "http://10.0.0.1:5000/token",
                true,
            ),
            (
                "http://10.0.0.1:5000/v2/",
                false,
                "http://10.0.0.1:5001/token",
                false,
            ),
            (
                "http://10.0.0.1:5000/v2/",
                false,
                "https://auth.example/token",
                false,
            ),
            (
                "http://127.0.0.1:5000/v2/",
                true,
                "http://127.0.0.1:5001/token",
                true,
            ),
            (
                "http://127.0.0.1:5000/v2/",
                true,
                "https://auth.example/token",
                true,
            ),
            (
                "http://127.0.0.1:5000/v2/",
                true,
                "http://auth.example/token",
                false,
            ),
        ] {
            assert_eq!(
                may(registry, is_proved, realm),
                allowed,
                "{registry} names {realm}"
            );
        }
    }

    #[test]
    fn answers_are_read_in_both_forms() {
        let parse = |text: &str| parse_answer(text.as_bytes());
        let docker = parse(r#"{"token":"a","access_token":"b","expires_in":3600,"issued_at":"x"}"#).unwrap();
        assert_eq!(docker.header, "Bearer a");
        assert!(docker.expires.unwrap() > Instant::now() + Duration::from_mins(50));
        let oauth = parse(r#"{"access_token":"b","refresh_token":"r","expires_in":0,"scope":""}"#).unwrap();
        assert_eq!(oauth.header, "Bearer b");
        assert_eq!(oauth.refresh.as_deref(), Some("r"));
        assert!(oauth.expires.unwrap() > Instant::now() + Duration::from_secs(50));
        assert!(
            parse(&format!(r#"{{"token":"a","expires_in":{}}}"#, u64::MAX))
                .unwrap()
                .expires
                .is_none()
        );
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"token":""}"#,
            r#"{"token":"a\nb"}"#,
            r#"{"token":1}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
