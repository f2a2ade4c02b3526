//! `managerctl cp`: docker's rules, and a container that moves links under it.

use integration::{Manager, Sandbox, eventually};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Stdio;

const TREE: &str = "mkdir -p /srv/sub && echo one > /srv/sub/one && echo two > /srv/two && chmod 640 /srv/two \
     && chown 12:34 /srv/two && touch -d '2020-01-02 03:04:05' /srv/two && ln -s sub/one /srv/link && ln -s /srv /way";

/// A container that runs, and one that has ended, with the same files.
#[track_caller]
fn containers(manager: &Manager, image: &str) {
    let script = format!("{TREE}; sleep 1000");
    manager
        .ctl(&["run", "-d", "--name", "runs", image, "sh", "-c", &script])
        .ok();
    manager
        .ctl(&["run", "--name", "ended", image, "sh", "-c", TREE])
        .ok();
    eventually("the files are made", || {
        (manager.ctl(&["exec", "runs", "ls", "/way/sub/one"]).code == 0).then_some(())
    });
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn files_come_out_as_docker_has_them() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    containers(&manager, &image);
    for container in ["runs", "ended"] {
        let folder = sandbox.path().join(container);
        fs::create_dir(&folder).expect("make a folder");
        let at = |path: &str| folder.join(path);
        let cp = |from: &str, to: &str| {
            let to = at(to);
            manager.ctl(&["cp", &format!("{container}:{from}"), &to.to_string_lossy()])
        };
        // To a name, into a folder, over a file.
        let told = cp("/srv/two", "two");
        assert!(told.stderr.starts_with("Successfully copied"), "{told}");
        let found = at("two").metadata().expect("a copy");
        assert_eq!(found.permissions().mode() & 0o7777, 0o640);
        assert_eq!((found.uid(), found.mtime()), (0, 1_577_934_245));
        assert_eq!(
            cp("srv/sub/one", "two").code,
            0,
            "from the root, however it begins"
        );
        assert_eq!(read(&at("two")), "one\n");
        // A folder that is not there gets what is in the other, one that is there gets the other.
        assert_eq!(cp("/srv", "copy").code, 0);
        assert_eq!(read(&at("copy/sub/one")), "one\n");
        assert_eq!(
            fs::read_link(at("copy/link")).expect("a link"),
            Path::new("sub/one")
        );
        assert_eq!(cp("/srv", "copy").code, 0);
        assert_eq!(read(&at("copy/srv/two")), "two\n");
        fs::create_dir(at("flat")).expect("make a folder");
        assert_eq!(cp("/srv/.", "flat").code, 0);
        assert_eq!(read(&at("flat/two")), "two\n");
        // A link is itself, or what it leads to.
        assert_eq!(cp("/way", "way").code, 0);
        assert_eq!(fs::read_link(at("way")).expect("a link"), Path::new("/srv"));
        let followed = at("followed");
        fs::create_dir(&followed).expect("make a folder");
        let from = format!("{container}:/way");
        manager
            .ctl(&["cp", "-a", "-L", "-q", &from, &followed.to_string_lossy()])
            .ok();
        assert_eq!(read(&followed.join("way/sub/one")), "one\n");
        let owned = followed.join("way/two").metadata().expect("a copy");
        assert_eq!((owned.uid(), owned.gid()), (12, 34));
        // As an archive.
        let archive = manager
            .ctl_command(&["cp", &format!("{container}:/srv/sub"), "-"])
            .output()
            .expect("cp");
        let mut archive = tar::Archive::new(archive.stdout.as_slice());
        let names: Vec<_> = archive
            .entries()
            .expect("an archive")
            .map(|entry| entry.expect("an entry").path().expect("a path").into_owned())
            .collect();
        assert_eq!(names, [Path::new("sub/"), Path::new("sub/one")]);

        for (from, to, word) in [
            ("/srv/none", "x", "could not find the file /srv/none"),
            ("/srv", "two", "cannot copy a directory onto a file"),
            ("/srv/two", "none/", "no such directory"),
            ("/srv/two", "none/x", "no such directory"),
            ("/srv/two/", "x", "Not a directory"),
        ] {
            let refused = cp(from, to).refused();
            assert!(refused.contains(word), "{from} {to}: {refused}");
        }
    }
    let refused = manager.ctl(&["cp", "runs:/proc/cpuinfo", "/dev/null"]).refused();
    assert!(refused.contains("file system of the kernel's"), "{refused}");
    for (args, word) in [
        (["none:/a", "b"], "no such container: none"),
        (["a", "b"], "at least one container"),
        (["runs:/a", "ended:/b"], "between containers"),
    ] {
        let refused = manager.ctl(&["cp", args[0], args[1]]).refused();
        assert!(refused.contains(word), "{refused}");
    }
}

