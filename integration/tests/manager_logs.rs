//! Where containers' output is kept and sent: rotation, packing, receivers, and what survives whose death.

use integration::{Manager, Sandbox, eventually, finish};
use nix::sched::{CloneFlags, setns};
use std::fs;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Prints when it is told to.
const WAIT: &str = "until [ -e /go ]; do usleep 10000; done; ";
/// Each line by itself.
const COUNT: &str = "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done";

fn lines(numbers: impl Iterator<Item = u32>) -> String {
    let mut lines = String::new();
    for number in numbers {
        lines.push_str(&number.to_string());
        lines.push('\n');
    }
    lines
}

fn sequence(last: u32) -> String {
    lines(1..=last)
}

fn folder(manager: &Manager, container: &str) -> PathBuf {
    let id = manager.inspect(container)["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    manager.root().join("containers").join(id)
}

/// The files of a container's log.
fn files(manager: &Manager, container: &str) -> Vec<String> {
    let entries = fs::read_dir(folder(manager, container)).expect("look at the log's folder");
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("a name")
        })
        .filter(|name| name.starts_with("log.json"))
        .collect();
    names.sort();
    names
}

#[track_caller]
fn run(manager: &Manager, name: &str, options: &[&str], image: &str, script: &str) {
    let mut args = vec!["run", "-d", "--network", "none", "--name", name];
    args.extend(options);
    args.extend([image, "sh", "-c", script]);
    manager.ctl(&args).ok();
}

#[test]
fn a_follower_sees_every_line_across_rotations_and_the_newest_are_kept() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let options = ["--log-opt", "max-size=100k", "--log-opt", "max-file=3"];
    run(&manager, "web", &options, &image, &format!("{WAIT} seq 1 100000"));
    let follower = manager.ctl_spawned(&["logs", "-f", "web"]);
    let lazy = manager.ctl_spawned(&["logs", "-f", "web"]);
    manager.ctl(&["exec", "web", "touch", "/go"]).ok();
    let seen = finish(follower, "logs -f".to_owned()).ok();
    assert!(seen == sequence(100_000), "{} bytes", seen.len());
    manager.ctl(&["wait", "web"]).ok();
    // The lazy one has held up nobody.
    drop(finish(lazy, "logs -f".to_owned()));
    let kept = manager.ctl(&["logs", "web"]).ok();
    assert!(
        sequence(100_000).ends_with(&kept) && kept.len() > 50_000,
        "{} bytes",
        kept.len()
    );
    assert_eq!(
        manager.ctl(&["logs", "-n", "3", "web"]).ok(),
        "99998\n99999\n100000\n"
    );
    // What was kept for followers goes with the next rotation.
    manager.ctl(&["start", "web"]).ok();
    manager.ctl(&["wait", "web"]).ok();
    assert_eq!(files(&manager, "web"), ["log.json", "log.json.1", "log.json.2"]);
}

#[test]
fn a_client_in_the_foreground_gets_all_output_whatever_is_kept() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    for options in [
        &["--log-driver", "none"][..],
        &["--log-opt", "max-size=4k"],
        &["--log-driver", "local", "--log-opt", "max-size=50k"],
    ] {
        let mut args = vec!["run", "--network", "none", "--name", "once"];
        args.extend(options);
        args.extend([image.as_str(), "seq", "1", "200000"]);
        let printed = manager.ctl(&args).ok();
        assert!(
            printed == sequence(200_000),
            "{options:?}: {} bytes",
            printed.len()
        );
        if options[1] == "none" {
            let refused = manager.ctl(&["logs", "once"]).refused();
            let why = "configured logging driver does not support reading";
            assert!(refused.contains(why), "{refused}");
            assert_eq!(manager.inspect("once")["logConfig"]["type"], "none");
        }
        manager.ctl(&["rm", "once"]).ok();
    }
    run(
        &manager,
        "silent",
        &["--log-driver", "none"],
        &image,
        "seq 1 100000",
    );
    manager.ctl(&["wait", "silent"]).ok();
    let log = folder(&manager, "silent").join("log.json");
    assert_eq!(log.metadata().map_or(0, |file| file.len()), 0);
}

