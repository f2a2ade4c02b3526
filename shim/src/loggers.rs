//! The `binary://` loggers of the daemon: started before the process whose output they read, which waits for them, and
//! ended after it.

use std::io;

use crate::daemon::{Logger, Making, Pending, Shim};
use crate::reactor::{Deadline, Token};
use crate::shim_log;
use crate::status::Status;
use crate::stdio::logger::{self, LoggerCommand};
use crate::sys::{self, Interest};
use crate::task::{ProcessKey, Reply};

impl Shim {
    /// Has the runtime make a process: at once, or when the process's logger says that it is ready.
    pub(crate) fn make(&mut self, mut pending: Pending) -> Result<(), Status> {
        match pending.prepared.logger.take() {
            None => self.make_now(pending),
            Some(command) => self.start_logger(command, pending),
        }
    }

    fn make_now(&mut self, pending: Pending) -> Result<(), Status> {
        let Pending {
            reply,
            key,
            prepared,
            making,
        } = pending;
        match making {
            Making::Create => self.create_now(reply, &key.container, prepared),
            Making::Restore => self.restore_now(reply, &key.container, prepared),
            Making::Exec => self.exec_now(reply, &key, prepared),
        }
    }

    /// As [`Shim::make_now`], for a client that got no answer yet.
    fn make_later(&mut self, pending: Pending) {
        let (reply, key, making) = (pending.reply, pending.key.clone(), pending.making);
        let made = self.refuse_if_ending().and_then(|()| self.make_now(pending));
        if let Err(status) = made {
            self.not_made(reply, &key, making, status);
        }
    }

    fn not_made(&mut self, reply: Reply, key: &ProcessKey, making: Making, status: Status) {
        match making {
            Making::Create => {
                self.forget_container(&key.container);
                self.answer_error(reply, status);
            }
            Making::Restore => self.restore_failed(reply, &key.container, status),
            Making::Exec => self.exec_failed(reply, key, status),
        }
    }

    /// Starts the logger of a process, which is made when the logger says that it is ready.
    fn start_logger(&mut self, logger: LoggerCommand, pending: Pending) -> Result<(), Status> {
        let LoggerCommand { mut command, ready } = logger;
        let name = command.get_program().to_string_lossy().into_owned();
        let failed = |error: io::Error| Status::unknown(format!("start logger {name}: {error}"));
        self.last_number = self.last_number.wrapping_add(1);
        let number = self.last_number;
        self.reactor
            .watch(&ready, Token::Logger(number), Interest::Readable)
            .map_err(failed)?;
        let child = self.open_files.spawn(&mut command).map_err(failed)?;
        self.reactor.after(logger::READY, Deadline::LoggerReady(number));
        if let Some(process) = self.process_mut(&pending.key) {
            process.stdio.logger = Some(number);
        }
        self.loggers.insert(
            number,
            Logger {
                pid: child.id(),
                ready: Some(ready),
                pending: Some(Box::new(pending)),
            },
        );
        Ok(())
    }

    /// The logger wrote to its ready pipe or closed it; containerd takes both for ready.
    pub(crate) fn logger_ready(&mut self, number: u32) {
        let Some(logger) = self.loggers.get_mut(&number) else {
            return;
        };
        if let Some(ready) = logger.ready.take() {
            self.reactor.forget(&ready);
        }
        self.reactor.cancel(&Deadline::LoggerReady(number));
        if let Some(pending) = logger.pending.take() {
            self.make_later(*pending);
        }
    }

    pub(crate) fn logger_failed(&mut self, number: u32, why: &str) {
        let Some(logger) = self.loggers.get_mut(&number) else {
            return;
        };
        if let Some(ready) = logger.ready.take() {
            self.reactor.forget(&ready);
        }
        if let Some(pending) = logger.pending.take() {
            let status = Status::unknown(format!("logger {why}"));
            self.not_made(pending.reply, &pending.key, pending.making, status);
        }
    }

    /// True when the child was a logger. One that dies leaves its container running, as with containerd's shim.
    pub(crate) fn logger_ended(&mut self, pid: u32, status: u32) -> bool {
        let found = self
            .loggers
            .iter()
            .find(|(_, logger)| logger.pid == pid)
            .map(|(number, _)| *number);
        let Some(number) = found else { return false };
        if status != 0 {
            shim_log::warn(format_args!("logger {pid} ended with exit status {status}"));
        }
        self.reactor.cancel(&Deadline::LoggerReady(number));
        self.reactor.cancel(&Deadline::LoggerEnd(number));
        self.logger_failed(
            number,
            &format!("ended with exit status {status} before it was ready"),
        );
        self.loggers.remove(&number);
        true
    }

    /// The process is gone, so the logger's input ends; it gets time to write what it has.
    pub(crate) fn close_logger(&mut self, number: u32) {
        if self.loggers.contains_key(&number) {
            self.reactor.after(logger::END, Deadline::LoggerEnd(number));
        }
    }

    pub(crate) fn end_logger(&mut self, number: u32) {
        if let Some(logger) = self.loggers.get(&number) {
            shim_log::warn(format_args!(
                "logger {} did not end after its input did and is killed",
                logger.pid
            ));
            let _ = sys::kill(logger.pid, libc::SIGKILL as u32);
        }
    }
}
