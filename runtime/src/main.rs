//! The OCI runtime: one command of a container's life per process, with the command line of runc.

#![cfg_attr(not(test), no_main)]
#![cfg_attr(test, allow(dead_code))]

mod bundle;
mod capabilities;
mod cgroup;
mod channel;
mod checkpoint;
mod cli;
mod clock;
mod config_text;
mod create;
mod default_config;
mod delete;
mod error;
mod events;
mod exec;
mod features;
mod foreground;
mod freeze;
mod gate;
mod hooks;
mod id;
mod id_maps;
mod init;
mod intel_rdt;
mod json_path;
mod kill;
mod list;
mod log;
mod memory_policy;
mod mounts;
mod namespaces;
mod net_devices;
mod netlink;
mod newborn;
mod notify;
mod phases;
mod process;
mod procfs;
mod program;
mod protect;
mod ps;
mod run;
mod scheduling;
mod seccomp;
mod standard_streams;
mod start;
mod state;
mod sys;
mod terminal;
mod trampoline;
mod update;
mod user;
mod validate;

use std::path::{Path, PathBuf};

use cli::parse::Parsed;
use cli::{Invocation, Values, completion, help, man};
use error::{Error, Result};
use id::Id;
use sys::credentials::own_users;
use sys::entry::arguments;

/// musl's own goes to the kernel for every larger piece: 40 system calls a start.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// What runc's `exec` exits with when there was no program whose code it could pass on.
const EXEC_FAILED: i32 = 255;

/// Called by `sys::entry`. Returns the exit code.
fn begin() -> i32 {
    phases::reached("runtime.begin");
    let words = arguments().iter().skip(1);
    let words = words.map(|word| word.to_str().map(str::to_owned).ok_or(word));
    let words = match words.collect::<std::result::Result<Vec<_>, _>>() {
        Ok(words) => words,
        Err(word) => {
            log::error(&format!("argument {} is not UTF-8", word.display()));
            return 1;
        }
    };
    match cli::parse(words) {
        Parsed::Help(command) => {
            print!("{}", help::help(&own_name(), command));
            0
        }
        Parsed::Version => {
            let version = env!("CARGO_PKG_VERSION");
            // The three lines of runc's answer, which dockerd reads.
            println!(
                "{} version {version}\ncommit: v{version}\nspec: 1.3.0",
                own_name()
            );
            0
        }
        Parsed::Wrong {
            global,
            command,
            text,
        } => {
            let _ = log::open(&global);
            eprint!("{}", help::help(&own_name(), command));
            log::error(&text);
            1
        }
        Parsed::Run(invocation) => carry_out(&invocation),
    }
}

/// What the user calls this program: `runc`, where it stands in runc's place.
fn own_name() -> String {
    let called = arguments().first().map(Path::new);
    let name = called.and_then(Path::file_name).unwrap_or("runtime".as_ref());
    name.to_string_lossy().into_owned()
}

fn carry_out(invocation: &Invocation) -> i32 {
    match log::open(&invocation.global).and_then(|()| dispatch(invocation)) {
        Ok(code) => code,
        Err(error) => {
            let name = invocation.command.name;
            // runc's words, which its callers look for.
            let text = match name {
                "create" | "run" => format!("runtime {name} failed: {error}"),
                "exec" => format!("exec failed: {error}"),
                _ => error.to_string(),
            };
            log::error(&text);
            if name == "exec" { EXEC_FAILED } else { 1 }
        }
    }
}

