//! A process's streams while it lives: connected when it is made, resized and closed by calls, taken down at its end.

use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use containerd_shim_protos::shim::shim as api;
use protobuf::well_known_types::empty::Empty;

use crate::daemon::Shim;
use crate::reactor::Deadline;
use crate::service::no_process;
use crate::status::Status;
use crate::stdio::pump::{Pump, Sink};
use crate::stdio::{ChildStreams, Console, Prepared, Stdio};
use crate::task::{ProcessKey, Reply};
use crate::{shim_log, sys};

impl ChildStreams {
    /// Makes these the descriptors 0, 1 and 2 of `command`.
    pub(crate) fn give_to(&mut self, command: &mut Command) {
        if let Some(stdin) = self.stdin.take() {
            command.stdin(stdin);
        }
        if let Some(stdout) = self.stdout.take() {
            command.stdout(stdout);
        }
        if let Some(stderr) = self.stderr.take() {
            command.stderr(stderr);
        }
    }
}

impl Shim {
    fn stdio_mut(&mut self, key: &ProcessKey) -> Option<&mut Stdio> {
        self.containers
            .get_mut(&key.container)?
            .process_mut(&key.exec)
            .map(|process| &mut process.stdio)
    }

    /// Starts the copies of a process without a terminal.
    pub(crate) fn start_pumps(&mut self, key: &ProcessKey, prepared: Prepared) {
        let Prepared {
            outputs,
            input,
            stdin_keeper,
            ..
        } = prepared;
        let outputs: Vec<u32> = outputs
            .into_iter()
            .filter_map(|pump| self.start_pump(key, pump))
            .collect();
        let input = input.and_then(|pump| self.start_pump(key, pump));
        let Some(container) = self.containers.get_mut(&key.container) else {
            return;
        };
        let Some(process) = container.process_mut(&key.exec) else {
            return;
        };
        process.stdio.outputs.extend(outputs);
        process.stdio.input = input;
        process.stdio.stdin_keeper = stdin_keeper.filter(|_| !process.stdin_closed);
    }

    /// The process is made: what its streams have kept back until here is its output.
    pub(crate) fn release_outputs(&mut self, key: &ProcessKey) {
        let outputs = self.stdio_mut(key).map(|stdio| stdio.outputs.clone());
        for number in outputs.into_iter().flatten() {
            self.pumps.release(number, &self.reactor);
        }
    }

    /// What came on streams that keep it back, the last of them first: stderr says more than stdout.
    pub(crate) fn held_output(&mut self, key: &ProcessKey) -> Option<String> {
        let outputs = self.stdio_mut(key)?.outputs.clone();
        outputs
            .into_iter()
            .rev()
            .find_map(|number| self.pumps.held_text(number, &self.reactor))
    }

    fn start_pump(&mut self, key: &ProcessKey, pump: Pump) -> Option<u32> {
        match self.pumps.start(pump, &self.reactor) {
            Ok(number) => Some(number),
            Err(error) => {
                shim_log::error(format_args!("{}: copy a stream: {error}", key.id()));
                None
            }
        }
    }

    /// Takes the terminal that the runtime made and connects the client's fifos to it.
    pub(crate) fn connect_terminal(&mut self, key: &ProcessKey, console: Console) -> Result<(), Status> {
        let terminal = Self::receive_terminal(&console.socket)?;
        // Each direction waits by a descriptor of its own.
        let duplicate = || {
            sys::duplicate(&terminal)
                .map_err(|error| Status::unknown(format!("duplicate the terminal: {error}")))
        };
        let output = Pump::terminal(duplicate()?, console.output);
        let input = console
            .input
            .map(|source| {
                let sink = Sink::Stream(duplicate()?);
                Pump::input(source, sink).map_err(|error| Status::unknown(format!("connect stdin: {error}")))
            })
            .transpose()?;
        let outputs = self.start_pump(key, output).into_iter().collect();
        let input = input.and_then(|pump| self.start_pump(key, pump));
        if let Some(stdio) = self.stdio_mut(key) {
            stdio.outputs = outputs;
            stdio.input = input;
            stdio.terminal = Some(terminal);
        }
        Ok(())
    }

    /// Looks after output that has no reader yet, for about a second.
    pub(crate) fn await_readers(&mut self) {
        for number in self.pumps.take_unclaimed() {
            self.look_for_reader(number, 0);
        }
    }

    pub(crate) fn look_for_reader(&mut self, number: u32, looks: u32) {
        const FIRST: Duration = Duration::from_millis(5);
        const LOOKS_MAX: u32 = 8;
        if self.pumps.is_unclaimed(number) && looks < LOOKS_MAX {
            self.reactor
                .after(FIRST * (1 << looks), Deadline::Reader(number, looks + 1));
        } else {
            self.pumps.stop(number, &self.reactor);
            self.continue_deletes();
        }
    }

    /// Ends all copies of a process and closes what belongs to them.
    pub(crate) fn close_stdio(&mut self, stdio: &Stdio) {
        for number in stdio.outputs.iter().chain(&stdio.input) {
            self.pumps.stop(*number, &self.reactor);
        }
        if let Some(number) = stdio.logger {
            self.close_logger(number);
        }
    }

    pub(crate) fn resize(&mut self, reply: Reply, request: &api::ResizePtyRequest) -> Result<(), Status> {
        let container = self.container(&request.id)?;
        let process = container
            .process(&request.exec_id)
            .ok_or_else(|| no_process(&request.exec_id))?;
        // A process without a terminal, or one that is not started yet, has nothing to resize: no error, as in
        // containerd's shim, because clients send a size whenever their window changes.
        if let Some(terminal) = &process.stdio.terminal {
            let size = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
            sys::set_window_size(terminal.as_fd(), size(request.height), size(request.width))
                .map_err(|error| Status::unknown(format!("resize the terminal: {error}")))?;
        }
        self.answer(reply, &Empty::new());
        Ok(())
    }

    /// From here on stdin ends when its last writer leaves.
    pub(crate) fn close_stdin(&mut self, reply: Reply, request: &api::CloseIORequest) -> Result<(), Status> {
        let container = self.container_mut(&request.id)?;
        let process = container
            .process_mut(&request.exec_id)
            .ok_or_else(|| no_process(&request.exec_id))?;
        if request.stdin {
            process.stdin_closed = true;
            process.stdio.stdin_keeper = None;
        }
        self.answer(reply, &Empty::new());
        Ok(())
    }
}
