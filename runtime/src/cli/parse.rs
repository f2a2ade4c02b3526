//! Reads arguments against the table. Takes what Go's flag package takes, because the callers were written for
//! runc: `--flag value`, `--flag=value`, one dash or two, `--switch=false`, flags before or after the id.

use super::table::{COMMANDS, Command, Flag, GLOBAL, command};

/// Flags that were given, in order; a later one wins where only one is wanted.
#[derive(Debug, Default)]
pub(crate) struct Values(Vec<(&'static str, String)>);

impl Values {
    /// The last value of a flag.
    pub(crate) fn get(&self, long: &str) -> Option<&str> {
        self.0
            .iter()
            .rev()
            .find(|(name, _)| *name == long)
            .map(|(_, value)| value.as_str())
    }

    /// Every value of a repeatable flag.
    pub(crate) fn all<'a>(&'a self, long: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(name, _)| *name == long)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a switch is on.
    pub(crate) fn is_on(&self, long: &str) -> bool {
        self.get(long) == Some("true")
    }
}

/// What the user asked for.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) global: Values,
    pub(crate) command: &'static Command,
    pub(crate) flags: Values,
    pub(crate) arguments: Vec<String>,
}

/// What came of reading the arguments.
#[derive(Debug)]
pub(crate) enum Parsed {
    Run(Invocation),
    /// Help for one command or for all.
    Help(Option<&'static Command>),
    Version,
    /// The arguments make no sense; global flags say where to log that.
    Wrong {
        global: Values,
        command: Option<&'static Command>,
        text: String,
    },
}

/// Reads everything after the program's own name.
pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Parsed {
    let mut rest = arguments.into_iter();
    let mut global = Values::default();
    let name = loop {
        let Some(argument) = rest.next() else {
            return Parsed::Help(None);
        };
        match flag(&argument, GLOBAL, &mut rest, &mut global) {
            Ok(true) if global.is_on("help") => return Parsed::Help(None),
            Ok(true) if global.is_on("version") => return Parsed::Version,
            Ok(true) => {}
            Ok(false) => break argument,
            Err(text) => {
                return Parsed::Wrong {
                    global,
                    command: None,
                    text,
                };
            }
        }
    };
    if name == "help" {
        return Parsed::Help(rest.next().as_deref().and_then(command));
    }
    let Some(command) = command(&name) else {
        let known: Vec<&str> = COMMANDS.iter().map(|command| command.name).collect();
        let text = format!(
            "No help topic for '{name}': it is no command (known: {})",
            known.join(", ")
        );
        return Parsed::Wrong {
            global,
            command: None,
            text,
        };
    };
    let mut flags = Values::default();
    let mut arguments = Vec::new();
    while let Some(argument) = rest.next() {
        if argument == "--" || command.passes_rest_on && !arguments.is_empty() {
            if argument != "--" || arguments.len() > 1 {
                arguments.push(argument);
            }
            arguments.extend(rest);
            break;
        }
        if matches!(argument.as_str(), "--help" | "-h") {
            return Parsed::Help(Some(command));
        }
        match flag(&argument, command.flags, &mut rest, &mut flags) {
            Ok(true) => {}
            Ok(false) => arguments.push(argument),
            Err(text) => {
                return Parsed::Wrong {
                    global,
                    command: Some(command),
                    text,
                };
            }
        }
    }
    let (least, most) = command.count;
    if arguments.len() < least || arguments.len() > most {
        let wanted = match (least, most) {
            (least, most) if least == most => format!("exactly {least} argument(s)"),
            (least, usize::MAX) => format!("at least {least} argument(s)"),
            (least, most) => format!("{least} to {most} arguments"),
        };
        let text = format!("{:?} needs {wanted}, got {}", command.name, arguments.len());
        return Parsed::Wrong {
            global,
            command: Some(command),
            text,
        };
    }
    Parsed::Run(Invocation {
        global,
        command,
        flags,
        arguments,
    })
}

/// Reads one flag into `values`; `Ok(false)` when the argument is not a flag at all.
fn flag(
    argument: &str,
    known: &'static [Flag],
    rest: &mut impl Iterator<Item = String>,
    values: &mut Values,
) -> Result<bool, String> {
    let Some(name) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else {
        return Ok(false);
    };
    if name.is_empty() {
        return Ok(false);
    }
    let (name, given) = match name.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (name, None),
    };
    let is_short = |flag: &Flag| {
        flag.short
            .is_some_and(|short| name.len() == 1 && name.starts_with(short))
    };
    let Some(flag) = known.iter().find(|flag| flag.long == name || is_short(flag)) else {
        return Err(format!("unknown flag {argument:?}"));
    };
    let value = match (flag.value, given) {
        (None, None) => "true".to_owned(),
        (None, Some(value)) => match value.as_str() {
            "true" | "1" | "t" => "true".to_owned(),
            "false" | "0" | "f" => "false".to_owned(),
            _ => {
                return Err(format!(
                    "--{} is a switch and takes true or false, not {value:?}",
                    flag.long
                ));
            }
        },
        (Some(_), Some(value)) => value,
        (Some(value), None) => rest
            .next()
            .ok_or_else(|| format!("--{} needs a value ({value})", flag.long))?,
    };
    values.0.push((flag.long, value));
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Parsed {
        parse(line.split_whitespace().map(str::to_owned))
    }

    fn run(line: &str) -> Invocation {
        match read(line) {
            Parsed::Run(invocation) => invocation,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn wrong(line: &str) -> String {
        match read(line) {
            Parsed::Wrong { text, .. } => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn containerd_s_create_is_understood() {
        let line = "--root /r --log /l --log-format json create --bundle /b --pid-file /p --no-pivot id";
        let invocation = run(line);
        assert_eq!(invocation.global.get("root"), Some("/r"));
        assert_eq!(invocation.flags.get("bundle"), Some("/b"));
        assert!(invocation.flags.is_on("no-pivot"));
        assert_eq!(invocation.arguments, ["id"]);
    }

    #[test]
    fn flags_may_follow_the_id_and_take_one_dash() {
        let invocation = run("delete id -force");
        assert!(invocation.flags.is_on("force"));
        assert!(!run("delete --force=false id").flags.is_on("force"));
        assert_eq!(run("create -b=/x id").flags.get("bundle"), Some("/x"));
    }

    #[test]
    fn exec_leaves_the_program_s_own_flags_alone() {
        let invocation = run("exec -e A=1 --env B=2 id ls -l --color");
        assert_eq!(invocation.arguments, ["id", "ls", "-l", "--color"]);
        assert_eq!(invocation.flags.all("env").collect::<Vec<_>>(), ["A=1", "B=2"]);
        assert_eq!(run("exec id -- ls -l").arguments, ["id", "ls", "-l"]);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        assert!(wrong("frobnicate").contains("frobnicate"));
        assert!(wrong("run --bogus id").contains("--bogus"));
        assert!(wrong("create --bundle").contains("needs a value"));
        assert!(wrong("state").contains("exactly 1"));
        assert!(wrong("state a b").contains("exactly 1"));
    }

    #[test]
    fn help_is_found_everywhere() {
        assert!(matches!(read(""), Parsed::Help(None)));
        assert!(matches!(read("--help"), Parsed::Help(None)));
        assert!(matches!(read("run --help"), Parsed::Help(Some(c)) if c.name == "run"));
        assert!(matches!(read("help kill"), Parsed::Help(Some(c)) if c.name == "kill"));
    }
}