#[test]
fn rotated_files_are_packed_and_read_as_if_they_were_not_and_a_killed_manager_loses_nothing() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let options = [
        "--log-driver",
        "local",
        "--log-opt",
        "max-size=100k",
        "--log-opt",
        "max-file=50",
    ];
    let script = format!("seq 1 50000; touch /half; {WAIT} seq 50001 100000; touch /end; sleep 1000");
    run(&manager, "web", &options, &image, &script);
    eventually("the first half is written", || {
        (manager.ctl(&["exec", "web", "ls", "/half"]).code == 0).then_some(())
    });
    manager.ctl(&["exec", "web", "touch", "/go"]).ok();
    manager.kill();
    // The shim rotates by itself; the next manager packs.
    manager.start_again();
    eventually("the second half is written", || {
        (manager.ctl(&["exec", "web", "ls", "/end"]).code == 0).then_some(())
    });
    let is_plain = |name: &&String| !name.contains(".gz");
    eventually("what is rotated is packed", || {
        let names = files(&manager, "web");
        (names.len() > 5 && names.iter().filter(is_plain).count() == 1).then_some(())
    });
    let all = sequence(100_000);
    assert!(manager.ctl(&["logs", "web"]).ok() == all);
    for lines in [1, 1000, 40_000, 99_999, 200_000] {
        let tail = manager.ctl(&["logs", "--tail", &lines.to_string(), "web"]).ok();
        let skipped = 100_000usize.saturating_sub(lines);
        let expected: String = all.split_inclusive('\n').skip(skipped).collect();
        assert!(tail == expected, "the last {lines}: {} bytes", tail.len());
    }
    manager.ctl(&["rm", "-f", "web"]).ok();
}

#[test]
fn a_shim_that_is_killed_while_it_rotates_leaves_each_line_whole_and_once() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    for point in ["log.oldest-removed", "log.moved-up", "log.renamed", "log.begun"] {
        manager.stop();
        manager.set_failpoint(Some(&format!("shim:{point}")));
        manager.start_again();
        let options = ["--log-opt", "max-size=1k", "--log-opt", "max-file=1000"];
        // Not before its start is answered, else that answer is lost with the shim.
        let script = format!("until test -e /go; do sleep 0.02; done; {COUNT}");
        run(&manager, "web", &options, &image, &script);
        let _ = manager.ctl(&["exec", "web", "touch", "/go"]);
        manager.ctl(&["wait", "web"]).ok();
        manager.stop();
        manager.set_failpoint(None);
        manager.start_again();
        let first = manager.ctl(&["logs", "web"]).ok();
        let count = first.lines().count();
        assert!(count > 0 && count < 20_000, "{point}: {count} lines");
        let expected = |last| lines(0..u32::try_from(last).expect("a short log"));
        assert_eq!(first, expected(count), "{point}");
        manager.ctl(&["start", "web"]).ok();
        manager.ctl(&["wait", "web"]).ok();
        let both = manager.ctl(&["logs", "web"]).ok();
        assert!(both == first + &expected(20_000), "{point}: {} bytes", both.len());
        manager.ctl(&["rm", "web"]).ok();
    }
}

fn bind(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).expect("listen");
    socket
        .set_read_timeout(Some(Duration::from_mins(1)))
        .expect("set a bound");
    socket
}

fn receive(socket: &UnixDatagram) -> String {
    let mut buffer = vec![0; 256 << 10];
    let length = socket.recv(&mut buffer).expect("receive a message");
    String::from_utf8(buffer[..length].to_vec()).expect("text")
}

