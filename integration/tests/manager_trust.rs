//! The user story of trust: only what its publisher signed is pulled and run, judged by foreign signers. openssl signs
//! with a key, in the form of cosign's (what the real cosign makes is in the tests of the image crate); notation's own
//! library signs with a certificate.

use integration::{Image, Manager, Peers, Registry, Sandbox, run};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn policy(requirement: &Value) -> String {
    let policy = json!({
        "default": [{"type": "reject"}],
        "transports": {"docker": {
            (Registry::HOST): [requirement],
            (format!("{}/free", Registry::HOST)): [{"type": "insecureAcceptAnything"}],
        }},
    });
    serde_json::to_string_pretty(&policy).expect("it is JSON")
}

fn by_key() -> Value {
    json!({"type": "sigstoreSigned", "keyPath": "cosign.pub"})
}

/// Make a key pair; the public key goes beside the policy.
#[track_caller]
fn make_key(manager: &Manager, folder: &Path) {
    let private = make_private_key(folder);
    run(Command::new("openssl")
        .args(["pkey", "-pubout", "-in"])
        .arg(&private)
        .arg("-out")
        .arg(manager.policy().with_file_name("cosign.pub")))
    .ok();
}

#[track_caller]
fn make_private_key(folder: &Path) -> PathBuf {
    let private = folder.join("private.pem");
    run(Command::new("openssl")
        .args([
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-out",
        ])
        .arg(&private))
    .ok();
    private
}

/// Copy an image in the registry to another name, and sign it there for that name.
#[track_caller]
fn copy_signed(manager: &Manager, folder: &Path, from: &str, to: &str) {
    copy(manager, &format!("docker://{from}"), to);
    let inspected = run(manager
        .inside("skopeo")
        .args(["inspect", "--tls-verify=false", "--format", "{{.Digest}}"])
        .arg(format!("docker://{to}")))
    .ok();
    let digest = inspected.trim();
    let payload = folder.join("payload");
    let claims = json!({"critical": {
        "identity": {"docker-reference": to},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }, "optional": null});
    fs::write(&payload, claims.to_string()).expect("write the payload");
    let signature = folder.join("signature");
    run(Command::new("openssl")
        .args(["dgst", "-sha256", "-sign"])
        .arg(folder.join("private.pem"))
        .arg("-out")
        .arg(&signature)
        .arg(&payload))
    .ok();
    let encoded = run(Command::new("base64").arg("-w0").arg(&signature)).ok();
    let layout = folder.join("signature-layout");
    let annotations = json!({"dev.cosignproject.cosign/signature": encoded});
    write_signature(&layout, &claims.to_string(), &annotations);
    let (repository, _) = to.rsplit_once(':').expect("the name has a tag");
    let tag = digest.replace(':', "-") + ".sig";
    copy(
        manager,
        &format!("oci:{}:signature", layout.display()),
        &format!("{repository}:{tag}"),
    );
}

/// The command that runs an image as it is here.
fn run_here<'a>(image: &'a str, args: &[&'a str]) -> Vec<&'a str> {
    [
        &["run", "--rm", "--pull", "never", "--network", "none", image],
        args,
    ]
    .concat()
}

#[track_caller]
fn copy(manager: &Manager, from: &str, to: &str) {
    run(manager
        .inside("skopeo")
        .args([
            "--insecure-policy",
            "copy",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
        ])
        .args(["--preserve-digests", from, &format!("docker://{to}")]))
    .ok();
}

/// An image layout with the manifest of a signature, its payload as a layer.
fn write_signature(folder: &Path, payload: &str, annotations: &Value) {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("make the layout");
    let blob = |media_type: &str, content: &str| -> Value {
        let hash = hex::encode(Sha256::digest(content));
        fs::write(blobs.join(&hash), content).expect("write a blob");
        json!({"mediaType": media_type, "digest": format!("sha256:{hash}"), "size": content.len()})
    };
    let mut layer = blob("application/vnd.dev.cosign.simplesigning.v1+json", payload);
    layer["annotations"] = annotations.clone();
    let config = blob(
        "application/vnd.oci.image.config.v1+json",
        r#"{"architecture":"","os":"","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#,
    );
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({"schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": [layer]});
    let mut manifest = blob(manifest_type, &manifest.to_string());
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "signature"});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(folder.join("index.json"), index.to_string()).expect("write the index");
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
        .expect("write the layout's version");
}