fn dispatch(invocation: &Invocation) -> Result<i32> {
    let Invocation {
        global,
        command,
        flags,
        arguments,
    } = invocation;
    if matches!(command.name, "spec" | "features" | "completion" | "man") {
        return about_no_container(invocation).map(|()| 0);
    }
    let root = state_root(global)?;
    let root = root.as_path();
    cgroup::set_rootless(global.get("rootless"))?;
    log::debug(|| format!("{} {arguments:?}, state in {}", command.name, root.display()));
    let id = || Id::parse(arguments.first().map(String::as_str).unwrap_or_default());
    let cgroups = driver(global)?;
    match command.name {
        "create" => create::create(&create_options(root, id()?, cgroups, flags, true)?).map(drop)?,
        "start" => start::start(root, &id()?)?,
        "run" => {
            let after = run::After {
                detach: flags.is_on("detach"),
                keep: flags.is_on("keep"),
                subreaper: !flags.is_on("no-subreaper"),
            };
            return run::run(&create_options(root, id()?, cgroups, flags, false)?, &after);
        }
        "state" => list::state(root, &id()?)?,
        "kill" => {
            let signal = kill::parse_signal(arguments.get(1).map_or("TERM", String::as_str))?;
            kill::kill(root, &id()?, signal, flags.is_on("all"))?;
        }
        "delete" => delete::delete(root, &id()?, flags.is_on("force"), cgroups)?,
        "exec" => return exec::exec(root, &id()?, &exec_request(flags, &arguments[1..])?),
        "ps" => {
            let json = format(flags)? == list::Format::Json;
            ps::ps(root, &id()?, json, &arguments[1..])?;
        }
        "list" if global.get("root").is_some_and(|asked| !asked.is_empty()) && !root.exists() => {
            return Err(Error::Refused(format!(
                "state root {} does not exist",
                root.display()
            )));
        }
        "list" if flags.is_on("quiet") => list::list(root, list::Format::Quiet)?,
        "list" => list::list(root, format(flags)?)?,
        "pause" => freeze::pause(root, &id()?)?,
        "resume" => freeze::resume(root, &id()?)?,
        "update" => update::update(root, &id()?, flags)?,
        "checkpoint" => {
            let options = checkpoint::Options::read(global, flags)?;
            checkpoint::checkpoint(root, &id()?, &checkpoint::Dump::read(flags, &options)?, &options)?;
        }
        "restore" => {
            let options = checkpoint::Options::read(global, flags)?;
            return checkpoint::restore(&restore_request(root, id()?, cgroups, flags)?, &options);
        }
        "events" if flags.is_on("stats") => events::stats(root, &id()?)?,
        "events" => {
            let interval = events::parse_interval(flags.get("interval").unwrap_or("5s"))?;
            events::stream(root, &id()?, interval)?;
        }
        name => return Err(Error::Refused(format!("{name} is not supported yet"))),
    }
    Ok(0)
}

/// Commands that need no state.
fn about_no_container(invocation: &Invocation) -> Result<()> {
    let Invocation {
        command,
        flags,
        arguments,
        ..
    } = invocation;
    match command.name {
        "spec" => default_config::write(&bundle_dir(flags), flags.is_on("rootless"))?,
        "features" => features::features()?,
        "completion" => print!("{}", completion::script(&arguments[0])?),
        "man" => print!("{}", man::page(arguments.first().map(String::as_str))?),
        name => return Err(Error::Refused(format!("{name} is not supported yet"))),
    }
    Ok(())
}

/// Who makes cgroups: runc's switch, or crun's flag, by which podman asks for none.
fn driver(global: &Values) -> Result<cgroup::Driver> {
    match global.get("cgroup-manager") {
        _ if global.is_on("systemd-cgroup") => Ok(cgroup::Driver::Systemd),
        None | Some("" | "cgroupfs") => Ok(cgroup::Driver::Filesystem),
        Some("systemd") => Ok(cgroup::Driver::Systemd),
        Some("disabled") => Ok(cgroup::Driver::Disabled),
        Some(other) => Err(Error::Refused(format!(
            "--cgroup-manager {other:?}: must be cgroupfs, systemd or disabled"
        ))),
    }
}

/// Where state is kept: `--root`, or the usual place for root and for others.
fn state_root(global: &Values) -> Result<PathBuf> {
    if let Some(root) = global.get("root").filter(|root| !root.is_empty()) {
        let absolute = std::path::absolute(root);
        return error::Context::context(absolute, || format!("find state root {root}"));
    }
    if own_users().1 == 0 && !is_root_of_a_user() {
        return Ok(PathBuf::from("/run/berth"));
    }
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| Path::new(dir).is_absolute()) {
        Some(dir) => Ok(Path::new(&dir).join("berth")),
        None => Err(Error::Refused(
            "without root rights, --root or $XDG_RUNTIME_DIR must say where state is".into(),
        )),
    }
}

