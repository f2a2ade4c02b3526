//! Completion scripts for shells, read from the table.

use std::fmt::Write;

use super::table::{COMMANDS, Command, Flag, GLOBAL};
use crate::error::{Error, Result};

/// The script for `shell`.
pub(crate) fn script(shell: &str) -> Result<String> {
    match shell {
        "bash" => Ok(bash()),
        "zsh" => Ok(zsh()),
        "fish" => Ok(fish()),
        other => Err(Error::Refused(format!(
            "no completion for {other:?} (known: bash, zsh, fish)"
        ))),
    }
}

fn names() -> Vec<&'static str> {
    COMMANDS.iter().map(|command| command.name).collect()
}

fn takes_id(command: &Command) -> bool {
    command.arguments.starts_with("ID")
}

fn takes_file(flag: &Flag) -> bool {
    matches!(flag.value, Some("PATH" | "FILE" | "DIR"))
}

/// Words of the help as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn bash() -> String {
    let words = |flags: &[Flag]| {
        let words = flags.iter().map(|flag| format!("--{}", flag.long));
        words.collect::<Vec<_>>().join(" ")
    };
    let names = names();
    let mut text = String::from("_runtime() {\n  local word command=\n");
    let _ = writeln!(text, "  for word in \"${{COMP_WORDS[@]:1:COMP_CWORD-1}}\"; do");
    let _ = writeln!(
        text,
        "    case $word in {}) command=$word; break;; esac\n  done",
        names.join("|")
    );
    text.push_str("  case $command in\n");
    for command in COMMANDS {
        let ids = if takes_id(command) {
            " $(runtime list --quiet 2>/dev/null)"
        } else {
            ""
        };
        let _ = writeln!(
            text,
            "    {}) word=\"{}{ids}\";;",
            command.name,
            words(command.flags)
        );
    }
    let (names, global) = (names.join(" "), words(GLOBAL));
    let _ = writeln!(text, "    *) word=\"{names} {global}\";;\n  esac");
    text.push_str("  COMPREPLY=($(compgen -W \"$word\" -- \"${COMP_WORDS[COMP_CWORD]}\"))\n}\n");
    text.push_str("complete -o default -F _runtime runtime\n");
    text
}

fn zsh() -> String {
    let escaped = |text: &str| text.replace('[', r"\[").replace(']', r"\]").replace(':', r"\:");
    let arguments = |flags: &[Flag]| {
        let mut text = String::new();
        for flag in flags {
            let value = match flag.value {
                None => String::new(),
                Some(value) if takes_file(flag) => format!(":{value}:_files"),
                Some(value) => format!(":{}:", escaped(value)),
            };
            let long = format!("--{}", flag.long);
            for name in flag
                .short
                .map(|short| format!("-{short}"))
                .into_iter()
                .chain([long])
            {
                let word = quoted(&format!("{name}[{}]{value}", escaped(flag.about)));
                let _ = write!(text, " \\\n        {word}");
            }
        }
        text
    };
    let mut text =
        String::from("#compdef runtime\n_runtime() {\n  local state\n  local -a commands\n  commands=(\n");
    for command in COMMANDS {
        let word = quoted(&format!("{}:{}", command.name, escaped(command.about)));
        let _ = writeln!(text, "    {word}");
    }
    let _ = writeln!(
        text,
        "  )\n  _arguments -C{} \\\n        '1: :->command' '*:: :->rest'",
        arguments(GLOBAL)
    );
    text.push_str(
        "  case $state in\n  command) _describe command commands ;;\n  rest)\n    case $words[1] in\n",
    );
    for command in COMMANDS {
        let ids = if takes_id(command) {
            " \\\n        '1:ID:($(runtime list --quiet 2>/dev/null))'"
        } else {
            ""
        };
        let rest = if takes_id(command) && command.count.1 == 1 {
            ""
        } else {
            " \\\n        '*: :_files'"
        };
        let flags = arguments(command.flags);
        let _ = writeln!(
            text,
            "    {})\n      _arguments{flags}{ids}{rest} ;;",
            command.name
        );
    }
    text.push_str("    esac ;;\n  esac\n}\ncompdef _runtime runtime\n");
    text
}

fn fish() -> String {
    let mut text = String::new();
    let mut flags = |condition: &str, flags: &[Flag]| {
        for flag in flags {
            let short = flag.short.map(|short| format!(" -s {short}")).unwrap_or_default();
            let value = match flag.value {
                None => "",
                Some(_) if takes_file(flag) => " -r -F",
                Some(_) => " -x",
            };
            let about = quoted(flag.about);
            let _ = writeln!(
                text,
                "complete -c runtime -n {condition} -l {}{short}{value} -d {about}",
                flag.long
            );
        }
    };
    flags("__fish_use_subcommand", GLOBAL);
    for command in COMMANDS {
        flags(
            &format!("'__fish_seen_subcommand_from {}'", command.name),
            command.flags,
        );
    }
    for command in COMMANDS {
        let (name, about) = (command.name, quoted(command.about));
        let _ = writeln!(
            text,
            "complete -c runtime -f -n __fish_use_subcommand -a {name} -d {about}"
        );
        if takes_id(command) {
            let condition = format!("'__fish_seen_subcommand_from {name}'");
            let _ = writeln!(
                text,
                "complete -c runtime -f -n {condition} -a '(runtime list --quiet 2>/dev/null)'"
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_learns_every_command_and_flag() {
        for (shell, dashes) in [("bash", "--"), ("zsh", "--"), ("fish", "-l ")] {
            let text = script(shell).unwrap();
            for command in COMMANDS {
                assert!(text.contains(command.name), "{shell}: {}", command.name);
                for flag in command.flags.iter().chain(GLOBAL) {
                    assert!(
                        text.contains(&format!("{dashes}{}", flag.long)),
                        "{shell}: {}",
                        flag.long
                    );
                }
            }
        }
        assert!(script("tcsh").is_err());
    }

    #[test]
    fn words_of_the_help_do_not_end_a_shell_s_word() {
        assert_eq!(quoted("a program's"), r"'a program'\''s'");
    }
}
