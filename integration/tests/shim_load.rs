//! The shim under much of something, and beside peers that stop: thousands of execs, more open files than it was given,
//! a client that does not read, a logger that dies. Nothing hangs and nothing is lost.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;
use std::time::Duration;

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::{api, ttrpc};
use integration::{Bundle, Sandbox, Shim, Streams, eventually, is_gone};

/// A shim whose container sleeps.
fn sleeper(sandbox: &Sandbox) -> (Bundle, Shim) {
    let bundle = Bundle::new(sandbox, "exec sleep 1000");
    let shim = Shim::start(sandbox, &bundle);
    shim.create_logged();
    shim.start_process("");
    (bundle, shim)
}

fn end(shim: Shim) {
    shim.kill("", 9).expect("kill");
    shim.wait("");
    shim.end();
}

/// Some at a time, each with a status of its own.
#[test]
fn ten_thousand_short_execs_all_tell_their_status() {
    const COUNT: u32 = 10_000;
    const AT_ONCE: u32 = 4;
    let sandbox = Sandbox::new();
    let (_bundle, shim) = sleeper(&sandbox);
    thread::scope(|scope| {
        for worker in 0..AT_ONCE {
            let shim = &shim;
            scope.spawn(move || {
                for number in (worker..COUNT).step_by(AT_ONCE as usize) {
                    let (exec, status) = (format!("e{number}"), number % 251);
                    shim.add_exec(&exec, &format!("exit {status}"), &Streams::default())
                        .expect("exec");
                    shim.start_process(&exec);
                    assert_eq!(shim.wait(&exec), status);
                    assert_eq!(shim.delete(&exec).expect("delete").exit_status, status);
                }
            });
        }
    });
    let bundle = fs::read_dir(&shim.bundle).expect("read the bundle").flatten();
    let names = bundle.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let left: Vec<_> = names
        .filter(|name| name.starts_with('e') && name != "exit.json")
        .collect();
    assert!(left.is_empty(), "left in the bundle: {left:?}");
    end(shim);
}

#[test]
fn more_files_than_the_limit_at_the_start_are_open_and_containers_have_that_limit_still() {
    const LIMIT: u32 = 128;
    let sandbox = Sandbox::new();
    let mut bundle = Bundle::new(&sandbox, "ulimit -n; exec sleep 1000");
    bundle.set("/process/rlimits", serde_json::json!([]));
    bundle.write();
    let start = Shim::command(&sandbox, bundle.path(), sandbox.id(), "start");
    let mut limited = Command::new("prlimit");
    limited
        .arg(format!("--nofile={LIMIT}:4096"))
        .arg(start.get_program())
        .args(start.get_args());
    limited.current_dir(bundle.path());
    let shim = Shim::start_by(&sandbox, bundle.path(), sandbox.id(), &mut limited);
    shim.create_logged();
    shim.start_process("");
    eventually("the container tells its limit", || {
        (shim.logged("stdout") == format!("{LIMIT}\n")).then_some(())
    });
    // Each takes two descriptors of the shim's for each of its outputs.
    let log = |number: u32| sandbox.path().join(format!("out{number}"));
    for number in 0..LIMIT {
        let streams = Streams {
            stdout: format!("file://{}", log(number).display()),
            stderr: format!("file://{}", log(number).display()),
            ..Streams::default()
        };
        let exec = format!("e{number}");
        shim.add_exec(&exec, "ulimit -n; exec sleep 1000", &streams)
            .expect("exec");
        shim.start_process(&exec);
    }
    let open = fs::read_dir(format!("/proc/{}/fd", shim.pid()))
        .expect("read fds")
        .count();
    assert!(open > 2 * LIMIT as usize, "only {open} files are open");
    for number in 0..LIMIT {
        eventually("an exec tells its limit", || {
            (fs::read_to_string(log(number)).ok()? == format!("{LIMIT}\n")).then_some(())
        });
    }
    end(shim);
}

