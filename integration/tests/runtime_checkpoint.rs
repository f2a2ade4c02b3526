//! `runtime checkpoint` and `restore`, with a real CRIU: the one of `BERTH_CRIU`, of hack/peers, or version 4 or later
//! in `PATH` (older ones fail on new kernels). Without any, the tests say so and pass.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use integration::{Bundle, Done, Peers, Runtime, Sandbox, Terminal, eventually, run};
use serde_json::{Value, json};

/// Counts in the file /count.
const COUNTER: &str =
    "i=0; while :; do i=$((i+1)); echo $i > /count.new; mv /count.new /count; sleep 0.02; done";

fn criu() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("BERTH_CRIU") {
        return Some(path.into());
    }
    if let Some(fetched) = Peers::folder() {
        return Some(fetched.join("criu"));
    }
    let version = Command::new("criu")
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    let text = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let major = text.ok().and_then(|text| {
        let number = text.strip_prefix("Version: ")?.split('.').next()?.to_owned();
        number.trim().parse::<u32>().ok()
    });
    if major.is_some_and(|major| major >= 4) {
        return Some("criu".into());
    }
    println!("skipped: there is no CRIU 4 or later (hack/peers fetches one)");
    None
}

struct Saved<'a> {
    sandbox: &'a Sandbox,
    runtime: Runtime,
    criu: String,
}

impl Saved<'_> {
    fn call(&self, verb: &str, images: &str, flags: &[&str]) -> Done {
        run(&mut self.command(verb, images, flags))
    }

    fn command(&self, verb: &str, images: &str, flags: &[&str]) -> Command {
        let images = self.sandbox.path().join(images);
        let mut command = self.runtime.command(&["--criu", &self.criu, verb]);
        command
            .arg("--image-path")
            .arg(images)
            .args(flags)
            .arg(self.sandbox.id());
        command
    }

    fn restore(&self, bundle: &Bundle, images: &str, flags: &[&str]) -> Command {
        let path = bundle.path().to_str().expect("a path");
        self.command("restore", images, &[&["--bundle", path], flags].concat())
    }
}

fn saved(sandbox: &Sandbox) -> Option<Saved<'_>> {
    Some(Saved {
        sandbox,
        runtime: Runtime::new(sandbox),
        criu: criu()?.to_str().expect("a path").to_owned(),
    })
}

