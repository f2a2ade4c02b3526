//! Help, read from the table.

use std::fmt::Write;

use super::table::{COMMANDS, Command, Flag, GLOBAL};

/// Help for one command, or for all of them.
pub(crate) fn help(command: Option<&Command>) -> String {
    let mut text = String::new();
    if let Some(command) = command {
        let _ = writeln!(text, "runtime {} - {}\n", command.name, command.about);
        let _ = writeln!(
            text,
            "usage: runtime [global flags] {} [flags] {}",
            command.name, command.arguments
        );
        list(&mut text, "flags", command.flags);
        return text;
    }
    text.push_str("runtime - start and hold containers as the Open Container Initiative specifies\n\n");
    text.push_str("usage: runtime [global flags] COMMAND [flags] [arguments]\n\ncommands:\n");
    for command in COMMANDS {
        let _ = writeln!(text, "  {:<11} {}", command.name, command.about);
    }
    list(&mut text, "global flags", GLOBAL);
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
        let all = help(None);
        for command in COMMANDS {
            assert!(all.contains(command.name));
            let one = help(Some(command));
            assert!(command.flags.iter().all(|flag| one.contains(flag.long)));
        }
    }
}
