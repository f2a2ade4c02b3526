//! The person's terminal: its size, its raw mode, and its way back to how it was, whatever happens.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::{Mutex, Once, PoisonError};

use proto::v1::WindowSize;
use rustix::termios::{LocalModes, OptionalActions, OutputModes, Termios};

use crate::failure::{Failure, Result};
use crate::output;

/// 128 + SIGINT, as from a shell.
const INTERRUPTED: u8 = 130;

/// How the terminals of stdin and stdout were before they were changed, in this order. Here and not in a guard,
/// because a panic with `panic=abort` and an exit by signal run no destructors.
static BEFORE: Mutex<Vec<(End, Termios)>> = Mutex::new(Vec::new());
static PANIC_HOOK: Once = Once::new();

pub(crate) fn stdin_is_terminal() -> bool {
    rustix::termios::isatty(io::stdin())
}

pub(crate) fn stdout_is_terminal() -> bool {
    rustix::termios::isatty(io::stdout())
}

/// Size of the terminal that shows the output, or of the one that is typed at. `None`: there is none, or it does
/// not know.
pub(crate) fn window_size() -> Option<WindowSize> {
    let (stdout, stdin) = (io::stdout(), io::stdin());
    let sizes = [stdout.as_fd(), stdin.as_fd()].map(|fd| rustix::termios::tcgetwinsize(fd).ok());
    let size = sizes
        .into_iter()
        .flatten()
        .find(|size| size.ws_col > 0 && size.ws_row > 0)?;
    Some(WindowSize {
        columns: size.ws_col.into(),
        rows: size.ws_row.into(),
    })
}

/// Which of this process's descriptors leads to a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Stdin,
    Stdout,
}

impl End {
    fn modes(self) -> rustix::io::Result<Termios> {
        match self {
            Self::Stdin => rustix::termios::tcgetattr(io::stdin()),
            Self::Stdout => rustix::termios::tcgetattr(io::stdout()),
        }
    }

    fn set_modes(self, modes: &Termios) -> rustix::io::Result<()> {
        match self {
            Self::Stdin => rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, modes),
            Self::Stdout => rustix::termios::tcsetattr(io::stdout(), OptionalActions::Now, modes),
        }
    }

    /// Whether another job has this terminal now. To change it then would stop this process (SIGTTOU).
    fn is_in_background(self) -> bool {
        let foreground = match self {
            Self::Stdin => rustix::termios::tcgetpgrp(io::stdin()),
            Self::Stdout => rustix::termios::tcgetpgrp(io::stdout()),
        };
        // An error: it is not the terminal that controls this process, and nothing stops us.
        foreground.is_ok_and(|group| group != rustix::process::getpgrp())
    }
}

/// A terminal that belongs to the container. Dropping the guard, [`restore`] and a panic give it back.
pub(crate) struct RawMode(());

impl RawMode {
    /// From here on the container's output is shown as it is, and with `typed_at` every key goes to the container
    /// as it is. Output that is no terminal, or one that another job has, is left alone.
    pub(crate) fn enter(typed_at: bool) -> Result<Self> {
        PANIC_HOOK.call_once(|| {
            let report = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                report(panic);
            }));
        });
        let guard = Self(());
        if typed_at {
            change(End::Stdin, Termios::make_raw)?;
        }
        if stdout_is_terminal() && !End::Stdout.is_in_background() {
            // The container's own terminal has made its line ends already.
            change(End::Stdout, |modes| modes.output_modes.remove(OutputModes::OPOST))?;
        }
        Ok(guard)
    }
}

/// Asks the person at the terminal for one line, which is seen while it is typed or not.
pub(crate) async fn ask(question: &str, is_seen: bool) -> Result<String> {
    output::print(question)?;
    if !is_seen {
        change(End::Stdin, |modes| modes.local_modes.remove(LocalModes::ECHO))?;
    }
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    });
    let line = tokio::select! {
        line = line => Some(line),
        // The signal's own way would leave a terminal that shows nothing.
        _ = tokio::signal::ctrl_c() => None,
    };
    restore();
    if !is_seen {
        output::print("\n")?;
    }
    match line {
        None => Err(Failure::quiet(INTERRUPTED)),
        Some(Ok(Ok(line))) => Ok(line.trim_end_matches(['\n', '\r']).to_owned()),
        Some(Ok(Err(error))) => Err(Failure::new(format!("read from the terminal: {error}"))),
        Some(Err(error)) => Err(Failure::new(format!("read from the terminal: {error}"))),
    }
}

fn change(end: End, how: impl FnOnce(&mut Termios)) -> Result<()> {
    let fail =
        |error: rustix::io::Errno| Failure::new(format!("set up the terminal: {}", io::Error::from(error)));
    let before = end.modes().map_err(fail)?;
    let mut after = before.clone();
    how(&mut after);
    BEFORE
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push((end, before));
    end.set_modes(&after).map_err(fail)
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Puts the terminals back to how they were, if they were changed. The last change first: both may be the same one.
pub(crate) fn restore() {
    let mut changed = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
    while let Some((end, before)) = changed.pop() {
        // A shell that gave the terminal to another job has set it up anew.
        if !end.is_in_background() {
            // The terminal may be gone, and then nobody minds.
            let _ = end.set_modes(&before);
        }
    }
}
