//! The trust policy: what is accepted, and each way in which an image or its signature can be wrong.

mod fixture;

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fixture::made::{self, Entry, Made, Packing};
use fixture::scripted::Server;
use fixture::signed::{
    LOGGED_AT, NAME, Notary, Owner, SIGN, Signed, Sigstore, Timestamps, other_digest, payload, sigstore_data,
    statement,
};
use fixture::{Place, left_over, patient};
use image::{Error, Images, Kind, PolicyFile, PullOptions};
use rcgen::SanType;
use serde_json::{Value, json};

const ISSUER: &str = "https://accounts.test";
const WORKFLOW: &str = "https://git.test/team/app/release.yml@refs/tags/v1";

fn image() -> Made {
    image_with("hello")
}

fn image_with(content: &str) -> Made {
    let tar = made::tar(&[Entry::File("greeting", content.as_bytes())]);
    made::image(&[made::layer(&tar, Packing::Gzip)])
}

/// Signatures name the image as its publisher does, not by the address of a test's registry.
fn identity() -> Value {
    json!({"type": "exactReference", "dockerReference": NAME})
}

fn policy(requirements: &Value) -> Value {
    json!({"default": [{"type": "reject"}], "transports": {"docker": {"127.0.0.1": requirements, "": requirements}}})
}

fn inline(pem: &str) -> String {
    STANDARD.encode(pem)
}

fn by_key(owner: &Owner) -> Value {
    json!({"type": "sigstoreSigned", "keyData": inline(&owner.public_pem()), "signedIdentity": identity()})
}

fn keyless(sigstore: &Sigstore, subject: (&str, &str)) -> Value {
    json!({
        "type": "sigstoreSigned",
        "fulcio": {"caData": inline(&sigstore.root_pem()), "oidcIssuer": ISSUER, subject.0: subject.1},
        "rekorPublicKeyData": inline(&sigstore.log.public_pem()),
        "signedIdentity": identity(),
    })
}

fn email(address: &str) -> SanType {
    SanType::Rfc822Name(address.try_into().unwrap())
}

#[track_caller]
fn refused(result: Result<image::Image, Error>) -> String {
    let error = result.expect_err("it is refused");
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    error.to_string()
}

/// Pull `signed` under `requirements`, which refuses it: with this reason, before a byte of a layer, leaving nothing.
async fn assert_refused(signed: Signed, requirements: &Value, reason: &str) {
    let layer = signed.image.layers[0].clone();
    let place = Place::under(&policy(&json!([requirements]))).await;
    assert_refused_at(&place, signed.serve(), &layer, reason).await;
}

async fn assert_refused_at(place: &Place, server: Server, layer: &str, reason: &str) {
    let error = refused(place.pull(&server.reference()).await);
    assert!(error.contains(reason), "{reason:?} is not in: {error}");
    assert!(error.contains("policy.json"), "{error}");
    assert_eq!(server.count("GET", layer), 0, "the layer was fetched: {reason}");
    assert_eq!(place.images.list().unwrap().len(), 0);
    assert_eq!(
        left_over(&place.beside_policy().join("store")),
        Vec::<std::path::PathBuf>::new()
    );
}

/// An image with one "simple signing" signature.
fn simple(sign: impl FnOnce(&str) -> (Vec<u8>, Value)) -> Signed {
    let mut signed = Signed::new(image());
    let signature = sign(&signed.top());
    signed.add_simple(&[signature]);
    signed
}

#[tokio::test]
async fn an_image_signed_by_the_policys_key_is_pulled_and_says_by_whom() {
    let owner = Owner::new();
    for has_referrers in [true, false] {
        let signed = simple(|top| owner.simple(payload(NAME, top)));
        let top = signed.top();
        let server = if has_referrers {
            signed.serve()
        } else {
            signed.serve_without_referrers()
        };
        let place = Place::under(&policy(&json!([by_key(&owner)]))).await;
        let verdict = place
            .images
            .verify(&server.reference(), PullOptions::default())
            .await
            .unwrap();
        assert_eq!((verdict.digest, verdict.signatures.len()), (top, 1));
        assert_eq!(verdict.signatures[0].name.as_deref(), Some(NAME));
        assert!(
            verdict.signatures[0].signer.starts_with("key sha256:"),
            "{:?}",
            verdict.signatures
        );
        assert_eq!(place.images.list().unwrap().len(), 0, "verify pulls nothing");
        let image = place.pull(&server.reference()).await.unwrap();
        assert!(place.images.check_trust(&server.reference(), &image).is_ok());
        assert!(place.images.check_trust(&image.id, &image).is_ok());
    }
}

#[tokio::test]
async fn signatures_with_a_key_are_refused_for_what_is_wrong_with_them() {
    let owner = Owner::new();
    let stranger = Owner::new();
    let other_algorithm = Owner::with(&rcgen::PKCS_ED25519);
    let requirement = by_key(&owner);
    assert_refused(Signed::new(image()), &requirement, "there is no signature").await;
    let cases: Vec<(Signed, &str)> = vec![
        (
            simple(|top| stranger.simple(payload(NAME, top))),
            "not a signature by this key",
        ),
        (
            simple(|top| other_algorithm.simple(payload(NAME, top))),
            "not a signature by this key",
        ),
        (
            simple(|_| owner.simple(payload(NAME, &other_digest()))),
            "it is for \"sha256:",
        ),
        (
            simple(|top| owner.simple(payload("registry.example/other:v1", top))),
            "it is for registry.example/other",
        ),
        (
            simple(|top| owner.simple(payload("registry.example/app:v2", top))),
            "it is for registry.example/app:v2",
        ),
        (
            simple(|top| owner.simple(payload("registry.example/app", top))),
            "matchRepository",
        ),
        (
            simple(|top| {
                let (_, annotations) = owner.simple(payload(NAME, &other_digest()));
                (payload(NAME, top), annotations)
            }),
            "not a signature by this key",
        ),
        (
            simple(|top| {
                let text = String::from_utf8(payload(NAME, top)).unwrap();
                owner.simple(
                    text.replace("cosign container image signature", "other")
                        .into_bytes(),
                )
            }),
            "it is of type \"other\"",
        ),
        (
            simple(|_| owner.simple(b"{}".to_vec())),
            "its payload is not that of a signature",
        ),
        (simple(|top| (payload(NAME, top), json!({}))), "no annotation"),
    ];
    for (signed, reason) in cases {
        assert_refused(signed, &requirement, reason).await;
    }
}

