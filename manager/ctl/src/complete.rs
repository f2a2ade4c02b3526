//! Completion as one types: the shell asks this program at each press of the key, and it asks the manager for the names
//! that fit. Quick, and silent where no manager answers.
//!
//! Which values an argument takes is told by its value's name in the help (CONTAINER, IMAGE, …), so that new commands
//! are completed without a word here.

use std::ffi::{OsStr, OsString};
use std::io;
use std::time::Duration;

use clap::{Arg, Command, CommandFactory as _, FromArgMatches as _};
use clap_complete::Shell;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{Bash, CompleteEnv, Elvish, EnvCompleter, Fish, Powershell, Zsh};
use proto::v1::container::State;
use proto::v1::{ListContainersRequest, ListImagesRequest, ListNetworksRequest, ListVolumesRequest};

use crate::cli::{Cli, Connection};
use crate::client::Client;
use crate::contexts::Contexts;
use crate::host::Target;
use crate::views::familiar;

const NAME: &str = "managerctl";
/// By which the shell's script says that it asks, and which shell it is.
const VARIABLE: &str = "MANAGERCTL_COMPLETE";
/// Somebody waits at a terminal: later than this, no name is better than a late one.
const PATIENCE: Duration = Duration::from_millis(700);

/// Answer a shell that asks, and end the process; returns if none does.
pub(crate) fn if_asked() {
    if is_asked() {
        CompleteEnv::with_factory(command).var(VARIABLE).complete();
    }
}

/// Whether a shell does.
pub(crate) fn is_asked() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// The script by which a shell asks.
pub(crate) fn script(shell: Shell) -> io::Result<Vec<u8>> {
    let shell: &dyn EnvCompleter = match shell {
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
        Shell::Elvish => &Elvish,
        Shell::PowerShell => &Powershell,
        _ => &Bash,
    };
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, NAME, NAME, NAME, &mut script)?;
    if shell.name() == "bash" {
        script = with_whole_words(&String::from_utf8_lossy(&script)).into_bytes();
    }
    Ok(script)
}

