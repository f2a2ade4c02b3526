//! The way to a manager of another machine through ssh: its socket is joined there by `managerctl system dial-stdio`,
//! whose standard streams ssh carries. ssh asks, checks and tells by itself, as the person has configured it.

use std::io;
use std::process::Stdio;

use hyper_util::rt::TokioIo;
use tokio::io::Join;
use tokio::process::{ChildStdin, ChildStdout, Command};

use crate::host::Ssh;

/// What hyper reads from and writes to.
pub(crate) type Tunnel = TokioIo<Join<ChildStdout, ChildStdin>>;

/// Start ssh. It ends when the tunnel is closed.
pub(crate) fn open(ssh: &Ssh) -> io::Result<Tunnel> {
    let mut command = Command::new("ssh");
    // No terminal there: it would change bytes.
    command.args(["-T", "-o", "ConnectTimeout=30"]);
    if let Some(user) = &ssh.user {
        command.args(["-l", user]);
    }
    if let Some(port) = ssh.port {
        command.args(["-p", &port.to_string()]);
    }
    if crate::complete::is_asked() {
        // Somebody types at this terminal: nothing is asked there, or said, and nothing outlives the moment.
        command
            .args(["-o", "BatchMode=yes"])
            .stderr(Stdio::null())
            .kill_on_drop(true);
    }
    let mut child = command
        .args(["--", &ssh.machine, "managerctl", "system", "dial-stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("start ssh: {error}")))?;
    match (child.stdout.take(), child.stdin.take()) {
        (Some(stdout), Some(stdin)) => Ok(TokioIo::new(tokio::io::join(stdout, stdin))),
        _ => Err(io::Error::other("ssh was started without pipes")),
    }
}