#[tokio::test]
async fn bundles_with_a_key_are_accepted_and_refused_by_the_same_rules() {
    let owner = Owner::new();
    let bundled = |statement: &dyn Fn(&str) -> String, by: &Owner| {
        let mut signed = Signed::new(image());
        let bundle = by.bundle(&statement(&signed.top()));
        signed.add_bundle(&bundle);
        signed
    };
    let signature = |top: &str| statement(SIGN, top);
    let mut requirement = by_key(&owner);
    // It names no repository, which has to be allowed.
    assert_refused(bundled(&signature, &owner), &requirement, "matchDigest").await;
    requirement["signedIdentity"] = json!({"type": "matchDigest"});
    for has_referrers in [true, false] {
        let signed = bundled(&signature, &owner);
        let server = if has_referrers {
            signed.serve()
        } else {
            signed.serve_without_referrers()
        };
        let place = Place::under(&policy(&json!([requirement]))).await;
        place.pull(&server.reference()).await.unwrap();
    }
    let stranger = Owner::new();
    for (signed, reason) in [
        (bundled(&signature, &stranger), "not a signature by this key"),
        (
            bundled(&|_| statement(SIGN, &other_digest()), &owner),
            "it is for another digest",
        ),
        (
            bundled(&|top| statement("https://slsa.dev/provenance/v1", top), &owner),
            "not a signature",
        ),
    ] {
        assert_refused(signed, &requirement, reason).await;
    }
    requirement["rekorPublicKeyData"] = json!(inline(&Sigstore::new().log.public_pem()));
    assert_refused(bundled(&signature, &owner), &requirement, "inclusion proof").await;
}

#[tokio::test]
async fn what_cosign_signs_with_each_kind_of_key_is_accepted_and_with_another_key_is_not() {
    for kind in ["p256", "p384", "rsa", "ed25519"] {
        for (form, name) in [("simple", identity()), ("bundle", json!({"type": "matchDigest"}))] {
            let (signed, key) = Signed::by_cosign(kind, form);
            let server = Server::start(move |request, _| signed.answer(request, false));
            let mut requirement =
                json!({"type": "sigstoreSigned", "keyData": inline(&key), "signedIdentity": name});
            let place = Place::under(&policy(&json!([requirement]))).await;
            let pulled = place.pull(&server.reference()).await;
            assert!(pulled.is_ok(), "{kind} {form}: {pulled:?}");
            requirement["keyData"] = json!(inline(&Owner::new().public_pem()));
            let place = Place::under(&policy(&json!([requirement]))).await;
            let error = refused(place.pull(&server.reference()).await);
            assert!(
                error.contains("not a signature by this key"),
                "{kind} {form}: {error}"
            );
        }
    }
}

#[tokio::test]
async fn of_more_signatures_than_are_looked_at_the_newest_count_and_the_others_are_told_of() {
    let (owner, stranger) = (Owner::new(), Owner::new());
    let signed_by = |signers: &[&Owner]| {
        let mut signed = Signed::new(image());
        let top = signed.top();
        let signatures: Vec<_> = signers.iter().map(|by| by.simple(payload(NAME, &top))).collect();
        signed.add_simple(&signatures);
        signed
    };
    let mut signers = vec![&stranger; 64];
    signers.push(&owner);
    let place = Place::under(&policy(&json!([by_key(&owner)]))).await;
    place
        .pull(&signed_by(&signers).serve().reference())
        .await
        .unwrap();
    signers.reverse();
    assert_refused(
        signed_by(&signers),
        &by_key(&owner),
        "1 older ones in it were not looked at",
    )
    .await;

    let mut bundled = Signed::new(image());
    let text = statement(SIGN, &bundled.top());
    for by in std::iter::repeat_n(&stranger, 64).chain([&owner]) {
        bundled.add_bundle(&by.bundle(&text));
    }
    let mut requirement = by_key(&owner);
    requirement["signedIdentity"] = json!({"type": "matchDigest"});
    let reason = "only the first 64 were looked at";
    assert_refused(bundled.clone(), &requirement, reason).await;
    bundled.referrers.rotate_right(1);
    let place = Place::under(&policy(&json!([requirement]))).await;
    place.pull(&bundled.serve().reference()).await.unwrap();
}

#[tokio::test]
async fn a_signature_that_is_missing_or_broken_hides_no_other() {
    let owner = Owner::new();
    let mut requirement = by_key(&owner);
    requirement["signedIdentity"] = json!({"type": "matchDigest"});
    let bundled = |count: usize| {
        let mut signed = Signed::new(image());
        let text = statement(SIGN, &signed.top());
        for _ in 0..count {
            signed.add_bundle(&owner.bundle(&text));
        }
        signed
    };
    let spoil = |signed: &mut Signed, part: usize, is_removed: bool| {
        let digest = &signed.first_signature()[part];
        if is_removed {
            signed.image.blobs.remove(digest);
        } else {
            let (_, content) = signed.image.blobs.get_mut(digest).unwrap();
            *content.last_mut().unwrap() ^= 1;
        }
    };
    for (part, is_removed, reason) in [
        (0, true, "has no manifest"),
        (0, false, "the content's digest is"),
        (1, true, "has no blob"),
        (1, false, "the content's digest is"),
    ] {
        let mut alone = bundled(1);
        spoil(&mut alone, part, is_removed);
        assert_refused(alone, &requirement, reason).await;
        let mut first_of_two = bundled(2);
        spoil(&mut first_of_two, part, is_removed);
        let place = Place::under(&policy(&json!([requirement]))).await;
        place.pull(&first_of_two.serve().reference()).await.unwrap();
    }
}

