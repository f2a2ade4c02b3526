//! What a container can do against who reads it: `commit`, `diff` and `export` of files that are nothing but holes, of
//! names that stand for something else each moment, and of folders without end. And a reader that goes away.

use integration::{Done, Manager, Sandbox, eventually, finish, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A file that takes a while to pack: two gigabytes of holes, each too small to be told as one.
const SLOW: &str = "i=0; while [ $i -lt 1900 ]; do \
    dd if=/bin/busybox of=/slow bs=1k count=1 seek=${i}000 conv=notrunc 2>/dev/null; i=$((i+1)); done";

#[track_caller]
fn detached(manager: &Manager, image: &str, more: &[&str], script: &str) {
    let mut arguments = vec!["run", "-d", "--name", "one"];
    arguments.extend(more);
    arguments.extend([image, "sh", "-c", script]);
    manager.ctl(&arguments).ok();
}

/// An export of the container, in a file.
#[track_caller]
fn export(manager: &Manager, sandbox: &Sandbox) -> PathBuf {
    let archive = sandbox.path().join("one.tar");
    manager
        .ctl(&["export", "-o", archive.to_str().expect("a path"), "one"])
        .ok();
    archive
}

/// Files and folders of the store, complete or in the making.
fn stored(manager: &Manager) -> Vec<PathBuf> {
    let folders = ["blobs/sha256", "s", "tmp"].map(|folder| manager.root().join("images").join(folder));
    let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok());
    let mut found: Vec<PathBuf> = entries.flatten().flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// A container that counts in a file on the host, `out/a`, and what reads the count.
#[track_caller]
fn counting(manager: &Manager, sandbox: &Sandbox, image: &str, before: &str) -> impl Fn() -> String {
    let out = sandbox.path().join("out");
    fs::create_dir(&out).expect("make a folder");
    let mount = format!("{}:/out", out.display());
    let script = format!("{before}; while :; do i=$((i+1)); echo $i > /out/a; usleep 1000; done");
    detached(manager, image, &["-v", &mount], &script);
    let count = move || fs::read_to_string(out.join("a")).unwrap_or_default();
    eventually("it counts", || (!count().is_empty()).then_some(()));
    count
}

#[track_caller]
fn assert_runs(count: &impl Fn() -> String) {
    let before = count();
    eventually("it counts on", || (count() != before).then_some(()));
}

#[test]
fn holes_are_told_and_not_read() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    // Both would take minutes to read. The second is larger than layers may be.
    let script = "truncate -s 100G /d/large; echo middle | dd of=/d/large bs=1 seek=50G conv=notrunc; \
        truncate -s 9M /d/small; echo end | dd of=/d/small bs=1 seek=8M conv=notrunc";
    let script = format!("mkdir /d; {{ {script}; }} 2>/dev/null");
    manager
        .ctl(&["run", "--name", "one", &image, "sh", "-c", &script])
        .ok();

    manager.ctl(&["commit", "one", "made:1"]).ok();
    let look = "stat -c '%n %s' /d/*; dd if=/d/large bs=1 skip=50G count=7 2>/dev/null; \
        dd if=/d/small bs=1 skip=8M count=4 2>/dev/null; du -m /d/large | cut -f1";
    let said = manager.ctl(&["run", "--rm", "made:1", "sh", "-c", look]).ok();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines[..4],
        ["/d/large 107374182400", "/d/small 9437184", "middle", "end"]
    );
    assert!(
        lines[4].parse::<u64>().is_ok_and(|megabytes| megabytes < 10),
        "{said}"
    );

    // GNU tar, Python's and ours read the same of the archive.
    let archive = export(&manager, &sandbox);
    assert!(archive.metadata().expect("an archive").len() < 100 << 20);
    let listed = run(Command::new("tar").arg("-tvf").arg(&archive).arg("d")).ok();
    assert!(
        listed.contains("107374182400") && listed.contains(" d/large"),
        "{listed}"
    );
    let unpacked = run(Command::new("tar").arg("-xOf").arg(&archive).arg("d/small")).stdout;
    assert!(unpacked.len() == 9 << 20 && unpacked[8 << 20..].starts_with("end\n"));
    let script = "import sys, tarfile\n\
        entry = tarfile.open(sys.argv[1]).extractfile('d/large')\n\
        entry.seek(50 << 30)\nprint(entry.read(6).decode())";
    let read = run(Command::new("python3").args(["-c", script]).arg(&archive)).ok();
    assert_eq!(read, "middle\n");
    manager
        .ctl(&[
            "import",
            "-c",
            "ENV PATH=/bin",
            archive.to_str().expect("a path"),
            "again:1",
        ])
        .ok();
    assert_eq!(
        manager.ctl(&["run", "--rm", "again:1", "sh", "-c", look]).ok(),
        said
    );
}

