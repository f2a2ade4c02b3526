//! The command line: what can be typed, and the help for it. Names and letters are docker's.

mod archives;
mod connection;
mod cp;
mod isolation;
mod leases;
mod logging;
mod names;
mod networks;
mod ports;
mod registries;
mod resources;
mod storage;
mod store;
mod upkeep;
mod volumes;

pub(crate) use archives::{Commit, Diff, Export, Import, Load, Save};
pub(crate) use connection::{Connection, ContextCommand, Endpoint};
pub(crate) use cp::Copy;
pub(crate) use isolation::{IdentityFlags, IsolationFlags};
pub(crate) use leases::{CreateLease, LeaseCommand};
pub(crate) use logging::LoggingFlags;
pub(crate) use names::NameFlags;
pub(crate) use networks::{ConnectNetwork, CreateNetwork, ListNetworks, NetworkCommand, NetworkFlags};
pub(crate) use ports::{Port, PortFlags};
pub(crate) use registries::{InspectManifest, Manifest, Push, Search};
pub(crate) use resources::{LimitFlags, ResourceFlags};
pub(crate) use storage::StorageFlags;
pub(crate) use store::{History, ImageCommand, PruneImages, SystemCommand, Tag};
pub(crate) use upkeep::{Events, Stats, Update, UpkeepFlags};
pub(crate) use volumes::{CreateVolume, ListVolumes, PruneVolumes, RemoveVolumes, VolumeCommand};

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::detach::DetachKeys;
pub(crate) use crate::format::Format;
use crate::time;

/// Run containers, by way of the Berth manager.
#[derive(Debug, Parser)]
#[command(name = "managerctl", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) connection: Connection,

    /// How to print what is asked for: table, json, or a template as docker's, as '{{.Name}}' or 'table {{.ID}}\t{{.Name}}'
    #[arg(long, global = true, value_name = "FORMAT", value_parser = Format::parse)]
    pub(crate) format: Option<Format>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Fetch an image from a registry
    Pull(Pull),
    /// Bring an image to a registry
    Push(Push),
    /// List images
    Images(Images),
    /// Remove images
    Rmi(RemoveImages),
    /// Give an image one more name
    Tag(Tag),
    /// Show how an image was built
    History(History),
    /// Look after images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Keep images from rmi and prune for a time
    #[command(subcommand)]
    Lease(LeaseCommand),
    /// Give names to managers, and choose one
    #[command(subcommand)]
    Context(ContextCommand),
    /// Look after the whole of it
    #[command(subcommand)]
    System(SystemCommand),
    /// Write images into one archive
    Save(Save),
    /// Take images from an archive
    Load(Load),
    /// Make an image from an archive of a root file system
    Import(Import),
    /// Find repositories in a registry
    Search(Search),
    /// Look at manifests in a registry
    #[command(subcommand)]
    Manifest(Manifest),
    /// Log in to a registry
    Login(Login),
    /// Forget the login to a registry
    Logout(Logout),
    // `-h` is --hostname there, as in docker.
    /// Create a container, start it, and attach to it
    #[command(disable_help_flag = true)]
    Run(Run),
    /// Create a container
    #[command(disable_help_flag = true)]
    Create(Create),
    /// Start containers that are created or have exited
    Start(Start),
    /// Ask containers to end, and make them if they do not
    Stop(Stop),
    /// Stop containers, and start them again
    Restart(Stop),
    /// Send a signal to containers
    Kill(Kill),
    /// Stop all processes of containers where they are
    Pause(Containers),
    /// Let the processes of paused containers run on
    Unpause(Containers),
    /// Wait until containers have exited, and print their exit codes
    Wait(Wait),
    /// Change the limits or the restart policy of containers
    Update(Update),
    /// Give a container another name
    Rename(Rename),
    /// Remove containers
    Rm(Remove),
    /// List containers
    Ps(List),
    /// Look after containers
    #[command(subcommand)]
    Container(ContainerCommand),
    /// Look after volumes: data that outlives containers
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Look after networks: who reaches whom
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Show the processes of a container
    Top(Top),
    /// Show what containers use, again and again
    Stats(Stats),
    /// Show where on this machine the ports of a container are
    Port(Port),
    /// Show what a container has written
    Logs(Logs),
    /// Run a command in a running container
    Exec(Exec),
    /// Join the terminal or pipes of a running container
    Attach(Attach),
    /// Copy files out of a container, or into it
    Cp(Copy),
    /// Write a container's root file system as an archive
    Export(Export),
    /// Make an image of what a container has become
    Commit(Commit),
    /// Show what a container has changed in its image
    Diff(Diff),
    /// Show all that is known of containers or images, as JSON
    Inspect(Inspect),
    /// Show the versions of client and manager
    Version,
    /// Show the machine, the manager's configuration, and how much there is
    Info,
    /// Show what happens, as it happens
    Events(Events),
    /// Print a script by which a shell completes this command's words, and names of containers, images, networks, volumes
    /// and contexts: `source <(managerctl completion bash)`
    Completion { shell: clap_complete::Shell },
}

