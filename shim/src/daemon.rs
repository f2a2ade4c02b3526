//! The process that stays: its state, and the loop that hands each wake-up to who it belongs to.
//!
//! Nothing here waits for anything but the loop. What takes long (the runtime, a logger, a reader of output) is started
//! and remembered, and its end continues the work: `Then` says how.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::bootstrap::GO;
use crate::events::{Events, Receiver};
use crate::reactor::{Deadline, Reactor, Token, Wake};
use crate::runtime::{CallLog, without_verb};
use crate::sandbox::{Sandbox, Step};
use crate::shim_log;
use crate::status::Status;
use crate::stdio::pump::Pumps;
use crate::stdio::terminal::ConsoleSocket;
use crate::stdio::{Prepared, logger};
use crate::sys::{self, Interest, OpenFiles, SignalPipe};
use crate::task::{Container, Exit, Phase, ProcessKey, Reply};
use crate::ttrpc::Connection;

/// What the daemon half is told on its command line.
#[derive(Debug, Clone, Default)]
pub struct Config {
    pub id: String,
    pub namespace: String,
    pub bundle: PathBuf,
    pub debug: bool,
    /// The listening socket's path; it goes with the daemon.
    pub socket: PathBuf,
    /// containerd's address and binary, for events.
    pub address: String,
    pub publish_binary: String,
    pub ttrpc_address: String,
}

/// Exit statuses above this one tell of a signal.
const SIGNALLED: u32 = 128;

/// What is to be done when a runtime command has ended.
#[derive(Debug)]
pub(crate) enum Then {
    Created {
        reply: Reply,
        id: String,
        console: Option<crate::stdio::Console>,
    },
    /// A container that was made but can't be kept was deleted; the reason for it is the answer.
    Discarded {
        reply: Reply,
        id: String,
        why: Status,
    },
    Started {
        reply: Reply,
        id: String,
    },
    Restored {
        reply: Reply,
        id: String,
        console: Option<crate::stdio::Console>,
    },
    Executed {
        reply: Reply,
        key: ProcessKey,
        console: Option<crate::stdio::Console>,
        process_file: PathBuf,
    },
    /// A verb without consequences but its answer and, for some, a state.
    Answer {
        reply: Reply,
        id: String,
        effect: Effect,
    },
    /// The processes that outlived init were killed.
    SurvivorsKilled {
        id: String,
    },
    Deleted {
        reply: Reply,
        id: String,
    },
    Sandbox {
        reply: Reply,
        step: Step,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    Killed,
    Paused,
    Resumed,
    Updated,
    Checkpointed { path: String },
}

/// A runtime command that runs.
#[derive(Debug)]
pub(crate) struct Call {
    pub verb: &'static str,
    pub log: CallLog,
    /// Where its stdout and stderr go, unless they are the container's.
    pub output: Option<File>,
    pub then: Then,
}

/// A `binary://` logger and what waits for it.
#[derive(Debug)]
pub(crate) struct Logger {
    pub pid: u32,
    pub ready: Option<OwnedFd>,
    pub pending: Option<Box<Pending>>,
}

/// A process whose streams are open, and that the runtime is to make next.
#[derive(Debug)]
pub(crate) struct Pending {
    pub reply: Reply,
    pub key: ProcessKey,
    pub prepared: Prepared,
    pub making: Making,
}

/// The verb of the runtime that makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Making {
    Create,
    Restore,
    Exec,
}

#[derive(Debug)]
pub struct Shim {
    pub(crate) config: Config,
    pub(crate) reactor: Reactor,
    signals: SignalPipe,
    pub(crate) listener: UnixListener,
    pub(crate) accepting: bool,
    pub(crate) connections: BTreeMap<u32, Connection>,
    pub(crate) last_connection: u32,
    /// The connection that asked for the removal of a container last.
    pub(crate) last_remover: Option<u32>,
    pub(crate) containers: BTreeMap<String, Container>,
    /// The pod whose containers these are, when containerd made it by the sandbox service.
    pub(crate) sandbox: Option<Sandbox>,
    pub(crate) last_number: u32,
    pub(crate) pids: BTreeMap<u32, ProcessKey>,
    pub(crate) calls: BTreeMap<u32, Call>,
    /// Ends of processes that no finished `create` or `exec` has told us about yet.
    pub(crate) early_exits: BTreeMap<u32, Exit>,
    pub(crate) pumps: Pumps,
    pub(crate) loggers: BTreeMap<u32, Logger>,
    pub(crate) events: Events,
    pub(crate) open_files: OpenFiles,
    /// No new container, and the end as soon as it may be.
    pub(crate) ending: bool,
    /// The time for the last events runs.
    last_events: bool,
    ended: bool,
}