#[test]
fn other_unpackers_find_the_holes_of_a_committed_layer() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let script = "truncate -s 9M /small; echo end | dd of=/small bs=1 seek=8M conv=notrunc 2>/dev/null";
    manager
        .ctl(&["run", "--name", "one", &image, "sh", "-c", script])
        .ok();
    manager.ctl(&["commit", "one", "made:1"]).ok();
    let (archive, layout, bundle) = (
        sandbox.path().join("made.tar"),
        sandbox.path().join("layout"),
        sandbox.path().join("bundle"),
    );
    manager
        .ctl(&["save", "-o", archive.to_str().expect("a path"), "made:1"])
        .ok();
    run(Command::new("skopeo")
        .args(["--insecure-policy", "copy", "-q"])
        .arg(format!("oci-archive:{}", archive.display()))
        .arg(format!("oci:{}:made", layout.display())))
    .ok();
    let from = format!("{}:made", layout.display());
    run(Command::new("umoci")
        .args(["unpack", "--image", &from])
        .arg(&bundle))
    .ok();
    let content = fs::read(bundle.join("rootfs/small")).expect("the file");
    assert!(content.len() == 9 << 20 && content[8 << 20..].starts_with(b"end\n"));
}

#[test]
fn what_no_layer_may_have_is_refused_before_the_container_is_paused() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let count = counting(&manager, &sandbox, &image, "truncate -s 4096G /huge");
    let before = stored(&manager);
    let error = manager.ctl(&["commit", "one", "never"]).refused();
    assert!(
        error.contains("/huge") && error.contains("larger than"),
        "{error}"
    );
    assert_eq!(stored(&manager), before);
    assert_runs(&count);
    assert!(manager.ctl(&["diff", "one"]).ok().contains("A /huge\n"));
    // Whoever unpacks it decides by themselves.
    let archive = export(&manager, &sandbox);
    let listed = run(Command::new("tar").arg("-tvf").arg(&archive).arg("huge")).ok();
    assert!(listed.contains("4398046511104"), "{listed}");
    manager.ctl(&["rm", "-f", "one"]).ok();
}

#[test]
fn a_commit_whose_client_goes_away_is_given_up_and_lets_the_container_run_on() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let count = counting(&manager, &sandbox, &image, SLOW);
    let before = stored(&manager);
    let mut command = manager.ctl_command(&["commit", "one", "never:1"]);
    let mut client = command.stdout(Stdio::null()).spawn().expect("start managerctl");
    eventually("it is packed", || (stored(&manager) != before).then_some(()));
    client.kill().expect("kill managerctl");
    client.wait().expect("wait for managerctl");
    eventually("what was packed is gone", || {
        (stored(&manager) == before).then_some(())
    });
    assert_runs(&count);
    manager.ctl(&["inspect", "--type", "image", "never:1"]).refused();
    manager.ctl(&["rm", "-f", "one"]).ok();
}

#[test]
fn names_that_stand_for_something_else_each_moment_lead_nowhere() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    // On the host, and nowhere in the container. The device is the kernel's log, a reader of which waits for more.
    let secret = sandbox.path().join("secret");
    fs::write(&secret, "the host's own").expect("write a file");
    let script = format!(
        "mkdir /d; mknod /log c 1 11; cd /d; while :; do \
            echo mine > new; mv new swapped; mkfifo new; mv new swapped; cp -a /log new; mv new swapped; \
            ln -s {} new; mv new swapped; done",
        secret.display()
    );
    detached(&manager, &image, &[], &script);
    eventually("it swaps", || {
        (manager.ctl(&["exec", "one", "test", "-e", "/log"]).code == 0).then_some(())
    });
    for round in 0..15 {
        let archive = run(manager.ctl_command(&["export", "one"]).stdout(Stdio::piped()));
        let Done {
            code, stdout, stderr, ..
        } = archive;
        assert_eq!(code, 0, "{stderr}");
        assert!(
            !stdout.contains("the host's own") && !stdout.contains("Linux version"),
            "round {round}"
        );
        let told = manager.ctl(&["diff", "one"]).ok();
        assert!(told.contains("A /d\n"), "{told}");
    }
    for round in 0..5 {
        let name = format!("made:{round}");
        // A link to the host's file is one that stays in the container; nothing else of it can be in the image.
        manager.ctl(&["commit", "--pause=false", "one", &name]).ok();
        let kinds = "test -L /d/swapped || test ! -e /d/swapped || stat -c '%F %s' /d/swapped";
        let kind = manager.ctl(&["run", "--rm", &name, "sh", "-c", kinds]).ok();
        let known = [
            "",
            "fifo 0\n",
            "character special file 0\n",
            "regular file 5\n",
            "regular empty file 0\n",
        ];
        assert!(known.contains(&kind.as_str()), "{kind}");
    }
    manager.ctl(&["rm", "-f", "one"]).ok();
}