#[tokio::test]
async fn what_sigstores_library_signs_without_a_key_is_accepted_from_whom_the_policy_names() {
    for log in ["rekor1", "rekor2"] {
        for (subject, issuer, reason) in [
            ("dev@app.test", ISSUER, None),
            ("other@app.test", ISSUER, Some("dev@app.test")),
            ("dev@app.test", "https://else.test", Some(ISSUER)),
        ] {
            let requirement = json!({
                "type": "sigstoreSigned",
                "fulcio": {"oidcIssuer": issuer, "subjectEmail": subject},
                "trustedRootPath": sigstore_data().join("trusted_root.json"),
                "signedIdentity": {"type": "matchDigest"},
            });
            let signed = Signed::by_sigstore(log);
            let place = Place::under(&policy(&json!([requirement]))).await;
            let pulled = place.pull(&signed.serve().reference()).await;
            match reason {
                None => assert!(pulled.is_ok(), "{log}: {pulled:?}"),
                Some(reason) => assert!(refused(pulled).contains(reason), "{log}"),
            }
        }
    }
}

#[tokio::test]
async fn any_of_several_keys_or_each_of_several_requirements() {
    let (first, second) = (Owner::new(), Owner::new());
    let mut either = by_key(&first);
    let keys = [inline(&first.public_pem()), inline(&second.public_pem())];
    either["keyDatas"] = json!(keys);
    either.as_object_mut().unwrap().remove("keyData");
    let both = json!([by_key(&first), by_key(&second)]);
    let by_second = || simple(|top| second.simple(payload(NAME, top)));

    let place = Place::under(&policy(&json!([either]))).await;
    place.pull(&by_second().serve().reference()).await.unwrap();

    let place = Place::under(&policy(&both)).await;
    let layer = by_second().image.layers[0].clone();
    assert_refused_at(&place, by_second().serve(), &layer, "not a signature by this key").await;
    let mut signed = Signed::new(image());
    let text = payload(NAME, &signed.top());
    signed.add_simple(&[first.simple(text.clone()), second.simple(text)]);
    let server = signed.serve();
    let verdict = place
        .images
        .verify(&server.reference(), PullOptions::default())
        .await
        .unwrap();
    assert_eq!(verdict.signatures.len(), 2);
    place.pull(&server.reference()).await.unwrap();
}

#[tokio::test]
async fn a_tag_that_moves_to_what_nobody_signed_is_refused_and_the_old_image_stays() {
    let owner = Owner::new();
    let signed = simple(|top| owner.simple(payload(NAME, top)));
    let mut moved = signed.clone();
    let other = image_with("evil");
    moved.image.blobs.extend(other.blobs.clone());
    let (old, new) = (signed.clone(), moved);
    let is_moved = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = std::sync::Arc::clone(&is_moved);
    let server = Server::start(move |request, _| {
        let mut now = if flag.load(std::sync::atomic::Ordering::SeqCst) {
            new.clone()
        } else {
            old.clone()
        };
        if flag.load(std::sync::atomic::Ordering::SeqCst) {
            now.tags.insert("v1".into(), other.top.clone());
        }
        now.answer(request, true)
    });
    let place = Place::under(&policy(&json!([by_key(&owner)]))).await;
    let first = place.pull(&server.reference()).await.unwrap();
    is_moved.store(true, std::sync::atomic::Ordering::SeqCst);
    let error = refused(place.pull(&server.reference()).await);
    assert!(error.contains("there is no signature of"), "{error}");
    assert!(
        error.contains(&first.manifest_digest),
        "where it pointed before is told: {error}"
    );
    let now = place.images.get(&server.reference()).unwrap();
    assert_eq!(now.id, first.id);
    assert!(place.images.check_trust(&server.reference(), &now).is_ok());
}

#[tokio::test]
async fn an_index_or_the_image_chosen_from_it_may_be_what_is_signed() {
    let owner = Owner::new();
    let inner = image();
    for sign_index in [true, false] {
        let mut signed = Signed::new(made::index(&[("linux/amd64", &inner)]));
        let index = signed.top();
        let subject = if sign_index {
            index.clone()
        } else {
            inner.top.clone()
        };
        signed.tags.insert("v1".into(), subject.clone());
        signed.add_simple(&[owner.simple(payload(NAME, &subject))]);
        signed.tags.insert("v1".into(), index);
        let place = Place::under(&policy(&json!([by_key(&owner)]))).await;
        place.pull(&signed.serve().reference()).await.unwrap();
    }
}

#[tokio::test]
async fn an_image_that_is_made_later_of_a_signed_index_is_accepted_by_its_signature() {
    let owner = Owner::new();
    let inner = image();
    let tar = made::tar(&[Entry::File("greeting", b"servus")]);
    let other = made::image_for(&[made::layer(&tar, Packing::Gzip)], "arm64");
    let mut signed = Signed::new(made::index(&[("linux/amd64", &inner), ("linux/arm64", &other)]));
    let text = payload(NAME, &signed.top());
    signed.add_simple(&[owner.simple(text)]);
    let server = signed.serve();
    let place = Place::under(&policy(&json!([by_key(&owner)]))).await;
    let options = PullOptions {
        all_platforms: true,
        ..PullOptions::default()
    };
    let reference = server.reference();
    place.images.pull(&reference, options, &|_| {}).await.unwrap();
    server.forget();
    let made = place
        .images
        .get_for(&reference, "linux/arm64".parse().unwrap())
        .await
        .unwrap();
    assert_eq!(
        (made.id.as_str(), server.requests().len()),
        (other.id.as_str(), 0)
    );
    let verdict = place.images.check_trust(&reference, &made).unwrap();
    assert_eq!(verdict.signatures.len(), 1);
}

