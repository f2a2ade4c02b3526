//! `binary://` loggers: a process that reads a container's output from its descriptors 3 and 4 and says that it is
//! ready by closing or writing to 5, as containerd's logging protocol has it (core/runtime/v2/README.md there).

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio as CommandStdio};
use std::time::Duration;

use crate::sys;

/// How long a logger may take to say that it is ready.
pub const READY: Duration = Duration::from_secs(10);
/// How long it may take to end after its input did, before it is told to and then killed.
pub const END: Duration = Duration::from_secs(10);

#[derive(Debug, PartialEq, Eq)]
pub struct LoggerUri {
    pub path: PathBuf,
    /// Keys and values become arguments in their order.
    pub arguments: Vec<(String, String)>,
}

/// What a logger is told of the container.
#[derive(Debug, Clone)]
pub struct Environment {
    pub container_id: String,
    pub namespace: String,
}

/// A logger to be started, and the pipe on which it says that it is ready.
#[derive(Debug)]
pub struct LoggerCommand {
    pub command: Command,
    pub ready: OwnedFd,
}

impl LoggerCommand {
    /// Also returns the write ends for the container's stdout and stderr.
    pub fn prepare(uri: LoggerUri, environment: &Environment) -> Result<(Self, OwnedFd, OwnedFd), String> {
        let name = uri.path.display().to_string();
        let failed = |error: io::Error| format!("prepare logger {name}: {error}");
        let mut command = Command::new(&uri.path);
        for (key, value) in uri.arguments {
            command.arg(key);
            if !value.is_empty() {
                command.arg(value);
            }
        }
        command
            .env("CONTAINER_ID", &environment.container_id)
            .env("CONTAINER_NAMESPACE", &environment.namespace)
            .stdin(CommandStdio::null())
            .stdout(CommandStdio::null())
            .stderr(CommandStdio::null());
        let (out_read, out_write) = sys::pipe().map_err(failed)?;
        let (err_read, err_write) = sys::pipe().map_err(failed)?;
        let (ready, ready_write) = sys::pipe().map_err(failed)?;
        sys::set_nonblocking(&ready, true).map_err(failed)?;
        let mut descriptors = Vec::with_capacity(3);
        for fd in [out_read, err_read, ready_write] {
            descriptors.push(sys::duplicate(&fd).map_err(failed)?);
        }
        sys::logger_command(&mut command, descriptors);
        Ok((Self { command, ready }, out_write, err_write))
    }
}
