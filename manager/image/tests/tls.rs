//! TLS with authorities and client certificates of one's own, and proxies: a real registry, and openssl's keys.

mod fixture;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use fixture::Place;
use fixture::docker_registry::Registry;
use fixture::made::{self, Entry, Made, Packing};

/// A name that nobody can look up: only a proxy leads there.
const BEHIND_PROXY: &str = "registry.invalid";

fn openssl(folder: &Path, args: &[&str]) {
    let output = Command::new("openssl").current_dir(folder).args(args).output();
    let output = output.expect("openssl has to be installed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// An authority `ca.crt`, and a certificate of it for each name: `NAME.cert` and `NAME.key`.
fn keys(folder: &Path) {
    let key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "3650",
    ];
    let of = |name: &str, rest: &[&str]| {
        let (subject, key_file) = (format!("/CN={name}"), format!("{name}.key"));
        let names = format!("subjectAltName=IP:127.0.0.1,DNS:{BEHIND_PROXY}");
        let mut args = vec!["req", "-x509"];
        args.extend(key);
        args.extend(["-subj", &subject, "-addext", &names, "-keyout", &key_file]);
        args.extend(rest);
        openssl(folder, &args);
    };
    of("ca", &["-out", "ca.crt"]);
    for name in ["server", "client"] {
        let out = format!("{name}.cert");
        let leaf = [
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-out",
            &out,
        ];
        of(name, &leaf);
    }
    std::fs::remove_file(folder.join("ca.key")).unwrap();
}

fn small() -> Made {
    let tar = made::tar(&[Entry::File("a", b"content")]);
    made::image(&[made::layer(&tar, Packing::Gzip)])
}

/// A registry whose certificate the machine does not know, and that wants one from its clients if `wants_ours`.
async fn registry(wants_ours: bool) -> (Registry, Made) {
    let registry = Registry::start(|folder| {
        keys(folder);
        let path = |name: &str| folder.join(name).display().to_string();
        let clients = if wants_ours {
            format!(", clientcas: [{}]", path("ca.crt"))
        } else {
            String::new()
        };
        format!(
            "  tls: {{certificate: {}, key: {}{clients}}}\n",
            path("server.cert"),
            path("server.key")
        )
    })
    .await;
    let folder = registry.folder.path();
    // For skopeo, which wants such a folder and no other file in it.
    let certificates = folder.join("skopeo");
    std::fs::create_dir(&certificates).unwrap();
    for name in ["ca.crt", "client.cert", "client.key"] {
        std::fs::copy(folder.join(name), certificates.join(name)).unwrap();
    }
    let image = small();
    let option = format!("--dest-cert-dir={}", certificates.display());
    registry.fill(&image, "app:1", &[&option]);
    (registry, image)
}

/// The folder of `host` below that of all registries.
fn own(folder: &tempfile::TempDir, host: &str, port: u16) -> PathBuf {
    let own = folder.path().join(format!("{host}:{port}"));
    std::fs::create_dir_all(&own).unwrap();
    own
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates_are_found_as_docker_and_containerd_have_them() {
    let (registry, image) = registry(true).await;
    let files = registry.folder.path();
    let reference = registry.reference("app:1");

    let docker = tempfile::tempdir().unwrap();
    let folder = own(&docker, "127.0.0.1", registry.port);
    std::fs::copy(files.join("ca.crt"), folder.join("ca.crt")).unwrap();
    let place = Place::configured(docker.path()).await;
    let error = place.pull(&reference).await.unwrap_err().to_string();
    assert!(error.contains("client certificate"), "without ours: {error}");
    for name in ["client.cert", "client.key"] {
        std::fs::copy(files.join(name), folder.join(name)).unwrap();
    }
    assert_eq!(place.pull(&reference).await.unwrap().id, image.id);

    let both = [
        std::fs::read(files.join("client.cert")).unwrap(),
        std::fs::read(files.join("client.key")).unwrap(),
    ];
    let pair = format!("[[\"{0}/client.cert\", \"{0}/client.key\"]]", files.display());
    for (client, fits) in [
        ("\"both.pem\"", true),
        (pair.as_str(), true),
        ("\"ca.crt\"", false),
    ] {
        let containerd = tempfile::tempdir().unwrap();
        let folder = own(&containerd, "127.0.0.1", registry.port);
        std::fs::write(folder.join("both.pem"), both.concat()).unwrap();
        std::fs::copy(files.join("ca.crt"), folder.join("ca.crt")).unwrap();
        std::fs::write(
            folder.join("hosts.toml"),
            format!("ca = \"ca.crt\"\nclient = {client}\n"),
        )
        .unwrap();
        let pulled = Place::configured(containerd.path()).await.pull(&reference).await;
        if fits {
            assert_eq!(pulled.unwrap().id, image.id, "{client}");
        } else {
            let error = pulled.unwrap_err().to_string();
            assert!(error.contains("ca.crt: the key"), "{client}: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_checked_unless_the_file_says_otherwise() {
    let (registry, image) = registry(false).await;
    let reference = registry.reference("app:1");
    let configured = tempfile::tempdir().unwrap();
    let path = own(&configured, "127.0.0.1", registry.port).join("hosts.toml");
    let place = Place::configured(configured.path()).await;
    std::fs::write(&path, "").unwrap();
    let error = place.pull(&reference).await.unwrap_err().to_string();
    assert!(error.contains("not trusted"), "{error}");
    std::fs::write(&path, "skip_verify = true").unwrap();
    assert_eq!(place.pull(&reference).await.unwrap().id, image.id);
}

/// A proxy that knows where the registry is, for who has the password. Its threads end with the test's process.
struct Proxy {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn to(registry_port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&heads);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let log = Arc::clone(&log);
                std::thread::spawn(move || tunnel(stream, registry_port, &log));
            }
        });
        Proxy { port, heads }
    }
}

fn tunnel(mut client: TcpStream, port: u16, log: &Mutex<Vec<String>>) -> Option<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?.to_lowercase();
    log.lock().unwrap().push(head.clone());
    // me:secret
    if !head.contains("proxy-authorization: basic bwu6c2vjcmv0") {
        return client
            .write_all(b"HTTP/1.1 407 Who are you\r\ncontent-length: 0\r\n\r\n")
            .ok();
    }
    let mut server = TcpStream::connect(("127.0.0.1", port)).ok()?;
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").ok()?;
    let (mut from_client, mut to_server) = (client.try_clone().ok()?, server.try_clone().ok()?);
    std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
    std::io::copy(&mut server, &mut client).ok().map(drop)
}