/// Folders in folders, made by moving ones of 900 into each other: no path that is used is too long.
fn deep(thousands: usize) -> String {
    format!(
        "p=$(yes d/ | head -n 900 | tr -d '\\n'); mkdir -p /deep0/$p; i=0; while [ $i -lt {thousands} ]; do \
            mkdir -p /deep$((i+1))/$p; mv /deep$i /deep$((i+1))/$p; i=$((i+1)); done; mv /deep$i /deep"
    )
}

#[test]
fn folders_in_folders_without_end_are_refused_by_name_and_removed() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let before = stored(&manager);
    manager
        .ctl(&["run", "--name", "one", &image, "sh", "-c", &deep(6)])
        .ok();
    let archive = sandbox.path().join("never.tar");
    for command in [
        &["commit", "one", "never:1"][..],
        &["diff", "one"],
        &["export", "-o", archive.to_str().expect("a path"), "one"],
    ] {
        let error = manager.ctl(command).refused();
        assert!(error.contains("/deep/d/d/d"), "{command:?}: {error}");
        assert!(
            error.contains("longer than 4095 bytes") || error.contains("deeper than"),
            "{command:?}: {error}"
        );
        assert!(error.len() < 500, "{error}");
    }
    assert!(!archive.exists());
    manager.ctl(&["rm", "one"]).ok();
    eventually("they are removed", || {
        let trash = fs::read_dir(manager.root().join("images/trash"))
            .into_iter()
            .flatten();
        (trash.count() == 0 && stored(&manager) == before).then_some(())
    });

    // What paths can reach is read.
    manager
        .ctl(&["run", "--name", "one", &image, "sh", "-c", &deep(1)])
        .ok();
    assert_eq!(manager.ctl(&["diff", "one"]).ok().lines().count(), 1802);
    let archive = export(&manager, &sandbox);
    let listed = run(Command::new("tar").arg("-tf").arg(archive)).ok();
    assert_eq!(
        listed.lines().filter(|name| name.starts_with("deep/")).count(),
        1802
    );
    let error = manager.ctl(&["commit", "one", "never:1"]).refused();
    assert!(error.contains("deeper than 256 folders"), "{error}");
}

#[test]
fn a_diff_of_any_length_is_told_as_it_is_found() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    // 80 MB of paths: more than one answer may have, and than the manager may take.
    let script = "p=/$(yes aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/ | \
        head -n 48 | tr -d '\\n'); mkdir -p $p; cd $p; seq 20000 | xargs touch";
    manager
        .ctl(&["run", "--name", "one", &image, "sh", "-c", script])
        .ok();
    let proc = Path::new("/proc").join(manager.pid().to_string());
    // Begin to count anew: proc_pid_clear_refs(5).
    fs::write(proc.join("clear_refs"), "5").expect("reset the peak");
    let told = manager.ctl(&["diff", "one"]).ok();
    assert_eq!(told.lines().count(), 20_048);
    assert!(told.len() > 70 << 20);
    let paths: Vec<&str> = told.lines().skip(48).collect();
    assert!(paths.is_sorted(), "sorted in their folder");
    let status = fs::read_to_string(proc.join("status")).expect("look at the manager");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("a peak");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    println!("peak: {} MiB", kilobytes >> 10);
    assert!(kilobytes < 60 << 10, "{kilobytes} kB");
    // A reader that has seen enough.
    let mut command = manager.ctl_command(&["diff", "one"]);
    let mut client = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start managerctl");
    drop(client.stdout.take());
    finish(client, "managerctl diff".into());
    manager.ctl(&["rm", "one"]).ok();
}
