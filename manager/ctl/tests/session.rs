//! The client's side of a session, on real pipes and a real pseudo-terminal, against a manager that pretends.

mod support;

use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use support::manager::{self, ID, Manager};
use support::terminal::Terminal;
use support::{managerctl, run, until, wait};

fn send(child: &std::process::Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("the client is alive");
}

/// stdout, stderr and exit code of a run to the end.
fn outcome(manager: &Manager, arguments: &[&str], stdin: &[u8]) -> (String, String, Option<i32>) {
    let output = run(managerctl(manager.socket(), arguments), stdin);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

#[test]
fn run_attaches_before_it_starts_and_asks_nothing_else() {
    let manager = Manager::start();
    let outcome = outcome(&manager, &["run", "--rm", "image", "echo", "-n", "hello"], b"");
    assert_eq!(outcome, ("-n hello\n".to_owned(), String::new(), Some(0)));
    assert_eq!(manager.calls(), ["create", "attach", "start"]);
    assert!(manager.created().auto_remove);
}

#[test]
fn exit_code_and_both_outputs_are_the_containers() {
    let manager = Manager::start();
    let outcome = outcome(&manager, &["run", "image", "fail"], b"");
    assert_eq!(outcome, ("out\n".to_owned(), "err\n".to_owned(), Some(3)));
}

#[test]
fn detached_run_prints_the_id_and_does_not_attach() {
    let manager = Manager::start();
    let outcome = outcome(&manager, &["run", "-d", "image", "echo"], b"");
    assert_eq!(outcome, (format!("{ID}\n"), String::new(), Some(0)));
    assert_eq!(manager.calls(), ["create", "start"]);
}

#[test]
fn an_image_that_is_not_here_is_pulled_unless_never() {
    let manager = Manager::start();
    manager.forget_image();
    let (_, stderr, code) = outcome(&manager, &["run", "--pull", "never", "image", "echo"], b"");
    assert_eq!(
        (stderr.as_str(), code),
        ("managerctl: image image is not here\n", Some(125))
    );

    let (stdout, stderr, code) = outcome(&manager, &["run", "image", "echo", "x"], b"");
    assert_eq!((stdout.as_str(), code), ("x\n", Some(0)));
    assert!(
        stderr.contains("0123456789ab: downloading (1.5kB)\n0123456789ab: done (1.5kB)\n"),
        "{stderr}"
    );
    assert_eq!(
        manager.calls(),
        ["create", "create", "pull image", "create", "attach", "start"]
    );
}

#[test]
fn pull_prints_the_name_of_what_it_pulled() {
    let manager = Manager::start();
    let (stdout, _, code) = outcome(&manager, &["pull", "debian"], b"");
    assert_eq!(
        (stdout.as_str(), code),
        ("Digest: sha256:feed\ndocker.io/library/debian:latest\n", Some(0))
    );
    let quiet = outcome(&manager, &["pull", "-q", "debian"], b"");
    assert_eq!(
        quiet,
        (
            "docker.io/library/debian:latest\n".to_owned(),
            String::new(),
            Some(0)
        )
    );
}

#[test]
fn on_a_terminal_a_pull_says_at_once_what_it_waits_for() {
    let manager = Manager::start();
    let terminal = Terminal::open(80, 24);
    let mut child = terminal.spawn(&managerctl(manager.socket(), &["pull", "debian"]));
    assert_eq!(wait(&mut child).code(), Some(0));
    terminal.wait_for("Digest: sha256:feed");
    let screen = terminal.screen();
    let asking = screen.find("debian: asking the registry");
    assert!(
        asking.is_some() && asking < screen.find("0123456789ab"),
        "{screen:?}"
    );
}

#[test]
fn a_command_that_is_not_there_is_127_and_rm_leaves_nothing() {
    let manager = Manager::start();
    let (_, stderr, code) = outcome(&manager, &["run", "--rm", "image", "missing"], b"");
    assert!(stderr.contains("exec missing: No such file"), "{stderr}");
    assert_eq!(code, Some(127));
    assert_eq!(
        manager.calls(),
        ["create", "attach", "start", "remove force=false"]
    );

    manager.have_running("listen", false);
    assert_eq!(outcome(&manager, &["exec", ID, "missing"], b"").2, Some(127));
}

#[test]
fn stdin_is_passed_whole_and_its_end_too() {
    let manager = Manager::start();
    let data = manager::bulk();
    let output = run(
        managerctl(manager.socket(), &["run", "-i", "image", "cat"]),
        &data,
    );
    assert_eq!(output.status.code(), Some(0));
    assert!(
        output.stdout == data,
        "{} of {} bytes came back",
        output.stdout.len(),
        data.len()
    );
    assert!(manager.created().open_stdin && manager.created().stdin_once);
}

#[test]
fn stdin_is_left_alone_without_i() {
    let manager = Manager::start();
    let (stdout, ..) = outcome(&manager, &["run", "image", "echo", "x"], b"not read");
    assert_eq!(stdout, "x\n");
    assert!(!manager.created().open_stdin);
}

#[test]
fn output_is_written_whole_to_a_slow_reader() {
    let manager = Manager::start();
    let mut command = managerctl(manager.socket(), &["run", "image", "bulk"]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    // By now everything between is full, and the client must not have given up.
    until("the program is started", || {
        manager.calls().last().is_some_and(|call| call == "start")
    });
    let mut data = Vec::new();
    stdout.read_to_end(&mut data).unwrap();
    assert!(data == manager::bulk(), "{} bytes came", data.len());
    assert_eq!(wait(&mut child).code(), Some(0));
}

#[test]
fn a_reader_that_has_gone_is_no_error_to_tell() {
    let manager = Manager::start();
    for arguments in [
        &["run", "image", "bulk"][..],
        &["ps", "-q", "--no-trunc"],
        &["ps"],
    ] {
        let mut command = managerctl(manager.socket(), arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
        assert_eq!(output.status.code(), Some(141), "{arguments:?}");
    }
}

#[test]
fn signals_reach_the_container_and_not_the_client() {
    let manager = Manager::start();
    let mut command = managerctl(manager.socket(), &["run", "image", "signals"]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut read_line = || {
        let mut line = Vec::new();
        let mut byte = [0];
        while stdout.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    };
    assert_eq!(read_line(), "ready");
    for (signal, name) in [
        (Signal::INT, "SIGINT"),
        (Signal::HUP, "SIGHUP"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::USR1, "SIGUSR1"),
    ] {
        send(&child, signal);
        assert_eq!(read_line(), name);
    }
    send(&child, Signal::TERM);
    assert_eq!(read_line(), "SIGTERM");
    assert_eq!(wait(&mut child).code(), Some(143));
}

#[test]
fn without_sig_proxy_a_signal_ends_the_client_only() {
    let manager = Manager::start();
    let mut command = managerctl(
        manager.socket(),
        &["run", "--sig-proxy=false", "image", "signals"],
    );
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    until("the program is started", || {
        manager.calls().last().is_some_and(|call| call == "start")
    });
    send(&child, Signal::TERM);
    assert_eq!(wait(&mut child).signal(), Some(15));
}

#[test]
fn a_manager_that_leaves_without_an_exit_is_an_error() {
    let manager = Manager::start();
    let (_, stderr, code) = outcome(&manager, &["run", "image", "lost"], b"");
    assert!(stderr.contains("before it knew of an exit"), "{stderr}");
    assert_eq!(code, Some(125));
}

#[test]
fn a_manager_that_dies_leaves_a_terminal_as_it_was() {
    let manager = Manager::start();
    let terminal = Terminal::open(80, 24);
    let mut child = terminal.spawn(&managerctl(manager.socket(), &["run", "-it", "image", "listen"]));
    until("the terminal is raw", || terminal.is_raw());
    until("the program is started", || {
        manager.calls().last().is_some_and(|call| call == "start")
    });
    drop(manager);
    assert_eq!(wait(&mut child).code(), Some(125));
    assert!(terminal.is_cooked());
    terminal.wait_for("containers run on without the manager");
}

#[test]
fn no_manager_is_said_with_the_socket_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("none.sock");
    let output = run(managerctl(&socket, &["ps"]), b"");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.starts_with("managerctl: no manager answers at ") && stderr.contains("none.sock"),
        "{stderr}"
    );
    assert!(stderr.contains("\nhint: "), "{stderr}");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        run(managerctl(&socket, &["run", "image"]), b"").status.code(),
        Some(125)
    );
}

#[test]
fn a_terminal_is_raw_during_the_session_and_knows_its_size() {
    let manager = Manager::start();
    let mut terminal = Terminal::open(100, 30);
    let mut child = terminal.spawn(&managerctl(manager.socket(), &["run", "-it", "image", "listen"]));
    until("the terminal is raw", || terminal.is_raw());
    let created = manager.created();
    assert!(created.tty && created.open_stdin);
    assert_eq!((created.tty_columns, created.tty_rows), (100, 30));
    // ^C and ^Z are keys like others.
    terminal.type_in(b"\x03\x1a");
    terminal.wait_for(r#"stdin "\u{3}\u{1a}""#);
    terminal.resize(120, 40);
    terminal.wait_for("size 120x40");
    assert!(
        !terminal.screen().contains("size 100x30"),
        "the manager knew that already"
    );
    terminal.type_in(b"q");
    assert_eq!(wait(&mut child).code(), Some(5));
    assert!(terminal.is_cooked());
}

#[test]
fn detach_keys_leave_quietly_even_when_split() {
    let manager = Manager::start();
    let mut terminal = Terminal::open(80, 24);
    let mut child = terminal.spawn(&managerctl(manager.socket(), &["run", "-it", "image", "listen"]));
    until("the terminal is raw", || terminal.is_raw());
    terminal.type_in(b"\x10");
    terminal.type_in(b"x");
    terminal.wait_for(r#"stdin "\u{10}x""#);
    terminal.type_in(b"\x10");
    // Something that shows that the first key was read by itself.
    terminal.resize(90, 24);
    terminal.wait_for("size 90x24");
    terminal.type_in(b"\x11");
    assert_eq!(wait(&mut child).code(), Some(0));
    assert!(terminal.is_cooked());
    // The screen has the last bytes a moment after the client has ended.
    terminal.wait_for("size 90x24\r\n\r\n");
    assert!(
        terminal.screen().ends_with("size 90x24\r\n\r\n"),
        "{:?}",
        terminal.screen()
    );
    until("the manager has seen it", || {
        manager.calls().contains(&"client left".to_owned())
    });
}

#[test]
fn what_is_typed_right_before_the_detach_keys_arrives() {
    let manager = Manager::start();
    let mut terminal = Terminal::open(80, 24);
    let mut child = terminal.spawn(&managerctl(manager.socket(), &["run", "-it", "image", "listen"]));
    until("the terminal is raw", || terminal.is_raw());
    terminal.type_in(b"last words\r\x10\x11");
    assert_eq!(wait(&mut child).code(), Some(0));
    let heard = r#"heard stdin "last words\r""#.to_owned();
    until("the words have arrived", || manager.calls().contains(&heard));
}

#[test]
fn a_signal_restores_the_terminal() {
    let manager = Manager::start();
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let terminal = Terminal::open(80, 24);
        let mut child = terminal.spawn(&managerctl(manager.socket(), &["run", "-it", "image", "listen"]));
        until("the terminal is raw", || terminal.is_raw());
        send(&child, signal);
        assert_eq!(wait(&mut child).code(), Some(code));
        assert!(terminal.is_cooked());
    }
}

#[test]
fn attach_has_a_program_paint_itself_and_detaches() {
    let manager = Manager::start();
    manager.have_running("listen", true);
    let mut terminal = Terminal::open(80, 24);
    let mut child = terminal.spawn(&managerctl(manager.socket(), &["attach", ID]));
    terminal.wait_for("size 80x25\r\nsize 80x24\r\n");
    terminal.type_in(b"\x10\x11");
    assert_eq!(wait(&mut child).code(), Some(0));
    assert_eq!(manager.calls()[..2], ["inspect", "attach"]);
}

#[test]
fn attach_without_stdin_leaves_the_keyboard_to_the_shell() {
    let manager = Manager::start();
    manager.have_running("listen", true);
    let terminal = Terminal::open(80, 24);
    let mut child = terminal.spawn(&managerctl(manager.socket(), &["attach", "--no-stdin", ID]));
    terminal.wait_for("size 80x24\r\n");
    assert!(terminal.is_cooked());
    send(&child, Signal::TERM);
    assert_eq!(wait(&mut child).code(), Some(143));
    assert!(terminal.makes_line_ends());
}

#[test]
fn output_of_a_terminal_is_shown_as_it_is_even_when_nobody_types() {
    let manager = Manager::start();
    let terminal = Terminal::open(80, 24);
    let mut child = terminal.spawn(&managerctl(manager.socket(), &["run", "-t", "image", "lines"]));
    assert_eq!(wait(&mut child).code(), Some(0));
    terminal.wait_for("two\r\n");
    assert_eq!(terminal.screen(), "one\r\ntwo\r\n");
    assert!(terminal.is_cooked() && terminal.makes_line_ends());
}

#[test]
fn a_socket_path_that_is_too_long_is_said_to_be() {
    let socket = std::path::PathBuf::from(format!("/{}", "x".repeat(107)));
    for (arguments, code) in [(&["ps"][..], 1), (&["run", "image"], 125)] {
        let output = run(managerctl(&socket, arguments), b"");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            stderr.contains("the path is too long for a socket: 108 bytes"),
            "{stderr}"
        );
        assert_eq!(output.status.code(), Some(code));
    }
}

#[test]
fn start_attached_relays_and_hands_the_exit_code_on() {
    let manager = Manager::start();
    assert_eq!(
        outcome(&manager, &["create", "-i", "image", "cat"], b"").2,
        Some(0)
    );
    let outcome = outcome(&manager, &["start", "-ai", ID], b"again");
    assert_eq!(outcome, ("again".to_owned(), String::new(), Some(0)));
    assert_eq!(manager.calls(), ["create", "inspect", "attach", "start"]);
}

#[test]
fn exec_has_its_own_stdin_terminal_and_exit_code() {
    let manager = Manager::start();
    let piped = outcome(&manager, &["exec", "-i", ID, "cat"], b"piped");
    assert_eq!(piped, ("piped".to_owned(), String::new(), Some(0)));
    assert_eq!(outcome(&manager, &["exec", ID, "fail"], b"").2, Some(3));
    assert_eq!(outcome(&manager, &["exec", "-d", ID, "fail"], b"").2, Some(0));

    let mut terminal = Terminal::open(70, 20);
    let mut child = terminal.spawn(&managerctl(manager.socket(), &["exec", "-it", ID, "listen"]));
    terminal.wait_for("size 70x20");
    until("the terminal is raw", || terminal.is_raw());
    terminal.resize(71, 21);
    terminal.wait_for("size 71x21");
    terminal.type_in(b"q");
    assert_eq!(wait(&mut child).code(), Some(5));
    assert!(terminal.is_cooked());
}

#[test]
fn a_terminal_that_nobody_types_at_is_refused() {
    let manager = Manager::start();
    let expected = "managerctl: the input device is not a TTY\n";
    let (_, stderr, code) = outcome(&manager, &["run", "-it", "image", "echo"], b"");
    assert_eq!((stderr.as_str(), code), (expected, Some(125)));
    let (_, stderr, code) = outcome(&manager, &["exec", "-it", ID, "echo"], b"");
    assert_eq!((stderr.as_str(), code), (expected, Some(1)));
    assert!(manager.calls().is_empty());
}

#[test]
fn colour_is_for_terminals_and_for_those_who_want_it() {
    let socket = std::path::Path::new("/nonexistent/manager.sock");
    let on_terminal = |command: &Command| {
        let terminal = Terminal::open(200, 24);
        wait(&mut terminal.spawn(command));
        terminal.wait_for("BERTH_SOCKET");
        terminal.screen()
    };
    let mut command = managerctl(socket, &["ps"]);
    assert!(on_terminal(&command).contains("\x1b[31mmanagerctl:\x1b[0m"));
    command.env("NO_COLOR", "1");
    assert!(!on_terminal(&command).contains('\x1b'));
    assert!(!run(command, b"").stderr.contains(&0x1b));
}
