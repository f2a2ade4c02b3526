//! Bad input to the manager, from registries, images and users: one clear error, and nothing left behind.

use integration::{Image, Layer, Manager, Registry, Sandbox, run};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

/// All files below the image store but its database: what a failed pull must not leave.
fn stored(manager: &Manager) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                true => walk(&path, found),
                false if path.to_string_lossy().contains(".db") || path.ends_with("lock") => {}
                false => found.push(path),
            }
        }
    }
    let mut found = Vec::new();
    walk(&manager.root().join("images"), &mut found);
    found
}

#[track_caller]
fn assert_nothing_is_stored(manager: &Manager) {
    assert_eq!(manager.ctl(&["images", "-q"]).ok(), "");
    let found = integration::eventually("the store is clean", || Some(stored(manager)));
    assert!(found.is_empty(), "left in the store: {found:?}");
}

/// One entry of a tar stream with a header made by hand, which the tar library would refuse to write.
fn entry(name: &str, kind: u8, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[108..115].copy_from_slice(b"0000000");
    header[116..123].copy_from_slice(b"0000000");
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[136..147].copy_from_slice(b"00000000000");
    header[156] = kind;
    header[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn hostile(entries: &[Vec<u8>]) -> Image {
    let mut tar = entries.concat();
    tar.extend_from_slice(&[0; 1024]);
    Image::new(vec![
        Layer::from_files(&[("etc/motd", "base\n")]),
        Layer::from_tar(&tar),
    ])
}

#[test]
fn layers_that_leave_their_root_are_refused_by_entry() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    // A symlink to elsewhere means a place inside the layer: whoever does not refuse it must write there.
    let cases = [
        ("up", false, vec![entry("../escape", b'0', "", b"x")], "../escape"),
        (
            "middle",
            false,
            vec![entry("a/../../escape", b'0', "", b"x")],
            "a/../../escape",
        ),
        (
            "hardlink",
            false,
            vec![entry("link", b'1', "../../../../../../etc/passwd", b"")],
            "link",
        ),
        (
            "absolute",
            true,
            vec![
                entry("out", b'2', "/tmp", b""),
                entry("out/berth-escape", b'0', "", b"x"),
            ],
            "out",
        ),
        (
            "relative",
            true,
            vec![
                entry("out", b'2', "../../../../tmp", b""),
                entry("out/berth-escape", b'0', "", b"x"),
            ],
            "out",
        ),
    ];
    for (name, may_stay_inside, entries, word) in cases {
        let reference = manager.registry().push(&hostile(&entries), &format!("{name}:1"));
        let done = manager.ctl(&["pull", &reference]);
        assert!(
            !fs::exists("/tmp/berth-escape").expect("look"),
            "{name}: a file was written on the host: {done}"
        );
        if may_stay_inside && done.code == 0 {
            manager.ctl(&["rmi", &reference]).ok();
        } else {
            assert!(done.code != 0 && done.stderr.contains(word), "{name}: {done}");
        }
        assert_nothing_is_stored(&manager);
    }
}

#[test]
fn a_damaged_blob_is_refused_by_its_digest() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let reference = manager.registry().push(&Image::busybox(), "box:1");
    let blobs = manager.registry().data().join("docker/registry/v2/blobs/sha256");
    let list = run(Command::new("find")
        .arg(&blobs)
        .args(["-name", "data", "-size", "+100k"]))
    .ok();
    let blob = list.lines().next().expect("a layer blob");
    let mut bytes = fs::read(blob).expect("read the blob");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    fs::write(blob, &bytes).expect("damage the blob");
    let refused = manager.ctl(&["pull", &reference]).refused();
    assert!(refused.contains("sha256:"), "{refused}");
    assert_nothing_is_stored(&manager);
    bytes[middle] ^= 0x55;
    fs::write(blob, &bytes[..middle]).expect("truncate the blob");
    let refused = manager.ctl(&["pull", &reference]).refused();
    assert!(refused.contains("sha256:"), "{refused}");
    assert_nothing_is_stored(&manager);
    fs::write(blob, &bytes).expect("mend the blob");
    manager.ctl(&["pull", &reference]).ok();
    assert_eq!(
        manager
            .ctl(&["run", "--rm", &reference, "/bin/echo", "whole"])
            .ok(),
        "whole\n"
    );
}

#[test]
fn an_image_or_registry_that_is_not_there_is_named() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let host = Registry::HOST;
    let refused = manager.ctl(&["pull", &format!("{host}/no/such:image")]).refused();
    assert!(
        refused.contains("no/such") && refused.contains("image"),
        "{refused}"
    );
    let refused = manager.ctl(&["pull", "UPPER/Case"]).refused();
    assert!(refused.contains("UPPER/Case"), "{refused}");
    manager.stop_registry();
    let refused = manager.ctl(&["pull", &format!("{host}/no/such:image")]).refused();
    assert!(refused.contains(host), "{refused}");
    let done = manager.ctl(&["run", "--rm", "--pull", "never", "no-such-image", "true"]);
    assert!(
        done.code == 125 && done.stderr.contains("no-such-image"),
        "{done}"
    );
    assert_nothing_is_stored(&manager);
}

