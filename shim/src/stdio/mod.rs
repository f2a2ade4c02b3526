//! A process's three streams: what a client asked for (`Target`), what the process gets for its descriptors 0, 1, 2,
//! and what the shim keeps to feed and drain them.

pub mod fifo;
pub mod forward;
pub mod log;
pub mod logger;
pub mod pump;
pub mod target;
pub mod terminal;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::fchown;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::options::Options;
use crate::status::Status;
use crate::sys;
use crate::task::StreamNames;
use forward::Forward;
use log::{LogFile, Stream};
use logger::LoggerCommand;
use pump::{Pump, Sink};
use target::Target;
use terminal::ConsoleSocket;

/// The shim's side of a process's streams. The numbers name copies in [`pump::Pumps`].
#[derive(Debug, Default)]
pub struct Stdio {
    pub outputs: Vec<u32>,
    pub input: Option<u32>,
    /// The write end of the stdin fifo: while it is open, writers may come and go and stdin does not end.
    pub stdin_keeper: Option<OwnedFd>,
    /// The terminal's master side.
    pub terminal: Option<OwnedFd>,
    /// The logger process that reads the output, by the number it has at the daemon.
    pub logger: Option<u32>,
}

/// Descriptors for the process itself; `None` is /dev/null.
#[derive(Debug, Default)]
pub struct ChildStreams {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// Everything opened for a process that is about to be made. Dropped, it leaves nothing.
#[derive(Debug, Default)]
pub struct Prepared {
    pub child: ChildStreams,
    pub outputs: Vec<Pump>,
    pub input: Option<Pump>,
    pub stdin_keeper: Option<OwnedFd>,
    pub console: Option<Console>,
    pub logger: Option<LoggerCommand>,
}

/// A terminal that the runtime will make: where it sends the master, and what will be connected to it.
#[derive(Debug)]
pub struct Console {
    pub socket: ConsoleSocket,
    pub input: Option<OwnedFd>,
    pub output: Sink,
}

impl Prepared {
    /// Opens what `names` ask for. `console_path` is where a console socket would lie.
    pub fn open(
        names: &StreamNames,
        options: &Options,
        console_path: &Path,
        environment: &logger::Environment,
    ) -> Result<Self, Status> {
        let parse = |uri: &str| Target::parse(uri).map_err(Status::invalid_argument);
        let (stdin, stdout, stderr) = (parse(&names.stdin)?, parse(&names.stdout)?, parse(&names.stderr)?);
        if names.terminal {
            return Self::open_terminal(names, &stdin, stdout, console_path, environment);
        }
        let mut prepared = Self::default();
        prepared.open_stdin(&stdin, &names.stdin, options)?;
        if let Target::Logger(command) = stdout {
            let (command, out, err) =
                LoggerCommand::prepare(command, environment).map_err(Status::unknown)?;
            own_by(&out, options)?;
            own_by(&err, options)?;
            prepared.child.stdout = Some(out);
            prepared.child.stderr = Some(err);
            prepared.logger = Some(command);
            return Ok(prepared);
        }
        let mut shared_log = None;
        for (target, name, stream) in [
            (stdout, &names.stdout, Stream::Stdout),
            (stderr, &names.stderr, Stream::Stderr),
        ] {
            let Some(sink) = open_sink(&target, stream, &mut shared_log)
                .map_err(|error| Status::unknown(format!("open {name} for {}: {error}", stream.name())))?
            else {
                continue;
            };
            let (read, write) =
                sys::pipe().map_err(|error| Status::unknown(format!("make a pipe: {error}")))?;
            own_by(&write, options)?;
            prepared
                .outputs
                .push(Pump::output(read, sink).map_err(Status::unknown)?);
            match stream {
                Stream::Stdout => prepared.child.stdout = Some(write),
                Stream::Stderr => prepared.child.stderr = Some(write),
            }
        }
        Ok(prepared)
    }

