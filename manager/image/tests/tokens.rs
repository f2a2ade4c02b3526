//! Token servers by script: both ways of asking, tokens that run out, and servers that must not be asked.

mod fixture;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use fixture::made::{self, Entry, Made, Packing};
use fixture::scripted::{Reply, Request, Server, good, header, status};
use fixture::{Place, impatient, password};
use image::{Credentials, Error, Image, Kind, PullOptions, Secret};

fn image_of(bytes: usize) -> Made {
    let tar = made::tar(&[Entry::File("a", &made::noise(bytes, 1))]);
    made::image(&[made::layer(&tar, Packing::Gzip)])
}

/// A registry that takes the token that `is_good` likes, and its token server, which answers as `tokens` says.
fn server(
    image: Made,
    is_good: impl Fn(&str) -> bool + Send + Sync + 'static,
    tokens: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
) -> Server {
    let port = Arc::new(OnceLock::new());
    let own = Arc::clone(&port);
    let given = AtomicUsize::new(0);
    let server = Server::start(move |request, _| {
        if request.path.starts_with("/token") {
            return tokens(request, given.fetch_add(1, Ordering::Relaxed));
        }
        match request.header("authorization") {
            Some(proof) if is_good(proof) && request.path == "/v2/" => {
                Reply::Answer(200, vec![], b"{}".to_vec())
            }
            Some(proof) if is_good(proof) => good(request, &image),
            _ => challenge(&format!("http://127.0.0.1:{}/token", own.wait())),
        }
    });
    port.set(server.port).unwrap();
    server
}

fn challenge(realm: &str) -> Reply {
    let text = format!("Bearer realm=\"{realm}\",service=\"s\",scope=\"repository:app:pull\"");
    Reply::Answer(401, vec![header("www-authenticate", &text)], vec![])
}

fn token(text: &str) -> Reply {
    Reply::Answer(200, vec![], text.as_bytes().to_vec())
}

fn secret(password: &str) -> Secret {
    Secret::Password {
        username: "me".into(),
        password: password.into(),
    }
}

async fn pull_as(server: &Server, secret: Option<Secret>) -> Result<Image, Error> {
    let place = Place::with(impatient(false)).await;
    let host = format!("127.0.0.1:{}", server.port);
    let credentials = secret.map(|secret| Credentials::new(&host, secret));
    let options = PullOptions {
        credentials,
        ..PullOptions::default()
    };
    let reference = server.reference();
    let pulled = place.images.pull(&reference, options, &|_| {});
    Ok(fixture::image_of(pulled.await?))
}