impl Shim {
    pub fn new(config: Config, listener: UnixListener) -> io::Result<Self> {
        let reactor = Reactor::new()?;
        let signals = SignalPipe::install()?;
        sys::become_subreaper()?;
        reactor.watch(&listener, Token::Listener, Interest::Readable)?;
        reactor.watch(&signals, Token::Signals, Interest::Readable)?;
        let receiver = if !config.ttrpc_address.is_empty() {
            Some(Receiver::Ttrpc {
                address: config.ttrpc_address.clone().into(),
            })
        } else if !config.publish_binary.is_empty() {
            Some(Receiver::Binary {
                binary: config.publish_binary.clone().into(),
                address: config.address.clone(),
            })
        } else {
            None
        };
        let events = Events::new(receiver, &config.namespace);
        Ok(Self {
            config,
            reactor,
            signals,
            listener,
            accepting: true,
            connections: BTreeMap::new(),
            last_connection: 0,
            last_remover: None,
            containers: BTreeMap::new(),
            sandbox: None,
            last_number: 0,
            pids: BTreeMap::new(),
            calls: BTreeMap::new(),
            early_exits: BTreeMap::new(),
            pumps: Pumps::default(),
            loggers: BTreeMap::new(),
            events,
            open_files: OpenFiles::raise()?,
            ending: false,
            last_events: false,
            ended: false,
        })
    }

    /// Serves until a shutdown.
    pub fn run(&mut self) -> io::Result<()> {
        while !self.ended {
            for wake in self.reactor.wait()? {
                match wake {
                    Wake::Ready {
                        token,
                        readable,
                        writable,
                    } => self.ready(token, readable, writable),
                    Wake::Due(deadline) => self.due(deadline),
                }
            }
            self.end_when_done();
        }
        // The last answers are small and the sockets empty: what does not fit now, no client waits for.
        for connection in self.connections.values_mut() {
            let _ = connection.flush();
        }
        let _ = std::fs::remove_file(&self.config.socket);
        Ok(())
    }

    fn ready(&mut self, token: Token, readable: bool, writable: bool) {
        match token {
            Token::Listener => self.accept(),
            Token::Signals => self.signalled(),
            Token::Publisher => self.events.ready(&mut self.reactor),
            Token::OutOfMemory(number) => self.memory_ran_out(number),
            Token::Connection(number) => self.connection_ready(number, readable, writable),
            Token::Source(number) | Token::Sink(number) => {
                self.pumps.advance(number, &self.reactor);
                self.await_readers();
                self.continue_deletes();
            }
            Token::Logger(number) => self.logger_ready(number),
        }
    }

    fn due(&mut self, deadline: Deadline) {
        match deadline {
            Deadline::Delete(key) => self.delete_now(&key),
            Deadline::Reader(number, looks) => self.look_for_reader(number, looks),
            Deadline::OutOfMemory(number) => self.look_again_for_memory_kills(number),
            Deadline::Publish => self.events.retry(&mut self.reactor),
            Deadline::LoggerReady(number) => {
                self.logger_failed(number, "did not say in time that it is ready");
            }
            Deadline::LoggerEnd(number) => self.end_logger(number),
            Deadline::Accept => {
                self.accepting = self
                    .reactor
                    .watch(&self.listener, Token::Listener, Interest::Readable)
                    .is_ok();
                self.accept();
            }
            Deadline::Exit => self.ended = true,
        }
    }