/// Refused: the policy and its rule are named, with the reason and the next step.
#[track_caller]
fn assert_refused(manager: &Manager, command: &[&str], reason: &str) {
    let done = manager.ctl(command);
    assert_ne!(done.code, 0, "{command:?}: {}", done.stdout);
    for part in ["trust policy", "policy.json", reason, "hint: "] {
        assert!(
            done.stderr.contains(part),
            "{command:?}: {part:?} is not in: {}",
            done.stderr
        );
    }
    assert!(!done.stdout.contains("ran"), "{}", done.stdout);
}

#[test]
fn only_what_its_publisher_signed_is_pulled_and_run() {
    let sandbox = Sandbox::new();
    let manager = Manager::start_under(&sandbox, Some(&policy(&by_key())));
    make_key(&manager, sandbox.path());
    let unsigned = manager.registry().push(&Image::busybox(), "team/unsigned:1");
    let signed = format!("{}/team/app:1", Registry::HOST);
    copy_signed(&manager, sandbox.path(), &unsigned, &signed);

    assert_refused(&manager, &["pull", &unsigned], "there is no signature");
    assert_refused(
        &manager,
        &["run", "--rm", "--network", "none", &unsigned, "echo", "ran"],
        "there is no signature",
    );
    assert_refused(&manager, &["image", "verify", &unsigned], "there is no signature");
    assert_eq!(manager.ctl(&["images", "-q"]).ok(), "");

    let verified = manager.ctl(&["image", "verify", &signed]).ok();
    assert!(verified.contains("Signed by: key sha256:"), "{verified}");
    assert!(
        verified.contains(&format!("Signed for: {signed}\n")),
        "{verified}"
    );
    let verified: Value = serde_json::from_str(
        &manager
            .ctl(&["--format", "json", "image", "verify", &signed])
            .ok(),
    )
    .expect("it is JSON");
    assert_eq!(verified["Signatures"][0]["Kind"], "cosign");
    let ran = manager.ctl(&["run", "--rm", "--network", "none", &signed, "echo", "ran"]);
    assert_eq!(ran.ok(), "ran\n");

    // Signed for app:1, and found under another tag and in another repository.
    for name in ["team/app:2", "team/other:1"] {
        let moved = format!("{}/{name}", Registry::HOST);
        copy(&manager, &format!("docker://{signed}"), &moved);
    }
    assert_refused(
        &manager,
        &["pull", &format!("{}/team/app:2", Registry::HOST)],
        "it is for 127.0.0.1:5000/team/app:1",
    );
    assert_refused(
        &manager,
        &["pull", &format!("{}/team/other:1", Registry::HOST)],
        "there is no signature",
    );
}

#[test]
fn of_what_is_refused_nothing_is_left_to_run() {
    let sandbox = Sandbox::new();
    let manager = Manager::start_under(&sandbox, Some(&policy(&by_key())));
    make_key(&manager, sandbox.path());
    let stranger = sandbox.path().join("stranger");
    fs::create_dir(&stranger).expect("make the stranger's folder");
    make_private_key(&stranger);
    let unsigned = manager.registry().push(&Image::busybox(), "team/unsigned:1");
    let by_stranger = format!("{}/team/stranger:1", Registry::HOST);
    copy_signed(&manager, &stranger, &unsigned, &by_stranger);
    // The publisher's signature stays with what they signed; the tag goes on to another image.
    let moved = format!("{}/team/moved:1", Registry::HOST);
    copy_signed(&manager, sandbox.path(), &unsigned, &moved);
    let mut other = Image::busybox();
    other.config["Env"] = json!(["OTHER=1"]);
    manager.registry().push(&other, "team/moved:1");
    for (image, reason) in [
        (&unsigned, "there is no signature of sha256:"),
        (&by_stranger, "not a signature by this key"),
        (&moved, "there is no signature of sha256:"),
    ] {
        for command in [
            &["run", "--rm", "--network", "none", image, "echo", "ran"][..],
            &["create", "--network", "none", image, "echo", "ran"],
            &["pull", image],
        ] {
            assert_refused(&manager, command, reason);
        }
        assert_eq!(manager.ctl(&["images", "-q"]).ok(), "");
        assert_eq!(manager.ctl(&["ps", "-aq"]).ok(), "");
        let usage = manager.ctl(&["system", "df", "--format", "json"]).ok();
        let usage: Value = serde_json::from_str(&usage).expect("it is JSON");
        assert_eq!(
            (&usage["layersBytes"], &usage["contentBytes"]),
            (&json!(0), &json!(0)),
            "{usage}"
        );
    }
}