/// Root, but that of a user namespace which a normal user has entered before, as rootless podman does: the user's
/// runtime folder counts. Not for a container's root, whose `$USER` says so.
fn is_root_of_a_user() -> bool {
    let user = std::env::var_os("USER");
    std::env::var_os("XDG_RUNTIME_DIR").is_some()
        && user.is_none_or(|user| user != "root")
        && cgroup::is_rootless()
}

fn bundle_dir(flags: &Values) -> PathBuf {
    flags
        .get("bundle")
        .filter(|dir| !dir.is_empty())
        .unwrap_or(".")
        .into()
}

fn path(flags: &Values, flag: &str) -> Option<PathBuf> {
    flags.get(flag).filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn create_options<'a>(
    root: &'a Path,
    id: Id,
    cgroups: cgroup::Driver,
    flags: &Values,
    gated: bool,
) -> Result<create::Options<'a>> {
    keep_descriptors(flags)?;
    Ok(create::Options {
        root,
        id,
        bundle: bundle_dir(flags),
        console_socket: path(flags, "console-socket"),
        pidfd_socket: path(flags, "pidfd-socket"),
        pid_file: path(flags, "pid-file"),
        no_pivot: flags.is_on("no-pivot"),
        new_keyring: !flags.is_on("no-new-keyring"),
        cgroups,
        gated,
        foreground: !gated && !flags.is_on("detach"),
    })
}

fn restore_request<'a>(
    root: &'a Path,
    id: Id,
    cgroups: cgroup::Driver,
    flags: &Values,
) -> Result<checkpoint::Restore<'a>> {
    keep_descriptors(flags)?;
    let text = |flag: &str| flags.get(flag).filter(|text| !text.is_empty()).map(str::to_owned);
    Ok(checkpoint::Restore {
        root,
        id,
        bundle: bundle_dir(flags),
        cgroups,
        console_socket: path(flags, "console-socket"),
        pid_file: path(flags, "pid-file"),
        detach: flags.is_on("detach"),
        subreaper: !flags.is_on("no-subreaper"),
        lsm_profile: text("lsm-profile"),
        lsm_mount_context: text("lsm-mount-context"),
    })
}

fn exec_request(flags: &Values, arguments: &[String]) -> Result<exec::Request> {
    keep_descriptors(flags)?;
    let all = |flag: &str| flags.all(flag).map(str::to_owned).collect::<Vec<_>>();
    Ok(exec::Request {
        process: path(flags, "process"),
        arguments: arguments.to_vec(),
        environment: all("env"),
        working_directory: path(flags, "cwd"),
        user: flags
            .get("user")
            .filter(|user| !user.is_empty())
            .map(str::to_owned),
        additional_gids: all("additional-gids"),
        capabilities: all("cap"),
        no_new_privileges: flags.is_on("no-new-privs"),
        terminal: flags.is_on("tty"),
        selinux_label: flags.get("process-label").map(str::to_owned),
        apparmor_profile: flags.get("apparmor").map(str::to_owned),
        cgroups: all("cgroup"),
        detach: flags.is_on("detach"),
        ignore_paused: flags.is_on("ignore-paused"),
        console_socket: path(flags, "console-socket"),
        pidfd_socket: path(flags, "pidfd-socket"),
        pid_file: path(flags, "pid-file"),
    })
}

/// The container's program inherits the standard streams, `$LISTEN_FDS` and what `--preserve-fds` says.
fn keep_descriptors(flags: &Values) -> Result<()> {
    let text = flags.get("preserve-fds").unwrap_or("0");
    let extra = text
        .parse()
        .map_err(|_| Error::Refused(format!("--preserve-fds {text:?}: not a number")))?;
    standard_streams::keep_only(extra)
}

fn format(flags: &Values) -> Result<list::Format> {
    match flags.get("format") {
        None | Some("table") => Ok(list::Format::Table),
        Some("json") => Ok(list::Format::Json),
        Some(other) => Err(Error::Refused(format!(
            "--format {other:?}: must be table or json"
        ))),
    }
}