#[test]
fn a_syslog_server_gets_each_line_and_a_copy_can_be_read() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let path = sandbox.path().join("syslog");
    let socket = bind(&path);
    let address = format!("syslog-address=unixgram://{}", path.display());
    let options = [
        "--log-driver",
        "syslog",
        "--log-opt",
        &address,
        "--log-opt",
        "tag={{.Name}}/{{.ID}}",
        "--log-opt",
        "syslog-facility=local0",
        "--log-opt",
        "syslog-format=rfc5424micro",
    ];
    run(
        &manager,
        "web",
        &options,
        &image,
        "echo out; sleep 0.3; echo err >&2; sleep 0.3; printf end",
    );
    let id = manager.inspect("web")["id"].as_str().expect("an id")[..12].to_owned();
    for (priority, text) in [(134, "out"), (131, "err"), (134, "end")] {
        let message = receive(&socket);
        assert!(message.starts_with(&format!("<{priority}>1 2")), "{message}");
        assert!(message.contains(&format!(" web/{id} ")), "{message}");
        assert!(message.ends_with(&format!(" - {text}\n")), "{message}");
    }
    manager.ctl(&["wait", "web"]).ok();
    let copy = manager.ctl(&["logs", "web"]);
    assert_eq!(
        (copy.stdout.as_str(), copy.stderr.as_str()),
        ("out\nend", "err\n")
    );
    manager.ctl(&["rm", "web"]).ok();

    let options = [&options[..], &["--log-opt", "cache-disabled=true"]].concat();
    run(&manager, "web", &options, &image, "echo only-there");
    assert!(receive(&socket).ends_with("only-there\n"));
    manager.ctl(&["wait", "web"]).ok();
    let refused = manager.ctl(&["logs", "web"]).refused();
    assert!(refused.contains("does not support reading"), "{refused}");
    drop(socket);
    fs::remove_file(&path).expect("remove the server's socket");
    let refused = manager.ctl(&["start", "web"]).refused();
    assert!(refused.contains(&path.display().to_string()), "{refused}");
}

/// What `make` gives, of the manager's network.
fn in_network<T: Send + 'static>(sandbox: &Sandbox, make: impl FnOnce() -> T + Send + 'static) -> T {
    let netns = format!("/run/netns/berth-{}", sandbox.id());
    let entered = std::thread::spawn(move || {
        let netns = fs::File::open(netns).expect("open the manager's network namespace");
        // This thread's alone.
        setns(netns, CloneFlags::CLONE_NEWNET).expect("enter the manager's network namespace");
        make()
    });
    entered.join().expect("the thread ends")
}

#[test]
fn syslog_goes_over_udp_and_tcp_too() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let udp = in_network(&sandbox, || UdpSocket::bind("127.0.0.1:0").expect("listen"));
    udp.set_read_timeout(Some(Duration::from_mins(1)))
        .expect("set a bound");
    let address = format!(
        "syslog-address=udp://{}",
        udp.local_addr().expect("it has an address")
    );
    let options = [
        "--log-driver",
        "syslog",
        "--log-opt",
        &address,
        "--log-opt",
        "syslog-format=rfc3164",
    ];
    run(&manager, "udp", &options, &image, "echo by-udp");
    let mut buffer = [0; 4096];
    let length = udp.recv(&mut buffer).expect("receive a message");
    let message = String::from_utf8_lossy(&buffer[..length]);
    assert!(
        message.starts_with("<30>") && message.ends_with("]: by-udp\n"),
        "{message}"
    );

    let tcp = in_network(&sandbox, || TcpListener::bind("127.0.0.1:0").expect("listen"));
    let address = format!(
        "syslog-address=tcp://{}",
        tcp.local_addr().expect("it has an address")
    );
    let options = ["--log-driver", "syslog", "--log-opt", &address];
    let taking = std::thread::spawn(move || {
        let mut lines = Vec::new();
        for connection in tcp.incoming() {
            let mut reader = BufReader::new(connection.expect("a connection"));
            let mut text = String::new();
            // The first connection is the manager's look whether there is a server.
            while reader.read_line(&mut text).expect("read") > 0 {
                lines.push(std::mem::take(&mut text));
                if lines.len() == 5000 {
                    return lines;
                }
            }
        }
        lines
    });
    run(&manager, "tcp", &options, &image, "seq 1 5000");
    let lines = taking.join().expect("the server ends");
    assert!(
        lines[0].ends_with("]: 1\n") && lines[4999].ends_with("]: 5000\n"),
        "{}",
        lines[4999]
    );
    manager.ctl(&["wait", "tcp"]).ok();
    manager.ctl(&["rm", "tcp"]).ok();
    let refused = manager.ctl(&[
        "run",
        "--log-driver",
        "syslog",
        "--log-opt",
        "syslog-address=tcp://127.0.0.1:1",
        &image,
        "true",
    ]);
    let refused = refused.refused();
    assert!(
        refused.contains("failed to initialize logging driver"),
        "{refused}"
    );
}