#[tokio::test]
async fn a_keyless_signature_holds_for_who_the_policy_names_at_the_time_of_the_log() {
    let sigstore = Sigstore::new();
    let person = sigstore.certify(email("dev@app.test"), ISSUER);
    let workflow = sigstore.certify(SanType::URI(WORKFLOW.try_into().unwrap()), ISSUER);
    for (certified, subject) in [
        (&person, ("subjectEmail", "dev@app.test")),
        (&workflow, ("subjectURI", WORKFLOW)),
        (
            &workflow,
            ("subjectURIPrefix", "https://git.test/team/app/release.yml@"),
        ),
    ] {
        let mut requirement = keyless(&sigstore, subject);
        let signed = simple(|top| sigstore.simple(certified, payload(NAME, top), LOGGED_AT));
        let server = signed.serve();
        let place = Place::under(&policy(&json!([requirement]))).await;
        let verdict = place
            .images
            .verify(&server.reference(), PullOptions::default())
            .await
            .unwrap();
        assert!(
            verdict.signatures[0].signer.contains(ISSUER),
            "{:?}",
            verdict.signatures
        );
        place.pull(&server.reference()).await.unwrap();

        requirement["signedIdentity"] = json!({"type": "matchDigest"});
        let mut signed = Signed::new(image());
        let bundle = sigstore.bundle(certified, &statement(SIGN, &signed.top()), LOGGED_AT);
        signed.add_bundle(&bundle);
        let place = Place::under(&policy(&json!([requirement]))).await;
        place.pull(&signed.serve().reference()).await.unwrap();
    }
}

#[tokio::test]
async fn an_authority_certifies_nobody_after_its_own_certificate_has_ended() {
    let sigstore = Sigstore::until(2026);
    let dev = sigstore.certify(email("dev@app.test"), ISSUER);
    let subject = ("subjectEmail", "dev@app.test");
    let signed = || simple(|top| sigstore.simple(&dev, payload(NAME, top), LOGGED_AT));
    assert_refused(signed(), &keyless(&sigstore, subject), "authority").await;
    let requirement = json!({
        "type": "sigstoreSigned",
        "fulcio": {"oidcIssuer": ISSUER, subject.0: subject.1},
        "trustedRootPath": "trusted_root.json",
        "signedIdentity": identity(),
    });
    let place = Place::under(&policy(&json!([requirement]))).await;
    let root = sigstore.trusted_root(None).to_string();
    std::fs::write(place.beside_policy().join("trusted_root.json"), root).unwrap();
    let layer = signed().image.layers[0].clone();
    assert_refused_at(&place, signed().serve(), &layer, "authority").await;
}

#[tokio::test]
async fn an_identity_that_only_begins_or_ends_like_the_policys_is_another() {
    let sigstore = Sigstore::new();
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let by_email = keyless(&sigstore, ("subjectEmail", "dev@app.test"));
    let by_uri = keyless(&sigstore, ("subjectURI", WORKFLOW));
    let by_prefix = keyless(
        &sigstore,
        ("subjectURIPrefix", "https://git.test/team/app/release.yml@"),
    );
    let good = "https://accounts.test";
    for (requirement, identity, issuer) in [
        (&by_email, email("dev@app.test.evil"), good),
        (&by_email, email("adev@app.test"), good),
        (&by_email, email("dev@app.tes"), good),
        (&by_email, email("DEV@app.test"), good),
        (&by_email, email("dev@app.test"), "https://accounts.test.evil"),
        (&by_email, email("dev@app.test"), "https://accounts.test/"),
        (&by_email, email("dev@app.test"), "https://accounts.tes"),
        (&by_uri, uri(&format!("{WORKFLOW}.1")), good),
        (&by_uri, uri(&WORKFLOW[..WORKFLOW.len() - 1]), good),
        (&by_uri, uri(&format!("https://evil.test/{WORKFLOW}")), good),
        (
            &by_prefix,
            uri("https://git.test/team/app/release.ymlx@refs/tags/v1"),
            good,
        ),
        (
            &by_prefix,
            uri("https://git.test.evil/team/app/release.yml@refs/tags/v1"),
            good,
        ),
        (
            &by_prefix,
            uri("https://evil.test/https://git.test/team/app/release.yml@refs/tags/v1"),
            good,
        ),
        // An address that reads like the URI.
        (
            &by_prefix,
            email("https://git.test/team/app/release.yml@evil.test"),
            good,
        ),
    ] {
        let certified = sigstore.certify(identity, issuer);
        let signed = simple(|top| sigstore.simple(&certified, payload(NAME, top), LOGGED_AT));
        assert_refused(signed, requirement, "signature sha256:").await;
    }
}