impl Command {
    /// Whether `--format` means anything to it.
    pub(crate) fn has_format(&self) -> bool {
        matches!(
            self,
            Self::Images(_)
                | Self::Image(_)
                | Self::Lease(LeaseCommand::Ls { .. })
                | Self::Context(ContextCommand::Ls { .. })
                | Self::History(_)
                | Self::Search(_)
                | Self::System(
                    SystemCommand::Df { .. }
                        | SystemCommand::Check { .. }
                        | SystemCommand::Doctor
                        | SystemCommand::Info
                )
                | Self::Ps(_)
                | Self::Top(_)
                | Self::Stats(_)
                | Self::Inspect(_)
                | Self::Version
                | Self::Info
                | Self::Volume(VolumeCommand::Ls(_) | VolumeCommand::Inspect { .. })
                | Self::Network(NetworkCommand::Ls(_))
                | Self::Events(_)
        )
    }

    /// What is given as -f.
    pub(crate) fn format_letter(&self) -> Option<Format> {
        match self {
            Self::Inspect(Inspect { letter, .. })
            | Self::Image(ImageCommand::Inspect { letter, .. })
            | Self::Volume(VolumeCommand::Inspect { letter, .. }) => letter.format.clone(),
            _ => None,
        }
    }

    /// Whether `--format` may be a template.
    pub(crate) fn has_template(&self) -> bool {
        matches!(
            self,
            Self::Images(_)
                | Self::Image(ImageCommand::Inspect { .. })
                | Self::Context(ContextCommand::Ls { .. })
                | Self::Search(_)
                | Self::Ps(_)
                | Self::Stats(_)
                | Self::Inspect(_)
                | Self::Version
                | Self::Info
                | Self::System(SystemCommand::Info)
                | Self::Volume(VolumeCommand::Ls(_) | VolumeCommand::Inspect { .. })
                | Self::Events(_)
        )
    }
}

#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// Variant of the image, as os/architecture[/variant]; else this machine's
    #[arg(long, value_name = "PLATFORM", default_value = "", hide_default_value = true)]
    pub(crate) platform: String,
    /// Keep all variants of the image, for push and save, and unpack the chosen one
    #[arg(short, long)]
    pub(crate) all_platforms: bool,
    /// Print only the image's name, at the end
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Image, as registry/name:tag or name@digest; what is left out is as in docker
    #[arg(value_name = "IMAGE")]
    pub(crate) reference: String,
}

#[derive(Debug, Args)]
pub(crate) struct Images {
    /// Print only IDs
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print IDs whole
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Print digests too
    #[arg(long)]
    pub(crate) digests: bool,
    /// Only some: dangling=true, label=KEY[=VALUE], before=IMAGE, since=IMAGE, until=24h, reference=PATTERN
    #[arg(short, long = "filter", value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
    /// Only those whose name matches
    #[arg(value_name = "NAME")]
    pub(crate) reference: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveImages {
    /// Remove an image of several names, with all of them; of one that a container or a lease needs, only the names. One that is not there is no failure
    #[arg(short, long)]
    pub(crate) force: bool,
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// User name
    #[arg(short, long, value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// Password or access token
    #[arg(
        short,
        long,
        value_name = "PASSWORD",
        requires = "username",
        conflicts_with = "password_stdin"
    )]
    pub(crate) password: Option<String>,
    /// Take the password from stdin
    #[arg(long, requires = "username")]
    pub(crate) password_stdin: bool,
    /// Registry, as host or host:port; else docker's own
    #[arg(value_name = "SERVER", default_value = "", hide_default_value = true)]
    pub(crate) server: String,
}

