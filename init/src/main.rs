//! The first process of a container that was made with `--init`, as docker's `docker-init`: it starts the container's
//! program, sends on to it each signal that it gets, takes leave of every process that has lost its parent, and ends
//! with the program's exit code, or 128 and the number of the signal that killed it.
//!
//! It is mounted into any container, and so is static, without the library's runtime (`no_main`), and allocates nothing:
//! that keeps it small. The engine starts it as `docker-init -- PROGRAM ARGUMENT…`.

#![no_main]

mod sys;

use core::ffi::{CStr, c_int};

use sys::{Ended, Program, Signals};

/// What a shell says of a program that is there and cannot be run, and of one that is not there.
const CANNOT_RUN: c_int = 126;
const NOT_FOUND: c_int = 127;
/// That of a command line that is wrong, or of a kernel that refuses what cannot be refused.
const FAILED: c_int = 1;
/// Before the number of a signal.
const KILLED: c_int = 128;

/// Run the program of the arguments to its end. The exit code.
fn run(program: &Program) -> c_int {
    let Some(signals) = Signals::block() else {
        complain(c"cannot block signals", None);
        return FAILED;
    };
    let child = match program.spawn(&signals) {
        Ok(child) => child,
        Err(error) => {
            complain(c"cannot fork", Some(error));
            return FAILED;
        }
    };
    loop {
        let Some(signal) = signals.next() else { continue };
        if signal != libc::SIGCHLD {
            // It may have just ended.
            sys::send(child, signal);
            continue;
        }
        let mut end = None;
        while let Some((pid, ended)) = sys::reap() {
            if pid == child {
                end = Some(ended);
            }
        }
        if let Some(ended) = end {
            return exit_code(ended);
        }
    }
}

fn exit_code(ended: Ended) -> c_int {
    match ended {
        Ended::With(code) => code,
        Ended::By(signal) => KILLED + signal,
    }
}

/// In the child, when the program could not be executed.
fn not_executed(name: &CStr, error: c_int) -> c_int {
    complain(name, Some(error));
    if error == libc::ENOENT {
        NOT_FOUND
    } else {
        CANNOT_RUN
    }
}

/// To standard error: `docker-init: WHAT: why`.
fn complain(what: &CStr, error: Option<c_int>) {
    sys::write_error(&[c"docker-init: ", what]);
    if let Some(error) = error {
        sys::write_error(&[c": ", sys::text_of(error)]);
    }
    sys::write_error(&[c"\n"]);
}
