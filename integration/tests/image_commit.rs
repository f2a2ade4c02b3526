//! What becomes of a container: `diff`, `commit`, `export` and `import`. A container does what people do to files,
//! and the image made of it has to show exactly that.

use integration::{Done, Image, Layer, Manager, Sandbox, eventually, finish, run};
use serde_json::{Value, json};
use std::process::{Command, Stdio};

/// A look at a tree from inside: type, mode, owner, links, size, time and content of everything in it. (Of a folder
/// the number of links is the file system's own affair.)
const LOOK: &str = "cd / && P='bin etc data home opt tmp usr var srv'; \
    find $P ! -type d -exec stat -c '%n %F %a %u:%g %h %s %t,%T %Y' {} + 2>/dev/null | sort; \
    find $P -type d -exec stat -c '%n %F %a %u:%g %Y' {} + 2>/dev/null | sort; \
    find data home opt srv -type f -exec sha256sum {} + 2>/dev/null | sort; \
    find data -type l -exec readlink {} ';'";

/// What happens to the image's files, in a shell of busybox.
const DEEDS: &str = "set -e; cd /data; \
    rm gone; rm -r folder-gone; \
    rm -r replaced-by-file; echo file > replaced-by-file; \
    rm replaced-by-folder; mkdir replaced-by-folder; echo in > replaced-by-folder/in; \
    cp -a copied copy; rm copy/sub/a; touch -r copied/sub copy/sub; rm -r copied; mv copy copied; \
    rm -r emptied; mkdir emptied; echo new > emptied/new; \
    chmod 600 mode; chown 12:34 owner; touch -d @1000000000 time; \
    echo more >> grown; ln -s ../etc/passwd link; ln grown second-name; \
    mkdir -p deep/er/est; echo x > deep/er/est/x; mkfifo fifo; mknod null c 1 3; chmod 1777 sticky; \
    mv kept moved; mv untouched elsewhere; cp /bin/busybox setuid; chmod 4755 setuid; mkdir /home/me; chown 7:7 /home/me";

fn base() -> Image {
    let files = Layer::from_files(&[
        ("data/gone", "1"),
        ("data/folder-gone/a", "1"),
        ("data/folder-gone/b/c", "1"),
        ("data/replaced-by-file/a", "1"),
        ("data/replaced-by-folder", "1"),
        ("data/copied/sub/a", "1"),
        ("data/emptied/old", "1"),
        ("data/mode", "1"),
        ("data/owner", "1"),
        ("data/time", "1"),
        ("data/grown", "1"),
        ("data/kept", "1"),
        ("data/sticky/a", "1"),
        ("data/untouched/a", "1"),
    ]);
    let mut image = Image::busybox().with_layer(files);
    image.config["Env"] = json!(["PATH=/bin:/usr/bin", "A=1"]);
    image.config["Labels"] = json!({"of": "base"});
    image
}

#[track_caller]
fn inspect(manager: &Manager, image: &str) -> Value {
    let shown = manager.ctl(&["inspect", "--type", "image", image]).ok();
    let mut all: Value = serde_json::from_str(&shown).expect("inspect prints JSON");
    all[0].take()
}

/// How it was built.
#[track_caller]
fn history(manager: &Manager, image: &str) -> Vec<Value> {
    let shown = manager.ctl(&["history", "--format", "json", image]).ok();
    serde_json::from_str(&shown).expect("history prints JSON")
}

/// A container `one` that has done the deeds and stopped; what it looked like from inside.
#[track_caller]
fn changed(manager: &Manager, image: &str) -> String {
    let script = format!("{DEEDS}; {LOOK}");
    manager
        .ctl(&[
            "run", "--name", "one", "-l", "is=one", "-e", "B=2", image, "sh", "-c", &script,
        ])
        .ok()
}