#[tokio::test]
async fn keyless_signatures_are_refused_for_what_is_wrong_with_them() {
    let sigstore = Sigstore::new();
    let stranger = Sigstore::new();
    let dev = sigstore.certify(email("dev@app.test"), ISSUER);
    let requirement = keyless(&sigstore, ("subjectEmail", "dev@app.test"));
    let sign = |by: &Sigstore, certified, time| simple(|top| by.simple(certified, payload(NAME, top), time));
    let without = |annotation: &str| {
        simple(|top| {
            let (payload, mut annotations) = sigstore.simple(&dev, payload(NAME, top), LOGGED_AT);
            annotations.as_object_mut().unwrap().remove(annotation);
            (payload, annotations)
        })
    };
    let owner = Owner::new();
    for (signed, reason) in [
        (
            sign(
                &sigstore,
                &sigstore.certify(email("other@app.test"), ISSUER),
                LOGGED_AT,
            ),
            "other@app.test",
        ),
        (
            sign(
                &sigstore,
                &sigstore.certify(email("dev@app.test"), "https://else.test"),
                LOGGED_AT,
            ),
            "https://else.test",
        ),
        (
            sign(
                &sigstore,
                &sigstore.certify(SanType::URI("dev@app.test".try_into().unwrap()), ISSUER),
                LOGGED_AT,
            ),
            "dev@app.test",
        ),
        // Certified by another authority; logged by another log; logged when the certificate was no more.
        (
            sign(
                &sigstore,
                &stranger.certify(email("dev@app.test"), ISSUER),
                LOGGED_AT,
            ),
            "chain",
        ),
        (sign(&stranger, &dev, LOGGED_AT), "log"),
        (sign(&sigstore, &dev, LOGGED_AT + 7 * 86400), "CertExpired"),
        (without("dev.sigstore.cosign/bundle"), "no transparency log"),
        (without("dev.sigstore.cosign/certificate"), "certificate"),
        (
            simple(|top| owner.simple(payload(NAME, top))),
            "no transparency log",
        ),
        (
            simple(|top| {
                let (_, annotations) = sigstore.simple(&dev, payload(NAME, &other_digest()), LOGGED_AT);
                (payload(NAME, top), annotations)
            }),
            "signature",
        ),
    ] {
        assert_refused(signed, &requirement, reason).await;
    }
}

#[tokio::test]
async fn keyless_bundles_are_refused_for_what_is_wrong_with_them() {
    let sigstore = Sigstore::new();
    let stranger = Sigstore::new();
    let dev = sigstore.certify(email("dev@app.test"), ISSUER);
    let mut requirement = keyless(&sigstore, ("subjectEmail", "dev@app.test"));
    requirement["signedIdentity"] = json!({"type": "matchDigest"});
    let bundled = |by: &Sigstore, edit: &dyn Fn(&mut Value)| {
        let mut signed = Signed::new(image());
        let mut bundle = by.bundle(&dev, &statement(SIGN, &signed.top()), LOGGED_AT);
        edit(&mut bundle);
        signed.add_bundle(&bundle);
        signed
    };
    let entry = |bundle: &mut Value| bundle["verificationMaterial"]["tlogEntries"][0].take();
    for (signed, reason) in [
        (bundled(&stranger, &|_| {}), "log"),
        (
            bundled(&sigstore, &|bundle| {
                let mut entry = entry(bundle);
                entry["inclusionProof"]["hashes"] = json!([STANDARD.encode([7; 32])]);
                bundle["verificationMaterial"]["tlogEntries"] = json!([entry]);
            }),
            "inclusion proof",
        ),
        (
            bundled(&sigstore, &|bundle| {
                let mut entry = entry(bundle);
                entry["integratedTime"] = json!((LOGGED_AT + 1).to_string());
                bundle["verificationMaterial"]["tlogEntries"] = json!([entry]);
            }),
            "SET",
        ),
        (
            bundled(&sigstore, &|bundle| {
                bundle["verificationMaterial"]["tlogEntries"] = json!([]);
            }),
            "inclusion proof",
        ),
        (
            bundled(&sigstore, &|bundle| {
                let other = STANDARD.encode(statement(SIGN, &other_digest()));
                bundle["dsseEnvelope"]["payload"] = json!(other);
            }),
            "signature",
        ),
        (
            bundled(&sigstore, &|bundle| *bundle = json!({})),
            "not a sigstore bundle",
        ),
    ] {
        assert_refused(signed, &requirement, reason).await;
    }
}

#[tokio::test]
async fn a_trusted_root_file_stands_for_authority_and_logs_and_asks_for_logged_certificates() {
    let sigstore = Sigstore::new();
    let certificate_log = Owner::new();
    let plain = sigstore.certify(email("dev@app.test"), ISSUER);
    let mut logged = sigstore.certify(email("dev@app.test"), ISSUER);
    sigstore.log_certificate(&mut logged, &certificate_log);
    let mut elsewhere = sigstore.certify(email("dev@app.test"), ISSUER);
    sigstore.log_certificate(&mut elsewhere, &Owner::new());
    let requirement = json!({
        "type": "sigstoreSigned",
        "fulcio": {"oidcIssuer": ISSUER, "subjectEmail": "dev@app.test"},
        "trustedRootPath": "trusted_root.json",
        "signedIdentity": {"type": "matchDigest"},
    });
    for (log, certified, reason) in [
        (None, &plain, None),
        (Some(&certificate_log), &logged, None),
        (Some(&certificate_log), &plain, Some("SCT")),
        (Some(&certificate_log), &elsewhere, Some("SCT")),
    ] {
        let place = Place::under(&policy(&json!([requirement]))).await;
        let root = sigstore.trusted_root(log).to_string();
        std::fs::write(place.beside_policy().join("trusted_root.json"), root).unwrap();
        let mut signed = Signed::new(image());
        let layer = signed.image.layers[0].clone();
        let bundle = sigstore.bundle(certified, &statement(SIGN, &signed.top()), LOGGED_AT);
        signed.add_bundle(&bundle);
        let server = signed.serve();
        match reason {
            None => _ = place.pull(&server.reference()).await.unwrap(),
            Some(reason) => assert_refused_at(&place, server, &layer, reason).await,
        }
    }
}