/// What a name is given to here is not what its publisher signed, and a free name frees nothing of its origin.
#[test]
fn no_name_given_here_gets_an_image_round_the_policy() {
    let sandbox = Sandbox::new();
    let mut lax: Value = serde_json::from_str(&policy(&by_key())).expect("it is JSON");
    lax["default"] = json!([{"type": "insecureAcceptAnything"}]);
    let manager = Manager::start_under(&sandbox, Some(&lax.to_string()));
    make_key(&manager, sandbox.path());
    let free = manager.registry().push(&Image::busybox(), "free/box:1");
    let signed = |tag: &str| format!("{}/team/app:{tag}", Registry::HOST);
    manager.ctl(&["pull", &free]).ok();
    manager.ctl(&["tag", &free, &signed("tagged")]).ok();
    let container = manager.ctl(&["create", "--network", "none", &free, "true"]).ok();
    manager
        .ctl(&["commit", container.trim(), &signed("committed")])
        .ok();
    let archive = sandbox.path().join("archive.tar");
    let archive = archive.to_str().expect("it is UTF-8");
    manager.ctl(&["export", "-o", archive, container.trim()]).ok();
    manager.ctl(&["rm", container.trim()]).ok();
    manager.ctl(&["import", archive, &signed("imported")]).ok();
    for (tag, reason) in [
        ("tagged", "there is no signature of sha256:"),
        ("committed", "was given this name here"),
        ("imported", "was given this name here"),
    ] {
        assert_refused(&manager, &run_here(&signed(tag), &["echo", "ran"]), reason);
    }
    assert_eq!(manager.ctl(&["ps", "-aq"]).ok(), "");
    assert_eq!(manager.ctl(&run_here(&free, &["echo", "ran"])).ok(), "ran\n");

    // Now nothing of that repository is free any more, under whatever name it is here, or under none.
    let id = manager.ctl(&["images", "-q", "--no-trunc", &free]).ok();
    manager.ctl(&["tag", &free, "mine:1"]).ok();
    lax["transports"]["docker"][format!("{}/free", Registry::HOST)] = json!([by_key()]);
    fs::write(manager.policy(), lax.to_string()).expect("write the policy");
    for name in [&free, "mine:1", id.trim()] {
        assert_refused(
            &manager,
            &run_here(name, &["echo", "ran"]),
            "there is no signature of sha256:",
        );
    }
}

#[test]
fn a_tag_that_moves_to_an_unsigned_image_runs_the_signed_one_until_it_is_pulled() {
    let sandbox = Sandbox::new();
    let manager = Manager::start_under(&sandbox, Some(&policy(&by_key())));
    make_key(&manager, sandbox.path());
    let unsigned = manager.registry().push(&Image::busybox(), "team/unsigned:1");
    let signed = format!("{}/team/app:1", Registry::HOST);
    copy_signed(&manager, sandbox.path(), &unsigned, &signed);
    manager.ctl(&["pull", &signed]).ok();
    let id = manager.ctl(&["images", "-q", "--no-trunc"]).ok();

    let mut evil = Image::busybox();
    evil.config["Env"] = json!(["EVIL=1"]);
    manager.registry().push(&evil, "team/app:1");
    assert_refused(
        &manager,
        &["pull", &signed],
        "when it was last pulled, the name pointed to sha256:",
    );
    assert_eq!(manager.ctl(&["images", "-q", "--no-trunc"]).ok(), id);
    let env = manager.ctl(&run_here(&signed, &["env"])).ok();
    assert!(!env.contains("EVIL"), "{env}");
}

#[test]
fn a_change_of_the_policy_needs_no_restart_and_judges_what_is_here() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start_under(&sandbox, Some(&policy(&by_key())));
    make_key(&manager, sandbox.path());
    let free = manager.registry().push(&Image::busybox(), "free/box:1");
    let signed = format!("{}/team/app:1", Registry::HOST);
    copy_signed(&manager, sandbox.path(), &free, &signed);
    manager.ctl(&["pull", &signed]).ok();
    let command = ["create", "--pull", "never", "--network", "none", &signed, "true"];
    let create = |manager: &Manager| {
        let id = manager.ctl(&command).ok();
        manager.ctl(&["rm", id.trim()]).ok();
    };
    let assert_broken = |manager: &Manager, reason: &str| {
        let stderr = manager.ctl(&command).stderr;
        assert!(
            stderr.contains(reason) && stderr.contains("no image is accepted"),
            "{stderr}"
        );
    };
    let write = |manager: &Manager, text: &str| fs::write(manager.policy(), text).expect("write the policy");
    // From here on no registry answers: the signatures are here.
    manager.stop_registry();
    create(&manager);
    write(&manager, &policy(&json!({"type": "reject"})));
    assert_refused(&manager, &command, "all images there are refused");
    write(&manager, "{\n  \"default\": [{\"type\": \"rejekt\"}]\n}");
    assert_broken(&manager, "at line 2");
    write(&manager, &policy(&by_key()));
    manager.kill();
    manager.start_again();
    create(&manager);
    fs::remove_file(manager.policy()).expect("remove the policy");
    assert_broken(&manager, "it cannot be read");
    write(&manager, &policy(&by_key()));
}