#[derive(Debug, Args)]
pub(crate) struct Logout {
    /// Registry, as host or host:port; else docker's own
    #[arg(value_name = "SERVER", default_value = "", hide_default_value = true)]
    pub(crate) server: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullPolicy {
    /// When the image is not here
    Missing,
    /// Even when it is
    Always,
    Never,
}

/// One that `run` joins to its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttachedStream {
    Stdin,
    Stdout,
    Stderr,
}

fn attached_stream(text: &str) -> Result<AttachedStream, String> {
    match text.to_ascii_lowercase().as_str() {
        "stdin" => Ok(AttachedStream::Stdin),
        "stdout" => Ok(AttachedStream::Stdout),
        "stderr" => Ok(AttachedStream::Stderr),
        _ => Err("valid streams are STDIN, STDOUT and STDERR".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Keep stdin open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Attach only some streams: stdin, stdout, stderr
    #[arg(short, long, value_name = "STREAM", value_parser = attached_stream)]
    pub(crate) attach: Vec<AttachedStream>,
    /// Remove the container when it has exited
    #[arg(long)]
    pub(crate) rm: bool,
    /// Name of the container; else one is made up
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) process: ProcessFlags,
    #[command(flatten)]
    pub(crate) storage: StorageFlags,
    /// Host name of the container
    #[arg(
        short = 'h',
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) hostname: String,
    #[command(flatten)]
    pub(crate) networks: NetworkFlags,
    #[command(flatten)]
    pub(crate) ports: PortFlags,
    #[command(flatten)]
    pub(crate) names: NameFlags,
    /// Program in place of the image's entrypoint; empty: none
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    #[command(flatten)]
    pub(crate) limits: LimitFlags,
    #[command(flatten)]
    pub(crate) resources: ResourceFlags,
    #[command(flatten)]
    pub(crate) isolation: IsolationFlags,
    #[command(flatten)]
    pub(crate) identity: IdentityFlags,
    #[command(flatten)]
    pub(crate) logging: LoggingFlags,
    /// Set a label
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub(crate) label: Vec<String>,
    /// Make the root file system read-only
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Give the container all that root of this machine may
    #[arg(long)]
    pub(crate) privileged: bool,
    /// Add a capability
    #[arg(long, value_name = "CAPABILITY")]
    pub(crate) cap_add: Vec<String>,
    /// Take a capability away
    #[arg(long, value_name = "CAPABILITY")]
    pub(crate) cap_drop: Vec<String>,
    /// Signal by which the container is stopped
    #[arg(long, value_name = "SIGNAL", default_value = "", hide_default_value = true)]
    pub(crate) stop_signal: String,
    #[command(flatten)]
    pub(crate) upkeep: UpkeepFlags,
    /// When to pull the image
    #[arg(long, value_enum, value_name = "WHEN", default_value = "missing")]
    pub(crate) pull: PullPolicy,
    /// Do not show how the pull goes on
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Variant of the image to pull, as os/architecture[/variant]
    #[arg(long, value_name = "PLATFORM", default_value = "", hide_default_value = true)]
    pub(crate) platform: String,
    // One list, because all that follows the image belongs to the container's command, flags or not.
    /// Image, and the command to run in place of the image's own
    #[arg(required = true, trailing_var_arg = true, value_names = ["IMAGE", "COMMAND"])]
    pub(crate) image_and_command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Leave the container in the background, and print its ID
    #[arg(short, long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) session: SessionFlags,
    #[command(flatten)]
    pub(crate) create: Create,
}

