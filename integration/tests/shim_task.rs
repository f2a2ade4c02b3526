//! The shim by its task API, spoken over its socket with the ttrpc crate's own client: a container's whole life,
//! streams, many execs at once, and what happens when something dies in between.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread;

use containerd_shim_protos::api;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim::oci::{CheckpointOptions, Options};
use containerd_shim_protos::ttrpc::Code;
use containerd_shim_protos::types::{mount::Mount, task::Status};
use integration::{
    Bundle, Peers, Sandbox, Shim, Streams, binary, eventually, is_gone, patience, refused, run,
};
use serde_json::{Value, json};

fn fifo(sandbox: &Sandbox, name: &str) -> String {
    let path = sandbox.path().join(name);
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("make a fifo");
    path.display().to_string()
}

/// Reads a fifo in the background, to its end once `opened` says that the shim has it open.
struct FifoReader {
    thread: thread::JoinHandle<String>,
    keeper: fs::File,
}

impl FifoReader {
    fn new(path: &str) -> Self {
        let open = fs::OpenOptions::new()
            .read(true)
            .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
            .open(path);
        let mut file = open.expect("open a fifo");
        let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty());
        nix::fcntl::fcntl(&file, flags).expect("make it wait");
        // A writer of our own keeps the fifo from ending before the shim opened it.
        let keeper = fs::OpenOptions::new()
            .write(true)
            .open(path)
            .expect("open a fifo");
        let thread = thread::spawn(move || {
            let mut text = Vec::new();
            file.read_to_end(&mut text).expect("read a fifo");
            String::from_utf8_lossy(&text).into_owned()
        });
        Self { thread, keeper }
    }

    /// All that came until the shim closed the fifo, which it has opened by now.
    fn text(self) -> String {
        drop(self.keeper);
        self.thread.join().expect("read a fifo")
    }
}

fn decode_base64(coded: &str) -> Vec<u8> {
    let mut decode = Command::new("base64");
    decode.arg("-d").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut decode = decode.spawn().expect("start base64");
    decode
        .stdin
        .take()
        .expect("stdin")
        .write_all(coded.as_bytes())
        .expect("write to base64");
    decode.wait_with_output().expect("read from base64").stdout
}

/// The numbers up to `last` as `seq` prints them.
fn numbers(last: u32) -> String {
    let lines: Vec<String> = (1..=last).map(|number| number.to_string()).collect();
    lines.join("\n") + "\n"
}

#[test]
fn an_exit_is_on_disk_before_it_is_told_and_told_to_all_who_wait() {
    let sandbox = Sandbox::new();
    let bundle = Bundle::new(&sandbox, "echo out; echo err >&2; exit 3");
    let shim = Shim::start(&sandbox, &bundle);
    let pid = shim.create_logged();
    assert_eq!(
        shim.state("").expect("state").status.value(),
        Status::CREATED as i32
    );
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..5)
            .map(|_| scope.spawn(|| (shim.wait(""), shim.exit_record())))
            .collect();
        assert_eq!(shim.start_process(""), pid);
        for waiter in waiters {
            let (status, record) = waiter.join().expect("wait");
            assert_eq!(status, 3);
            assert_eq!(record["exit_status"], 3);
            assert_eq!(record["pid"], pid);
            assert_eq!(record["oom_killed"], false);
        }
    });
    assert_eq!(
        (shim.logged("stdout"), shim.logged("stderr")),
        ("out\n".to_owned(), "err\n".to_owned())
    );
    assert_eq!(shim.wait(""), 3);
    let state = shim.state("").expect("state");
    assert_eq!(
        (state.status.value(), state.exit_status),
        (Status::STOPPED as i32, 3)
    );
    let deleted = shim.delete("").expect("delete");
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 3));
    refused(shim.state(""), Code::NOT_FOUND);
    shim.shutdown();
}

#[test]
fn a_killed_process_ends_with_128_and_its_signal() {
    let sandbox = Sandbox::new();
    let bundle = Bundle::new(&sandbox, "exec sleep 1000");
    let shim = Shim::start(&sandbox, &bundle);
    shim.create_logged();
    shim.start_process("");
    refused(shim.delete(""), Code::FAILED_PRECONDITION);
    shim.kill("", 9).expect("kill");
    assert_eq!(shim.wait(""), 137);
    refused(shim.kill("", 9), Code::NOT_FOUND);
    shim.end();
}

#[test]
fn a_created_task_that_never_started_can_be_deleted() {
    let sandbox = Sandbox::new();
    let bundle = Bundle::new(&sandbox, "true");
    let shim = Shim::start(&sandbox, &bundle);
    shim.create_logged();
    assert_eq!(shim.delete("").expect("delete").exit_status, 137);
    shim.shutdown();
}

#[test]
fn all_output_is_in_the_log_byte_by_byte_and_files_rotate() {
    let sandbox = Sandbox::new();
    let bundle = Bundle::new(&sandbox, "seq 1 20000; printf '\\377\\000x'; echo end");
    let shim = Shim::start(&sandbox, &bundle);
    assert_eq!(shim.run_logged(), 0);
    let text = fs::read_to_string(shim.log()).expect("read the log");
    let mut bytes = Vec::new();
    for line in text.lines() {
        let entry: Value = serde_json::from_str(line).expect("a JSON line");
        if let Some(text) = entry["log"].as_str() {
            bytes.extend_from_slice(text.as_bytes());
        } else {
            bytes.extend(decode_base64(entry["log64"].as_str().expect("log or log64")));
        }
    }
    let mut expected = numbers(20000).into_bytes();
    expected.extend_from_slice(b"\xff\0xend\n");
    assert!(bytes == expected, "{} bytes of {}", bytes.len(), expected.len());
    shim.end();

    let shim = Shim::start(&sandbox, &bundle);
    let mut request = shim.request();
    request.stdout = format!(
        "json-file://{}/small.json?max-size=20000&max-file=3",
        shim.bundle.display()
    );
    shim.tasks.create(patience(), &request).expect("create");
    shim.start_process("");
    assert_eq!(shim.wait(""), 0);
    for name in ["small.json", "small.json.1", "small.json.2"] {
        let length = fs::metadata(shim.bundle.join(name)).expect(name).len();
        assert!(length <= 40_000, "{name} has {length} bytes");
    }
    assert!(!shim.bundle.join("small.json.3").exists());
    shim.end();
}