#[test]
fn a_registry_that_answers_nonsense_is_named() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    // A server in the manager's network namespace, made in a thread that has moved there.
    let netns = fs::File::open(format!("/proc/{}/ns/net", manager.pid())).expect("open the namespace");
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET).expect("join the namespace");
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        send.send(listener.local_addr().expect("an address"))
            .expect("tell the address");
        for connection in listener.incoming().take(200) {
            let Ok(mut connection) = connection else { continue };
            let _ = connection.read(&mut [0; 4096]);
            let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\nContent-Length: 8\r\nConnection: close\r\n\r\n{\"a\": [}");
        }
    });
    let address = receive.recv().expect("the server's address");
    let reference = format!("{address}/some/thing:1");
    let refused = manager.ctl(&["pull", &reference]).refused();
    assert!(
        refused.contains(&format!("pull {reference}: ")) && refused.contains("not the JSON"),
        "{refused}"
    );
    assert_eq!(refused.matches(&reference).count(), 1, "{refused}");
    assert_nothing_is_stored(&manager);
}

#[test]
fn the_second_container_of_a_name_is_refused() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let first = manager
        .ctl(&["run", "-d", "--name", "one", &image, "sleep", "1000"])
        .ok();
    let done = manager.ctl(&["run", "-d", "--name", "one", &image, "sleep", "1000"]);
    assert!(
        done.code == 125 && done.stderr.contains("one") && done.stderr.contains(&first[..12]),
        "{done}"
    );
    assert_eq!(manager.ctl(&["ps", "-a", "-q"]).ok().lines().count(), 1);
}

#[test]
fn a_wrong_request_is_named_and_leaves_no_container() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let cases: &[(&[&str], &str)] = &[
        (&["--cap-add", "NO_SUCH"], "NO_SUCH"),
        (&["-u", "nobody-of-this-name"], "nobody-of-this-name"),
        (&["--network", "no-such-network"], "no-such-network"),
        (&["-v", "relative/path:/x"], "relative"),
        (&["-v", "/tmp:relative"], "relative"),
        (&["-w", "relative"], "relative"),
        (&["-m", "1k"], "memory"),
        (&["--stop-signal", "SIGNOSUCH"], "SIGNOSUCH"),
        (&["--name", "bad name"], "bad name"),
    ];
    for (flags, word) in cases {
        let mut args = vec!["run", "--rm"];
        args.extend_from_slice(flags);
        args.extend([image.as_str(), "/bin/true"]);
        let done = manager.ctl(&args);
        assert!(
            done.code == 125 && done.stderr.contains(word),
            "{flags:?}: {done}"
        );
        assert_eq!(manager.ctl(&["ps", "-a", "-q"]).ok(), "", "{flags:?}");
    }
    let done = manager.ctl(&["run", "--rm", &image, "no-such-program"]);
    assert!(
        done.code == 127 && done.stderr.matches("no-such-program").count() == 1,
        "{done}"
    );
    let done = manager.ctl(&["run", "--rm", &image, "/etc/passwd"]);
    assert_eq!(done.code, 126, "{done}");
    assert_eq!(manager.ctl(&["ps", "-a", "-q"]).ok(), "");
    for args in [
        &["start", "nobody"][..],
        &["stop", "nobody"],
        &["rm", "nobody"],
        &["logs", "nobody"],
        &["exec", "nobody", "true"],
        &["inspect", "nobody"],
        &["rmi", "nobody"],
    ] {
        let refused = manager.ctl(args).refused();
        assert!(refused.contains("nobody"), "{args:?}: {refused}");
    }
}

#[test]
fn a_full_disk_fails_the_pull_whole_and_spares_what_runs() {
    let sandbox = Sandbox::new();
    // The manager's folders lie on a file system of their own, of 24 MiB.
    let image = sandbox.path().join("disk");
    let folder = sandbox.path().join("manager");
    fs::create_dir_all(&folder).expect("make a folder");
    run(Command::new("truncate").args(["-s", "24M"]).arg(&image)).ok();
    run(Command::new("mkfs.ext4")
        .args(["-q", "-m", "0", "-O", "^has_journal"])
        .arg(&image))
    .ok();
    run(Command::new("mount")
        .args(["-o", "loop"])
        .arg(&image)
        .arg(&folder))
    .ok();
    {
        let manager = Manager::start(&sandbox);
        let small = manager.busybox();
        manager
            .ctl(&[
                "run",
                "-d",
                "--name",
                "lives",
                &small,
                "/bin/sh",
                "-c",
                "while :; do sleep 0.1; done",
            ])
            .ok();
        let before = stored(&manager);
        let noise: String = (0..60_u32 << 16)
            .map(|i| char::from(b'a' + (i.wrapping_mul(2_654_435_761) >> 27) as u8 % 26))
            .collect();
        let large: Vec<_> = (0..10).map(|i| (format!("file{i}"), noise.clone())).collect();
        let files: Vec<_> = large
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        let reference = manager
            .registry()
            .push(&Image::new(vec![Layer::from_files(&files)]), "large:1");
        let refused = manager.ctl(&["pull", &reference]).refused();
        assert!(
            refused.contains("No space left") || refused.contains("ENOSPC"),
            "{refused}"
        );
        assert_eq!(stored(&manager), before, "the failed pull left something");
        assert_eq!(
            manager.ctl(&["exec", "lives", "/bin/echo", "still"]).ok(),
            "still\n"
        );
        manager.ctl(&["rm", "-f", "lives"]).ok();
        manager.ctl(&["run", "--rm", &small, "/bin/true"]).ok();
    }
    run(Command::new("umount").arg(&folder)).ok();
}