#[test]
fn files_go_in_as_docker_has_them() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    containers(&manager, &image);
    let folder = sandbox.path().join("folder");
    fs::create_dir_all(folder.join("in")).expect("make a folder");
    fs::write(folder.join("in/file"), "new\n").expect("write a file");
    symlink("in/file", folder.join("link")).expect("make a link");
    chown(folder.join("in/file"), Some(77), Some(88)).expect("own the file");
    fs::set_permissions(folder.join("in/file"), fs::Permissions::from_mode(0o4751)).expect("set a mode");
    let at = |path: &str| folder.join(path).to_string_lossy().into_owned();

    for container in ["runs", "ended"] {
        let cp = |from: &str, to: &str| manager.ctl(&["cp", from, &format!("{container}:{to}")]);
        cp(&at("in/file"), "/srv/new").ok();
        cp(&at("in/file"), "/way").ok();
        cp(&at("in/file"), "/srv/link").ok();
        cp(&at(""), "/made").ok();
        cp(&at("in/."), "/srv/sub").ok();
        cp(&at("link"), "/made/in").ok();
        manager
            .ctl(&["cp", "-q", "-L", &at("link"), &format!("{container}:/followed")])
            .ok();
        let mut client = manager
            .ctl_command(&["cp", "-", &format!("{container}:/made")])
            .stdin(Stdio::piped())
            .spawn()
            .expect("start a client");
        let mut builder = tar::Builder::new(client.stdin.take().expect("its input"));
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o600);
        builder
            .append_data(&mut header, "deep/er/file", &b"piped"[..])
            .expect("write the archive");
        builder
            .into_inner()
            .expect("end the archive")
            .flush()
            .expect("end the archive");
        assert!(client.wait().expect("wait for the client").success());

        for (path, word) in [
            ("/srv/two/", "no such directory"),
            ("/none/x", "no such file or directory"),
            ("/srv/none/", "no such directory"),
        ] {
            let refused = cp(&at("in/file"), path).refused();
            assert!(
                refused.to_lowercase().contains(word) || refused.contains("Not a directory"),
                "{path}: {refused}"
            );
        }
        let refused = cp(&at("in"), "/srv/two").refused();
        assert!(
            refused.contains("cannot copy a directory onto a file"),
            "{refused}"
        );
        // A folder of the copy meets a file.
        fs::create_dir_all(folder.join("other/two")).expect("make a folder");
        let refused = cp(&at("other/."), "/srv").refused();
        assert!(
            refused.contains("cannot overwrite non-directory with directory"),
            "{refused}"
        );
        fs::remove_dir_all(folder.join("other")).expect("remove a folder");
        let refused = manager
            .ctl(&["cp", "-", &format!("{container}:/srv/two")])
            .refused();
        assert!(refused.contains("must be a directory"), "{refused}");
    }
    let look = "cat /srv/new /srv/file /srv/sub/one /made/in/file /srv/sub/file /followed /made/deep/er/file; \
                stat -c '%a %u:%g' /srv/new /made/deep; readlink /made/in/link";
    let expected = "new\nnew\nnew\nnew\nnew\nnew\npiped4751 77:88\n755 0:0\nin/file\n";
    assert_eq!(manager.ctl(&["exec", "runs", "sh", "-c", look]).ok(), expected);
    manager.ctl(&["commit", "ended", "looked:1"]).ok();
    assert_eq!(
        manager.ctl(&["run", "--rm", "looked:1", "sh", "-c", look]).ok(),
        expected
    );

    // For the container's own user.
    manager
        .ctl(&[
            "create", "--name", "mine", "-u", "12:34", &image, "stat", "-c", "%u:%g", "/file",
        ])
        .ok();
    manager.ctl(&["cp", "-a", &at("in/file"), "mine:/file"]).ok();
    assert_eq!(manager.ctl(&["start", "-a", "mine"]).ok(), "12:34\n");
}

