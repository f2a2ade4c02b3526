//! The `binary://` loggers of the daemon: started before the process whose output they read, ended after it.

use std::io;

use crate::daemon::{Logger, Pending, Shim};
use crate::reactor::{Deadline, Token};
use crate::shim_log;
use crate::status::Status;
use crate::stdio::logger::{self, LoggerCommand};
use crate::sys::{self, Interest};
use crate::task::ProcessKey;

impl Shim {
    /// Starts the logger of a process; `pending` continues when it says that it is ready.
    pub(crate) fn start_logger(
        &mut self,
        logger: LoggerCommand,
        key: &ProcessKey,
        pending: Pending,
    ) -> Result<(), Status> {
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
        self.loggers.insert(
            number,
            Logger {
                pid: child.id(),
                ready: Some(ready),
                pending: Some(pending),
            },
        );
        if let Some(process) = self.process_mut(key) {
            process.stdio.logger = Some(number);
        }
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
        match logger.pending.take() {
            Some(Pending::Create(pending)) => self.create_with_logger(*pending),
            Some(Pending::Restore(pending)) => self.restore_with_logger(*pending),
            Some(Pending::Exec(pending)) => self.exec_with_logger(*pending),
            None => {}
        }
    }

    pub(crate) fn logger_failed(&mut self, number: u32, why: &str) {
        let Some(logger) = self.loggers.get_mut(&number) else {
            return;
        };
        if let Some(ready) = logger.ready.take() {
            self.reactor.forget(&ready);
        }
        let status = Status::unknown(format!("logger {why}"));
        match logger.pending.take() {
            Some(Pending::Create(pending)) => self.create_without_logger(&pending, status),
            Some(Pending::Restore(pending)) => self.restore_failed(pending.reply, &pending.id, status),
            Some(Pending::Exec(pending)) => self.exec_without_logger(&pending, status),
            None => {}
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