#[test]
fn a_full_disk_neither_stops_the_container_nor_loses_silently() {
    let sandbox = Sandbox::new();
    let small = sandbox.path().join("small");
    fs::create_dir(&small).expect("make a folder");
    nix::mount::mount(
        Some("tmpfs"),
        &small,
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        Some("size=16k"),
    )
    .expect("mount a small disk");
    let bundle = Bundle::new(&sandbox, "seq 1 20000; echo done > /tmp/done; exit 5");
    let shim = Shim::start(&sandbox, &bundle);
    let mut request = shim.request();
    request.stdout = format!("json-file://{}/log.json", small.display());
    shim.tasks.create(patience(), &request).expect("create");
    shim.start_process("");
    assert_eq!(shim.wait(""), 5);
    assert!(bundle.rootfs().join("tmp/done").exists());
    let own_log = fs::read_to_string(shim.bundle.join("shim.log")).expect("read shim.log");
    assert!(own_log.contains("output is being lost"), "{own_log}");
    let log = fs::read_to_string(small.join("log.json")).expect("read the log");
    assert!(
        log.lines()
            .all(|line| serde_json::from_str::<Value>(line).is_ok()),
        "a broken line in {log}"
    );
    shim.end();
    nix::mount::umount2(&small, nix::mount::MntFlags::MNT_DETACH).expect("unmount the small disk");
}

#[test]
fn sixty_four_execs_at_once_all_report_their_own_end() {
    let sandbox = Sandbox::new();
    let bundle = Bundle::new(&sandbox, "exec sleep 1000");
    let shim = Shim::start(&sandbox, &bundle);
    shim.create_logged();
    shim.start_process("");
    thread::scope(|scope| {
        let execs: Vec<_> = (0..64u32)
            .map(|number| {
                let shim = &shim;
                scope.spawn(move || {
                    let exec = format!("e{number}");
                    shim.add_exec(&exec, &format!("exit {number}"), &Streams::default())
                        .expect("exec");
                    shim.start_process(&exec);
                    assert_eq!(shim.wait(&exec), number);
                    assert_eq!(shim.delete(&exec).expect("delete").exit_status, number);
                })
            })
            .collect();
        for exec in execs {
            exec.join().expect("an exec");
        }
    });
    let left: Vec<_> = fs::read_dir(&shim.bundle)
        .expect("read the bundle")
        .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
        .filter(|name| name.starts_with('e') && name != "exit.json")
        .collect();
    assert!(left.is_empty(), "left in the bundle: {left:?}");
    shim.kill("", 9).expect("kill");
    shim.wait("");
    shim.end();
}

#[test]
fn an_exec_has_streams_a_pid_and_a_state_of_its_own() {
    let sandbox = Sandbox::new();
    let bundle = Bundle::new(&sandbox, "exec sleep 1000");
    let shim = Shim::start(&sandbox, &bundle);
    shim.create_logged();
    let early = shim.add_exec("early", "true", &Streams::default());
    refused(early, Code::FAILED_PRECONDITION);
    let init = shim.start_process("");
    let streams = Streams {
        stdin: fifo(&sandbox, "in"),
        stdout: fifo(&sandbox, "out"),
        stderr: fifo(&sandbox, "err"),
        terminal: false,
    };
    let (out, err) = (FifoReader::new(&streams.stdout), FifoReader::new(&streams.stderr));
    shim.add_exec("cat", "echo err >&2; cat; exit 4", &streams)
        .expect("exec");
    refused(shim.add_exec("cat", "true", &streams), Code::ALREADY_EXISTS);
    let pid = shim.start_process("cat");
    assert_ne!(pid, init);
    let mut writer = fs::OpenOptions::new()
        .write(true)
        .open(&streams.stdin)
        .expect("open stdin");
    writer.write_all(b"first ").expect("write");
    drop(writer);
    // The last writer left, and stdin goes on: only CloseIO ends it.
    let mut writer = fs::OpenOptions::new()
        .write(true)
        .open(&streams.stdin)
        .expect("open stdin again");
    writer.write_all(b"second").expect("write");
    assert_eq!(shim.state("cat").expect("state").pid, pid);
    let mut request = api::PidsRequest::new();
    request.id.clone_from(&shim.id);
    let pids = shim.tasks.pids(patience(), &request).expect("pids");
    let pids: Vec<u32> = pids.processes.iter().map(|process| process.pid).collect();
    assert!(pids.contains(&init) && pids.contains(&pid), "{pids:?}");
    let mut request = api::CloseIORequest::new();
    request.id.clone_from(&shim.id);
    request.exec_id = "cat".into();
    request.stdin = true;
    shim.tasks.close_io(patience(), &request).expect("close stdin");
    drop(writer);
    assert_eq!(shim.wait("cat"), 4);
    shim.delete("cat").expect("delete");
    assert_eq!(out.text(), "first second");
    assert_eq!(err.text(), "err\n");
    shim.kill("", 9).expect("kill");
    shim.wait("");
    shim.end();
}

#[test]
fn an_exec_may_have_the_name_of_a_file_of_the_shim() {
    let sandbox = Sandbox::new();
    let bundle = Bundle::new(&sandbox, "exec sleep 1000");
    let shim = Shim::start(&sandbox, &bundle);
    shim.create_logged();
    shim.start_process("");
    let read = |name: &str| fs::read_to_string(shim.bundle.join(name)).expect(name);
    let before = ["init.pid", "shim.pid"].map(read);
    for exec in ["init", "shim"] {
        shim.add_exec(exec, "exit 5", &Streams::default()).expect("exec");
        shim.start_process(exec);
        assert_eq!(shim.wait(exec), 5);
        shim.delete(exec).expect("delete");
    }
    assert_eq!(["init.pid", "shim.pid"].map(read), before);
    shim.kill("", 9).expect("kill");
    shim.wait("");
    shim.end();
}