#[test]
fn volumes_are_seen_while_the_container_runs() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let host = sandbox.path().join("host");
    fs::write(&host, "of the host\n").expect("write a file");
    let host = host.to_string_lossy();
    let to = sandbox.path().join("copy");
    let script = "ln -s /data /way; echo kept > /data/file; sleep 1000";
    manager
        .ctl(&[
            "run",
            "-d",
            "--name",
            "one",
            "-v",
            "data:/data:rw",
            "-v",
            "data:/closed:ro",
            &image,
            "sh",
            "-c",
            script,
        ])
        .ok();
    eventually("the file is made", || {
        (manager.ctl(&["exec", "one", "ls", "/data/file"]).code == 0).then_some(())
    });
    manager.ctl(&["cp", "one:/way/file", &to.to_string_lossy()]).ok();
    assert_eq!(read(&to), "kept\n");
    manager.ctl(&["cp", &host, "one:/data/copied"]).ok();
    assert_eq!(
        read(&manager.root().join("volumes/data/_data/copied")),
        "of the host\n"
    );
    let refused = manager.ctl(&["cp", &host, "one:/closed/copied"]).refused();
    assert!(refused.contains("Read-only file system"), "{refused}");

    manager.ctl(&["stop", "-t", "0", "one"]).ok();
    for path in ["/data/file", "/way/file", "/data"] {
        let refused = manager
            .ctl(&["cp", &format!("one:{path}"), &to.to_string_lossy()])
            .refused();
        assert!(
            refused.contains("mounted at /data") && refused.contains("start it first"),
            "{refused}"
        );
    }
    let refused = manager.ctl(&["cp", &host, "one:/data/more"]).refused();
    assert!(refused.contains("mounted at /data"), "{refused}");
    manager
        .ctl(&["create", "--name", "sealed", "--read-only", &image, "true"])
        .ok();
    let refused = manager.ctl(&["cp", &host, "sealed:/file"]).refused();
    assert!(refused.contains("read-only"), "{refused}");
    // Nothing of it stays mounted.
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("read the mounts");
    assert!(
        !mounts.contains(&*manager.state().join("parts").to_string_lossy()),
        "{mounts}"
    );
}

/// It makes folders links, and files devices, as fast as it can; no copy sees or changes anything else for that.
#[test]
fn a_container_that_moves_links_under_a_copy_leads_nowhere() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let host = sandbox.path().join("host");
    fs::create_dir_all(host.join("sub")).expect("make a folder");
    fs::write(host.join("sub/file"), "secret of the host\n").expect("write a file");
    let before = host.join("sub/file").metadata().expect("look at a file").mtime();
    let secret = host.display();
    let script = format!(
        "mkdir -p /t/sub {secret} && echo mine > /t/sub/file && ln -s {secret}/sub /t/other && ln -s {secret} /link; \
         while :; do mv -T /t/sub /t/x 2>/dev/null && mv -T /t/other /t/sub && mv -T /t/sub /t/other && mv -T /t/x /t/sub; \
         rm -rf /t/in && ln -s {secret}/sub /t/in; rm -rf /t/in; mkdir -p /t/in; done"
    );
    manager
        .ctl(&["run", "-d", "--name", "evil", &image, "sh", "-c", &script])
        .ok();
    eventually("it has begun", || {
        (manager.ctl(&["exec", "evil", "ls", "/link"]).code == 0).then_some(())
    });
    let source = sandbox.path().join("source");
    fs::create_dir_all(source.join("in")).expect("make a folder");
    fs::write(source.join("in/planted"), "planted").expect("write a file");
    let source = format!("{}/.", source.display());
    let mut whole = 0;
    for round in 0..30 {
        let out = manager.ctl_command(&["cp", "evil:/t", "-"]).output().expect("cp");
        assert!(
            !String::from_utf8_lossy(&out.stdout).contains("secret of the host"),
            "round {round}"
        );
        for path in ["evil:/t/sub/file", "evil:/link/sub/file"] {
            let out = manager
                .ctl_command(&["cp", "-L", path, "-"])
                .output()
                .expect("cp");
            assert!(
                !String::from_utf8_lossy(&out.stdout).contains("secret of the host"),
                "round {round}"
            );
        }
        // It may be refused, as what it meets changes.
        whole += u32::from(manager.ctl(&["cp", &source, "evil:/t"]).code == 0);
        assert!(!host.join("sub/planted").exists(), "round {round}");
    }
    assert!(whole > 0, "no copy got through");
    let found = host.join("sub/file");
    assert_eq!(read(&found), "secret of the host\n");
    assert_eq!(found.metadata().expect("look at a file").mtime(), before);
}