fn asked(server: &Server) -> Vec<Request> {
    let mut requests = server.requests();
    requests.retain(|request| request.path.starts_with("/token"));
    requests
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_token_is_exchanged_by_oauth2() {
    let server = server(
        image_of(10),
        |proof| proof == "Bearer t",
        |request, _| {
            if request.body.contains("refresh_token=I%2Fd") {
                token(r#"{"access_token":"t","expires_in":300}"#)
            } else {
                status(401)
            }
        },
    );
    pull_as(&server, Some(Secret::IdentityToken("I/d".into())))
        .await
        .unwrap();
    let asked = asked(&server);
    assert_eq!((asked.len(), asked[0].method.as_str()), (1, "POST"));
    for part in [
        "grant_type=refresh_token",
        "service=s",
        "scope=repository%3Aapp%3Apull",
        "client_id=berth",
    ] {
        assert!(asked[0].body.contains(part), "{part}: {}", asked[0].body);
    }
    assert!(asked[0].header("authorization").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_oauth2_alone_gets_the_password_by_post() {
    let server = server(
        image_of(10),
        |proof| proof == "Bearer t",
        |request, _| match request.method.as_str() {
            "GET" => status(405),
            _ => token(r#"{"access_token":"t"}"#),
        },
    );
    pull_as(&server, Some(secret("se cret"))).await.unwrap();
    let last = asked(&server).pop().unwrap();
    assert!(
        last.body
            .contains("grant_type=password&username=me&password=se+cret"),
        "{}",
        last.body
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_token_is_shown_to_the_registry_as_it_is() {
    let server = server(image_of(10), |proof| proof == "Bearer given", |_, _| status(500));
    pull_as(&server, Some(Secret::RegistryToken("given".into())))
        .await
        .unwrap();
    assert!(asked(&server).is_empty());
    let error = pull_as(&server, Some(Secret::RegistryToken("old".into())))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("denied"), "{error}");
}

/// The layer's first half comes with one token, and its connection breaks; by then the token has run out.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_runs_out_in_the_middle_of_a_layer_is_renewed() {
    let image = image_of(3 << 20);
    let (offered, layer) = (image.clone(), image.layers[0].clone());
    let registry_port = Arc::new(OnceLock::new());
    let own = Arc::clone(&registry_port);
    let (is_cut, given) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let server = Server::start(move |request, _| {
        if request.path.starts_with("/token") {
            let before = given.fetch_add(1, Ordering::SeqCst);
            return token(&format!(
                r#"{{"token":"t{before}","refresh_token":"r{before}","expires_in":3600}}"#
            ));
        }
        // As soon as the layer has been cut, the first token is no longer good.
        let wanted = format!("Bearer t{}", is_cut.load(Ordering::SeqCst));
        if request.header("authorization") != Some(&wanted) {
            return challenge(&format!("http://127.0.0.1:{}/token", own.wait()));
        }
        match good(request, &offered) {
            Reply::Answer(code, headers, body)
                if request.path.contains(&layer) && request.header("range").is_none() =>
            {
                is_cut.store(1, Ordering::SeqCst);
                Reply::Cut(code, headers, body, 1 << 20)
            }
            other => other,
        }
    });
    registry_port.set(server.port).unwrap();
    pull_as(&server, None).await.unwrap();
    let asked = asked(&server);
    let methods: Vec<&str> = asked.iter().map(|request| request.method.as_str()).collect();
    assert_eq!(methods, ["GET", "POST"]);
    assert!(
        asked[1].body.contains("refresh_token=r0"),
        "by what the first answer gave"
    );
    let requests = server.requests();
    let rest: Vec<_> = requests.iter().filter(|r| r.header("range").is_some()).collect();
    assert_eq!(rest.last().unwrap().header("range"), Some("bytes=1048576-"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_known_to_have_run_out_is_not_sent() {
    let server = server(
        image_of(10),
        |proof| proof.starts_with("Bearer t"),
        |_, before| token(&format!(r#"{{"token":"t{before}","expires_in":1}}"#)),
    );
    let place = Place::with(impatient(false)).await;
    place.pull(&server.reference()).await.unwrap();
    let refused = server
        .requests()
        .iter()
        .filter(|r| r.header("authorization").is_none() && !r.path.starts_with("/token"))
        .count();
    assert!(
        refused <= 2,
        "the question whether it speaks TLS aside, only the first request had no token"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_server_that_is_busy_is_asked_again_when_it_says() {
    let server = server(
        image_of(10),
        |proof| proof == "Bearer t",
        |_, before| match before {
            0 => {
                let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(2));
                Reply::Answer(429, vec![header("retry-after", &date)], vec![])
            }
            _ => token(r#"{"token":"t"}"#),
        },
    );
    let start = std::time::Instant::now();
    pull_as(&server, None).await.unwrap();
    assert_eq!(asked(&server).len(), 2);
    assert!(
        start.elapsed() > Duration::from_millis(900),
        "a date has whole seconds"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_goes_to_no_token_server_without_encryption() {
    let server = Server::start(|_, _| challenge("http://auth.example/token"));
    let error = pull_as(&server, Some(secret("secret"))).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("auth.example") && text.contains("https") && !text.contains("secret"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_for_one_registry_is_shown_to_no_other() {
    let server = server(image_of(10), |_| false, |_, _| token(r#"{"token":"t"}"#));
    let (place, reference) = (Place::with(impatient(false)).await, server.reference());
    for other in ["docker.io", "127.0.0.1", ""] {
        let own = Credentials::new(other, secret("s3cr3t"));
        let credentials = Some(own.clone());
        let options = PullOptions {
            credentials: credentials.clone(),
            ..PullOptions::default()
        };
        let errors = [
            place
                .images
                .pull(&reference, options.clone(), &|_| {})
                .await
                .err(),
            place.images.verify(&reference, options).await.err(),
            place
                .images
                .inspect_manifest(&reference, credentials.clone(), false)
                .await
                .err(),
            place
                .images
                .search(&reference, 0, credentials.clone())
                .await
                .err(),
            place
                .images
                .login(&format!("127.0.0.1:{}", server.port), own)
                .await
                .err(),
        ];
        for error in errors {
            let error = error.unwrap();
            let text = error.to_string();
            assert_eq!(error.kind(), Kind::Invalid, "{text}");
            assert!(
                text.contains("127.0.0.1") && text.contains(other) && !text.contains("s3cr3t"),
                "{text}"
            );
        }
    }
    assert_eq!(server.requests().len(), 0, "nobody was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_no_tokens_are_refused_without_being_shown() {
    for answer in [
        "",
        "{}",
        "[\"s3cr3t\"]",
        r#"{"token":"s3cr3t\n"}"#,
        r#"{"token":7}"#,
    ] {
        let server = server(image_of(10), |_| false, move |_, _| token(answer));
        let error = pull_as(&server, None).await.unwrap_err().to_string();
        assert!(
            error.contains("token server") && !error.contains("s3cr3t"),
            "{answer}: {error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_gives_the_identity_token_to_keep() {
    let server = server(
        image_of(10),
        |proof| proof == "Bearer t",
        |request, _| match request.header("authorization") {
            Some("Basic bWU6c2VjcmV0") if request.path.contains("offline_token=true") => {
                token(r#"{"token":"t","refresh_token":"keep me"}"#)
            }
            _ => status(401),
        },
    );
    let place = Place::with(impatient(false)).await;
    let host = format!("127.0.0.1:{}", server.port);
    let kept = place
        .images
        .login(&host, password(server.port, "secret"))
        .await
        .unwrap();
    assert_eq!(kept.as_deref(), Some("keep me"));
    let refused = place
        .images
        .login(&host, password(server.port, "wrong"))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("denied"), "{refused}");
    for bad in ["", "a/b", "-x", "a b"] {
        assert!(
            place
                .images
                .login(bad, password(server.port, "secret"))
                .await
                .is_err(),
            "{bad}"
        );
    }
}