/// Bash splits what is typed at `:` and `=` too (`COMP_WORDBREAKS`), and replaces only what is behind the last of them:
/// `tools:v1` would be asked about as three words. They are joined again, and the answers cut to what is replaced.
fn with_whole_words(script: &str) -> String {
    const SPLIT: &str = "    local words=(\"${COMP_WORDS[@]}\")\n    if [[ \"${BASH_VERSINFO[0]}\" -ge 4 ]]; then\n        \
         words[COMP_CWORD]=\"$2\"\n    fi\n";
    const JOINED: &str = r#"    local line=${COMP_LINE:0:COMP_POINT} words=() word blanks
    for word in "${COMP_WORDS[@]:0:COMP_CWORD}"; do
        blanks=${line%%[! ]*}
        line=${line#"$blanks"}
        line=${line#"$word"}
        if [[ ${#words[@]} -eq 0 || -n $blanks ]]; then words+=("$word"); else words[${#words[@]} - 1]+=$word; fi
    done
    blanks=${line%%[! ]*}
    line=${line#"$blanks"}
    if [[ -n $blanks ]]; then words+=("$line"); else words[${#words[@]} - 1]+=$line; fi
    local whole=${words[${#words[@]} - 1]}
    _CLAP_COMPLETE_INDEX=$((${#words[@]} - 1))
"#;
    const ANSWERED: &str = "    if [[ $? != 0 ]]; then\n        unset COMPREPLY\n    elif";
    const CUT: &str = "    if [[ $? != 0 ]]; then\n        unset COMPREPLY\n        return\n    fi\n    \
                       COMPREPLY=(\"${COMPREPLY[@]#\"${whole%\"$2\"}\"}\")\n    if";
    script.replacen(SPLIT, JOINED, 1).replacen(ANSWERED, CUT, 1)
}

/// The command line, whose arguments know their values.
fn command() -> Command {
    with_values(Cli::command())
}

fn with_values(command: Command) -> Command {
    let name = command.get_name().to_owned();
    command
        .mut_args(|arg| match Values::of(&name, &arg) {
            Some(values) => arg.add(ArgValueCompleter::new(move |typed: &OsStr| {
                values.that_fit(typed)
            })),
            None => arg,
        })
        .mut_subcommands(with_values)
}

/// What an argument can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    Containers(&'static [State]),
    Images,
    ContainersAndImages,
    Networks,
    Volumes,
    Contexts,
}

const ALL: &[State] = &[];
const UP: &[State] = &[State::Running, State::Paused, State::Restarting];

impl Values {
    /// Of an argument of `command`.
    fn of(command: &str, arg: &Arg) -> Option<Values> {
        let name = arg.get_value_names()?.first()?.as_str();
        let values = match name {
            "CONTAINER" | "CONTAINER[:ro]" => Values::Containers(match command {
                "start" => &[State::Created, State::Exited],
                "pause" | "exec" | "attach" | "top" => &[State::Running],
                "unpause" => &[State::Paused],
                "stop" | "kill" => UP,
                _ => ALL,
            }),
            "IMAGE" => Values::Images,
            // These are to be new ones.
            "VOLUME" | "NETWORK" | "CONTEXT" if command == "create" => return None,
            "VOLUME" => Values::Volumes,
            "CONTEXT" => Values::Contexts,
            "NAME" if command == "inspect" => Values::ContainersAndImages,
            "NAME" if arg.get_id() == "context" => Values::Contexts,
            name if name.starts_with("NETWORK") => Values::Networks,
            _ => return None,
        };
        Some(values)
    }

    fn that_fit(self, typed: &OsStr) -> Vec<CompletionCandidate> {
        let typed = typed.to_string_lossy();
        let mut names = self.names();
        names.sort();
        names.dedup();
        names.retain(|name| name.starts_with(&*typed) && is_plain(name));
        names.into_iter().map(CompletionCandidate::new).collect()
    }

    /// None, where they cannot be had in time.
    fn names(self) -> Vec<String> {
        if self == Values::Contexts {
            let all = Contexts::open().and_then(|contexts| contexts.all());
            let all = all.unwrap_or_default().into_iter();
            return all.map(|context| context.name).collect();
        }
        let Some(connection) = connection() else {
            return Vec::new();
        };
        let ask = async move {
            let target = Target::find(&connection).ok()?;
            let client = Client::new(&target).ok()?;
            self.ask(&client).await.ok()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else {
            return Vec::new();
        };
        let names = runtime.block_on(async { tokio::time::timeout(PATIENCE, ask).await });
        runtime.shutdown_background();
        names.ok().flatten().unwrap_or_default()
    }

    async fn ask(self, client: &Client) -> Result<Vec<String>, tonic::Status> {
        match self {
            Values::Containers(states) => containers(client, states).await,
            Values::Images => images(client).await,
            Values::ContainersAndImages => {
                let mut names = containers(client, ALL).await?;
                names.extend(images(client).await?);
                Ok(names)
            }
            Values::Networks => {
                let reply = client.networks().list(ListNetworksRequest::default()).await?;
                let networks = reply.into_inner().networks.into_iter();
                Ok(networks.map(|network| network.name).collect())
            }
            Values::Volumes => {
                let reply = client.volumes().list(ListVolumesRequest::default()).await?;
                let volumes = reply.into_inner().volumes.into_iter();
                Ok(volumes.map(|volume| volume.name).collect())
            }
            Values::Contexts => Ok(Vec::new()),
        }
    }
}

async fn containers(client: &Client, states: &[State]) -> Result<Vec<String>, tonic::Status> {
    let request = ListContainersRequest {
        all: true,
        ..Default::default()
    };
    let reply = client.containers().list(request).await?.into_inner();
    let containers = reply.containers.into_iter();
    let fits = |state: State| states.is_empty() || states.contains(&state);
    Ok(containers
        .filter(|container| fits(container.state()))
        .map(|container| container.name)
        .collect())
}

async fn images(client: &Client) -> Result<Vec<String>, tonic::Status> {
    let reply = client.images().list(ListImagesRequest::default()).await?;
    let images = reply.into_inner().images.into_iter();
    let names = images.flat_map(|image| image.names);
    Ok(names.map(|name| familiar(&name).to_owned()).collect())
}

/// Names come from a manager that may be somebody else's, and go into a command line: none of them does anything there.
fn is_plain(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@+".contains(&byte);
    !name.starts_with('-') && name.bytes().all(is_plain)
}

/// Which manager is meant, by what is typed so far.
fn connection() -> Option<Connection> {
    let words = std::env::args_os().skip_while(|word| word != "--").skip(1);
    let typed = Cli::command()
        .ignore_errors(true)
        .try_get_matches_from(words.collect::<Vec<OsString>>())
        .ok()?;
    Connection::from_arg_matches(&typed).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn values(path: &[&str], id: &str) -> Option<Values> {
        let mut command = Cli::command();
        for name in path {
            command = command.find_subcommand(name).expect("a command").clone();
        }
        let name = command.get_name().to_owned();
        let mut args = command.get_arguments();
        let arg = args.find(|arg| arg.get_id() == id || arg.get_long() == Some(id));
        Values::of(&name, arg.expect("an argument"))
    }

    #[test]
    fn arguments_take_what_their_help_says() {
        assert_eq!(values(&["rmi"], "images"), Some(Values::Images));
        assert_eq!(values(&["pull"], "reference"), Some(Values::Images));
        assert_eq!(values(&["inspect"], "names"), Some(Values::ContainersAndImages));
        assert_eq!(values(&["rm"], "containers"), Some(Values::Containers(ALL)));
        assert_eq!(values(&["network", "rm"], "networks"), Some(Values::Networks));
        assert_eq!(values(&["run"], "network"), Some(Values::Networks));
        assert_eq!(values(&["volume", "rm"], "names"), Some(Values::Volumes));
        assert_eq!(values(&["context", "use"], "name"), Some(Values::Contexts));
        assert_eq!(values(&[], "context"), Some(Values::Contexts));
        assert_eq!(values(&["volume", "create"], "name"), None);
    }

    #[test]
    fn a_name_that_a_shell_would_act_on_is_not_given() {
        assert!(is_plain("registry.example:5000/a_b/c-d@sha256:0"));
        for name in ["a;reboot", "$(reboot)", "a b", "-rf", "a\n", "`a`", "a*"] {
            assert!(!is_plain(name), "{name}");
        }
    }

    #[test]
    fn each_shell_has_a_script_that_asks() {
        for shell in [
            Shell::Bash,
            Shell::Zsh,
            Shell::Fish,
            Shell::Elvish,
            Shell::PowerShell,
        ] {
            let script = String::from_utf8(script(shell).unwrap()).unwrap();
            assert!(
                script.contains(VARIABLE) && script.contains(NAME),
                "{shell}: {script}"
            );
        }
    }
}
