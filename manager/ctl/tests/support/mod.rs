//! What the tests of the client stand on: a manager that only pretends, and a terminal that is real.

pub(crate) mod manager;
pub(crate) mod terminal;

use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// Nothing here takes a second; a busy machine may need more.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// `managerctl`, to speak to a manager at this socket.
pub(crate) fn managerctl(socket: &std::path::Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_managerctl"));
    command
        .args(arguments)
        .env("BERTH_SOCKET", socket)
        .env("DOCKER_CONFIG", "/nonexistent")
        .env_remove("BERTH_HOST")
        .env_remove("NO_COLOR");
    command
}

/// Runs to the end, with this on stdin.
pub(crate) fn run(mut command: Command, stdin: &[u8]) -> Output {
    use std::io::Write as _;
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("managerctl can be started");
    let mut pipe = child.stdin.take().expect("stdin is a pipe");
    let stdin = stdin.to_vec();
    let writer = std::thread::spawn(move || {
        // The client may well end without having read it all.
        let _ = pipe.write_all(&stdin);
    });
    let output = child.wait_with_output().expect("managerctl can be waited for");
    writer.join().expect("the writer does not panic");
    output
}

/// Waits for a child, but not for ever.
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let mut ended = None;
    until("the client ends", || {
        ended = child.try_wait().expect("managerctl can be waited for");
        ended.is_some()
    });
    ended.expect("until() returned")
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
