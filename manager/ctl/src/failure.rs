//! What goes wrong, as the person at the terminal is told: one line, perhaps a hint, and an exit code.

use std::io::{self, IsTerminal as _};

use crate::output;

/// What every fallible function here returns.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Exit code of `run` when the container was not run at all, as docker's.
pub(crate) const RUN_FAILED: u8 = 125;
/// The command is there but can't be executed.
const NOT_EXECUTABLE: u8 = 126;
/// The command is not there.
const NOT_FOUND: u8 = 127;
/// 128 + SIGPIPE: how a shell sees a filter whose reader has gone.
const READER_GONE: u8 = 141;

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Empty: nothing is said.
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    pub(crate) exit_code: u8,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            exit_code: 1,
        }
    }

    /// Ends the program without a word.
    pub(crate) fn quiet(exit_code: u8) -> Self {
        Self {
            message: String::new(),
            hint: None,
            exit_code,
        }
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A failed write to stdout or stderr. A reader that has gone (`managerctl ps | head -1`) is no error to tell.
    pub(crate) fn write(stream: &str, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::quiet(READER_GONE);
        }
        Self::new(format!("write to {stream}: {error}"))
    }

    /// For `run`, where 1 could be the container's own exit code.
    pub(crate) fn of_run(mut self) -> Self {
        if self.exit_code == 1 {
            self.exit_code = RUN_FAILED;
        }
        self
    }

    /// For a start or exec that the manager refused: 126 and 127 as a shell has them, told from the error's text
    /// because that is all that comes through the runtime, the shim and the manager.
    pub(crate) fn of_command(mut self) -> Self {
        if let Some(code) = command_exit_code(&self.message) {
            self.exit_code = code;
        }
        self
    }

    /// Tells the person, on stderr.
    pub(crate) fn report(&self) {
        if self.message.is_empty() {
            return;
        }
        let coloured = output::colour_wanted(io::stderr().is_terminal());
        eprintln!(
            "{} {}",
            output::paint("managerctl:", output::Colour::Red, coloured),
            // What a registry has answered may be part of it.
            output::clean_lines(&self.message)
        );
        if let Some(hint) = &self.hint {
            eprintln!(
                "{} {}",
                output::paint("hint:", output::Colour::Cyan, coloured),
                output::clean_lines(hint)
            );
        }
    }
}

/// Docker's rule of thumb, on the words that Linux and Go have for ENOENT, EACCES, EISDIR and ENOEXEC.
fn command_exit_code(message: &str) -> Option<u8> {
    const MISSING: [&str; 4] = [
        "executable file not found",
        "no such file or directory",
        "command not found",
        "enoent",
    ];
    const UNUSABLE: [&str; 6] = [
        "permission denied",
        "eacces",
        "is a directory",
        "eisdir",
        "exec format error",
        "enoexec",
    ];
    let message = message.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if has(&MISSING) {
        Some(NOT_FOUND)
    } else if has(&UNUSABLE) {
        Some(NOT_EXECUTABLE)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_of_commands_that_cannot_run_are_those_of_a_shell() {
        let code = |message: &str| Failure::new(message).of_command().of_run().exit_code;
        assert_eq!(
            code("exec /bin/nope: No such file or directory (os error 2)"),
            127
        );
        assert_eq!(code("exec: \"nope\": executable file not found in $PATH"), 127);
        assert_eq!(code("exec /etc/passwd: Permission denied (os error 13)"), 126);
        assert_eq!(code("exec /etc: Is a directory (os error 21)"), 126);
        assert_eq!(code("exec /a: Exec format error (os error 8)"), 126);
        assert_eq!(code("no room for another veth pair"), 125);
    }

    #[test]
    fn a_reader_that_has_gone_is_not_told() {
        let failure = Failure::write("stdout", &io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(failure.message.is_empty());
        assert_eq!(failure.exit_code, 141);
    }
}