#[tokio::test]
async fn a_key_with_a_log_needs_the_logs_promise_for_that_signature() {
    let (owner, sigstore, stranger) = (Owner::new(), Sigstore::new(), Sigstore::new());
    let mut requirement = by_key(&owner);
    requirement["rekorPublicKeyData"] = json!(inline(&sigstore.log.public_pem()));
    let server = simple(|top| sigstore.logged(&owner, owner.simple(payload(NAME, top)))).serve();
    let place = Place::under(&policy(&json!([requirement]))).await;
    place.pull(&server.reference()).await.unwrap();
    for (signed, reason) in [
        (
            simple(|top| owner.simple(payload(NAME, top))),
            "no transparency log",
        ),
        (
            simple(|top| stranger.logged(&owner, owner.simple(payload(NAME, top)))),
            "log",
        ),
        (
            simple(|top| {
                let (text, mut annotations) = owner.simple(payload(NAME, top));
                let (_, other) = sigstore.logged(&owner, owner.simple(payload(NAME, &other_digest())));
                annotations["dev.sigstore.cosign/bundle"] = other["dev.sigstore.cosign/bundle"].clone();
                (text, annotations)
            }),
            "mismatch",
        ),
    ] {
        assert_refused(signed, &requirement, reason).await;
    }
}

const NOTATION: &str = "application/vnd.cncf.notary.signature";
const JWS: &str = "application/jose+json";

fn by_notary(identities: &[&str]) -> Value {
    json!({"type": "notationSigned", "trustStores": ["ca:acme"], "trustedIdentities": identities})
}

fn trust(beside_policy: &Path, notary: &Notary) {
    let store = beside_policy.join("truststore/x509/ca/acme");
    std::fs::create_dir_all(&store).unwrap();
    std::fs::write(store.join("root.pem"), notary.root.pem()).unwrap();
}

#[tokio::test]
async fn a_notation_signature_holds_for_whom_an_authority_of_the_policy_certified() {
    let notary = Notary::new("acme", 4000);
    for identities in [&["*"][..], &["x509.subject: C=US, ST=WA, O=acme"]] {
        let place = Place::under(&policy(&json!([by_notary(identities)]))).await;
        trust(place.beside_policy(), &notary);
        let mut signed = Signed::new(image());
        let jws = notary.jws(&signed.top(), |_| {});
        signed.add_referrer(NOTATION, JWS, jws);
        let server = signed.serve();
        let verdict = place
            .images
            .verify(&server.reference(), PullOptions::default())
            .await
            .unwrap();
        assert_eq!(verdict.signatures[0].signer, "C=US, ST=WA, O=acme, CN=ci");
        assert_eq!(verdict.signatures[0].name, None);
        place.pull(&server.reference()).await.unwrap();
    }
}

#[tokio::test]
async fn notation_signatures_are_refused_for_what_is_wrong_with_them() {
    let notary = Notary::new("acme", 4000);
    let other = Notary::new("acme", 4000);
    let past = Notary::new("acme", 2026);
    let of_the_past = Notary::of_the_past();
    let expiry = |protected: &mut Value, time: &str| {
        protected["crit"] = json!(["io.cncf.notary.signingScheme", "io.cncf.notary.expiry"]);
        protected["io.cncf.notary.expiry"] = json!(time);
    };
    let top = Signed::new(image()).top();
    let altered = {
        let mut jws: Value = serde_json::from_slice(&notary.jws(&other_digest(), |_| {})).unwrap();
        let good: Value = serde_json::from_slice(&notary.jws(&top, |_| {})).unwrap();
        jws["payload"] = good["payload"].clone();
        jws.to_string().into_bytes()
    };
    for (signer, jws, reason) in [
        (&other, other.jws(&top, |_| {}), "its certificate"),
        (&past, past.jws(&top, |_| {}), "its certificate, as of"),
        (
            &of_the_past,
            of_the_past.jws(&top, |_| {}),
            "no certificate of the trust store is valid at",
        ),
        (
            &notary,
            notary.jws(&other_digest(), |_| {}),
            "it is for \"sha256:",
        ),
        (
            &notary,
            notary.jws(&top, |p| expiry(p, "2026-02-01T00:00:00Z")),
            "it expired at 2026-02-01",
        ),
        (
            &notary,
            notary.jws(&top, |p| p["alg"] = json!("ES384")),
            "it says Es384",
        ),
        (
            &notary,
            notary.jws(&top, |p| p["alg"] = json!("none")),
            "not supported",
        ),
        (
            &notary,
            notary.jws(&top, |p| p["cty"] = json!("text/plain")),
            "its payload is",
        ),
        (
            &notary,
            notary.jws(&top, |p| p["crit"] = json!(["io.cncf.notary.signingScheme", "x"])),
            "critical and not known",
        ),
        (&notary, altered, "not a signature by its certificate's key"),
        (&notary, b"{}".to_vec(), "not a JWS"),
    ] {
        let place = Place::under(&policy(&json!([by_notary(&["*"])]))).await;
        trust(
            place.beside_policy(),
            if std::ptr::eq(signer, &raw const other) {
                &notary
            } else {
                signer
            },
        );
        let mut signed = Signed::new(image());
        let layer = signed.image.layers[0].clone();
        signed.add_referrer(NOTATION, JWS, jws);
        assert_refused_at(&place, signed.serve(), &layer, reason).await;
    }
    let place = Place::under(&policy(&json!([by_notary(&[
        "x509.subject: C=US, ST=WA, O=other"
    ])])))
    .await;
    trust(place.beside_policy(), &notary);
    let mut signed = Signed::new(image());
    let layer = signed.image.layers[0].clone();
    let jws = notary.jws(&signed.top(), |_| {});
    signed.add_referrer(NOTATION, JWS, jws);
    assert_refused_at(&place, signed.serve(), &layer, "none of the trustedIdentities").await;
}

/// With a store of timestamp authorities, and what the policy says of when to ask them.
fn by_notary_and_clock(verify_timestamp: &str) -> Value {
    let mut requirement = by_notary(&["*"]);
    requirement["trustStores"] = json!(["ca:acme", "tsa:clock"]);
    if !verify_timestamp.is_empty() {
        requirement["signatureVerification"] =
            json!({"level": "strict", "verifyTimestamp": verify_timestamp});
    }
    requirement
}