#[test]
fn a_committed_image_shows_exactly_what_the_container_did() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.registry().push(&base(), "base:1");
    manager.ctl(&["pull", "-q", &image]).ok();
    let inside = changed(&manager, &image);

    let id = manager
        .ctl(&["commit", "-m", "deeds", "-a", "Me", "one", "done:1"])
        .ok();
    let again = manager.ctl(&["run", "--rm", "done:1", "sh", "-c", LOOK]).ok();
    assert_same(&without_etc(&again), &without_etc(&inside));

    let told = inspect(&manager, id.trim());
    assert_eq!(told["Config"]["Env"], json!(["PATH=/bin:/usr/bin", "A=1", "B=2"]));
    assert_eq!(told["Config"]["Labels"], json!({"of": "base", "is": "one"}));
    assert_eq!(
        (&told["Author"], &told["Comment"]),
        (&json!("Me"), &json!("deeds"))
    );
    let steps = history(&manager, id.trim());
    let step = steps.iter().find(|step| step["comment"] == "deeds");
    assert_eq!(step.expect("the commit's step")["author"], "Me");
    assert_eq!(told["RootFS"]["Layers"].as_array().map(Vec::len), Some(3));

    // Whoever else unpacks it sees the same.
    let archive = sandbox.path().join("done.tar");
    manager
        .ctl(&["save", "-o", archive.to_str().expect("a path"), "done:1"])
        .ok();
    let layout = sandbox.path().join("layout");
    let copied = run(Command::new("skopeo")
        .args(["--insecure-policy", "copy", "-q"])
        .arg(format!("oci-archive:{}", archive.display()))
        .arg(format!("oci:{}:done", layout.display())));
    copied.ok();
    let bundle = sandbox.path().join("bundle");
    run(Command::new("umoci")
        .args(["unpack", "--image"])
        .arg(format!("{}:done", layout.display()))
        .arg(&bundle))
    .ok();
    let theirs = run(Command::new("chroot")
        .arg(bundle.join("rootfs"))
        .args(["/bin/sh", "-c", LOOK]))
    .ok();
    assert_same(&without_etc(&theirs), &without_etc(&inside));
}

/// Two looks are the same; the lines that are not are shown.
#[track_caller]
fn assert_same(ours: &[&str], theirs: &[&str]) {
    let only = |these: &[&str], those: &[&str]| -> Vec<String> {
        let missing = these.iter().filter(|line| !those.contains(line));
        missing.map(|line| (*line).to_owned()).collect()
    };
    let (left, right) = (only(ours, theirs), only(theirs, ours));
    assert!(
        left.is_empty() && right.is_empty(),
        "only in one:\n{left:#?}\nonly in the other:\n{right:#?}"
    );
    assert_eq!(ours.len(), theirs.len());
}

/// The runtime has mounted files over the image's there, new ones each time.
fn without_etc(look: &str) -> Vec<&str> {
    look.lines().filter(|line| !line.starts_with("etc")).collect()
}

#[test]
fn a_diff_names_what_was_added_changed_and_deleted() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.registry().push(&base(), "base:1");
    manager.ctl(&["pull", "-q", &image]).ok();
    manager.ctl(&["run", "--name", "idle", &image, "true"]).ok();
    assert_eq!(
        manager.ctl(&["diff", "idle"]).ok(),
        "",
        "a container that did nothing"
    );

    changed(&manager, &image);
    let expected = [
        "C /data",
        "C /data/copied",
        "C /data/copied/sub",
        "D /data/copied/sub/a",
        "A /data/deep",
        "A /data/deep/er",
        "A /data/deep/er/est",
        "A /data/deep/er/est/x",
        "A /data/elsewhere",
        "A /data/elsewhere/a",
        "C /data/emptied",
        "A /data/emptied/new",
        "D /data/emptied/old",
        "A /data/fifo",
        "D /data/folder-gone",
        "D /data/gone",
        "C /data/grown",
        "D /data/kept",
        "A /data/link",
        "C /data/mode",
        "A /data/moved",
        "A /data/null",
        "C /data/owner",
        "C /data/replaced-by-file",
        "C /data/replaced-by-folder",
        "A /data/replaced-by-folder/in",
        "A /data/second-name",
        "A /data/setuid",
        "C /data/sticky",
        "C /data/time",
        "D /data/untouched",
        "C /home",
        "A /home/me",
    ];
    let told = manager.ctl(&["diff", "one"]).ok();
    let told: Vec<&str> = told.lines().collect();
    assert_eq!(told, expected);
}

#[test]
fn changes_of_the_config_are_dockerfile_instructions() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    manager.ctl(&["create", "--name", "one", &image]).ok();
    let mut arguments = vec!["commit"];
    for instruction in [
        "ENTRYPOINT [\"/bin/sh\", \"-c\"]",
        "CMD [\"echo $GREETING from $(pwd) by $(id -u)\"]",
        "ENV GREETING=\"hello  you\"",
        "WORKDIR /usr",
        "USER 12",
        "LABEL a=b",
        "EXPOSE 80",
        "STOPSIGNAL SIGINT",
    ] {
        arguments.extend(["-c", instruction]);
    }
    arguments.extend(["one", "changed"]);
    manager.ctl(&arguments).ok();
    assert_eq!(
        manager.ctl(&["run", "--rm", "changed"]).ok(),
        "hello you from /usr by 12\n"
    );
    let told = inspect(&manager, "changed");
    assert_eq!(told["Config"]["ExposedPorts"], json!({"80/tcp": {}}));
    // Nothing was written, so nothing is on top of the base.
    assert_eq!(told["RootFS"]["Layers"].as_array().map(Vec::len), Some(1));
    let steps = history(&manager, "changed");
    assert!(steps.iter().any(|step| step["diffId"].is_null()), "{steps:#?}");

    let error = manager
        .ctl(&["commit", "-c", "RUN make", "one", "other"])
        .refused();
    assert!(error.contains("RUN is not one of"), "{error}");
    manager.ctl(&["inspect", "--type", "image", "other"]).refused();
}