fn fields(message: &str) -> Vec<(&str, &str)> {
    message
        .lines()
        .map(|line| line.split_once('=').expect("a field"))
        .collect()
}

#[test]
fn journald_gets_dockers_fields() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let path = sandbox.path().join("journal");
    manager.stop();
    manager.set_options(&[
        "--journal-socket",
        path.to_str().expect("text"),
        "--log-driver",
        "journald",
    ]);
    manager.start_again();
    let refused = manager.ctl(&["run", "--rm", &image, "true"]).refused();
    assert!(
        refused.contains("journald is not enabled on this host"),
        "{refused}"
    );
    let socket = bind(&path);
    let options = [
        "--label",
        "com.example.tier=gold",
        "-e",
        "STAGE=test",
        "--log-opt",
        "labels=com.example.tier",
        "--log-opt",
        "env-regex=^STA",
    ];
    let script = "echo out; sleep 0.3; echo err >&2; sleep 0.3; head -c 20000 /dev/zero | tr '\\0' x; echo";
    run(&manager, "web", &options, &image, script);
    let message = receive(&socket);
    let id = manager.inspect("web")["id"].as_str().expect("an id").to_owned();
    for field in [
        ("CONTAINER_ID", &id[..12]),
        ("CONTAINER_ID_FULL", &id),
        ("CONTAINER_NAME", "web"),
        ("CONTAINER_TAG", &id[..12]),
        ("SYSLOG_IDENTIFIER", &id[..12]),
        ("IMAGE_NAME", &image),
        ("COM_EXAMPLE_TIER", "gold"),
        ("STAGE", "test"),
        ("PRIORITY", "6"),
        ("MESSAGE", "out"),
    ] {
        assert!(fields(&message).contains(&field), "{field:?} in {message}");
    }
    let message = receive(&socket);
    assert!(fields(&message).ends_with(&[("MESSAGE", "err")]), "{message}");
    assert!(fields(&message).contains(&("PRIORITY", "3")), "{message}");
    let pieces = [receive(&socket), receive(&socket)];
    assert!(
        fields(&pieces[0]).contains(&("CONTAINER_PARTIAL_MESSAGE", "true")),
        "{}",
        pieces[0]
    );
    assert!(
        fields(&pieces[1]).contains(&("CONTAINER_PARTIAL_LAST", "true")),
        "{}",
        pieces[1]
    );
    let length: usize = pieces
        .iter()
        .map(|piece| fields(piece).last().expect("a message").1.len())
        .sum();
    assert_eq!(length, 20_000);
    let config = &manager.inspect("web")["logConfig"];
    assert_eq!(
        (&config["type"], &config["config"]["env-regex"]),
        (&"journald".into(), &"^STA".into())
    );
    assert!(
        manager
            .ctl(&["version"])
            .ok()
            .contains("journald (of json-file, local, none,")
    );
    manager.ctl(&["wait", "web"]).ok();
}