/// No registry can have signatures of it, and its archive may say any name: the policy accepts such images or not.
#[test]
fn what_is_loaded_or_committed_runs_only_where_the_policy_accepts_local_images() {
    let sandbox = Sandbox::new();
    let manager = Manager::start_under(&sandbox, Some(&policy(&by_key())));
    make_key(&manager, sandbox.path());
    let free = manager.registry().push(&Image::busybox(), "free/box:1");
    let archive = sandbox.path().join("archive.tar");
    let archive = archive.to_str().expect("it is UTF-8");
    // As the signed repository's, which it never was in.
    run(manager
        .inside("skopeo")
        .args([
            "--insecure-policy",
            "copy",
            "--src-tls-verify=false",
            &format!("docker://{free}"),
        ])
        .arg(format!("docker-archive:{archive}:{}/team/app:1", Registry::HOST)))
    .ok();
    manager.ctl(&["load", "-q", "-i", archive]).ok();
    let name = format!("{}/team/app:1", Registry::HOST);
    let command = run_here(&name, &["echo", "ran"]);
    assert_refused(&manager, &command, "containers-storage");
    let mut accepting: Value = serde_json::from_str(&policy(&by_key())).expect("it is JSON");
    accepting["transports"]["containers-storage"] = json!({"": [{"type": "insecureAcceptAnything"}]});
    fs::write(manager.policy(), accepting.to_string()).expect("write the policy");
    assert_eq!(manager.ctl(&command).ok(), "ran\n");

    let id = manager
        .ctl(&["create", "--pull", "never", "--network", "none", &name, "true"])
        .ok();
    manager.ctl(&["commit", id.trim(), "committed:1"]).ok();
    manager.ctl(&["rm", id.trim()]).ok();
    let command = run_here("committed:1", &["echo", "ran"]);
    assert_eq!(manager.ctl(&command).ok(), "ran\n");
    fs::write(manager.policy(), policy(&by_key())).expect("write the policy");
    assert_refused(&manager, &command, "containers-storage");

    // A policy that accepts what it does not name: still, nobody signed what was given a signed repository's name here.
    let mut lax: Value = serde_json::from_str(&policy(&by_key())).expect("it is JSON");
    lax["default"] = json!([{"type": "insecureAcceptAnything"}]);
    fs::write(manager.policy(), lax.to_string()).expect("write the policy");
    assert_eq!(manager.ctl(&command).ok(), "ran\n");
    let renamed = format!("{}/team/app:2", Registry::HOST);
    manager.ctl(&["tag", "committed:1", &renamed]).ok();
    for name in [&name, &renamed] {
        let command = run_here(name, &["true"]);
        assert_refused(&manager, &command, "was given this name here");
    }
}

#[test]
fn signatures_that_are_fetched_later_are_kept_before_a_manager_can_die() {
    let sandbox = Sandbox::new();
    let accepting = json!({"type": "insecureAcceptAnything"});
    let mut manager = Manager::start_under(&sandbox, Some(&policy(&accepting)));
    make_key(&manager, sandbox.path());
    let free = manager.registry().push(&Image::busybox(), "free/box:1");
    let signed = format!("{}/team/app:1", Registry::HOST);
    copy_signed(&manager, sandbox.path(), &free, &signed);
    manager.ctl(&["pull", &signed]).ok();
    fs::write(manager.policy(), policy(&by_key())).expect("write the policy");
    let command = ["create", "--pull", "never", "--network", "none", &signed, "true"];
    assert_refused(&manager, &command, "there is no signature");
    manager.stop();
    manager.set_failpoint(Some("trust.recorded"));
    manager.start_again();
    assert_ne!(manager.ctl(&["pull", &signed]).code, 0);
    manager.await_end();
    manager.set_failpoint(None);
    manager.start_again();
    let id = manager.ctl(&command).ok();
    manager.ctl(&["rm", id.trim()]).ok();
}