#[test]
fn a_running_container_stands_still_while_it_is_committed() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    // Two counters that are never more than one step apart, and between them, as files are read in the order of their
    // names, what takes a commit much longer to read than a step takes.
    let script = "dd if=/dev/zero of=/between bs=1M count=64 2>/dev/null; \
                  while :; do i=$((i+1)); echo $i >> /a; echo $i >> /c; done";
    manager
        .ctl(&["run", "-d", "--name", "busy", &image, "sh", "-c", script])
        .ok();
    eventually("it counts", || {
        let done = manager.ctl(&["exec", "busy", "cat", "/c"]);
        (done.code == 0 && !done.stdout.is_empty()).then_some(())
    });
    manager.ctl(&["commit", "busy", "still"]).ok();
    let read = |file: &str| -> i64 {
        let text = manager
            .ctl(&["run", "--rm", "still", "tail", "-n", "1", file])
            .ok();
        text.trim()
            .parse()
            .expect("a line is whole, as it is appended in one write")
    };
    let (a, c) = (read("/a"), read("/c"));
    assert!(a - c == 0 || a - c == 1, "{a} and {c} were not so at one time");
    let count = || manager.ctl(&["exec", "busy", "tail", "-n", "1", "/a"]).ok();
    let before = count();
    eventually("it counts on", || (count() != before).then_some(()));
    manager.ctl(&["rm", "-f", "busy"]).ok();
}

#[test]
fn a_container_exported_and_imported_runs_again() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.registry().push(&base(), "base:1");
    manager.ctl(&["pull", "-q", &image]).ok();
    let inside = changed(&manager, &image);
    let archive = sandbox.path().join("one.tar");
    let archive = archive.to_str().expect("a path");
    manager.ctl(&["export", "-o", archive, "one"]).ok();

    for (name, how) in [
        ("plain", "cat"),
        ("gzip", "gzip -c"),
        ("zstd", "zstd -qc"),
        ("xz", "xz -9c"),
        ("bzip2", "bzip2 -c"),
    ] {
        let packed = run(Command::new("sh")
            .arg("-c")
            .arg(format!("{how} < {archive} > {archive}.{name}")));
        packed.ok();
        let file = format!("{archive}.{name}");
        let id = manager
            .ctl(&[
                "import",
                "-c",
                "CMD [\"true\"]",
                "-c",
                "ENV PATH=/bin",
                "-m",
                "again",
                &file,
                name,
            ])
            .ok();
        let again = manager.ctl(&["run", "--rm", name, "sh", "-c", LOOK]).ok();
        assert_same(&without_etc(&again), &without_etc(&inside));
        assert_eq!(inspect(&manager, id.trim())["Comment"], "again");
    }
    let error = manager.ctl(&["import", "https://example.org/a.tar"]).refused();
    assert!(error.contains("curl"), "{error}");
}

#[test]
fn an_export_is_what_tar_sees_from_inside() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.registry().push(&base(), "base:1");
    manager.ctl(&["pull", "-q", &image]).ok();
    let script = format!("{DEEDS}; exec sleep 1000");
    manager
        .ctl(&["run", "-d", "--name", "one", &image, "sh", "-c", &script])
        .ok();
    eventually("the deeds are done", || {
        (manager.ctl(&["exec", "one", "test", "-d", "/home/me"]).code == 0).then_some(())
    });
    let list = |name: &str, arguments: &[&str]| -> Vec<String> {
        let path = sandbox.path().join(name);
        let file = std::fs::File::create(&path).expect("make a file");
        let mut command = manager.ctl_command(arguments);
        let child = command.stdout(file).stderr(Stdio::piped()).spawn();
        let written = finish(child.expect("start managerctl"), name.to_owned());
        written.ok();
        let listed = run(Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(path)).ok();
        let of_data = |line: &&str| line.contains(" data/") && !line.contains(" link to ");
        let mut lines: Vec<String> = listed.lines().filter(of_data).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let ours = list("ours.tar", &["export", "one"]);
    let inside = ["exec", "one", "busybox", "tar", "-C", "/", "-cf", "-", "data"];
    let theirs = list("theirs.tar", &inside);
    assert!(ours.len() > 20, "{ours:?}");
    // Of two names of one file each side takes another as the first.
    let without_links = |lines: &[String]| -> Vec<String> {
        let named = |line: &&String| !line.contains("grown") && !line.contains("second-name");
        lines.iter().filter(named).cloned().collect()
    };
    assert_eq!(without_links(&ours), without_links(&theirs));
    manager.ctl(&["rm", "-f", "one"]).ok();
}