#[test]
fn a_terminal_has_its_size_and_its_input() {
    let sandbox = Sandbox::new();
    let bundle = Bundle::new(&sandbox, "exec sleep 1000");
    let shim = Shim::start(&sandbox, &bundle);
    shim.create_logged();
    shim.start_process("");
    let streams = Streams {
        stdin: fifo(&sandbox, "in"),
        stdout: fifo(&sandbox, "out"),
        stderr: String::new(),
        terminal: true,
    };
    let out = FifoReader::new(&streams.stdout);
    shim.add_exec(
        "tty",
        "tty; read line; stty size; echo got $line; exit 6",
        &streams,
    )
    .expect("exec");
    shim.start_process("tty");
    let mut request = api::ResizePtyRequest::new();
    request.id.clone_from(&shim.id);
    request.exec_id = "tty".into();
    (request.width, request.height) = (123, 45);
    shim.tasks.resize_pty(patience(), &request).expect("resize");
    let mut writer = fs::OpenOptions::new()
        .write(true)
        .open(&streams.stdin)
        .expect("open stdin");
    writer.write_all(b"hello\n").expect("write");
    assert_eq!(shim.wait("tty"), 6);
    shim.delete("tty").expect("delete");
    let text = out.text();
    for part in ["/dev/pts/", "45 123", "got hello"] {
        assert!(text.contains(part), "no {part:?} in {text:?}");
    }
    shim.kill("", 9).expect("kill");
    shim.wait("");
    shim.end();
}

#[test]
fn a_container_that_could_not_be_restored_is_deleted_like_one_never_started() {
    let sandbox = Sandbox::new();
    let bundle = Bundle::new(&sandbox, "exec sleep 1000");
    let shim = Shim::start(&sandbox, &bundle);
    let mut request = shim.request();
    // A folder without images.
    request.checkpoint = sandbox.path().display().to_string();
    let created = shim.tasks.create(patience(), &request);
    assert_eq!(created.expect("create").pid, 0, "nothing runs before the start");
    let mut start = api::StartRequest::new();
    start.id.clone_from(&shim.id);
    for _ in 0..2 {
        let refused = shim.tasks.start(patience(), &start);
        let refused = refused.expect_err("there is nothing to restore").to_string();
        assert!(refused.contains("runtime restore"), "{refused}");
    }
    assert!(shim.kill("", 9).is_err(), "there is no process to kill");
    shim.end();
}

#[test]
fn a_reader_that_comes_after_the_exit_gets_the_output() {
    let sandbox = Sandbox::new();
    let bundle = Bundle::new(&sandbox, "exec sleep 1000");
    let shim = Shim::start(&sandbox, &bundle);
    shim.create_logged();
    shim.start_process("");
    let mut streams = Streams {
        stdin: String::new(),
        stdout: String::new(),
        stderr: String::new(),
        terminal: false,
    };
    for terminal in [false, true] {
        streams.terminal = terminal;
        streams.stdout = fifo(&sandbox, &format!("out-{terminal}"));
        shim.add_exec("late", "echo said", &streams).expect("exec");
        shim.start_process("late");
        assert_eq!(shim.wait("late"), 0);
        // The delete waits for the reader, and the reader for the end of its input.
        let text = thread::scope(|scope| {
            let deleted = scope.spawn(|| shim.delete("late").map(drop));
            let text = FifoReader::new(&streams.stdout).text();
            deleted.join().expect("no panic").expect("delete");
            text
        });
        assert_eq!(text.trim_end(), "said");
    }
    // Nobody comes for this one, and that does not last.
    streams.terminal = false;
    streams.stdout = fifo(&sandbox, "unread");
    shim.add_exec("unread", "echo said", &streams).expect("exec");
    shim.start_process("unread");
    assert_eq!(shim.wait("unread"), 0);
    let start = std::time::Instant::now();
    shim.delete("unread").expect("delete");
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    shim.kill("", 9).expect("kill");
    shim.wait("");
    shim.end();
}

#[test]
fn a_reader_that_never_comes_does_not_hold_the_exit_back() {
    let sandbox = Sandbox::new();
    let bundle = Bundle::new(&sandbox, "exec seq 1 200000");
    let shim = Shim::start(&sandbox, &bundle);
    let out = fifo(&sandbox, "out");
    let mut request = shim.request();
    request.stdout.clone_from(&out);
    shim.tasks.create(patience(), &request).expect("create");
    let pid = shim.start_process("");
    eventually("the process is stuck on a full pipe", || {
        fs::read_to_string(format!("/proc/{pid}/wchan"))
            .ok()?
            .contains("pipe_write")
            .then_some(())
    });
    // It can be killed, its end is told, and what is in the pipes can be read.
    shim.kill("", 9).expect("kill");
    assert_eq!(shim.wait(""), 137);
    let reader = FifoReader::new(&out);
    shim.end();
    let text = reader.text();
    for (expected, line) in (1..).zip(text.lines()).take(1000) {
        assert_eq!(line, expected.to_string());
    }
}