    fn open_stdin(&mut self, target: &Target, name: &str, options: &Options) -> Result<(), Status> {
        let failed = |error: io::Error| Status::unknown(format!("open {name} for stdin: {error}"));
        let Target::Path(path) = target else {
            return refuse_stdin(target, name);
        };
        let source = fifo::open_for_reading(path).map_err(failed)?;
        let Some(keeper) = source.keeper else {
            // A plain file or a device: the process may read it itself.
            self.child.stdin = Some(source.fd);
            return Ok(());
        };
        let (read, write) = sys::pipe().map_err(failed)?;
        own_by(&read, options)?;
        self.input = Some(Pump::input(source.fd, Sink::pipe(write).map_err(failed)?).map_err(failed)?);
        self.child.stdin = Some(read);
        self.stdin_keeper = Some(keeper);
        Ok(())
    }

    fn open_terminal(
        names: &StreamNames,
        stdin: &Target,
        stdout: Target,
        console_path: &Path,
        environment: &logger::Environment,
    ) -> Result<Self, Status> {
        let mut prepared = Self::default();
        let mut input = None;
        if let Target::Path(path) = stdin {
            let source = fifo::open_for_reading(path)
                .map_err(|error| Status::unknown(format!("open {} for stdin: {error}", names.stdin)))?;
            prepared.stdin_keeper = source.keeper;
            input = Some(source.fd);
        } else {
            refuse_stdin(stdin, &names.stdin)?;
        }
        let failed = |error| Status::unknown(format!("open {} for stdout: {error}", names.stdout));
        let output = if let Target::Logger(command) = stdout {
            // A terminal has no stderr: the logger finds that at its end at once.
            let (command, out, _) = LoggerCommand::prepare(command, environment).map_err(Status::unknown)?;
            prepared.logger = Some(command);
            Sink::pipe(out).map_err(failed)?
        } else {
            open_sink(&stdout, Stream::Stdout, &mut None)
                .map_err(failed)?
                .unwrap_or(Sink::Nowhere)
        };
        let socket = ConsoleSocket::bind(console_path).map_err(Status::unknown)?;
        prepared.console = Some(Console {
            socket,
            input,
            output,
        });
        Ok(prepared)
    }
}

fn refuse_stdin(target: &Target, name: &str) -> Result<(), Status> {
    match target {
        Target::Null | Target::Path(_) => Ok(()),
        _ => Err(Status::invalid_argument(format!(
            "stdin {name} must be the path of a fifo or a file"
        ))),
    }
}

fn open_sink(
    target: &Target,
    stream: Stream,
    shared_log: &mut Option<(PathBuf, log::Shared)>,
) -> io::Result<Option<Sink>> {
    Ok(match target {
        Target::Null => None,
        Target::Path(path) => Some(fifo::open_for_writing(path)?),
        Target::File(path) => Some(Sink::append_to(path)?),
        Target::Log(settings, forward) => {
            let shared = match shared_log {
                Some((path, log)) if *path == settings.path => Rc::clone(log),
                _ => Rc::new(LogFile::open(settings)?.into()),
            };
            *shared_log = Some((settings.path.clone(), Rc::clone(&shared)));
            Some(match forward {
                None => Sink::Log(shared, stream),
                Some(settings) => {
                    let forward = Forward::open((**settings).clone(), stream).map_err(|error| {
                        let receiver = &settings.receiver;
                        io::Error::new(error.kind(), format!("connect to {receiver}: {error}"))
                    })?;
                    Sink::Forward(Box::new(forward), shared, stream)
                }
            })
        }
        Target::Logger(_) => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a logger takes stdout and stderr together",
            ));
        }
    })
}

/// Gives a pipe to the user that `IoUid` and `IoGid` name, so that a process which is not root may reopen it.
fn own_by(pipe: &OwnedFd, options: &Options) -> Result<(), Status> {
    if (options.io_uid, options.io_gid) == (0, 0) {
        return Ok(());
    }
    fchown(pipe, Some(options.io_uid), Some(options.io_gid)).map_err(|error| {
        Status::unknown(format!(
            "give a pipe to {}:{}: {error}",
            options.io_uid, options.io_gid
        ))
    })
}