#[derive(Debug, Args)]
pub(crate) struct SessionFlags {
    /// Keys that leave the container without ending it
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub(crate) detach_keys: DetachKeys,
    /// Pass signals on to the container, when it has no terminal
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) sig_proxy: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Show the output, and exit as the container does
    #[arg(short, long)]
    pub(crate) attach: bool,
    /// Attach stdin too
    #[arg(short, long)]
    pub(crate) interactive: bool,
    #[command(flatten)]
    pub(crate) session: SessionFlags,
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// Do not attach stdin
    #[arg(long)]
    pub(crate) no_stdin: bool,
    #[command(flatten)]
    pub(crate) session: SessionFlags,
    pub(crate) container: String,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// How long to wait before the container is killed
    #[arg(short = 't', long = "timeout", alias = "time", value_name = "SECONDS")]
    pub(crate) timeout_seconds: Option<u32>,
    /// Signal to send first
    #[arg(short, long, default_value = "", hide_default_value = true)]
    pub(crate) signal: String,
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Signal to send, by name or number
    #[arg(short, long, default_value = "KILL")]
    pub(crate) signal: String,
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Containers {
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// What to wait for
    #[arg(long, value_enum, value_name = "CONDITION", default_value = "not-running")]
    pub(crate) condition: Condition,
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Condition {
    /// It does not run, now or later
    NotRunning,
    /// The run of now or the next one has ended
    NextExit,
    /// It has been removed
    Removed,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContainerCommand {
    /// Remove containers that do not run, with what they have written
    Prune(PruneContainers),
}

#[derive(Debug, Args)]
pub(crate) struct PruneContainers {
    /// Only some: until=24h, label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long = "filter", value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
    /// Do not ask first
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Top {
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
    /// What ps(1) is asked for
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PS OPTION")]
    pub(crate) ps_args: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Rename {
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Remove running containers too; one that is not there is no failure
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Remove their anonymous volumes too
    #[arg(short, long)]
    pub(crate) volumes: bool,
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// List all containers, not only those that run
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Print only IDs
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print IDs and commands whole
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Only some: name=PATTERN, id=PATTERN, label=KEY[=VALUE], status=STATE, exited=CODE, health=HEALTH, ancestor=IMAGE,
    /// before=CONTAINER, since=CONTAINER, volume=NAME, network=NAME
    #[arg(short, long = "filter", value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
    /// Only so many that were made last, running or not
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub(crate) last: Option<usize>,
    /// Only the one that was made last, running or not
    #[arg(short, long, conflicts_with = "last")]
    pub(crate) latest: bool,
    /// Show how much each has written, and how much that is with its image
    #[arg(short, long)]
    pub(crate) size: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Go on as the container writes more
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Begin so many lines before the end, or with all
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all", value_parser = tail_lines)]
    pub(crate) tail: TailLines,
    /// Show when each line was written
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Begin at a time, or so long ago (10m)
    #[arg(long, value_name = "TIME", value_parser = time::parse_since)]
    pub(crate) since: Option<i64>,
    /// End at a time, or so long ago (10m)
    #[arg(long, value_name = "TIME", value_parser = time::parse_since)]
    pub(crate) until: Option<i64>,
    /// Show what logging options add to each record: labels, variables, the tag
    #[arg(long)]
    pub(crate) details: bool,
    pub(crate) container: String,
}

/// How many last lines; `None`: all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TailLines(pub(crate) Option<u64>);

fn tail_lines(text: &str) -> Result<TailLines, String> {
    if text == "all" {
        return Ok(TailLines(None));
    }
    text.parse()
        .map(|lines| TailLines(Some(lines)))
        .map_err(|_| "is neither a number of lines nor `all`".to_owned())
}

/// What a container's process and one more in it are both given.
#[derive(Debug, Args)]
pub(crate) struct ProcessFlags {
    /// Set a variable, or hand on one of your own
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Set the variables that a file lists, one a line
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Directory to start in
    #[arg(
        short,
        long,
        value_name = "DIRECTORY",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) workdir: String,
    /// User to run as
    #[arg(
        short,
        long,
        value_name = "USER[:GROUP]",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) user: String,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Keep stdin open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Leave the command in the background
    #[arg(short, long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) process: ProcessFlags,
    /// Give the command all that root of this machine may
    #[arg(long)]
    pub(crate) privileged: bool,
    /// Keys that leave the command without ending it
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub(crate) detach_keys: DetachKeys,
    // One list, because all that follows the container belongs to the command, flags or not.
    /// Container, and the command to run in it
    #[arg(required = true, trailing_var_arg = true, num_args = 2.., value_names = ["CONTAINER", "COMMAND"])]
    pub(crate) container_and_command: Vec<String>,
}

/// Docker's letter for --format, where it has one.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct FormatLetter {
    /// The same as --format
    #[arg(short = 'f', id = "format_letter", value_name = "FORMAT", value_parser = Format::parse, conflicts_with = "format")]
    format: Option<Format>,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    pub(crate) letter: FormatLetter,
    /// Kind of thing; else containers are looked for first, then images
    #[arg(long = "type", value_enum, value_name = "KIND")]
    pub(crate) kind: Option<Kind>,
    /// Of containers, how much they have written, and how much that is with their images
    #[arg(short, long)]
    pub(crate) size: bool,
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    Container,
    Image,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(format!("managerctl {line}").split(' ')).map(|cli| cli.command)
    }

    fn run(line: &str) -> Run {
        match parse(line) {
            Ok(Command::Run(run)) => run,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_definitions_are_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn the_table_of_dockers_flags_tells_what_is_done() {
        let mut command = <Cli as clap::CommandFactory>::command();
        let run = command.find_subcommand_mut("run").expect("run is there");
        let has: std::collections::BTreeSet<_> = run
            .get_arguments()
            .filter_map(|flag| flag.get_long())
            .filter(|&flag| flag != "help")
            .collect();
        let rows = include_str!("../RUN.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `--"));
        let done: std::collections::BTreeSet<_> = rows
            .filter_map(|row| row.split_once("` | "))
            .filter_map(|(flag, said)| said.starts_with("done |").then_some(flag))
            .collect();
        assert_eq!(has, done);
    }

    #[test]
    fn all_that_follows_the_image_is_the_command() {
        let parsed = run("run -it --rm -e A=1 -eB=2 image ls -la --rm -i -- -x --socket=y");
        assert!(parsed.create.interactive && parsed.create.tty && parsed.create.rm && !parsed.detach);
        assert_eq!(parsed.create.process.env, ["A=1", "B=2"]);
        let expected = ["image", "ls", "-la", "--rm", "-i", "--", "-x", "--socket=y"];
        assert_eq!(parsed.create.image_and_command, expected);
        assert_eq!(
            run("run image -d --help").create.image_and_command,
            ["image", "-d", "--help"]
        );
    }

    #[test]
    fn limits_are_numbers_with_units() {
        let parsed = run("run -m 64m --cpus 1.5 --pids-limit -1 -h host image");
        assert_eq!(parsed.create.limits.memory, Some(64 << 20));
        assert_eq!(parsed.create.limits.cpus, Some(1500));
        assert_eq!(parsed.create.limits.pids_limit, Some(-1));
        assert_eq!(parsed.create.hostname, "host");
        for line in [
            "run -m 64x image",
            "run --cpus -1 image",
            "run --pids-limit=-2 image",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn signals_are_passed_on_unless_refused() {
        assert!(run("run image").session.sig_proxy);
        assert!(run("run --sig-proxy image").session.sig_proxy);
        assert!(!run("run --sig-proxy=false image").session.sig_proxy);
    }

    #[test]
    fn streams_to_attach_are_named_in_any_case() {
        let attached = run("run -a stdin -a STDERR image").create.attach;
        assert_eq!(attached, [AttachedStream::Stdin, AttachedStream::Stderr]);
        assert!(run("run image").create.attach.is_empty());
        assert!(parse("run -a stdlog image").is_err());
    }

    #[test]
    fn exec_needs_a_command() {
        assert!(parse("exec container").is_err());
        let Ok(Command::Exec(exec)) = parse("exec -it container sh -c -i") else {
            panic!()
        };
        assert_eq!(exec.container_and_command, ["container", "sh", "-c", "-i"]);
    }

    #[test]
    fn logs_begin_where_asked() {
        let Ok(Command::Logs(logs)) = parse("logs -f --tail 10 --since 1700000000 c") else {
            panic!()
        };
        assert_eq!(
            (logs.tail, logs.since),
            (TailLines(Some(10)), Some(1_700_000_000_000_000_000))
        );
        let Ok(Command::Logs(logs)) = parse("logs c") else {
            panic!()
        };
        assert_eq!((logs.tail, logs.since), (TailLines(None), None));
        assert!(parse("logs --tail -1 c").is_err());
    }

    #[test]
    fn leases_last_a_day_unless_told() {
        for (line, seconds) in [("", 24 * 3600), ("--ttl 1h30m ", 5400), ("--ttl 90s ", 90)] {
            let Ok(Command::Lease(LeaseCommand::Create(lease))) = parse(&format!("lease create {line}a b"))
            else {
                panic!("{line}")
            };
            assert_eq!((lease.ttl_seconds, lease.images.len()), (seconds, 2), "{line}");
        }
        for ttl in ["0s", "-1h", "20", "forever"] {
            assert!(parse(&format!("lease create --ttl {ttl} a")).is_err(), "{ttl}");
        }
        assert!(parse("lease create").is_err() && parse("lease rm").is_err());
    }

    #[test]
    fn global_flags_stand_before_or_after_the_command() {
        for line in ["managerctl --format json ps -a", "managerctl ps -a --format json"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.format, Some(Format::Json));
        }
    }
}