#[test]
fn a_delete_of_an_exec_is_answered_when_its_container_is_deleted_meanwhile() {
    let sandbox = Sandbox::new();
    let bundle = Bundle::new(&sandbox, "exec sleep 1000");
    let shim = Shim::start(&sandbox, &bundle);
    shim.create_logged();
    shim.start_process("");
    let streams = Streams {
        stdout: fifo(&sandbox, "out"),
        ..Streams::default()
    };
    shim.add_exec("e", "exec seq 1 200000", &streams).expect("exec");
    let pid = shim.start_process("e");
    eventually("the process is stuck on a full pipe", || {
        let place = fs::read_to_string(format!("/proc/{pid}/wchan")).ok()?;
        place.contains("pipe_write").then_some(())
    });
    shim.kill("e", 9).expect("kill");
    assert_eq!(shim.wait("e"), 137);
    // One of two is refused, so the other one waits for a reader of the output.
    let (sender, results) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        for sender in [sender.clone(), sender] {
            let shim = &shim;
            scope.spawn(move || sender.send(shim.delete("e")));
        }
        refused(results.recv().expect("a result"), Code::FAILED_PRECONDITION);
        shim.kill("", 9).expect("kill");
        shim.wait("");
        shim.delete("").expect("delete");
        let deleted = results.recv().expect("a result").expect("delete of the exec");
        assert_eq!((deleted.pid, deleted.exit_status), (pid, 137));
    });
    shim.shutdown();
}

#[test]
fn a_slow_reader_gets_everything_although_the_task_is_deleted_meanwhile() {
    let sandbox = Sandbox::new();
    let bundle = Bundle::new(&sandbox, "seq 1 15000");
    let shim = Shim::start(&sandbox, &bundle);
    let out = fifo(&sandbox, "out");
    let mut request = shim.request();
    request.stdout.clone_from(&out);
    shim.tasks.create(patience(), &request).expect("create");
    shim.start_process("");
    assert_eq!(shim.wait(""), 0);
    let reader = FifoReader::new(&out);
    shim.end();
    let expected = numbers(15000);
    assert!(reader.text() == expected);
}

#[test]
fn a_logger_gets_the_output() {
    let sandbox = Sandbox::new();
    let bundle = Bundle::new(&sandbox, "echo out; echo err >&2");
    let logger = sandbox.path().join("logger");
    let folder = sandbox.path().display();
    let script = format!(
        "#!/bin/sh\nexec 5>&-\necho \"$CONTAINER_NAMESPACE/$CONTAINER_ID $*\" > {folder}/who\n\
         cat <&3 > {folder}/out.txt\ncat <&4 > {folder}/err.txt\n: > {folder}/finished\n"
    );
    fs::write(&logger, script).expect("write the logger");
    fs::set_permissions(&logger, fs::Permissions::from_mode(0o755)).expect("make it executable");
    let shim = Shim::start(&sandbox, &bundle);
    let mut request = shim.request();
    request.stdout = format!("binary://{}?key=value", logger.display());
    request.stderr.clone_from(&request.stdout);
    shim.tasks.create(patience(), &request).expect("create");
    shim.start_process("");
    assert_eq!(shim.wait(""), 0);
    eventually("the logger finishes", || {
        sandbox.path().join("finished").exists().then_some(())
    });
    let read = |name: &str| fs::read_to_string(sandbox.path().join(name)).expect(name);
    assert_eq!(
        (read("out.txt"), read("err.txt")),
        ("out\n".into(), "err\n".into())
    );
    assert_eq!(read("who"), format!("test/{} key value\n", sandbox.id()));
    shim.delete("").expect("delete");

    let mut request = shim.request();
    request.stdout = "binary:///bin/false".into();
    request.stderr.clone_from(&request.stdout);
    // A logger that ends at once closes its ready pipe, which counts as ready: the container runs without it.
    let created = shim.tasks.create(patience(), &request);
    if created.is_ok() {
        shim.start_process("");
        shim.wait("");
        shim.delete("").expect("delete");
    }
    let mut request = shim.request();
    request.stdout = "binary:///no/such/logger".into();
    let message = refused(shim.tasks.create(patience(), &request), Code::UNKNOWN);
    assert!(message.contains("/no/such/logger"), "{message}");
    shim.shutdown();
}

#[test]
fn a_logger_gets_what_is_written_to_a_terminal() {
    let sandbox = Sandbox::new();
    let bundle = {
        let mut bundle = Bundle::new(&sandbox, "tty; echo err >&2; read line; echo got $line");
        bundle.set("/process/terminal", json!(true));
        bundle
    };
    let logger = sandbox.path().join("logger");
    let folder = sandbox.path().display();
    // It reads stderr first: that must end by itself.
    let script =
        format!("#!/bin/sh\nexec 5>&-\ncat <&4 >{folder}/err\ncat <&3 >{folder}/out\n: >{folder}/finished\n");
    fs::write(&logger, script).expect("write the logger");
    fs::set_permissions(&logger, fs::Permissions::from_mode(0o755)).expect("make it executable");
    let shim = Shim::start(&sandbox, &bundle);
    let mut request = shim.request();
    request.terminal = true;
    request.stdin = fifo(&sandbox, "in");
    request.stdout = format!("binary://{}", logger.display());
    shim.tasks.create(patience(), &request).expect("create");
    shim.start_process("");
    let mut writer = fs::OpenOptions::new()
        .write(true)
        .open(&request.stdin)
        .expect("open stdin");
    writer.write_all(b"hello\n").expect("write");
    assert_eq!(shim.wait(""), 0);
    eventually("the logger finishes", || {
        sandbox.path().join("finished").exists().then_some(())
    });
    let out = fs::read_to_string(sandbox.path().join("out")).expect("read what was logged");
    for part in ["/dev/pts/", "err\r\n", "got hello\r\n"] {
        assert!(out.contains(part), "no {part:?} in {out:?}");
    }
    assert_eq!(
        fs::read_to_string(sandbox.path().join("err")).expect("read stderr"),
        ""
    );
    shim.end();
}