fn count(bundle: &Bundle) -> Option<u32> {
    fs::read_to_string(bundle.rootfs().join("count"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn counts_beyond(bundle: &Bundle, number: u32) -> u32 {
    eventually("the counter counts", || {
        count(bundle).filter(|count| *count > number)
    })
}

#[test]
fn a_counter_goes_on_where_it_was_saved() {
    let sandbox = Sandbox::new();
    let Some(saved) = saved(&sandbox) else { return };
    let (runtime, id) = (&saved.runtime, sandbox.id());
    let bundle = Bundle::new(&sandbox, COUNTER);
    runtime.detach(&bundle, id);
    counts_beyond(&bundle, 10);
    saved.call("checkpoint", "images", &[]).ok();
    let at = count(&bundle).expect("a count");
    assert!(runtime.state(id).is_none(), "a saved container is gone");
    runtime.delete(id);

    let file = sandbox.path().join("pid");
    let flags = ["--detach", "--pid-file", file.to_str().expect("a path")];
    run(&mut saved.restore(&bundle, "images", &flags)).ok();
    assert!(count(&bundle) >= Some(at), "it began anew");
    counts_beyond(&bundle, at);
    let state = runtime.state(id).expect("a state");
    assert_eq!(state["status"], "running");
    assert_eq!(
        state["pid"].to_string(),
        fs::read_to_string(&file).expect("read the pid file")
    );
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", state["pid"])).expect("read its groups");
    assert!(
        groups.lines().filter(|line| line.contains(id)).count() > 0,
        "{groups}"
    );
    let inside = runtime
        .exec(
            id,
            "readlink /proc/1/ns/pid; readlink /proc/self/ns/pid; cat /proc/1/cmdline",
        )
        .ok();
    let lines: Vec<_> = inside.lines().collect();
    assert_eq!(lines[0], lines[1]);
    assert!(lines[2].contains("/count.new"), "{inside}");
    assert!(
        run(&mut saved.restore(&bundle, "images", &flags))
            .refused()
            .contains("already exists")
    );
    runtime.call(&["pause", id]).ok();
    assert_eq!(runtime.status(id).as_deref(), Some("paused"));
    runtime.call(&["resume", id]).ok();
    runtime.call(&["kill", id, "KILL"]).ok();
    eventually("it has stopped", || {
        (runtime.status(id).as_deref() == Some("stopped")).then_some(())
    });
    runtime.call(&["delete", id]).ok();
}

#[test]
fn one_that_is_left_running_runs_on_and_its_copy_comes_back_in_the_foreground() {
    let sandbox = Sandbox::new();
    let Some(saved) = saved(&sandbox) else { return };
    let (runtime, id) = (&saved.runtime, sandbox.id());
    // Without a file that is open while it is saved: CRIU would miss what the first one goes on to write.
    let bundle = Bundle::new(
        &sandbox,
        "i=0; while :; do i=$((i+1)); mkdir /n$i; sleep 0.02; done",
    );
    let numbers = || {
        let names = fs::read_dir(bundle.rootfs()).expect("list the rootfs").flatten();
        let numbers = names.filter_map(|entry| entry.file_name().to_str()?.strip_prefix('n')?.parse().ok());
        numbers.collect::<Vec<u32>>()
    };
    let reaches = |number: u32| {
        eventually("it counts", || {
            numbers().into_iter().max().filter(|count| *count >= number)
        })
    };
    runtime.detach(&bundle, id);
    let before = reaches(3);
    saved.call("checkpoint", "images", &["--leave-running"]).ok();
    assert_eq!(runtime.status(id).as_deref(), Some("running"));
    let later = reaches(numbers().len() as u32 + 20);
    runtime.delete(id);
    for number in numbers() {
        fs::remove_dir(bundle.rootfs().join(format!("n{number}"))).expect("remove a folder");
    }

    // The copy is older than what the first one has counted since.
    let child = saved
        .restore(&bundle, "images", &[])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start the runtime");
    let first = eventually("the copy counts", || numbers().into_iter().min());
    assert!((before..later).contains(&first), "{before} {first} {later}");
    eventually("it runs", || {
        (runtime.status(id).as_deref() == Some("running")).then_some(())
    });
    runtime.call(&["kill", id, "KILL"]).ok();
    let done = runtime.finish(child);
    assert_eq!(done.code, 137, "{done}");
    assert!(
        runtime.state(id).is_none(),
        "a foreground restore takes everything back"
    );
}

#[test]
fn mounts_of_the_host_and_an_earlier_memory_image_are_found_again() {
    let sandbox = Sandbox::new();
    let Some(saved) = saved(&sandbox) else { return };
    let (runtime, id) = (&saved.runtime, sandbox.id());
    let shared = sandbox.path().join("shared");
    fs::create_dir(&shared).expect("make a folder");
    fs::write(shared.join("word"), "before").expect("write");
    let mut bundle = Bundle::new(&sandbox, COUNTER);
    bundle.push(
        "/mounts",
        json!({"destination": "/var/shared", "type": "bind", "source": shared, "options": ["rbind", "rw"]}),
    );
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({"type": kind}));
    bundle.set("/linux/namespaces", json!(namespaces));
    runtime.detach(&bundle, id);
    counts_beyond(&bundle, 3);
    let first = saved.call("checkpoint", "first", &["--pre-dump"]);
    assert_eq!(runtime.status(id).as_deref(), Some("running"));
    // Which pages were written since is told by some kernels only.
    let parent: &[&str] = if first.code == 0 {
        &["--parent-path", "../first"]
    } else {
        let reason = "Tracking memory is not available";
        assert!(first.stderr.contains(reason), "{first}");
        println!("without an earlier image: this kernel does not track memory");
        &[]
    };
    let refused = saved
        .call("checkpoint", "second", &["--parent-path", "/first"])
        .refused();
    assert!(refused.contains("relative"), "{refused}");
    fs::create_dir_all(sandbox.path().join("second")).expect("make a folder");
    saved.call("checkpoint", "second", parent).ok();
    let at = count(&bundle).expect("a count");
    fs::write(shared.join("word"), "after").expect("write");
    run(&mut saved.restore(&bundle, "second", &["--detach"])).ok();
    counts_beyond(&bundle, at);
    assert_eq!(runtime.exec(id, "cat /var/shared/word").ok(), "after");
    runtime.exec(id, "echo inside > /var/shared/back").ok();
    assert_eq!(fs::read_to_string(shared.join("back")).expect("read"), "inside\n");
    runtime.delete(id);
}

#[test]
fn what_was_executed_after_a_restore_is_saved_with_the_next() {
    let sandbox = Sandbox::new();
    let Some(saved) = saved(&sandbox) else { return };
    let (runtime, id) = (&saved.runtime, sandbox.id());
    let bundle = Bundle::new(&sandbox, COUNTER);
    runtime.detach(&bundle, id);
    let mut at = counts_beyond(&bundle, 3);
    let background = "sleep 1000 </dev/null >/dev/null 2>&1 & echo $!";
    let mut executed = String::new();
    for round in ["first", "second"] {
        saved.call("checkpoint", round, &[]).ok();
        run(&mut saved.restore(&bundle, round, &["--detach"])).ok();
        at = counts_beyond(&bundle, at);
        if round == "first" {
            executed = runtime.exec(id, background).ok();
        }
    }
    let command = runtime
        .exec(id, &format!("cat /proc/{}/cmdline", executed.trim()))
        .ok();
    assert_eq!(command, "sleep\x001000\x00");
    runtime.delete(id);
}

#[test]
fn a_link_put_at_the_place_of_a_mount_names_no_other_to_criu() {
    let sandbox = Sandbox::new();
    let Some(saved) = saved(&sandbox) else { return };
    let (runtime, id) = (&saved.runtime, sandbox.id());
    let mut bundle = Bundle::new(&sandbox, COUNTER);
    let shared = sandbox.path().join("shared");
    fs::create_dir(&shared).expect("make a folder");
    bundle.push(
        "/mounts",
        json!({"destination": "/a/data", "type": "bind", "source": shared, "options": ["bind"]}),
    );
    runtime.detach(&bundle, id);
    let (place, moved) = (bundle.rootfs().join("a"), bundle.rootfs().join("b"));
    fs::rename(&place, &moved).expect("rename");
    fs::create_dir(&place).expect("make a folder");
    for link in ["/b/data]:/name", "/"] {
        std::os::unix::fs::symlink(link, place.join("data")).expect("link");
        let refused = saved.call("checkpoint", "images", &[]).refused();
        assert!(
            refused.contains("invalid external mount destination"),
            "{refused}"
        );
        assert_eq!(runtime.status(id).as_deref(), Some("running"));
        fs::remove_file(place.join("data")).expect("remove the link");
    }
    runtime.delete(id);
}

#[test]
fn a_restored_terminal_is_handed_over() {
    let sandbox = Sandbox::new();
    let Some(saved) = saved(&sandbox) else { return };
    let (runtime, id) = (&saved.runtime, sandbox.id());
    let mut bundle = Bundle::new(
        &sandbox,
        "i=7; touch /up; while read line; do i=$((i+1)); echo $line $i; done",
    );
    bundle.set("/process/terminal", json!(true));
    let socket = sandbox.path().join("console");
    let listener = UnixListener::bind(&socket).expect("listen");
    let flags = ["--detach", "--console-socket", socket.to_str().expect("a path")];
    let command = &mut runtime.over("run", &bundle, id, &flags);
    let child = command.stdin(Stdio::null()).spawn().expect("start the runtime");
    let mut master = master_from(&listener);
    integration::finish(child, "runtime run".into());
    type_and_expect(&mut master, "first", "first 8");
    saved.call("checkpoint", "images", &[]).ok();
    drop(master);

    let mut command = saved.restore(&bundle, "images", &flags);
    let child = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start the runtime");
    let mut master = master_from(&listener);
    let done = integration::finish(child, "runtime restore".into());
    assert_eq!(done.code, 0, "{done}");
    type_and_expect(&mut master, "second", "second 9");
    runtime.delete(id);
}

/// A container without a terminal of its own may have that of its caller.
#[test]
fn a_lent_terminal_is_another_when_asked_for() {
    let sandbox = Sandbox::new();
    let Some(saved) = saved(&sandbox) else { return };
    let (runtime, id) = (&saved.runtime, sandbox.id());
    let bundle = Bundle::new(
        &sandbox,
        "i=7; while read line; do i=$((i+1)); echo $line $i; done",
    );
    let mut first = Terminal::spawn(runtime.over("run", &bundle, id, &[]));
    first.send("first\n");
    first.expect("first 8");
    let refused = saved.call("checkpoint", "images", &[]).refused();
    assert!(refused.contains("--shell-job"), "{refused}");
    saved.call("checkpoint", "images", &["--shell-job"]).ok();
    drop(first);

    let mut second = Terminal::spawn(saved.restore(&bundle, "images", &["--shell-job"]));
    second.send("second\n");
    second.expect("second 9");
    runtime.delete(id);
}

fn type_and_expect(master: &mut fs::File, line: &str, wanted: &str) {
    master.write_all(format!("{line}\n").as_bytes()).expect("type");
    let (mut text, mut buffer) = (String::new(), [0; 512]);
    while !text.contains(wanted) {
        let length = master
            .read(&mut buffer)
            .unwrap_or_else(|error| panic!("{error} after {text:?}"));
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
}

fn master_from(listener: &UnixListener) -> fs::File {
    let (connection, _) = listener.accept().expect("accept the runtime");
    let (_, mut descriptors) = integration::receive(&connection, &mut [0; 4096]).expect("receive the master");
    fs::File::from(descriptors.remove(0))
}

#[test]
fn what_can_not_be_saved_or_restored_is_refused_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let id = sandbox.id();
    let bundle = Bundle::new(&sandbox, COUNTER);
    let images = sandbox.path().join("images");
    let images = images.to_str().expect("a path");
    let path = bundle.path().to_str().expect("a path");

    runtime.create(&bundle, id).ok();
    let refused = runtime
        .call(&["checkpoint", "--image-path", images, id])
        .refused();
    assert!(
        refused.contains("cannot be checkpointed in created state"),
        "{refused}"
    );
    runtime.call(&["start", id]).ok();
    let call = |criu: &str, flags: &[&str]| {
        let all = ["--criu", criu, "checkpoint", "--image-path", images];
        runtime.call(&[&all, flags, &[id]].concat()).refused()
    };
    let refused = call("/nowhere/criu", &[]);
    assert!(
        refused.contains("need CRIU") && refused.contains("/nowhere/criu"),
        "{refused}"
    );
    let refused = call("/bin/false", &[]);
    assert!(refused.contains("CRIU ended before it answered"), "{refused}");
    let refused = call("/bin/false", &["--manage-cgroups-mode", "hard"]);
    assert!(refused.contains("--manage-cgroups-mode"), "{refused}");
    let refused = call("/bin/false", &["--page-server", "nowhere"]);
    assert!(refused.contains("ADDRESS:PORT"), "{refused}");
    assert_eq!(runtime.status(id).as_deref(), Some("running"));
    runtime.delete(id);

    let restore = |criu: &str, images: &str| {
        let all = [
            "--criu",
            criu,
            "restore",
            "--bundle",
            path,
            "--image-path",
            images,
            id,
        ];
        runtime.call(&all).refused()
    };
    let refused = restore("/bin/false", "/nowhere");
    assert!(refused.contains("/nowhere/descriptors.json"), "{refused}");
    fs::create_dir_all(images).expect("make a folder");
    fs::write(sandbox.path().join("images/descriptors.json"), "[]").expect("write");
    let refused = restore("/bin/false", images);
    assert!(refused.contains("CRIU ended before it answered"), "{refused}");
    assert!(runtime.state(id).is_none());
    if let Some(criu) = criu() {
        let refused = restore(criu.to_str().expect("a path"), images);
        assert!(
            refused.contains("CRIU gave up") && refused.contains("restore.log"),
            "{refused}"
        );
        assert!(runtime.state(id).is_none());
    }
}

/// A CRIU that writes what a checkpoint sends to it; it ends when the checkpoint is done.
fn page_server(saved: &Saved<'_>, images: &str, port: u16) -> Child {
    let folder = saved.sandbox.path().join(images);
    fs::create_dir_all(&folder).expect("make a folder");
    let mut command = Command::new(&saved.criu);
    command.arg("page-server").arg("--images-dir").arg(&folder);
    command.args(["--address", "127.0.0.1", "--port", &port.to_string()]);
    command.stdin(Stdio::null()).spawn().expect("start CRIU")
}

/// A port that nobody listens at.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.local_addr().expect("an address").port()
}

/// Looks without connecting: a page server serves one connection and ends.
fn listens(port: u16) -> Option<()> {
    let table = fs::read_to_string("/proc/net/tcp").expect("read the sockets");
    let wanted = format!("0100007F:{port:04X} 00000000:0000 0A");
    table.contains(&wanted).then_some(())
}

#[test]
fn a_page_server_gets_the_memory() {
    let sandbox = Sandbox::new();
    let Some(saved) = saved(&sandbox) else { return };
    let (runtime, id) = (&saved.runtime, sandbox.id());
    let bundle = Bundle::new(&sandbox, COUNTER);
    runtime.detach(&bundle, id);
    counts_beyond(&bundle, 3);
    let port = free_port();
    let mut server = page_server(&saved, "memory", port);
    eventually("the page server listens", || listens(port));
    let address = format!("127.0.0.1:{port}");
    saved
        .call("checkpoint", "images", &["--page-server", &address])
        .ok();
    assert!(server.wait().expect("wait for the page server").success());
    let at = count(&bundle).expect("a count");
    let pages = |folder: &str| -> Vec<PathBuf> {
        let list = fs::read_dir(sandbox.path().join(folder)).expect("list the images");
        let is_memory = |name: &str| name.starts_with("pages-") || name.starts_with("pagemap-");
        list.flatten()
            .filter(|entry| is_memory(&entry.file_name().to_string_lossy()))
            .map(|entry| entry.path())
            .collect()
    };
    assert!(pages("images").is_empty(), "no memory is written here");
    let sent = pages("memory");
    assert!(!sent.is_empty(), "the server has written it");
    for file in sent {
        let name = file.file_name().expect("a name").to_owned();
        fs::copy(&file, sandbox.path().join("images").join(name)).expect("bring an image back");
    }
    run(&mut saved.restore(&bundle, "images", &["--detach"])).ok();
    counts_beyond(&bundle, at);
    runtime.delete(id);
}

/// CRIU wants a larger pipe than a user may have, and 4.2 goes on without it when that is refused.
fn may_enlarge_pipes() -> bool {
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    const WANTED: u64 = 4 << 20;
    let status = fs::read_to_string("/proc/self/status").expect("read the own status");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = u64::from_str_radix(effective.expect("capabilities").trim(), 16).expect("a mask");
    let largest = fs::read_to_string("/proc/sys/fs/pipe-max-size").expect("read the largest size of pipes");
    effective & CAP_SYS_RESOURCE != 0 || largest.trim().parse::<u64>().expect("a size") >= WANTED
}

/// The memory stays with the checkpoint, which tells by `--status-fd` when it can be had, until the restored container
/// has fetched it.
#[test]
fn lazy_pages_are_fetched_when_they_are_used() {
    if !may_enlarge_pipes() {
        println!("skipped: CRIU's lazy pages need CAP_SYS_RESOURCE, or fs.pipe-max-size of 4 MiB");
        return;
    }
    let sandbox = Sandbox::new();
    let Some(saved) = saved(&sandbox) else { return };
    let (runtime, id) = (&saved.runtime, sandbox.id());
    let mut bundle = Bundle::new(&sandbox, COUNTER);
    runtime.detach(&bundle, id);
    counts_beyond(&bundle, 3);
    let port = free_port().to_string();
    let address = format!("127.0.0.1:{port}");
    let flags = ["--lazy-pages", "--page-server", &address, "--status-fd", "1"];
    let mut dump = saved.command("checkpoint", "images", &flags);
    let dump = dump
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut dump = dump.spawn().expect("start the runtime");
    let mut status = [1];
    let read = dump.stdout.as_mut().expect("a pipe").read(&mut status);
    assert_eq!((read.expect("read the status"), status), (1, [0]));
    let at = count(&bundle).expect("a count");
    let work = sandbox.path().join("work");
    fs::create_dir(&work).expect("make a folder");
    let mut pages = Command::new(&saved.criu);
    pages.args([
        "lazy-pages",
        "--page-server",
        "--address",
        "127.0.0.1",
        "--port",
        &port,
    ]);
    pages.arg("--images-dir").arg(sandbox.path().join("images"));
    pages.arg("--work-dir").arg(&work).stdin(Stdio::null());
    let mut pages = pages.spawn().expect("start CRIU");
    eventually("CRIU waits for the restore", || {
        work.join("lazy-pages.socket").exists().then_some(())
    });

    // Until the memory is there, the old one is not removed: it can still run on if this fails.
    let second = format!("{id}-restored");
    bundle.set("/linux/cgroupsPath", json!(format!("/berth-test/{second}")));
    bundle.write();
    let mut restore = runtime.command(&["--criu", &saved.criu, "restore", "--detach", "--lazy-pages"]);
    restore
        .arg("--bundle")
        .arg(bundle.path())
        .arg("--work-path")
        .arg(&work);
    restore.args(["--manage-cgroups-mode", "ignore", "--image-path"]);
    restore.arg(sandbox.path().join("images")).arg(&second);
    run(&mut restore).ok();
    counts_beyond(&bundle, at);
    assert!(pages.wait().expect("wait for CRIU").success());
    let done = integration::finish(dump, "runtime checkpoint".into());
    assert_eq!(done.code, 0, "{done}");
    assert!(runtime.state(id).is_none(), "a saved container is gone");
    runtime.delete(&second);
}

/// A socket to which somebody outside is bound, such as /dev/log.
#[test]
fn a_connection_to_a_socket_of_the_host_is_kept_when_asked_for() {
    let sandbox = Sandbox::new();
    let Some(saved) = saved(&sandbox) else { return };
    let (runtime, id) = (&saved.runtime, sandbox.id());
    let folder = sandbox.path().join("log");
    fs::create_dir(&folder).expect("make a folder");
    let log = UnixDatagram::bind(folder.join("socket")).expect("bind a socket");
    log.set_nonblocking(true).expect("set a socket");
    // busybox has nothing that keeps one: the host's perl, with its libraries.
    let script = "use Socket; socket(S, PF_UNIX, SOCK_DGRAM, 0) or die; connect(S, sockaddr_un(shift)) or die; \
        for ($i = 0;; $i++) { send(S, $i, 0); select(undef, undef, undef, 0.02) }";
    // CRIU connects to the name that the socket was bound to.
    let socket = folder.join("socket");
    let arguments = ["/usr/bin/perl", "-e", script, socket.to_str().expect("a path")];
    let mut bundle = Bundle::named(&sandbox, "bundle", &arguments);
    for folder in ["/usr", "/lib", "/lib64"] {
        bundle.push(
            "/mounts",
            json!({"destination": folder, "type": "bind", "source": folder, "options": ["bind", "ro"]}),
        );
    }
    bundle.push(
        "/mounts",
        json!({"destination": folder, "type": "bind", "source": folder, "options": ["bind"]}),
    );
    // CRIU looks for the other end in the network namespace.
    let namespaces = ["pid", "ipc", "uts", "mount"].map(|kind| json!({"type": kind}));
    bundle.set("/linux/namespaces", json!(namespaces));
    runtime.detach(&bundle, id);
    let received = || {
        let mut text = [0; 32];
        let length = log.recv(&mut text).ok()?;
        String::from_utf8_lossy(&text[..length]).parse::<u64>().ok()
    };
    let beyond = |number: u64| eventually("a number comes", || received().filter(|got| *got > number));
    beyond(2);
    let refused = saved.call("checkpoint", "images", &[]).refused();
    assert!(refused.contains("xternal socket"), "{refused}");
    saved.call("checkpoint", "images", &["--ext-unix-sk"]).ok();
    let mut at = 0;
    while let Some(number) = received() {
        at = number;
    }
    run(&mut saved.restore(&bundle, "images", &["--detach", "--ext-unix-sk"])).ok();
    assert_eq!(beyond(at), at + 1);
    runtime.delete(id);
}

#[test]
fn each_way_to_manage_cgroups_brings_it_back_into_its_groups() {
    let sandbox = Sandbox::new();
    let Some(saved) = saved(&sandbox) else { return };
    let (runtime, id) = (&saved.runtime, sandbox.id());
    let mut bundle = Bundle::new(&sandbox, COUNTER);
    bundle.set("/linux/resources/pids", json!({"limit": 77}));
    runtime.detach(&bundle, id);
    let groups = || {
        let pid = runtime.state(id).expect("a state")["pid"].to_string();
        fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its groups")
    };
    let before = groups();
    let mut at = counts_beyond(&bundle, 3);
    for mode in ["soft", "full", "ignore"] {
        let flags = ["--manage-cgroups-mode", mode];
        saved.call("checkpoint", mode, &flags).ok();
        run(&mut saved.restore(&bundle, mode, &[&["--detach"], &flags[..]].concat())).ok();
        at = counts_beyond(&bundle, at);
        assert_eq!(groups(), before, "{mode}");
    }
    // CRIU would have to make them, and `restore` has done so already.
    saved
        .call("checkpoint", "images", &["--manage-cgroups-mode", "strict"])
        .ok();
    let flags = ["--detach", "--manage-cgroups-mode", "strict"];
    let refused = run(&mut saved.restore(&bundle, "images", &flags)).refused();
    assert!(refused.contains("CRIU gave up"), "{refused}");
    run(&mut saved.restore(&bundle, "images", &["--detach"])).ok();
    runtime.delete(id);
}

/// CRIU runs in the container's groups, and needs more than some containers may have.
#[test]
fn limits_are_for_the_container_and_not_for_who_restores_it() {
    let sandbox = Sandbox::new();
    let Some(saved) = saved(&sandbox) else { return };
    let (runtime, id) = (&saved.runtime, sandbox.id());
    let mut bundle = Bundle::named(&sandbox, "bundle", &["/bin/sleep", "1000"]);
    bundle.set("/linux/resources/pids", json!({"limit": 1}));
    runtime.detach(&bundle, id);
    saved.call("checkpoint", "images", &[]).ok();
    run(&mut saved.restore(&bundle, "images", &["--detach"])).ok();
    let stats: Value =
        serde_json::from_str(&runtime.call(&["events", "--stats", id]).ok()).expect("statistics");
    assert_eq!(stats["data"]["pids"], json!({"current": 1, "limit": 1}));
    runtime.delete(id);
}

#[test]
fn what_hooks_made_for_a_failed_restore_is_taken_down() {
    let sandbox = Sandbox::new();
    let Some(saved) = saved(&sandbox) else { return };
    let (runtime, id) = (&saved.runtime, sandbox.id());
    let mut bundle = Bundle::new(&sandbox, COUNTER);
    runtime.detach(&bundle, id);
    counts_beyond(&bundle, 3);
    saved.call("checkpoint", "images", &[]).ok();
    let told = sandbox.path().join("told");
    let hook = |script: &str| {
        let script = format!("cat >>{0}; echo >>{0}; {script}", told.display());
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
    };
    bundle.set(
        "/hooks",
        json!({"createRuntime": hook("false"), "poststop": hook("true")}),
    );
    bundle.write();
    let refused = run(&mut saved.restore(&bundle, "images", &["--detach"])).refused();
    assert!(refused.contains("createRuntime hook #0"), "{refused}");
    let told = fs::read_to_string(&told).expect("read what hooks were told");
    let states: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).expect("a state"))
        .collect();
    assert_eq!(
        states.iter().map(|state| &state["status"]).collect::<Vec<_>>(),
        ["creating", "stopped"]
    );
    bundle.set("/hooks", json!({}));
    bundle.write();
    run(&mut saved.restore(&bundle, "images", &["--detach"])).ok();
    runtime.delete(id);
}