/// A machine that trusts a notary's authority and a clock's.
async fn place_with_clock(requirement: &Value, notary: &Notary, clock: &Timestamps) -> Place {
    let place = Place::under(&policy(&json!([requirement]))).await;
    trust(place.beside_policy(), notary);
    let store = place.beside_policy().join("truststore/x509/tsa/clock");
    std::fs::create_dir_all(&store).unwrap();
    std::fs::copy(clock.0.path().join("root.pem"), store.join("root.pem")).unwrap();
    place
}

/// Whether a JWS for an image is accepted, or why not.
async fn judge_jws(place: &Place, jws: Vec<u8>, reason: Option<&str>) {
    let mut signed = Signed::new(image());
    let layer = signed.image.layers[0].clone();
    signed.add_referrer(NOTATION, JWS, jws);
    let server = signed.serve();
    match reason {
        None => _ = place.pull(&server.reference()).await.unwrap(),
        Some(reason) => assert_refused_at(place, server, &layer, reason).await,
    }
}

#[tokio::test]
async fn a_timestamp_has_to_be_of_an_authority_in_the_store_and_for_this_signature() {
    let notary = Notary::new("acme", 4000);
    let past = Notary::new("acme", 2026);
    let soon_past = Notary::until("acme", now() + 3600);
    let trusted = Timestamps::new();
    let on_curve = Timestamps::with("ec -pkeyopt ec_paramgen_curve:P-256", "ess_cert_id_alg=sha512");
    let other = Timestamps::new();
    let vague = Timestamps::with("rsa:2048", "ess_cert_id_alg=sha256\naccuracy=secs:7200");
    // It says by SHA-1 which certificate has signed.
    let old = Timestamps::with("rsa:2048", "ess_cert_id_alg=sha1");
    let top = Signed::new(image()).top();
    for (notary, clock, stamp, reason) in [
        (
            &notary,
            &trusted,
            &|signature: &[u8]| trusted.stamp(signature) as Vec<u8>,
            None,
        ),
        (
            &notary,
            &on_curve,
            &|signature: &[u8]| on_curve.stamp(signature),
            None,
        ),
        (
            &notary,
            &trusted,
            &|signature: &[u8]| other.stamp(signature),
            Some("its timestamp: its certificate, as of"),
        ),
        (
            &notary,
            &trusted,
            &|_: &[u8]| trusted.stamp(b"another signature"),
            Some("it is for another signature"),
        ),
        (
            &notary,
            &trusted,
            &|_: &[u8]| b"nonsense".to_vec(),
            Some("its timestamp is not one"),
        ),
        (
            &notary,
            &trusted,
            &|signature: &[u8]| altered(trusted.stamp(signature)),
            Some("its certificate's key"),
        ),
        (
            &notary,
            &old,
            &|signature: &[u8]| old.stamp(signature),
            Some("signingCertificateV2"),
        ),
        // At the time that is vouched for, the certificate had expired, or may have.
        (
            &past,
            &trusted,
            &|signature: &[u8]| trusted.stamp(signature),
            Some("its certificate, as of"),
        ),
        (
            &soon_past,
            &trusted,
            &|signature: &[u8]| trusted.stamp(signature),
            None,
        ),
        (
            &soon_past,
            &vague,
            &|signature: &[u8]| vague.stamp(signature),
            Some("its certificate, as of"),
        ),
    ]
        as [(&Notary, &Timestamps, &dyn Fn(&[u8]) -> Vec<u8>, Option<&str>); 10]
    {
        let place = place_with_clock(&by_notary_and_clock(""), notary, clock).await;
        let jws = Notary::with_timestamp(&notary.jws(&top, |_| {}), stamp);
        judge_jws(&place, jws, reason).await;
    }
}

fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_secs()
}

/// The last byte of a token is one of its signature.
fn altered(mut token: Vec<u8>) -> Vec<u8> {
    *token.last_mut().unwrap() ^= 1;
    token
}