#[test]
fn a_checkpoint_is_restored_by_the_start() {
    let Some(criu) = Peers::folder() else {
        println!("skipped: there is no CRIU (hack/peers fetches one)");
        return;
    };
    let sandbox = Sandbox::new();
    let bundle = Bundle::new(&sandbox, "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done");
    bundle.write();
    let mut start = Shim::command(&sandbox, bundle.path(), sandbox.id(), "start");
    let path = std::env::var("PATH").unwrap_or_default();
    start.env("PATH", format!("{}:{path}", criu.display()));
    let shim = Shim::start_by(&sandbox, bundle.path(), sandbox.id(), &mut start);
    shim.create_logged();
    shim.start_process("");
    let last = || shim.logged("stdout").lines().last()?.parse::<u32>().ok();
    let counts_beyond = |number: u32| {
        eventually("it counts", || last().filter(|count| *count > number));
    };
    counts_beyond(5);
    let images = sandbox.path().join("images");
    let mut options = CheckpointOptions::new();
    options.exit = true;
    let mut any = Any::new();
    any.type_url = "containerd.runc.v1.CheckpointOptions".into();
    any.value = options.write_to_bytes().expect("encode options");
    let mut request = api::CheckpointTaskRequest::new();
    request.id.clone_from(&shim.id);
    request.path = images.display().to_string();
    request.options = Some(any).into();
    shim.tasks.checkpoint(patience(), &request).expect("checkpoint");
    shim.wait("");
    let at = last().expect("a number");
    shim.delete("").expect("delete");

    // Before its start nothing of it runs, and it can be deleted.
    let create = |images: &str| {
        let mut request = shim.request();
        request.stdout = shim.log_uri();
        request.stderr = shim.log_uri();
        images.clone_into(&mut request.checkpoint);
        let created = shim.tasks.create(patience(), &request);
        assert_eq!(created.expect("create").pid, 0);
        let state = shim.state("").expect("state").status.value();
        assert_eq!(state, Status::CREATED as i32);
    };
    create(&request.path);
    refused(shim.kill("", 9), Code::FAILED_PRECONDITION);
    assert_eq!(shim.delete("").expect("delete").pid, 0);

    let empty = sandbox.path().join("empty");
    fs::create_dir(&empty).expect("make a folder");
    create(empty.to_str().expect("a path"));
    let message = refused(shim.try_start(""), Code::UNKNOWN);
    assert!(message.contains("descriptors.json"), "{message}");
    shim.delete("").expect("delete");

    create(&request.path);
    let pid = shim.start_process("");
    assert_eq!(shim.state("").expect("state").pid, pid);
    counts_beyond(at);
    let text = shim.logged("stdout");
    assert!(
        text.contains(&format!("{at}\n{}\n", at + 1)),
        "it began anew: {text}"
    );
    shim.kill("", 9).expect("kill");
    assert_eq!(shim.wait(""), 137);
    shim.end();
}

#[test]
fn rootfs_mounts_are_made_and_taken_away_also_after_a_failure() {
    let sandbox = Sandbox::new();
    let mut bundle = Bundle::new(&sandbox, "touch /new; cat /lower; exit 0");
    for folder in ["lower", "upper", "work"] {
        fs::create_dir(sandbox.path().join(folder)).expect("make a folder");
    }
    fs::rename(bundle.rootfs(), sandbox.path().join("lower/base")).expect("move the rootfs");
    fs::write(sandbox.path().join("lower/base/lower"), "from below\n").expect("write a file");
    let folder = sandbox.path().display();
    let mut overlay = Mount::new();
    overlay.type_ = "overlay".into();
    overlay.source = "overlay".into();
    // More than a page of options: as many layers as an image may have.
    let mut layers = vec![format!("{folder}/lower/base")];
    for number in 0..60 {
        let layer = format!("{folder}/lower/{number:0>70}");
        fs::create_dir(&layer).expect("make a layer");
        layers.push(layer);
    }
    overlay.options = vec![
        format!("lowerdir={}", layers.join(":")),
        format!("upperdir={folder}/upper"),
        format!("workdir={folder}/work"),
    ];
    let shim = Shim::start(&sandbox, &bundle);
    let mut request = shim.request();
    request.rootfs = vec![overlay.clone()];
    request.stdout = shim.log_uri();
    shim.tasks.create(patience(), &request).expect("create");
    shim.start_process("");
    assert_eq!(shim.wait(""), 0);
    assert_eq!(shim.logged("stdout"), "from below\n");
    shim.delete("").expect("delete");
    assert!(sandbox.path().join("upper/new").exists());
    assert_eq!(
        fs::read_dir(shim.bundle.join("rootfs")).expect("rootfs").count(),
        0
    );

    bundle.set("/process/args", json!(["/no/such/program"]));
    bundle.write();
    refused(shim.tasks.create(patience(), &request), Code::UNKNOWN);
    assert_eq!(
        fs::read_dir(shim.bundle.join("rootfs")).expect("rootfs").count(),
        0
    );
    request.rootfs[0].options = vec!["lowerdir=/no/such/layer".into()];
    let message = refused(shim.tasks.create(patience(), &request), Code::UNKNOWN);
    assert!(
        message.contains("overlay") && message.contains("rootfs"),
        "{message}"
    );
    shim.shutdown();
}

#[test]
fn a_root_that_only_the_container_is_to_have_leaves_the_bundle_when_it_is_created() {
    let sandbox = Sandbox::new();
    let mut bundle = Bundle::new(&sandbox, "cat /lower; touch /new");
    for folder in ["upper", "work"] {
        fs::create_dir(sandbox.path().join(folder)).expect("make a folder");
    }
    let lower = sandbox.path().join("lower");
    fs::rename(bundle.rootfs(), &lower).expect("move the rootfs");
    fs::write(lower.join("lower"), "from below\n").expect("write a file");
    bundle.set("/annotations/org.berth.rootfs-mounted", json!("until-created"));
    bundle.write();
    let folder = sandbox.path().display();
    let mut overlay = Mount::new();
    overlay.type_ = "overlay".into();
    overlay.source = "overlay".into();
    overlay.options = vec![
        format!("lowerdir={}", lower.display()),
        format!("upperdir={folder}/upper"),
        format!("workdir={folder}/work"),
    ];
    let shim = Shim::start(&sandbox, &bundle);
    let mut request = shim.request();
    request.rootfs = vec![overlay];
    request.stdout = shim.log_uri();
    // Twice, as a restart does.
    for _ in 0..2 {
        shim.tasks.create(patience(), &request).expect("create");
        eventually("the root is gone from the bundle", || {
            let entries = fs::read_dir(shim.bundle.join("rootfs")).expect("rootfs");
            (entries.count() == 0).then_some(())
        });
        shim.start_process("");
        assert_eq!(shim.wait(""), 0);
        shim.delete("").expect("delete");
        fs::remove_file(sandbox.path().join("upper/new")).expect("it wrote to its root");
    }
    assert_eq!(shim.logged("stdout"), "from below\nfrom below\n");
    shim.shutdown();
}