#[test]
fn a_restore_killed_at_any_moment_leaves_what_delete_force_removes() {
    let sandbox = Sandbox::new();
    let Some(saved) = saved(&sandbox) else { return };
    let (runtime, id) = (&saved.runtime, sandbox.id());
    let bundle = Bundle::new(&sandbox, COUNTER);
    runtime.detach(&bundle, id);
    counts_beyond(&bundle, 3);
    saved.call("checkpoint", "images", &[]).ok();
    let start = std::time::Instant::now();
    run(&mut saved.restore(&bundle, "images", &["--detach"])).ok();
    let whole = start.elapsed();
    runtime.delete(id);
    for part in 1..20 {
        let mut command = saved.restore(&bundle, "images", &["--detach"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.stdin(Stdio::null()).spawn().expect("start the runtime");
        std::thread::sleep(whole * part / 20);
        let _ = child.kill();
        child.wait().expect("wait for the runtime");
        eventually("delete --force removes it", || {
            (runtime.call(&["delete", "--force", id]).code == 0).then_some(())
        });
        sandbox.assert_clean();
    }
    run(&mut saved.restore(&bundle, "images", &["--detach"])).ok();
    runtime.delete(id);
}

/// A killed CRIU leaves them waiting for it for ever.
#[test]
fn processes_begun_by_a_killed_restore_end_with_delete_force() {
    let sandbox = Sandbox::new();
    let Some(mut saved) = saved(&sandbox) else { return };
    let id = sandbox.id();
    let bundle = Bundle::new(&sandbox, COUNTER);
    saved.runtime.detach(&bundle, id);
    counts_beyond(&bundle, 3);
    saved.call("checkpoint", "images", &[]).ok();

    let (program, begun) = (sandbox.path().join("criu"), sandbox.path().join("begun"));
    let script = format!(
        "#!/bin/sh\nsleep 600 &\necho $! > {0}.new\nmv {0}.new {0}\nwait\n",
        begun.display()
    );
    fs::write(&program, script).expect("write a program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("make it executable");
    saved.criu = program.to_str().expect("a path").to_owned();
    let mut child = saved
        .restore(&bundle, "images", &["--detach"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("start the runtime");
    let begun = eventually("a process is begun", || fs::read_to_string(&begun).ok());
    assert_eq!(saved.runtime.status(id).as_deref(), Some("creating"));
    child.kill().expect("kill the runtime");
    child.wait().expect("wait for the runtime");
    let process = Path::new("/proc").join(begun.trim());
    assert!(process.exists(), "it ended by itself");
    saved.runtime.call(&["delete", "--force", id]).ok();
    eventually("the process is gone", || (!process.exists()).then_some(()));
    sandbox.assert_clean();
}

/// The container chooses what lies there when it is restored: a link could lead CRIU to the host's files.
#[test]
fn a_bind_of_the_rootfs_own_is_not_saved() {
    let sandbox = Sandbox::new();
    let Some(saved) = saved(&sandbox) else { return };
    let (runtime, id) = (&saved.runtime, sandbox.id());
    let mut bundle = Bundle::new(&sandbox, COUNTER);
    let volume = sandbox.path().join("volume");
    fs::create_dir_all(volume.join("in")).expect("make a folder");
    fs::create_dir_all(bundle.rootfs().join("data/in")).expect("make a folder");
    let inner = bundle.rootfs().join("data/in");
    for (source, destination) in [(&volume, "/data"), (&inner, "/t")] {
        bundle.push(
            "/mounts",
            json!({"destination": destination, "type": "bind", "source": source, "options": ["bind"]}),
        );
    }
    runtime.detach(&bundle, id);
    counts_beyond(&bundle, 3);
    let refused = saved.call("checkpoint", "images", &[]).refused();
    assert!(
        refused.contains("/data/in lies in the container's rootfs"),
        "{refused}"
    );
    assert_eq!(runtime.status(id).as_deref(), Some("running"));
    runtime.delete(id);
}

/// In the machine that hack/vm-tests boots.
#[test]
fn a_scope_of_systemd_is_made_again() {
    if !Path::new("/run/systemd/system").is_dir() {
        println!("skipped: needs systemd as process 1 (hack/vm-tests has it)");
        return;
    }
    let sandbox = Sandbox::new();
    let Some(saved) = saved(&sandbox) else { return };
    let (runtime, id) = (&saved.runtime, sandbox.id());
    let mut bundle = Bundle::new(&sandbox, COUNTER);
    bundle.set(
        "/linux/cgroupsPath",
        json!(format!("berth-test.slice:berth:{id}")),
    );
    bundle.set("/linux/resources/pids", json!({"limit": 77}));
    let scope = format!("berth-{id}.scope");
    let show = |property: &str| {
        let value = run(Command::new("systemctl").args(["show", "--value", "-p", property, &scope])).ok();
        value.trim().to_owned()
    };
    bundle.write();
    let path = bundle.path().to_str().expect("a path");
    runtime
        .call(&["--systemd-cgroup", "run", "--detach", "--bundle", path, id])
        .ok();
    let at = counts_beyond(&bundle, 3);
    saved.call("checkpoint", "images", &[]).ok();
    eventually("systemd has forgotten the scope", || {
        (show("LoadState") == "not-found").then_some(())
    });

    let mut restore = runtime.command(&["--systemd-cgroup", "--criu", &saved.criu, "restore", "--detach"]);
    restore.args(["--bundle", path, "--image-path"]);
    restore.arg(sandbox.path().join("images")).arg(id);
    run(&mut restore).ok();
    counts_beyond(&bundle, at);
    assert_eq!(
        (show("ActiveState").as_str(), show("TasksMax").as_str()),
        ("active", "77")
    );
    let pid = runtime.state(id).expect("a state")["pid"].to_string();
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("read its groups");
    for line in groups.lines().filter(|line| !line.ends_with(":/")) {
        assert!(line.ends_with(&format!("/{scope}")), "{groups}");
    }
    runtime.delete(id);
    eventually("systemd has forgotten the scope", || {
        (show("LoadState") == "not-found").then_some(())
    });
}

#[test]
fn an_unknown_label_stops_the_restore() {
    let sandbox = Sandbox::new();
    let Some(saved) = saved(&sandbox) else { return };
    let (runtime, id) = (&saved.runtime, sandbox.id());
    let bundle = Bundle::new(&sandbox, COUNTER);
    runtime.detach(&bundle, id);
    counts_beyond(&bundle, 3);
    saved
        .call("checkpoint", "images", &["--empty-ns", "network", "--auto-dedup"])
        .ok();
    let refused =
        run(&mut saved.restore(&bundle, "images", &["--detach", "--lsm-profile", "nonsense"])).refused();
    assert!(
        refused.contains("CRIU gave up") && runtime.state(id).is_none(),
        "{refused}"
    );
    run(&mut saved.restore(&bundle, "images", &["--detach", "--auto-dedup"])).ok();
    runtime.delete(id);
}

#[test]
fn established_connections_are_kept_when_asked_for() {
    let sandbox = Sandbox::new();
    let Some(saved) = saved(&sandbox) else { return };
    let (runtime, id) = (&saved.runtime, sandbox.id());
    // Both ends are inside: what is written into /in comes out of the connection into /out. Neither sees an end of
    // its input.
    let script = "mkfifo /in /idle; exec 3<>/in 4<>/idle; nc -l -p 4000 <&4 > /out & \
        until nc 127.0.0.1 4000 <&3; do usleep 20000; done";
    let bundle = Bundle::new(&sandbox, script);
    runtime.detach(&bundle, id);
    let arrives = |word: &str| {
        eventually("the word comes out of the connection", || {
            runtime.exec(id, &format!("echo {word} > /in")).ok();
            let text = fs::read_to_string(bundle.rootfs().join("out")).ok()?;
            text.contains(word).then_some(())
        });
    };
    arrives("before");
    let refused = saved.call("checkpoint", "images", &[]).refused();
    assert!(refused.contains("onnected TCP socket"), "{refused}");
    assert_eq!(runtime.status(id).as_deref(), Some("running"));
    let dumped = saved.call("checkpoint", "images", &["--tcp-established"]);
    if dumped.stderr.contains("Can't get 1:34 opt") {
        println!(
            "skipped: this CRIU asks TCP sockets for SO_PASSSEC, which new kernels refuse; 4.2 does not"
        );
        runtime.delete(id);
        return;
    }
    dumped.ok();
    run(&mut saved.restore(&bundle, "images", &["--detach", "--tcp-established"])).ok();
    arrives("after");
    runtime.delete(id);
}

#[test]
fn file_locks_are_kept_when_asked_for() {
    let sandbox = Sandbox::new();
    let Some(saved) = saved(&sandbox) else { return };
    let (runtime, id) = (&saved.runtime, sandbox.id());
    // busybox has no flock: the host's, with its libraries.
    let mut bundle = Bundle::new(&sandbox, "exec /usr/bin/flock /lock /bin/sleep 1000");
    for folder in ["/usr", "/lib", "/lib64"] {
        bundle.push(
            "/mounts",
            json!({"destination": folder, "type": "bind", "source": folder, "options": ["bind", "ro"]}),
        );
    }
    runtime.detach(&bundle, id);
    let is_free = || runtime.exec(id, "/usr/bin/flock -n /lock /bin/true").code == 0;
    eventually("it holds the lock", || (!is_free()).then_some(()));
    let refused = saved.call("checkpoint", "images", &[]).refused();
    assert!(refused.contains("lock"), "{refused}");
    saved.call("checkpoint", "images", &["--file-locks"]).ok();
    run(&mut saved.restore(&bundle, "images", &["--detach", "--file-locks"])).ok();
    assert!(!is_free(), "the lock is held again");
    runtime.delete(id);
}