#[test]
fn a_slow_receiver_stalls_only_who_asked_to_wait_for_it() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let path = sandbox.path().join("syslog");
    let socket = bind(&path);
    let address = format!("syslog-address=unixgram://{}", path.display());
    let options = ["--log-driver", "syslog", "--log-opt", &address];
    let hasty = [
        &options[..],
        &[
            "--log-opt",
            "mode=non-blocking",
            "--log-opt",
            "max-buffer-size=10k",
        ],
    ]
    .concat();
    run(&manager, "hasty", &hasty, &image, "seq 1 20000");
    assert_eq!(manager.ctl(&["wait", "hasty"]).ok(), "0\n");
    // Its copy is whole, whatever the server has got.
    assert!(manager.ctl(&["logs", "hasty"]).ok() == sequence(20_000));
    socket.set_nonblocking(true).expect("wait no more");
    while socket.recv(&mut [0; 4096]).is_ok() {}
    socket.set_nonblocking(false).expect("wait");

    run(
        &manager,
        "patient",
        &options,
        &image,
        &format!("seq 1 20000; {WAIT} echo last"),
    );
    let mut number = 0;
    let mut next = || {
        number += 1;
        let message = receive(&socket);
        assert!(
            message.ends_with(&format!("]: {number}\n")),
            "{number}: {message}"
        );
    };
    (0..100).for_each(|_| next());
    assert_eq!(manager.inspect("patient")["state"], "running");
    (100..20_000).for_each(|_| next());
    // A server that is gone is waited for by nobody, and what it has missed is told to the next one.
    drop(socket);
    fs::remove_file(&path).expect("remove the server's socket");
    manager.ctl(&["exec", "patient", "touch", "/go"]).ok();
    assert_eq!(manager.ctl(&["wait", "patient"]).ok(), "0\n");
    assert!(manager.ctl(&["logs", "-n", "1", "patient"]).ok() == "last\n");
}

#[test]
fn logs_are_chosen_by_time_and_shown_with_their_details() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let options = [
        "--label",
        "tier=gold one",
        "-e",
        "STAGE=test",
        "--log-opt",
        "labels-regex=^t",
        "--log-opt",
        "env=STAGE",
        "--log-opt",
        "tag={{.Name}}",
        "--log-opt",
        "max-size=200",
        "--log-opt",
        "max-file=10",
    ];
    run(
        &manager,
        "web",
        &options,
        &image,
        "for i in 1 2 3 4 5; do echo $i; sleep 0.2; done",
    );
    manager.ctl(&["wait", "web"]).ok();
    assert!(files(&manager, "web").len() > 2);
    let detailed = manager.ctl(&["logs", "--details", "web"]).ok();
    let expected = [1, 2, 3, 4, 5]
        .map(|i| format!("STAGE=test,tag=web,tier=gold+one {i}\n"))
        .concat();
    assert_eq!(detailed, expected);
    let stamped = manager.ctl(&["logs", "-t", "web"]).ok();
    let times: Vec<&str> = stamped
        .lines()
        .map(|line| line.split_once(' ').expect("a time").0)
        .collect();
    let chosen = |args: &[&str]| {
        let args = [&["logs"], args, &["web"]].concat();
        manager.ctl(&args).ok().replace('\n', "")
    };
    assert_eq!(chosen(&["--since", times[2]]), "345");
    assert_eq!(chosen(&["--until", times[2]]), "123");
    assert_eq!(chosen(&["--since", times[1], "--until", times[3]]), "234");
    assert_eq!(chosen(&["--tail", "4", "--until", times[3]]), "234");
    assert_eq!(chosen(&["-f", "--until", times[1]]), "12");
}