/// containerd's options for the root of a pod that has a user namespace.
#[test]
fn a_root_is_mounted_with_mapped_owners() {
    let sandbox = Sandbox::new();
    let bundle = Bundle::new(&sandbox, "stat -c %u:%g /bin/busybox /upper");
    let folder = |name: &str| sandbox.path().join(name);
    for name in ["lower", "between", "upper", "work"] {
        fs::create_dir(folder(name)).expect("make a folder");
    }
    fs::rename(bundle.rootfs(), folder("lower/base")).expect("move the rootfs");
    fs::write(folder("upper/upper"), "").expect("write a file");
    let mut mount = Mount::new();
    let layers = format!(
        "{}:{}",
        folder("between").display(),
        folder("lower/base").display()
    );
    let maps = ["uidmap=0:100000:10,10:500000:1000", "gidmap=0:200000:65536"];
    let shim = Shim::start(&sandbox, &bundle);
    let mut request = shim.request();
    request.stdout = shim.log_uri();
    // Of an overlay, what lies below is mapped; a bind is as a whole.
    for (kind, options) in [
        (
            "overlay",
            vec![
                format!("lowerdir={layers}"),
                format!("upperdir={}", folder("upper").display()),
                format!("workdir={}", folder("work").display()),
            ],
        ),
        ("bind", vec!["rbind".to_owned(), "rw".to_owned()]),
    ] {
        mount.type_ = kind.into();
        mount.source = folder("lower/base").display().to_string();
        mount.options = options;
        mount.options.extend(maps.map(str::to_owned));
        request.rootfs = vec![mount.clone()];
        fs::write(folder("lower/base/upper"), "").expect("write a file");
        fs::remove_file(shim.log()).ok();
        shim.tasks.create(patience(), &request).expect("create");
        shim.start_process("");
        assert_eq!(shim.wait(""), 0);
        let above = if kind == "overlay" { "0:0" } else { "100000:200000" };
        assert_eq!(shim.logged("stdout"), format!("100000:200000\n{above}\n"));
        shim.delete("").expect("delete");
        assert!(
            !shim.bundle.join("layers").exists(),
            "the layers' mounts are gone"
        );
    }
    request.rootfs[0].options.push("uidmap=0:1:x".into());
    let message = refused(shim.tasks.create(patience(), &request), Code::UNKNOWN);
    assert!(message.contains("0 1 x"), "{message}");
    // sysfs has no owners to map.
    let root = &mut request.rootfs[0];
    root.type_ = "overlay".into();
    root.options = vec!["lowerdir=/sys/kernel/mm".into()];
    root.options.extend(maps.map(str::to_owned));
    let message = refused(shim.tasks.create(patience(), &request), Code::UNKNOWN);
    assert!(
        message.contains("/sys/kernel/mm: a file system of type sysfs can't"),
        "{message}"
    );
    assert!(
        !shim.bundle.join("layers").exists(),
        "the layers' mounts are gone"
    );
    shim.shutdown();
}

#[test]
fn a_failed_create_is_told_once_and_leaves_no_output() {
    let sandbox = Sandbox::new();
    let mut bundle = Bundle::new(&sandbox, "echo from the program");
    let shim = Shim::start(&sandbox, &bundle);
    // A runtime with something to say even when all goes well.
    let wrapper = sandbox.path().join("talking-runtime");
    let script = format!(
        "#!/bin/sh\necho from the runtime >&2\nexec {} \"$@\"\n",
        binary("runtime").display()
    );
    fs::write(&wrapper, script).expect("write a runtime");
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("make it executable");
    let mut options = Options::new();
    options.root = shim.root.display().to_string();
    options.binary_name = wrapper.display().to_string();
    let mut request = shim.request();
    request.options.mut_or_insert_default().value = options.write_to_bytes().expect("encode options");
    request.stdout = shim.log_uri();
    request.stderr = shim.log_uri();
    let create = || shim.tasks.create(patience(), &request);

    bundle.set("/process/args", json!(["/no/such/program"]));
    bundle.write();
    let message = refused(create(), Code::UNKNOWN);
    assert!(message.contains("/no/such/program"), "{message}");
    assert_eq!(message.matches("create").count(), 1, "{message}");
    assert_eq!(message.matches("runtime").count(), 1, "{message}");
    assert_eq!(fs::read_to_string(shim.log()).expect("read the log"), "");

    bundle.set("/process/args", json!(["/bin/sh", "-c", "echo from the program"]));
    bundle.write();
    create().expect("create");
    shim.start_process("");
    assert_eq!(shim.wait(""), 0);
    assert_eq!(shim.logged("stderr"), "from the runtime\n");
    assert_eq!(shim.logged("stdout"), "from the program\n");
    shim.end();
}