#[test]
fn what_notations_library_signs_is_accepted_by_its_certificate() {
    let sandbox = Sandbox::new();
    let Some(programs) = Peers::built() else { return };
    let requirement = json!({
        "type": "notationSigned",
        "trustStores": ["ca:acme"],
        "trustedIdentities": ["x509.subject: C=US, ST=WA, O=acme"],
    });
    let manager = Manager::start_under(&sandbox, Some(&policy(&requirement)));
    let store = manager.policy().with_file_name("truststore").join("x509/ca/acme");
    fs::create_dir_all(&store).expect("make the trust store");
    let sign = |name: &str, signer: &str, envelope: &str, more: &[&str]| {
        let reference = manager.registry().push(&Image::busybox(), name);
        let mut command = manager.inside(&programs.join("notation-sign").to_string_lossy());
        command.arg(&reference);
        command.arg(sandbox.path().join(format!("{signer}.key")));
        command.arg(sandbox.path().join(format!("{signer}.chain")));
        run(command.arg(envelope).args(more)).ok();
        reference
    };
    certify(sandbox.path(), "acme", &["-newkey", "rsa:2048"]);
    certify(
        sandbox.path(),
        "other",
        &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
    );
    fs::copy(sandbox.path().join("acme.root"), store.join("acme.pem")).expect("fill the trust store");
    for envelope in ["jws", "cose"] {
        let good = sign(&format!("team/{envelope}:1"), "acme", envelope, &["24h"]);
        let verified = manager.ctl(&["image", "verify", &good]).ok();
        assert!(
            verified.contains(
                "Signed by: C=US, ST=WA, O=acme, CN=acme (notation)\nSigned for: this digest, under any name"
            ),
            "{verified}"
        );
        let ran = manager.ctl(&["run", "--rm", "--network", "none", &good, "echo", "ran"]);
        assert_eq!(ran.ok(), "ran\n");
        let other = sign(&format!("team/{envelope}-other:1"), "other", envelope, &[]);
        assert_refused(&manager, &["pull", &other], "its certificate, as of");
    }
    // A trusted authority certifies many; the policy names one of them.
    fs::copy(sandbox.path().join("other.root"), store.join("other.pem")).expect("fill the trust store");
    for envelope in ["jws", "cose"] {
        let other = format!("{}/team/{envelope}-other:1", Registry::HOST);
        assert_refused(&manager, &["pull", &other], "none of the trustedIdentities");
    }
    // What `notation cert generate-test` makes: a certificate that is its own authority.
    certify(sandbox.path(), "alone", &["-newkey", "rsa:3072"]);
    let chain = sandbox.path().join("alone.chain");
    fs::copy(sandbox.path().join("alone.self"), &chain).expect("replace the chain");
    let alone = sign("team/alone:1", "alone", "cose", &[]);
    assert_refused(&manager, &["pull", &alone], "its certificate, as of");
    fs::write(
        manager.policy(),
        policy(&json!({
            "type": "notationSigned", "trustStores": ["ca:acme"], "trustedIdentities": ["*"],
        })),
    )
    .expect("write the policy");
    fs::copy(&chain, store.join("alone.pem")).expect("fill the trust store");
    manager.ctl(&["pull", &alone]).ok();

    let past = sign("team/past:1", "acme", "jws", &["1s"]);
    integration::eventually("the signature expires", || {
        let done = manager.ctl(&["image", "verify", &past]);
        done.stderr.contains("it expired at").then_some(())
    });
}

/// A root and a signer of its, both named `name`: NAME.root, NAME.key, NAME.chain; and the signer certified by itself
/// alone: NAME.self.
#[track_caller]
fn certify(folder: &Path, name: &str, key: &[&str]) {
    let file = |suffix: &str| folder.join(format!("{name}.{suffix}"));
    let openssl = |common_name: &str, usage: &str, out: &str| {
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-nodes", "-batch", "-days", "1", "-addext", usage]);
        command.args(["-subj", &format!("/C=US/ST=WA/O={name}/CN={common_name}")]);
        command.arg("-out").arg(file(out));
        command
    };
    let sign = "keyUsage=critical,digitalSignature";
    let end = [
        "-addext",
        "basicConstraints=critical,CA:false",
        "-addext",
        "extendedKeyUsage=codeSigning",
    ];
    let root = openssl("root", "keyUsage=critical,keyCertSign", "root");
    run({ root }.args(key).arg("-keyout").arg(file("root.key"))).ok();
    let leaf = openssl(name, sign, "leaf");
    run({ leaf }
        .args(key)
        .arg("-keyout")
        .arg(file("key"))
        .args(end)
        .arg("-CA")
        .arg(file("root"))
        .arg("-CAkey")
        .arg(file("root.key")))
    .ok();
    let alone = openssl(name, sign, "self");
    run({ alone }.arg("-key").arg(file("key")).args(end)).ok();
    let read = |suffix: &str| fs::read_to_string(file(suffix)).expect("read a certificate");
    fs::write(file("chain"), read("leaf") + &read("root")).expect("write the chain");
}