    /// SIGCHLD, or a request to end. All children are reaped at once, whatever else is to be done.
    fn signalled(&mut self) {
        if self.signals.acknowledge() {
            if self.is_empty() {
                shim_log::info(format_args!("told to end by a signal, and no container is left"));
                self.end();
            } else {
                // Whoever stops services by name must not take the containers' exit statuses along.
                let sandbox = if self.sandbox.is_some() {
                    "a sandbox and "
                } else {
                    ""
                };
                shim_log::warn(format_args!(
                    "SIGTERM ignored: {sandbox}{} containers are here",
                    self.containers.len()
                ));
            }
        }
        while let Some(child) = sys::reap() {
            let exit = Exit {
                status: child.status,
                at: SystemTime::now(),
            };
            if let Some(call) = self.calls.remove(&child.pid) {
                self.continue_call(call, child.status);
                if !self.is_starting() {
                    self.early_exits.clear();
                }
            } else if self.is_sandbox(child.pid) {
                self.sandbox_ended(exit);
            } else if let Some(key) = self.pids.remove(&child.pid) {
                self.process_ended(&key, exit);
            } else if !self
                .events
                .child_ended(child.pid, child.status, &mut self.reactor)
                && !self.logger_ended(child.pid, child.status)
                && self.is_starting()
            {
                self.early_exits.insert(child.pid, exit);
            }
        }
    }

    /// Whether a command runs whose process we don't know yet.
    fn is_starting(&self) -> bool {
        self.calls.values().any(|call| {
            matches!(
                call.then,
                Then::Created { .. }
                    | Then::Restored { .. }
                    | Then::Executed { .. }
                    | Then::Sandbox {
                        step: Step::Create,
                        ..
                    }
            )
        })
    }

    /// Starts a runtime command. Its output goes to memory, unless `own_streams` says that the command has streams.
    pub(crate) fn call(
        &mut self,
        verb: &'static str,
        mut command: Command,
        own_streams: bool,
        log: CallLog,
        then: Then,
    ) -> Result<(), Status> {
        let mut output = None;
        if !own_streams {
            let prepared = sys::memfd("output").and_then(|file| {
                command.stdout(file.try_clone()?).stderr(file.try_clone()?);
                Ok(file)
            });
            match prepared {
                Ok(file) => output = Some(file),
                Err(error) => {
                    return Err(Status::unknown(format!("prepare a call of the runtime: {error}")));
                }
            }
        }
        match self.open_files.spawn(&mut command) {
            Ok(child) => {
                self.calls.insert(
                    child.id(),
                    Call {
                        verb,
                        log,
                        output,
                        then,
                    },
                );
                Ok(())
            }
            Err(error) => {
                let binary = command.get_program().to_string_lossy();
                Err(Status::unknown(format!("start the runtime {binary:?}: {error}")))
            }
        }
    }

    fn continue_call(&mut self, call: Call, status: u32) {
        let result = if status == 0 {
            Ok(())
        } else {
            Err(self.call_failure(&call, status))
        };
        match call.then {
            Then::Created { reply, id, console } => {
                let killed = status > SIGNALLED;
                self.created(reply, &id, console, killed, result);
            }
            Then::Discarded { reply, id, why } => self.discarded(reply, &id, why, result),
            Then::Started { reply, id } => self.started(reply, &id, result),
            Then::Restored { reply, id, console } => self.restored(reply, &id, console, result),
            Then::Executed {
                reply,
                key,
                console,
                process_file,
            } => {
                let _ = std::fs::remove_file(process_file);
                self.executed(reply, &key, console, result);
            }
            Then::Answer { reply, id, effect } => self.verb_done(reply, &id, effect, result),
            Then::SurvivorsKilled { id } => self.survivors_killed(&id, result),
            Then::Deleted { reply, id } => self.deleted(reply, &id, result),
            Then::Sandbox { reply, step } => self.sandbox_called(reply, step, result),
        }
    }

    /// What a failed command says of itself: its log, or else its output, or else its exit status.
    fn call_failure(&mut self, call: &Call, status: u32) -> Status {
        let verb = call.verb;
        let said = call
            .log
            .last_error()
            .or_else(|| call.output.as_ref().and_then(tail_of))
            .or_else(|| match &call.then {
                Then::Created { id, .. } | Then::Restored { id, .. } => {
                    self.held_output(&ProcessKey::init(id))
                }
                _ => None,
            });
        match said {
            Some(text) => Status::unknown(format!("runtime {verb}: {}", without_verb(&text, verb))),
            None => Status::unknown(format!("runtime {verb}: exit status {status} without a word")),
        }
    }

    pub(crate) fn container(&self, id: &str) -> Result<&Container, Status> {
        self.containers.get(id).ok_or_else(|| no_container(id))
    }

    pub(crate) fn container_mut(&mut self, id: &str) -> Result<&mut Container, Status> {
        self.containers.get_mut(id).ok_or_else(|| no_container(id))
    }