#[test]
fn what_is_wrong_is_refused_by_name() {
    let sandbox = Sandbox::new();
    let bundle = Bundle::new(&sandbox, "exec sleep 1000");
    let shim = Shim::start(&sandbox, &bundle);
    refused(shim.state(""), Code::NOT_FOUND);
    refused(shim.delete(""), Code::NOT_FOUND);
    let create = |change: &dyn Fn(&mut api::CreateTaskRequest)| {
        let mut request = shim.request();
        change(&mut request);
        shim.tasks.create(patience(), &request)
    };
    let bad_id = refused(
        create(&|request| request.id = "../x".into()),
        Code::INVALID_ARGUMENT,
    );
    assert!(bad_id.contains("../x"), "{bad_id}");
    refused(
        create(&|request| request.bundle = "relative".into()),
        Code::INVALID_ARGUMENT,
    );
    refused(
        create(&|request| request.stdout = "syslog:///x".into()),
        Code::INVALID_ARGUMENT,
    );
    refused(
        create(&|request| request.checkpoint = "/no/such/checkpoint".into()),
        Code::INVALID_ARGUMENT,
    );
    refused(
        create(&|request| request.options.mut_or_insert_default().type_url = "x.Y".into()),
        Code::INVALID_ARGUMENT,
    );
    fs::write(shim.bundle.join("config.json"), "{").expect("break config.json");
    let broken = refused(create(&|_| {}), Code::INVALID_ARGUMENT);
    assert!(broken.contains("config.json"), "{broken}");
    bundle.write();
    shim.create_logged();
    refused(create(&|_| {}), Code::ALREADY_EXISTS);
    shim.start_process("");
    refused(
        shim.add_exec("a/b", "true", &Streams::default()),
        Code::INVALID_ARGUMENT,
    );
    shim.kill("", 9).expect("kill");
    shim.wait("");
    shim.end();
}

#[test]
fn broken_frames_cost_only_their_own_connection() {
    let sandbox = Sandbox::new();
    let bundle = Bundle::new(&sandbox, "exit 0");
    let shim = Shim::start(&sandbox, &bundle);
    let path = shim.address.strip_prefix("unix://").expect("a unix address");
    let mode = fs::metadata(path).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 64],
        // A response, which a client never sends.
        &[0, 0, 0, 0, 0, 0, 0, 1, 2, 0],
    ] {
        let mut stream = UnixStream::connect(path).expect("connect");
        stream.write_all(bytes).expect("write");
        let mut answer = Vec::new();
        // Whatever it answers, it hangs up.
        let _ = stream.read_to_end(&mut answer);
    }
    // Half a frame, and connections that say nothing.
    let mut half = UnixStream::connect(path).expect("connect");
    half.write_all(&[0, 0, 1]).expect("write");
    let silent: Vec<_> = (0..100)
        .map(|_| UnixStream::connect(path).expect("connect"))
        .collect();
    assert_eq!(shim.run_logged(), 0);
    drop((half, silent));
    shim.end();
}

#[test]
fn a_killed_shim_is_cleaned_up_after() {
    let sandbox = Sandbox::new();
    let bundle = Bundle::new(&sandbox, "exec sleep 1000");
    let shim = Shim::start(&sandbox, &bundle);
    let pid = shim.create_logged();
    shim.start_process("");
    let shim_pid = shim.pid();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(shim_pid.cast_signed()),
        nix::sys::signal::SIGKILL,
    )
    .expect("kill");
    eventually("the shim is gone", || is_gone(shim_pid).then_some(()));
    assert!(!is_gone(pid), "the container runs on without its shim");
    let response = shim.clean_up();
    assert_eq!((response.pid, response.exit_status), (pid, 137));
    eventually("the container is gone", || is_gone(pid).then_some(()));
    sandbox.assert_clean();
}

#[test]
fn an_exit_that_nobody_heard_of_is_told_by_delete() {
    let sandbox = Sandbox::new();
    let bundle = Bundle::new(&sandbox, "exit 42");
    let shim = Shim::start(&sandbox, &bundle);
    let pid = shim.create_logged();
    shim.start_process("");
    eventually("the exit is on disk", || {
        shim.bundle.join("exit.json").exists().then_some(())
    });
    let shim_pid = shim.pid();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(shim_pid.cast_signed()),
        nix::sys::signal::SIGKILL,
    )
    .expect("kill");
    eventually("the shim is gone", || is_gone(shim_pid).then_some(()));
    let response = shim.clean_up();
    assert_eq!((response.pid, response.exit_status), (pid, 42));
}

#[test]
fn one_shim_serves_a_pod_and_ends_only_when_it_is_empty() {
    let sandbox = Sandbox::new();
    let first = Bundle::named(&sandbox, &format!("{}p", sandbox.id()), &["/bin/sleep", "1000"]);
    let pod = format!("{}p", sandbox.id());
    let shim = Shim::start_as(&sandbox, first.path(), &pod, &first);
    let again = run(&mut Shim::command(&sandbox, first.path(), &pod, "start")).ok();
    assert_eq!(again, shim.address, "a second start finds the shim that is there");
    shim.create_logged();
    shim.start_process("");

    let mut second = Bundle::named(&sandbox, "second", &["/bin/sh", "-c", "exit 9"]);
    second.set("/annotations", json!({"io.kubernetes.cri.sandbox-id": pod}));
    second.set(
        "/linux/cgroupsPath",
        json!(format!("/berth-test/{}-2", sandbox.id())),
    );
    second.write();
    let member = format!("{}m", sandbox.id());
    let address = run(&mut Shim::command(&sandbox, second.path(), &member, "start")).ok();
    assert_eq!(address, shim.address);
    let mut request = shim.request();
    request.id.clone_from(&member);
    request.bundle = second.path().display().to_string();
    shim.tasks.create(patience(), &request).expect("create");
    let mut start = api::StartRequest::new();
    start.id.clone_from(&member);
    shim.tasks.start(patience(), &start).expect("start");
    let mut wait = api::WaitRequest::new();
    wait.id.clone_from(&member);
    assert_eq!(shim.tasks.wait(patience(), &wait).expect("wait").exit_status, 9);

    shim.tasks
        .shutdown(patience(), &api::ShutdownRequest::new())
        .expect("shutdown");
    assert_eq!(
        shim.state("")
            .expect("a shim with containers stays")
            .status
            .value(),
        Status::RUNNING as i32
    );
    let mut delete = api::DeleteRequest::new();
    delete.id.clone_from(&member);
    shim.tasks.delete(patience(), &delete).expect("delete");
    shim.kill("", 9).expect("kill");
    shim.wait("");
    shim.end();
}