/// A call as the client sends it, on an odd stream.
fn frame(stream: u32, method: &str, payload: Vec<u8>) -> Vec<u8> {
    let mut request = ttrpc::Request::new();
    request.service = "containerd.task.v2.Task".into();
    request.method = method.into();
    request.payload = payload;
    let body = request.write_to_bytes().expect("encode a request");
    let mut frame = (body.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(&[1, 0]);
    frame.extend_from_slice(&body);
    frame
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody_and_gets_its_answers_when_it_does() {
    const CALLS: u32 = 20_000;
    let sandbox = Sandbox::new();
    let (_bundle, shim) = sleeper(&sandbox);
    let path = shim.address.strip_prefix("unix://").expect("a unix address");
    let mut lazy = UnixStream::connect(path).expect("connect");
    let mut state = api::StateRequest::new();
    state.id.clone_from(&shim.id);
    let payload = state.write_to_bytes().expect("encode");
    let mut writer = lazy.try_clone().expect("duplicate the socket");
    let flood = thread::spawn(move || {
        for number in 0..CALLS {
            writer
                .write_all(&frame(2 * number + 1, "State", payload.clone()))
                .expect("call");
        }
    });
    // Others are served while the answers pile up, and memory does not follow them.
    let status = || fs::read_to_string(format!("/proc/{}/status", shim.pid())).expect("read status");
    for number in 0..20 {
        let exec = format!("e{number}");
        shim.add_exec(&exec, "exit 5", &Streams::default()).expect("exec");
        shim.start_process(&exec);
        assert_eq!(shim.wait(&exec), 5);
        shim.delete(&exec).expect("delete");
    }
    let status = status();
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .expect("RssAnon");
    let kilobytes: u32 = resident.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(
        kilobytes < 8 << 10,
        "{kilobytes} kB for a client that does not read"
    );
    lazy.set_read_timeout(Some(Duration::from_mins(1)))
        .expect("set a limit");
    for number in 0..CALLS {
        let mut header = [0; 10];
        lazy.read_exact(&mut header).expect("an answer");
        let length = u32::from_be_bytes(header[..4].try_into().expect("four bytes"));
        let stream = u32::from_be_bytes(header[4..8].try_into().expect("four bytes"));
        assert_eq!(stream, 2 * number + 1);
        let mut body = vec![0; length as usize];
        lazy.read_exact(&mut body).expect("an answer");
    }
    flood.join().expect("the calls");
    end(shim);
}

#[test]
fn a_logger_that_dies_takes_neither_the_container_nor_its_exit_along() {
    let sandbox = Sandbox::new();
    let bundle = Bundle::new(
        &sandbox,
        "trap '' PIPE; echo first; while test ! -e /go; do usleep 1000; done; seq 1 50000 2>/dev/null; exit 4",
    );
    let logger = sandbox.path().join("logger");
    let folder = sandbox.path().display();
    let script = format!("#!/bin/sh\nexec 5>&-\nread line <&3\necho \"$line\" > {folder}/read\nkill -9 $$\n");
    fs::write(&logger, script).expect("write the logger");
    fs::set_permissions(&logger, fs::Permissions::from_mode(0o755)).expect("make it executable");
    let shim = Shim::start(&sandbox, &bundle);
    let mut request = shim.request();
    request.stdout = format!("binary://{}", logger.display());
    request.stderr.clone_from(&request.stdout);
    shim.tasks
        .create(ttrpc::context::with_duration(Duration::from_mins(1)), &request)
        .expect("create");
    shim.start_process("");
    eventually("the logger has read a line, and dies", || {
        (fs::read_to_string(sandbox.path().join("read")).ok()? == "first\n").then_some(())
    });
    fs::write(bundle.rootfs().join("go"), "").expect("let the container write more than a pipe holds");
    assert_eq!(shim.wait(""), 4);
    shim.end();
}

#[test]
fn a_terminal_that_nobody_reads_does_not_stop_its_process() {
    let sandbox = Sandbox::new();
    let mut bundle = Bundle::new(&sandbox, "seq 1 50000; exit 4");
    bundle.set("/process/terminal", serde_json::json!(true));
    let logger = sandbox.path().join("logger");
    fs::write(&logger, "#!/bin/sh\nexec 5>&-\nread line <&3\nkill -9 $$\n").expect("write the logger");
    fs::set_permissions(&logger, fs::Permissions::from_mode(0o755)).expect("make it executable");
    for stdout in [String::new(), format!("binary://{}", logger.display())] {
        let shim = Shim::start(&sandbox, &bundle);
        let mut request = shim.request();
        (request.terminal, request.stdout) = (true, stdout);
        shim.tasks
            .create(ttrpc::context::with_duration(Duration::from_mins(1)), &request)
            .expect("create");
        shim.start_process("");
        assert_eq!(shim.wait(""), 4, "{:?}", request.stdout);
        shim.end();
    }
}

#[test]
fn sigterm_ends_an_empty_shim_and_no_other() {
    let sandbox = Sandbox::new();
    let (_bundle, shim) = sleeper(&sandbox);
    let pid = nix::unistd::Pid::from_raw(shim.pid().cast_signed());
    let terminate = || nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).expect("signal");
    terminate();
    shim.add_exec("e", "exit 6", &Streams::default()).expect("exec");
    shim.start_process("e");
    assert_eq!(shim.wait("e"), 6);
    shim.kill("", 9).expect("kill");
    shim.wait("");
    terminate();
    // Its exit may not be told yet to everybody who has a right to know it.
    assert_eq!(shim.delete("").expect("delete").exit_status, 137);
    terminate();
    eventually("the shim ends", || is_gone(shim.pid()).then_some(()));
    sandbox.assert_clean();
}
