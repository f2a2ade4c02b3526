//! Manual pages in roff, read from the table. `hack/man` writes all of them to files.

use std::fmt::Write;

use super::table::{COMMANDS, Command, Flag, GLOBAL, command};
use crate::error::{Error, Result};

/// The page of a command, or of the program.
pub(crate) fn page(name: Option<&str>) -> Result<String> {
    let Some(name) = name else {
        return Ok(program());
    };
    let found = command(name);
    found
        .map(of_command)
        .ok_or_else(|| Error::Refused(format!("there is no command {name:?}")))
}

/// Text that roff takes for nothing but text.
fn plain(text: &str) -> String {
    let text = text.replace('\\', r"\e").replace('-', r"\-");
    if text.starts_with(['.', '\'']) {
        format!(r"\&{text}")
    } else {
        text
    }
}

fn head(title: &str, about: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let (upper, title, about) = (plain(&title.to_uppercase()), plain(title), plain(about));
    format!(
        ".TH {upper} 1 \"\" \"Berth {version}\" \"User Commands\"\n.SH NAME\n{title} \\- {about}\n.SH SYNOPSIS\n"
    )
}

fn flags(text: &mut String, title: &str, flags: &[Flag]) {
    if flags.is_empty() {
        return;
    }
    let _ = writeln!(text, ".SH {title}");
    for flag in flags {
        let short = flag
            .short
            .map(|short| format!("\\fB\\-{short}\\fR, "))
            .unwrap_or_default();
        let value = flag
            .value
            .map(|value| format!(" \\fI{}\\fR", plain(value)))
            .unwrap_or_default();
        let (long, about) = (plain(&format!("--{}", flag.long)), plain(flag.about));
        let _ = writeln!(text, ".TP\n{short}\\fB{long}\\fR{value}\n{about}");
    }
}

fn program() -> String {
    let mut text = head(
        "runtime",
        "start and hold containers as the Open Container Initiative specifies",
    );
    text.push_str("\\fBruntime\\fR [global flags] \\fICOMMAND\\fR [flags] [arguments]\n.SH COMMANDS\n");
    for command in COMMANDS {
        let _ = writeln!(
            text,
            ".TP\n\\fBruntime\\-{}\\fR(1)\n{}",
            command.name,
            plain(command.about)
        );
    }
    flags(&mut text, "GLOBAL FLAGS", GLOBAL);
    text.push_str(
        ".SH FILES\n.TP\n\\fI/run/berth\\fR\nstate of root's containers, unless \\fB\\-\\-root\\fR says otherwise\n\
         .TP\n\\fI$XDG_RUNTIME_DIR/berth\\fR\nthat of other users' containers\n",
    );
    text.push_str(
        ".SH EXIT STATUS\n\\fBrun\\fR, \\fBrestore\\fR and \\fBexec\\fR pass on the exit code of the container's \
         program, or 128 and the number of the signal that ended it. A failure is 1, for \\fBexec\\fR 255.\n",
    );
    text
}

fn of_command(command: &Command) -> String {
    let mut text = head(&format!("runtime-{}", command.name), command.about);
    let _ = writeln!(
        text,
        "\\fBruntime\\fR [global flags] \\fB{}\\fR [flags] {}",
        command.name,
        plain(command.arguments)
    );
    flags(&mut text, "FLAGS", command.flags);
    text.push_str(".SH SEE ALSO\n\\fBruntime\\fR(1)\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_page_for_everything() {
        let all = page(None).unwrap();
        for command in COMMANDS {
            assert!(all.contains(command.name));
            let one = page(Some(command.name)).unwrap();
            for flag in command.flags {
                assert!(one.contains(&plain(flag.long)), "{} {}", command.name, flag.long);
            }
        }
        assert!(page(Some("nothing")).is_err());
    }

    #[test]
    fn no_text_becomes_a_request() {
        assert_eq!(plain(".TH"), r"\&.TH");
        assert_eq!(plain(r"a\fB-x"), r"a\efB\-x");
    }
}