#[test]
fn a_container_that_swaps_its_folders_for_links_leads_no_export_out() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    // On the host, and nowhere in the container.
    let secret = sandbox.path().join("secret");
    std::fs::create_dir(&secret).expect("make a folder");
    std::fs::write(secret.join("word"), "the host's own").expect("write a file");
    let script = format!(
        "mkdir -p /real/word /trap; while :; do rm -rf /trap; ln -s {} /trap; rm /trap; mkdir /trap; done",
        secret.display()
    );
    manager
        .ctl(&["run", "-d", "--name", "hostile", &image, "sh", "-c", &script])
        .ok();
    for _ in 0..20 {
        let archive = run(manager.ctl_command(&["export", "hostile"]).stdout(Stdio::piped()));
        let Done {
            code, stdout, stderr, ..
        } = archive;
        assert_eq!(code, 0, "{stderr}");
        assert!(!stdout.contains("the host's own"));
    }
    manager.ctl(&["rm", "-f", "hostile"]).ok();
}

#[test]
fn what_no_layer_can_hold_is_refused_by_name() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    manager
        .ctl(&[
            "run",
            "--name",
            "one",
            &image,
            "sh",
            "-c",
            "mkdir /d; echo x > /d/.wh.bin",
        ])
        .ok();
    let error = manager.ctl(&["commit", "one", "never"]).refused();
    assert!(
        error.contains("/d/.wh.bin") && error.contains("deletions"),
        "{error}"
    );
    manager.ctl(&["inspect", "--type", "image", "never"]).refused();
    let digest = format!("x@sha256:{}", "ab".repeat(32));
    for name in ["BAD", "a b", "x@sha256:1", &digest] {
        let rule = "invalid image reference";
        let error = manager.ctl(&["commit", "one", name]).refused();
        assert!(error.contains(rule), "{error}");
        // Before a byte is read: this one is no archive.
        let error = manager.ctl(&["import", "/dev/null", name]).refused();
        assert!(error.contains(rule), "{error}");
    }
}

#[test]
fn commits_of_one_container_at_a_time_each_have_their_pause() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let script =
        "head -c 100000000 /dev/urandom > /big; echo > /ready; while :; do i=$((i+1)); echo $i > /a; done";
    manager
        .ctl(&["run", "-d", "--name", "busy", &image, "sh", "-c", script])
        .ok();
    eventually("it counts", || {
        (manager.ctl(&["exec", "busy", "cat", "/ready", "/a"]).code == 0).then_some(())
    });
    std::thread::scope(|scope| {
        let commits = ["first", "second"].map(|name| {
            let manager = &manager;
            scope.spawn(move || manager.ctl(&["commit", "busy", name]))
        });
        for commit in commits {
            commit.join().expect("a commit").ok();
        }
    });
    let count = || manager.ctl(&["exec", "busy", "tail", "-n", "1", "/a"]).ok();
    let before = count();
    eventually("it counts on", || (count() != before).then_some(()));
    manager.ctl(&["rm", "-f", "busy"]).ok();
}

#[test]
fn a_manager_that_stops_during_a_commit_lets_the_container_run_on() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    // It takes a while to pack: two gigabytes of holes that are too small to be told. The count is seen from outside.
    let script = "i=0; while [ $i -lt 1900 ]; do dd if=/bin/busybox of=/big bs=1k count=1 seek=${i}000 conv=notrunc; \
        i=$((i+1)); done 2>/dev/null; while :; do i=$((i+1)); echo $i > /out/a; done";
    let out = sandbox.path().join("out");
    std::fs::create_dir(&out).expect("a folder");
    let mount = format!("{}:/out", out.display());
    manager
        .ctl(&[
            "run", "-d", "--name", "busy", "-v", &mount, &image, "sh", "-c", script,
        ])
        .ok();
    let count = || std::fs::read_to_string(out.join("a")).unwrap_or_default();
    eventually("it counts", || (!count().is_empty()).then_some(()));
    let mut commit = manager
        .ctl_command(&["commit", "busy", "never"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("managerctl");
    eventually("it is paused", || {
        let before = count();
        std::thread::sleep(std::time::Duration::from_millis(200));
        (count() == before).then_some(())
    });
    manager.stop();
    assert!(!commit.wait().expect("its end").success());
    let before = count();
    eventually("it counts on", || (count() != before).then_some(()));
    manager.start_again();
    manager.ctl(&["rm", "-f", "busy"]).ok();
}