#[test]
fn what_no_driver_has_is_refused_with_what_there_is() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    for (options, why) in [
        (
            &["--log-driver", "gelf"][..],
            "no log driver named 'gelf' is registered; there are json-file, local",
        ),
        (
            &["--log-opt", "max-sise=1"],
            "unknown log opt 'max-sise' for json-file log driver; it has max-size",
        ),
        (
            &["--log-driver", "none", "--log-opt", "max-size=1"],
            "invalid logging opts for driver none",
        ),
        (
            &[
                "--log-driver",
                "syslog",
                "--log-opt",
                "syslog-address=tcp+tls://h:1",
            ],
            "TLS",
        ),
    ] {
        let args = [&["run", "--rm"], options, &[&image, "true"]].concat();
        let refused = manager.ctl(&args).refused();
        assert!(refused.contains(why), "{refused}");
    }
    manager.stop();
    manager.set_options(&["--log-driver", "local", "--log-opt", "max-file=7"]);
    manager.start_again();
    manager
        .ctl(&[
            "create",
            "--name",
            "web",
            "--log-opt",
            "max-size=1m",
            &image,
            "true",
        ])
        .ok();
    let config = &manager.inspect("web")["logConfig"];
    assert_eq!(config["type"], "local");
    assert_eq!(
        config["config"],
        serde_json::json!({"max-file": "7", "max-size": "1m"})
    );
}

#[test]
fn a_full_disk_stalls_nobody_and_what_is_lost_is_told_once() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let script = format!("seq 1 100000; touch /half; {WAIT} echo last");
    let create = [
        "create",
        "--network",
        "none",
        "--name",
        "web",
        &image,
        "sh",
        "-c",
        &script,
    ];
    manager.ctl(&create).ok();
    let folder = folder(&manager, "web");
    let mount = ["-t", "tmpfs", "-o", "size=300k", "small"];
    let mut mount_command = std::process::Command::new("mount");
    integration::run(mount_command.args(mount).arg(&folder)).ok();
    let ballast = folder.join("ballast");
    fs::write(&ballast, vec![0; 100 << 10]).expect("fill the disk");
    manager.ctl(&["start", "web"]).ok();
    eventually("the first part is printed", || {
        (manager.ctl(&["exec", "web", "ls", "/half"]).code == 0).then_some(())
    });
    fs::remove_file(&ballast).expect("free the disk");
    manager.ctl(&["exec", "web", "touch", "/go"]).ok();
    assert_eq!(manager.ctl(&["wait", "web"]).ok(), "0\n");
    let told = manager.ctl(&["logs", "web"]);
    integration::run(std::process::Command::new("umount").arg(&folder)).ok();
    assert!(told.stdout.ends_with("last\n"), "{} bytes", told.stdout.len());
    // A shorter chunk may fit where a longer one did not, so that there may be more than one gap.
    let notices: Vec<&str> = told.stderr.lines().collect();
    let lost: usize = notices
        .iter()
        .map(|notice| {
            let counted = notice.strip_prefix("[shim: ").expect("a notice");
            let bytes = counted.strip_suffix(" bytes of output are missing here]");
            bytes.expect("a notice").parse::<usize>().expect("a number")
        })
        .sum();
    assert!(lost > 100_000 && notices.len() < 5, "{}", told.stderr);
    assert_eq!(told.stdout.len() + lost, sequence(100_000).len() + "last\n".len());
}

/// All that the manager has read so far, in bytes.
fn bytes_read(manager: &Manager) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/io", manager.pid())).expect("look at the manager");
    let line = text.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.expect("bytes read").parse().expect("a number")
}

#[test]
fn the_last_lines_of_ten_gigabytes_are_found_from_the_end() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    manager.ctl(&["create", "--name", "web", &image, "true"]).ok();
    let path = folder(&manager, "web").join("log.json");
    let mut log = fs::File::create(&path).expect("make a log");
    log.set_len(10 << 30).expect("make it long");
    log.seek(SeekFrom::End(0)).expect("go to its end");
    writeln!(log).expect("end the hole");
    for number in 1..=1000 {
        let record = r#"","stream":"stdout","time":"2026-01-01T00:00:00Z"}"#;
        writeln!(log, r#"{{"log":"{number}\n{record}"#).expect("write a record");
    }
    let before = bytes_read(&manager);
    assert_eq!(manager.ctl(&["logs", "--tail", "2", "web"]).ok(), "999\n1000\n");
    let read = bytes_read(&manager) - before;
    assert!(read < 2 << 20, "{read} bytes were read");
}
