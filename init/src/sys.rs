//! Everything that talks to the kernel, or to the C library, which started this program.

use core::ffi::{CStr, c_char, c_int};
use core::mem::MaybeUninit;
use core::ptr;

/// Signals of one's own mistakes come to whoever made them, and those of terminals that are read or written in the
/// background would stop this process: all others wait until they are taken.
const OWN: [c_int; 9] = [
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGABRT,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

/// The C library's entry.
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, argv: *const *const c_char) -> c_int {
    // SAFETY: the C library gives `count` arguments, and a null pointer behind them.
    let separator = (count > 1).then(|| unsafe { CStr::from_ptr(*argv.add(1)) });
    let first = if separator == Some(c"--") { 2 } else { 1 };
    if count <= first {
        write_error(&[c"usage: docker-init [--] PROGRAM [ARGUMENT...]\n"]);
        return crate::FAILED;
    }
    // SAFETY: `first` is less than `count`.
    let arguments = unsafe { argv.add(first as usize) };
    crate::run(&Program { arguments })
}

/// A program and its arguments, as exec(3) takes them.
pub(crate) struct Program {
    arguments: *const *const c_char,
}

impl Program {
    /// Start it as a child in a process group of its own, in the foreground if there is a terminal, with the signals
    /// that this process was started with.
    pub(crate) fn spawn(&self, signals: &Signals) -> Result<libc::pid_t, c_int> {
        // SAFETY: this process has one thread.
        match unsafe { libc::fork() } {
            -1 => Err(errno()),
            0 => {
                // SAFETY: without pointers. That it fails means that there is no terminal, or not this process's.
                unsafe {
                    libc::setpgid(0, 0);
                    libc::tcsetpgrp(libc::STDIN_FILENO, libc::getpgrp());
                }
                signals.restore();
                // SAFETY: the C library has made this list, with a null pointer at its end.
                let name = unsafe { *self.arguments };
                // SAFETY: as above.
                unsafe { libc::execvp(name, self.arguments) };
                let error = errno();
                // SAFETY: as above.
                let code = crate::not_executed(unsafe { CStr::from_ptr(name) }, error);
                // SAFETY: it does not return.
                unsafe { libc::_exit(code) }
            }
            child => Ok(child),
        }
    }
}

/// The signals that are waited for.
pub(crate) struct Signals {
    awaited: libc::sigset_t,
    /// Those that were blocked at the start, and what was done with those of a terminal.
    before: libc::sigset_t,
    before_ttin: libc::sighandler_t,
    before_ttou: libc::sighandler_t,
}

impl Signals {
    /// From now on signals wait to be taken.
    pub(crate) fn block() -> Option<Signals> {
        let (mut awaited, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: sigfillset makes a whole set of what it is given, from which the others take; sigprocmask writes the
        // other one when it succeeds.
        unsafe {
            libc::sigfillset(awaited.as_mut_ptr());
            for signal in OWN {
                libc::sigdelset(awaited.as_mut_ptr(), signal);
            }
            if libc::sigprocmask(libc::SIG_SETMASK, awaited.as_ptr(), before.as_mut_ptr()) != 0 {
                return None;
            }
            // Who starts it may have ignored that one: then no child's end would ever be told.
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            Some(Signals {
                awaited: awaited.assume_init(),
                before: before.assume_init(),
                before_ttin: libc::signal(libc::SIGTTIN, libc::SIG_IGN),
                before_ttou: libc::signal(libc::SIGTTOU, libc::SIG_IGN),
            })
        }
    }

    /// Have signals as they were before.
    fn restore(&self) {
        // SAFETY: the handlers are those that were there, and `before` is a whole set.
        unsafe {
            libc::signal(libc::SIGTTIN, self.before_ttin);
            libc::signal(libc::SIGTTOU, self.before_ttou);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut());
        }
    }

    /// Wait for a signal, and take it.
    pub(crate) fn next(&self) -> Option<c_int> {
        // SAFETY: `awaited` is a whole set; nothing else is asked for.
        let signal = unsafe { libc::sigwaitinfo(&raw const self.awaited, ptr::null_mut()) };
        (signal > 0).then_some(signal)
    }
}

/// How a process ended.
#[derive(Clone, Copy)]
pub(crate) enum Ended {
    With(c_int),
    By(c_int),
}

/// Take leave of a child that has ended, if there is one.
pub(crate) fn reap() -> Option<(libc::pid_t, Ended)> {
    let mut status = 0;
    // SAFETY: `status` can be written.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    let ended = if libc::WIFSIGNALED(status) {
        Ended::By(libc::WTERMSIG(status))
    } else {
        Ended::With(libc::WEXITSTATUS(status))
    };
    (pid > 0).then_some((pid, ended))
}

/// Send a signal to a process.
pub(crate) fn send(to: libc::pid_t, signal: c_int) {
    // SAFETY: without pointers.
    unsafe { libc::kill(to, signal) };
}

/// Write to standard error; there is nobody to tell that it did not work.
pub(crate) fn write_error(parts: &[&CStr]) {
    for part in parts {
        let bytes = part.to_bytes();
        // SAFETY: so many bytes are there.
        unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) };
    }
}

/// What the C library says of an error.
pub(crate) fn text_of(error: c_int) -> &'static CStr {
    // SAFETY: it gives a text with an end for each number, and this process has one thread.
    unsafe { CStr::from_ptr(libc::strerror(error)) }
}

fn errno() -> c_int {
    // SAFETY: it is this thread's own.
    unsafe { *libc::__errno_location() }
}