/// The part of the next test that needs another environment than its process began with. Alone it does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn pull_with_this_environment() {
    let (Ok(reference), Ok(folder)) = (std::env::var("PULL_REFERENCE"), std::env::var("PULL_REGISTRIES"))
    else {
        return;
    };
    let result = Place::configured(Path::new(&folder)).await.pull(&reference).await;
    println!(
        "result: {}",
        result.map_or_else(|e| e.to_string(), |image| image.id)
    );
}

fn pull_elsewhere(reference: &str, folder: &Path, environment: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "pull_with_this_environment", "--nocapture"]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    let output = command
        .env("PULL_REFERENCE", reference)
        .env("PULL_REGISTRIES", folder)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let result = text
        .lines()
        .find_map(|line| Some(line.split_once("result: ")?.1.to_owned()));
    result.unwrap_or(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_of_the_environment_is_used_for_all_but_what_is_spared() {
    let (registry, image) = registry(false).await;
    let proxy = Proxy::to(registry.port);
    let configured = tempfile::tempdir().unwrap();
    for host in [BEHIND_PROXY, "127.0.0.1"] {
        let folder = own(&configured, host, registry.port);
        std::fs::copy(registry.folder.path().join("ca.crt"), folder.join("ca.crt")).unwrap();
    }
    let reference = format!("{BEHIND_PROXY}:{}/app:1", registry.port);
    let (known, unknown) = (
        format!("http://me:secret@127.0.0.1:{}", proxy.port),
        format!("127.0.0.1:{}", proxy.port),
    );
    let pull = |reference: &str, environment: &[(&str, &str)]| {
        pull_elsewhere(reference, configured.path(), environment)
    };
    for name in ["HTTPS_PROXY", "https_proxy"] {
        assert_eq!(pull(&reference, &[(name, &known)]), image.id, "{name}");
    }
    let tunnels = format!("connect {BEHIND_PROXY}:{}", registry.port);
    assert!(
        proxy
            .heads
            .lock()
            .unwrap()
            .iter()
            .all(|head| head.starts_with(&tunnels))
    );

    let refused = pull(&reference, &[("HTTPS_PROXY", &unknown)]);
    assert!(
        refused.contains("gave up"),
        "without the proxy's password: {refused}"
    );
    let broken = pull(&reference, &[("HTTPS_PROXY", "http://me:s3cr3t@[")]);
    assert!(
        broken.contains("HTTPS_PROXY") && !broken.contains("s3cr3t"),
        "{broken}"
    );

    proxy.heads.lock().unwrap().clear();
    let spared = pull(
        &reference,
        &[("HTTPS_PROXY", &known), ("NO_PROXY", "10.0.0.0/8,.invalid")],
    );
    assert!(
        spared.contains(BEHIND_PROXY),
        "there is no way but the proxy: {spared}"
    );
    assert_eq!(
        pull(&registry.reference("app:1"), &[("HTTPS_PROXY", &known)]),
        image.id
    );
    assert!(
        proxy.heads.lock().unwrap().is_empty(),
        "this machine is spared always"
    );
}