#[test]
fn a_delete_beside_a_living_shim_takes_the_container_and_a_shim_without_another() {
    let sandbox = Sandbox::new();
    let pod = format!("{}p", sandbox.id());
    let first = Bundle::named(&sandbox, &pod, &["/bin/sleep", "1000"]);
    let shim = Shim::start_as(&sandbox, first.path(), &pod, &first);
    shim.create_logged();
    shim.start_process("");
    let mut second = Bundle::named(&sandbox, "second", &["/bin/sleep", "1000"]);
    second.set("/annotations", json!({"io.kubernetes.cri.sandbox-id": pod}));
    second.set(
        "/linux/cgroupsPath",
        json!(format!("/berth-test/{}-2", sandbox.id())),
    );
    let member_id = format!("{}m", sandbox.id());
    // The same shim, for the other container.
    let member = Shim::start_as(&sandbox, second.path(), &member_id, &second);
    assert_eq!(member.address, shim.address);
    let pid = member.create_logged();
    member.start_process("");

    assert_eq!(member.clean_up().pid, pid);
    assert!(is_gone(pid));
    refused(member.state(""), Code::NOT_FOUND);
    let state = shim.state("").expect("the shim goes on");
    assert_eq!(state.status.value(), Status::RUNNING as i32);
    shim.clean_up();
    eventually("the shim ends", || is_gone(shim.pid()).then_some(()));
    sandbox.assert_clean();
}

#[test]
fn a_shutdown_that_does_not_wait_kills_and_leaves_the_exit_on_disk() {
    let sandbox = Sandbox::new();
    let bundle = Bundle::new(&sandbox, "exec sleep 1000");
    let shim = Shim::start(&sandbox, &bundle);
    let pid = shim.create_logged();
    shim.start_process("");
    let shim_pid = shim.pid();
    let mut request = api::ShutdownRequest::new();
    request.now = true;
    shim.tasks.shutdown(patience(), &request).expect("shutdown");
    eventually("the shim ends", || is_gone(shim_pid).then_some(()));
    assert!(is_gone(pid));
    assert_eq!(shim.exit_record()["exit_status"], 137);
    let response = shim.clean_up();
    assert_eq!((response.pid, response.exit_status), (pid, 137));
    sandbox.assert_clean();
}

#[test]
fn hundreds_of_short_execs_in_a_row_all_tell_their_status() {
    let sandbox = Sandbox::new();
    let bundle = Bundle::new(&sandbox, "exec sleep 1000");
    let shim = Shim::start(&sandbox, &bundle);
    shim.create_logged();
    shim.start_process("");
    let open_files = || {
        fs::read_dir(format!("/proc/{}/fd", shim.pid()))
            .expect("read fds")
            .count()
    };
    let before = open_files();
    for number in 0..200 {
        let out = fifo(&sandbox, &format!("out{number}"));
        let reader = FifoReader::new(&out);
        let streams = Streams {
            stdout: out,
            ..Streams::default()
        };
        shim.add_exec("again", &format!("echo {number}; exit {number}"), &streams)
            .expect("exec");
        shim.start_process("again");
        assert_eq!(shim.wait("again"), number);
        shim.delete("again").expect("delete");
        assert_eq!(reader.text(), format!("{number}\n"));
    }
    eventually("no descriptor leaks", || (open_files() <= before).then_some(()));
    shim.kill("", 9).expect("kill");
    shim.wait("");
    shim.end();
}

#[test]
fn a_shared_pid_namespace_leaves_nobody_behind() {
    let sandbox = Sandbox::new();
    let mut bundle = Bundle::new(&sandbox, "sleep 1000 & sleep 1000 & echo started; exit 3");
    let namespaces = bundle.config["linux"]["namespaces"]
        .as_array()
        .expect("namespaces")
        .clone();
    let shared: Vec<_> = namespaces
        .into_iter()
        .filter(|namespace| namespace["type"] != "pid")
        .collect();
    bundle.set("/linux/namespaces", json!(shared));
    // Some runtimes do not signal a container whose init is gone.
    let refusing = sandbox.path().join("refusing-runtime");
    let ours = binary("runtime").display().to_string();
    let script = format!("#!/bin/sh\ncase \" $* \" in *\" kill \"*) exit 1;; esac\nexec {ours} \"$@\"\n");
    fs::write(&refusing, script).expect("write a script");
    fs::set_permissions(&refusing, fs::Permissions::from_mode(0o755)).expect("make it executable");
    for runtime in [ours, refusing.display().to_string()] {
        let shim = Shim::start(&sandbox, &bundle);
        fs::remove_file(shim.log()).ok();
        let mut request = shim.request_with(|options| options.binary_name.clone_from(&runtime));
        request.stdout = shim.log_uri();
        shim.tasks.create(patience(), &request).expect("create");
        shim.start_process("");
        assert_eq!(shim.wait(""), 3);
        let mut pids = api::PidsRequest::new();
        pids.id.clone_from(&shim.id);
        eventually("nobody is left before the delete", || {
            let left = shim.tasks.pids(patience(), &pids);
            left.expect("pids").processes.is_empty().then_some(())
        });
        assert_eq!(shim.logged("stdout"), "started\n");
        shim.end();
        sandbox.assert_clean();
    }
}

#[test]
fn an_idle_shim_is_one_small_thread() {
    let sandbox = Sandbox::new();
    let bundle = Bundle::new(&sandbox, "exec sleep 1000");
    let shim = Shim::start(&sandbox, &bundle);
    shim.create_logged();
    shim.start_process("");
    let status = fs::read_to_string(format!("/proc/{}/status", shim.pid())).expect("read status");
    let value = |key: &str| {
        let line = status.lines().find(|line| line.starts_with(key)).expect(key);
        line.split_ascii_whitespace()
            .nth(1)
            .expect("a number")
            .parse::<u64>()
            .expect("a number")
    };
    assert_eq!(value("Threads:"), 1);
    assert!(value("RssAnon:") < 1024, "{status}");
    shim.kill("", 9).expect("kill");
    shim.wait("");
    shim.end();
}
