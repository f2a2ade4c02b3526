//! Clients and registries that do nothing: they hold up themselves, and nobody else.

use integration::{Manager, Sandbox, eventually};
use nix::sched::{CloneFlags, setns};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// More of both together than the manager has threads.
const LOADS: usize = 70;
const PULLS: usize = 30;
/// For what takes a fraction of a second when nothing is in its way, on a machine that does much else.
const AT_ONCE: Duration = Duration::from_secs(20);

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}

/// A registry in the manager's network: each repository has an image of its own, and the bodies of layers never come.
fn stalling_registry(sandbox: &Sandbox) -> String {
    let netns = format!("/run/netns/berth-{}", sandbox.id());
    let listening = std::thread::spawn(move || {
        let netns = fs::File::open(netns).expect("open the manager's network namespace");
        // This thread's alone.
        setns(netns, CloneFlags::CLONE_NEWNET).expect("enter the manager's network namespace");
        TcpListener::bind("127.0.0.1:0").expect("listen")
    });
    let listener = listening.join().expect("the thread listens");
    let address = listener.local_addr().expect("it has an address").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    address
}

fn answer(mut stream: TcpStream) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|got| got > 0) {
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    // /v2/<repository>/manifests/<tag>
    let repository = path.split('/').nth(2).unwrap_or_default();
    let layer = digest(repository.as_bytes());
    let config =
        json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [layer]}});
    let config = config.to_string();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest(config.as_bytes()),
            "size": config.len()
        },
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": 1 << 20}]
    });
    let manifest = manifest.to_string();
    let (media_type, body) = if path.contains("/manifests/") {
        ("application/vnd.oci.image.manifest.v1+json", manifest)
    } else if path.ends_with(&digest(config.as_bytes())) {
        ("application/octet-stream", config)
    } else {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\nbegun");
        // Until the manager has had enough.
        let _ = stream.read(&mut byte);
        return;
    };
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n"
    );
    if !head.starts_with("HEAD") {
        let _ = stream.write_all(body.as_bytes());
    }
}

/// A load that has begun, and of which no more comes.
fn stalled_load(manager: &Manager) -> Child {
    let mut load = manager
        .ctl_command(&["load"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start managerctl");
    let input = load.stdin.as_mut().expect("its input is a pipe");
    input.write_all(&[0; 100]).expect("send the beginning");
    load
}

fn threads(manager: &Manager, name: &str) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", manager.pid())).expect("list the manager's threads");
    let name_of = |task: &fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    tasks
        .flatten()
        .filter(|task| name_of(task).trim() == name)
        .count()
}

#[test]
fn stalled_loads_and_pulls_keep_nobody_from_running_containers() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let registry = stalling_registry(&sandbox);
    let mut waiting: Vec<Child> = (0..LOADS).map(|_| stalled_load(&manager)).collect();
    for number in 0..PULLS {
        let reference = format!("{registry}/{number}:v1");
        let mut pull = manager.ctl_command(&["pull", &reference]);
        let pull = pull
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        waiting.push(pull.spawn().expect("start managerctl"));
    }
    eventually("loads and downloads have all the threads that they get", || {
        (threads(&manager, "archive") == 16 && threads(&manager, "layer-unpack") == 12).then_some(())
    });

    let begun = Instant::now();
    manager.ctl(&["ps", "-a"]).ok();
    manager.ctl(&["images"]).ok();
    assert_eq!(
        manager.ctl(&["run", "--rm", &image, "echo", "runs"]).ok(),
        "runs\n"
    );
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());

    for client in &mut waiting {
        client.kill().expect("end managerctl");
        client.wait().expect("wait for managerctl");
    }
    eventually("what they held is free", || {
        (threads(&manager, "archive") == 0 && threads(&manager, "layer-unpack") == 0).then_some(())
    });
    eventually("what they made is gone", || {
        let scratch = fs::read_dir(manager.root().join("images/tmp")).expect("list scratch");
        (scratch.count() == 0).then_some(())
    });
    let saved = sandbox.path().join("saved.tar").display().to_string();
    manager.ctl(&["save", "-o", &saved, &image]).ok();
    manager.ctl(&["load", "-i", &saved]).ok();
}

/// Something on the network that does not answer, say, holds up the start that needs it.
#[test]
fn a_volume_that_is_not_ready_keeps_no_other_container_from_ending() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let standing = sandbox.path().join("standing");
    manager.kill();
    manager.set_failpoint(Some(&format!("volume.mounted@{}", standing.display())));
    manager.start_again();
    let run = |name: &str, volume: &str| {
        let volume = format!("{volume}:/data");
        manager.ctl_command(&[
            "run", "-d", "--name", name, "-v", &volume, &image, "sleep", "1000",
        ])
    };
    integration::run(&mut run("runs", "ready")).ok();
    fs::write(&standing, "").expect("make the sign");
    let mut starting = run("starts", "slow")
        .stdout(Stdio::null())
        .spawn()
        .expect("start managerctl");
    manager.await_pause();
    let begun = Instant::now();
    let mut stop = manager.ctl_spawned(&["stop", "-t", "0", "runs"]);
    let stopped = loop {
        if let Some(status) = stop.try_wait().expect("look at managerctl") {
            break status.success();
        }
        if begun.elapsed() > AT_ONCE {
            stop.kill().expect("end managerctl");
            break false;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    fs::remove_file(&standing).expect("take the sign away");
    assert!(stopped, "it waited for another container's volume");
    assert!(starting.wait().expect("wait for managerctl").success());
}