    /// The address of a new console socket: beside our own socket, whose name cannot be guessed.
    pub(crate) fn console_path(&mut self) -> PathBuf {
        self.last_number = self.last_number.wrapping_add(1);
        let mut path = self.config.socket.clone().into_os_string();
        path.push(format!(".{}", self.last_number));
        path.into()
    }

    pub(crate) fn logger_environment(&self, id: &str) -> logger::Environment {
        logger::Environment {
            container_id: id.to_owned(),
            namespace: self.config.namespace.clone(),
        }
    }

    /// Whether nothing needs this shim.
    pub(crate) fn is_empty(&self) -> bool {
        self.containers.is_empty() && self.sandbox.is_none()
    }

    /// Ends the daemon once no container runs and the events are delivered, or their time is over. Stopped containers
    /// that nobody deleted have their exit on disk and are left to the `delete` command.
    pub(crate) fn end(&mut self) {
        self.ending = true;
    }

    /// A container went. If whoever asked for that is gone too, or goes before it asks for more, nobody will: the next
    /// containerd may have found the container here before, and would keep an empty shim for ever.
    pub(crate) fn end_if_forsaken(&mut self, reply: Reply) {
        self.last_remover = Some(reply.connection);
        if !self.connections.contains_key(&reply.connection) {
            self.remover_is_gone(reply.connection);
        }
    }

    pub(crate) fn remover_is_gone(&mut self, connection: u32) {
        if self.is_empty() && self.last_remover == Some(connection) {
            self.end();
        }
    }

    fn end_when_done(&mut self) {
        const EVENTS: Duration = Duration::from_secs(3);
        let all_stopped =
            self.containers.values().all(|container| {
                matches!(container.init.phase, Phase::Stopped(_)) || container.is_unrestored()
            }) && !self.sandbox.as_ref().is_some_and(Sandbox::is_live);
        if !self.ending || !all_stopped {
            return;
        }
        if self.events.is_empty() {
            self.ended = true;
        } else if !self.last_events {
            self.last_events = true;
            self.reactor.after(EVENTS, Deadline::Exit);
        }
    }

    /// The console socket of a finished call gives the terminal.
    pub(crate) fn receive_terminal(socket: &ConsoleSocket) -> Result<OwnedFd, Status> {
        socket.receive().map_err(Status::unknown)
    }
}

fn no_container(id: &str) -> Status {
    Status::not_found(format!("no container {id:?} in this shim"))
}

fn tail_of(output: &File) -> Option<String> {
    use std::os::unix::fs::FileExt;
    const TAIL_BYTES: u64 = 4096;
    let length = output.metadata().ok()?.len();
    let mut bytes = vec![0; length.min(TAIL_BYTES) as usize];
    output
        .read_exact_at(&mut bytes, length.saturating_sub(TAIL_BYTES))
        .ok()?;
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// Waits for `start` to say that the address was told.
fn is_wanted() -> bool {
    let mut word = [0; GO.len()];
    let read = sys::take_stdin().and_then(|mut stdin| stdin.read_exact(&mut word));
    read.is_ok() && word == GO
}

/// Becomes the daemon on the socket that `start` left as descriptor 3, and serves until a shutdown.
pub fn serve(arguments: &crate::arguments::Arguments) -> io::Result<()> {
    let listener = sys::take_listener()?;
    sys::close_inherited()?;
    // A logger gets its pipes as 3, 4 and 5. These numbers must never be the pipe by which std learns of a failed exec.
    let _reserved = sys::reserve_descriptors()?;
    let bundle = std::env::current_dir()?;
    shim_log::open(&bundle, arguments.debug);
    let config = Config {
        id: arguments.id.clone(),
        namespace: arguments.namespace.clone(),
        bundle,
        debug: arguments.debug,
        socket: arguments.socket.clone().into(),
        address: arguments.address.clone(),
        publish_binary: arguments.publish_binary.clone(),
        ttrpc_address: std::env::var("TTRPC_ADDRESS").unwrap_or_default(),
    };
    shim_log::debug(format_args!(
        "shim {} of namespace {} is ready",
        std::process::id(),
        config.namespace
    ));
    let result = Shim::new(config, listener).and_then(|mut shim| {
        if is_wanted() {
            shim.run()
        } else {
            // Nobody has its address, so nobody else could remove it.
            std::fs::remove_file(&shim.config.socket)
        }
    });
    if let Err(error) = &result {
        shim_log::error(format_args!("shim ends: {error}"));
    }
    result
}