#[tokio::test]
async fn a_timestamp_lets_a_signature_outlive_its_certificate_and_is_asked_for_as_the_policy_says() {
    let until = now() + 2;
    let notary = Notary::until("acme", until);
    let clock = Timestamps::new();
    let top = Signed::new(image()).top();
    let without = || notary.jws(&top, |_| {});
    let stamped = Notary::with_timestamp(&without(), |signature| clock.stamp(signature));
    let always = by_notary_and_clock("always");
    let later = by_notary_and_clock("afterCertExpiry");
    let late = Notary::new("acme", 4000);
    for (requirement, reason) in [
        (&by_notary_and_clock(""), Some("it has no timestamp")),
        (&always, Some("it has no timestamp")),
        (&later, None),
    ] {
        let place = place_with_clock(requirement, &late, &clock).await;
        judge_jws(&place, late.jws(&top, |_| {}), reason).await;
    }
    while now() <= until {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    for (requirement, jws, reason) in [
        (&always, stamped.clone(), None),
        (&later, stamped.clone(), None),
        (&later, without(), Some("it has no timestamp")),
        (&by_notary(&["*"]), stamped, Some("its certificate, as of")),
    ] {
        let place = place_with_clock(requirement, &notary, &clock).await;
        judge_jws(&place, jws, reason).await;
    }
}

#[tokio::test]
async fn another_policy_is_obeyed_at_once_and_judges_what_is_here_by_the_signatures_kept() {
    let (owner, other) = (Owner::new(), Owner::new());
    let signed = simple(|top| owner.simple(payload(NAME, top)));
    let server = signed.serve();
    let reference = server.reference();
    let place = Place::under(&policy(&json!([by_key(&owner)]))).await;
    let image = place.pull(&reference).await.unwrap();
    let write = |policy: &Value| {
        std::fs::write(place.beside_policy().join("policy.json"), policy.to_string()).unwrap();
    };
    let check = || place.images.check_trust(&reference, &image);

    write(&policy(&json!([by_key(&other)])));
    assert!(
        check()
            .unwrap_err()
            .to_string()
            .contains("not a signature by this key")
    );
    assert!(place.images.check_trust(&image.id, &image).is_err());
    write(&policy(&json!([{"type": "reject"}])));
    assert!(
        check()
            .unwrap_err()
            .to_string()
            .contains("all images there are refused")
    );
    write(&policy(
        &json!([{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}]),
    ));
    assert!(check().unwrap_err().to_string().contains("GPG"));
    std::fs::write(place.beside_policy().join("policy.json"), "{\n\"default\": []}").unwrap();
    let broken = check().unwrap_err();
    assert!(
        broken.kind() == Kind::Refused && broken.to_string().contains("line 2"),
        "{broken}"
    );
    assert!(refused(place.pull(&reference).await).contains("line 2"));

    // No registry is asked for what is here.
    server.forget();
    write(&policy(&json!([by_key(&other), by_key(&owner)])));
    assert!(check().is_err());
    write(&policy(&json!([by_key(&owner)])));
    let verdict = check().unwrap();
    assert_eq!(verdict.signatures.len(), 1);
    assert_eq!(server.requests().len(), 0);
    place.pull(&reference).await.unwrap();
    assert_eq!(server.requests().len(), 1, "an unchanged tag costs one request");
}

#[tokio::test]
async fn a_policy_that_was_there_does_not_end_by_its_files_going() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.json");
    let open = async || {
        let store = folder.path().join("store");
        Images::open_under(&store, patient(), PolicyFile::IfThere(file.clone()))
            .await
            .unwrap()
    };
    let images = open().await;
    let server = Signed::new(image()).serve();
    let reference = server.reference();
    let pull = async |images: &Images| {
        let pulled = images.pull(&reference, PullOptions::default(), &|_| {}).await;
        pulled.map(fixture::image_of)
    };
    let pulled = pull(&images).await.unwrap();
    std::fs::write(&file, policy(&json!([{"type": "reject"}])).to_string()).unwrap();
    assert!(images.check_trust(&reference, &pulled).is_err());
    std::fs::remove_file(&file).unwrap();
    let error = images.check_trust(&reference, &pulled).unwrap_err();
    assert!(
        error.kind() == Kind::Refused && error.to_string().contains("is gone"),
        "{error}"
    );
    assert!(refused(pull(&images).await).contains("is gone"));
    // A program that begins without one has none, and one that began with one saw it.
    drop(images);
    let images = open().await;
    assert!(images.check_trust(&reference, &pulled).is_ok());
    drop(images);
    std::fs::write(&file, "").unwrap();
    let images = open().await;
    std::fs::remove_file(&file).unwrap();
    assert!(
        images
            .check_trust(&reference, &pulled)
            .unwrap_err()
            .to_string()
            .contains("is gone")
    );
}

#[tokio::test]
async fn what_came_from_no_registry_is_judged_by_the_rule_for_local_images() {
    let owner = Owner::new();
    let server = simple(|top| owner.simple(payload(NAME, top))).serve();
    let mut policy = policy(&json!([by_key(&owner)]));
    let place = Place::under(&policy).await;
    let image = place.pull(&server.reference()).await.unwrap();
    // As if it had been loaded, imported or committed: nothing is known of where it came from.
    let folder = place.close();
    let database = rusqlite::Connection::open(folder.path().join("store/images.db")).unwrap();
    database.execute("DELETE FROM origins", []).unwrap();
    database.close().unwrap();
    let place = Place::reopen_under(folder).await;
    let check = || place.images.check_trust(&server.reference(), &image);
    assert!(check().unwrap_err().to_string().contains("containers-storage"));
    policy["transports"]["containers-storage"] = json!({"": [{"type": "insecureAcceptAnything"}]});
    std::fs::write(place.beside_policy().join("policy.json"), policy.to_string()).unwrap();
    assert_eq!(check().unwrap().policy, "containers-storage \"\"");
    policy["transports"]["containers-storage"] = json!({"": [by_key(&owner)]});
    std::fs::write(place.beside_policy().join("policy.json"), policy.to_string()).unwrap();
    assert!(check().is_err(), "nobody can have signed it");
    // Pulled again, it has an origin again.
    place.pull(&server.reference()).await.unwrap();
    assert_eq!(check().unwrap().signatures.len(), 1);
}

#[tokio::test]
async fn signatures_are_fetched_when_a_policy_begins_to_ask_for_them() {
    let owner = Owner::new();
    let server = simple(|top| owner.simple(payload(NAME, top))).serve();
    let reference = server.reference();
    let place = Place::under(&policy(&json!([{"type": "insecureAcceptAnything"}]))).await;
    let image = place.pull(&reference).await.unwrap();
    assert_eq!(server.count("GET", "referrers") + server.count("GET", ".sig"), 0);
    let policy = policy(&json!([by_key(&owner)]));
    std::fs::write(place.beside_policy().join("policy.json"), policy.to_string()).unwrap();
    let check = || place.images.check_trust(&reference, &image);
    assert!(check().unwrap_err().to_string().contains("there is no signature"));
    server.forget();
    place.pull(&reference).await.unwrap();
    assert_eq!(
        server.count("GET", &format!("manifests/{}", image.manifest_digest)),
        0,
        "only signatures are fetched"
    );
    assert!(check().is_ok());
    place.images.remove(&reference, true).unwrap();
    let store = place.beside_policy().join("store");
    assert_eq!(
        left_over(&store),
        Vec::<std::path::PathBuf>::new(),
        "signatures go with their image"
    );
}