/// A start waits for a copy into the layers that it would mount.
#[test]
fn a_container_does_not_start_under_a_copy() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    manager
        .ctl(&["create", "--name", "one", &image, "cat", "/file"])
        .ok();
    let mut client = manager
        .ctl_command(&["cp", "-", "one:/"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("start a client");
    let mut builder = tar::Builder::new(client.stdin.take().expect("its input"));
    let mut header = tar::Header::new_gnu();
    header.set_size(6);
    header.set_mode(0o644);
    builder
        .append_data(&mut header, "file", &b"whole\n"[..])
        .expect("write the archive");
    let upper = manager.root().join("images/containers");
    let upper = fs::read_dir(upper)
        .expect("list")
        .next()
        .expect("one container")
        .expect("an entry")
        .path()
        .join("upper/file");
    eventually("the copy has begun", || upper.exists().then_some(()));
    let mut start = manager
        .ctl_command(&["start", "-a", "one"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start a client");
    assert!(start.try_wait().expect("look at the client").is_none());
    builder
        .into_inner()
        .expect("end the archive")
        .flush()
        .expect("end the archive");
    assert!(client.wait().expect("wait for the client").success());
    let done = integration::finish(start, "start".to_owned());
    assert_eq!(done.stdout, "whole\n");
}

/// Clients that neither take nor bring any more of a copy keep a container that does not run from nobody.
#[test]
fn nobody_waits_for_a_copy_whose_client_does_nothing() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    for name in ["out", "in", "forced"] {
        manager
            .ctl(&[
                "run",
                "--name",
                name,
                &image,
                "dd",
                "if=/dev/zero",
                "of=/big",
                "bs=1M",
                "count=32",
            ])
            .ok();
    }
    let stalled_out = |name: &str| {
        let mut client = manager
            .ctl_command(&["cp", &format!("{name}:/big"), "-"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start a client");
        let mut begun = [0; 512];
        let output = client.stdout.as_mut().expect("its output");
        std::io::Read::read_exact(output, &mut begun).expect("the beginning of an archive");
        client
    };
    let cut_off = |client: std::process::Child, what: &str| {
        let done = integration::finish(client, what.to_owned());
        assert_ne!(done.code, 0, "{done}");
        assert!(done.stderr.contains("standstill"), "{done}");
    };

    let client = stalled_out("out");
    manager.ctl(&["start", "-a", "out"]).ok();
    cut_off(client, "a copy out");

    let mut client = manager
        .ctl_command(&["cp", "-", "in:/"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start a client");
    let mut input = client.stdin.take().expect("its input");
    let mut header = tar::Header::new_gnu();
    header.set_path("file").expect("a name");
    header.set_size(1 << 20);
    header.set_mode(0o644);
    header.set_cksum();
    input.write_all(header.as_bytes()).expect("send a header");
    let upper = manager.root().join("images/containers");
    eventually("the copy has begun", || {
        let mut all = fs::read_dir(&upper).expect("list").flatten();
        all.any(|one| one.path().join("upper/file").exists())
            .then_some(())
    });
    manager.ctl(&["rm", "in"]).ok();
    cut_off(client, "a copy in");
    drop(input);

    let client = stalled_out("forced");
    manager.ctl(&["rm", "-f", "forced"]).ok();
    cut_off(client, "a copy out");
}

/// Files that are written to meanwhile, have holes, or are sockets.
#[test]
fn a_folder_in_use_goes_in_whole() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    manager.ctl(&["create", "--name", "one", &image, "true"]).ok();
    let folder = sandbox.path().join("folder");
    fs::create_dir(&folder).expect("make a folder");
    let at = |name: &str| folder.join(name);
    fs::write(at("log"), vec![b'l'; 8 << 20]).expect("write a file");
    for name in ["a", "z"] {
        fs::write(at(name), format!("{name}\n")).expect("write a file");
    }
    let holes = fs::File::create(at("holes")).expect("make a file");
    holes.set_len(1 << 27).expect("make it a hole");
    std::os::unix::fs::FileExt::write_all_at(&holes, b"deep", 100 << 20).expect("write in the hole");
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).expect("listen");

    let ends = std::sync::atomic::AtomicBool::new(false);
    let copied = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut log = fs::OpenOptions::new()
                .append(true)
                .open(at("log"))
                .expect("open the log");
            while !ends.load(std::sync::atomic::Ordering::Relaxed) {
                log.write_all(&[b'm'; 4096]).expect("write to the log");
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
        });
        let copies: Vec<_> = (0..5)
            .map(|_| manager.ctl(&["cp", &folder.to_string_lossy(), "one:/copy"]))
            .collect();
        ends.store(true, std::sync::atomic::Ordering::Relaxed);
        copies
    });
    for done in copied {
        assert_eq!(done.code, 0, "{done}");
        assert!(done.stderr.contains("folder/socket: is a socket"), "{done}");
    }
    let look = "cat /copy/a /copy/z; ls /copy; stat -c %s /copy/holes; du -m /copy/holes | cut -f1; \
                dd if=/copy/holes bs=1M skip=100 count=1 2>/dev/null | head -c 4";
    manager.ctl(&["commit", "one", "looked:1"]).ok();
    let found = manager.ctl(&["run", "--rm", "looked:1", "sh", "-c", look]).ok();
    // Each copy goes into the folder that the first has made.
    let expected = "a\nz\na\nfolder\nholes\nlog\nz\n134217728\n";
    assert!(found.starts_with(expected) && found.ends_with("deep"), "{found}");
    let megabytes: u64 = found[expected.len()..]
        .lines()
        .next()
        .expect("a size")
        .parse()
        .expect("a number");
    assert!(megabytes < 50, "{found}");
    // And out again.
    let out = sandbox.path().join("out");
    fs::create_dir(&out).expect("make a folder");
    for (path, to) in [
        ("/copy/holes", "one-file"),
        ("/copy/holes", ""),
        ("/copy", "tree"),
    ] {
        let to = out.join(to);
        manager
            .ctl(&["cp", &format!("one:{path}"), &to.to_string_lossy()])
            .ok();
    }
    for copy in ["one-file", "tree/holes"] {
        let copy = fs::File::open(out.join(copy)).unwrap_or_else(|error| panic!("{copy}: {error}"));
        let found = copy.metadata().expect("look at a copy");
        assert_eq!(found.len(), 1 << 27);
        let mut deep = [0; 4];
        std::os::unix::fs::FileExt::read_exact_at(&copy, &mut deep, 100 << 20).expect("read");
        assert_eq!(&deep, b"deep");
    }
}

#[test]
fn a_program_that_comes_out_has_nobody_elses_rights() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let script = "mkdir /t; cp /bin/busybox /t/as-root; chmod 6755 /t/as-root; chmod 2750 /t";
    manager
        .ctl(&["run", "--name", "one", &image, "sh", "-c", script])
        .ok();
    let to = |name: &str| sandbox.path().join(name);
    let mode = |path: &Path| fs::metadata(path).expect("a copy").permissions().mode() & 0o7777;
    manager
        .ctl(&["cp", "one:/t", &to("plain").to_string_lossy()])
        .ok();
    assert_eq!((mode(&to("plain")), mode(&to("plain/as-root"))), (0o750, 0o755));
    manager
        .ctl(&["cp", "-a", "one:/t", &to("all").to_string_lossy()])
        .ok();
    assert_eq!((mode(&to("all")), mode(&to("all/as-root"))), (0o2750, 0o6755));
}
