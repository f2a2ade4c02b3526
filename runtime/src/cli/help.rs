//! Help, read from the table.

use std::fmt::Write;

use super::table::{COMMANDS, Command, Flag, GLOBAL};

/// Help for one command, or for all of them, for a program called `name`. The two lines at the top are where readers
/// of runc's help look.
pub(crate) fn help(name: &str, command: Option<&Command>) -> String {
    let mut text = String::from("NAME:\n");
    if let Some(command) = command {
        let _ = writeln!(text, "  {name} {} - {}\n", command.name, command.about);
        let _ = writeln!(
            text,
            "USAGE:\n  {name} [global flags] {} [flags] {}",
            command.name, command.arguments
        );
        list(&mut text, "FLAGS", command.flags);
        return text;
    }
    let _ = writeln!(
        text,
        "  {name} - Open Container Initiative runtime: starts and holds containers\n"
    );
    let _ = writeln!(
        text,
        "USAGE:\n  {name} [global flags] COMMAND [flags] [arguments]\n\nCOMMANDS:"
    );
    for command in COMMANDS {
        let _ = writeln!(text, "  {:<11} {}", command.name, command.about);
    }
    list(&mut text, "GLOBAL FLAGS", GLOBAL);
    text
}

fn list(text: &mut String, title: &str, flags: &[Flag]) {
    if flags.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}:");
    for flag in flags {
        let short = flag.short.map(|short| format!("-{short}, ")).unwrap_or_default();
        let value = flag.value.map(|value| format!(" {value}")).unwrap_or_default();
        let _ = writeln!(
            text,
            "  {:<36} {}",
            format!("{short}--{}{value}", flag.long),
            flag.about
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_every_command_and_its_flags() {
        let all = help("runc", None);
        for command in COMMANDS {
            assert!(all.contains(command.name));
            let one = help("runc", Some(command));
            assert!(command.flags.iter().all(|flag| one.contains(flag.long)));
        }
    }
}
