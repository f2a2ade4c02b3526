//! `start`: finds the shim that serves this container already, or makes one, and prints where it listens.

use std::io::{self, PipeWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::params::{self, Params, Protocol};
use super::read_stdin;
use crate::arguments::Arguments;
use crate::bundle::{self, ADDRESS_FILE, Config, GROUP_FILE, OPTIONS_FILE, SHIM_PID_FILE};
use crate::task::is_valid_id;
use crate::{failpoint, sandbox, socket, sys};

/// What the daemon is told on its stdin when its caller has the address. If `start` dies before that, nobody knows of
/// the daemon, and it ends.
pub(crate) const GO: &[u8] = b"!";

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0:?} is no container id")]
    BadId(String),
    #[error("{0}")]
    Config(String),
    #[error(transparent)]
    Socket(#[from] socket::SocketError),
    #[error("{what}: {error}")]
    Io { what: &'static str, error: io::Error },
}

fn io(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |error| StartError::Io { what, error }
}

/// Runs in the bundle, or goes there if it is named.
pub fn start(arguments: &Arguments) -> Result<(), StartError> {
    if !is_valid_id(&arguments.id) {
        return Err(StartError::BadId(arguments.id.clone()));
    }
    sys::usual_umask();
    if !arguments.bundle.is_empty() {
        std::env::set_current_dir(&arguments.bundle).map_err(io("enter the bundle"))?;
    }
    let bundle = std::env::current_dir().map_err(io("find the bundle"))?;
    let input = read_stdin().map_err(io("read stdin"))?;
    let max_version = std::env::var("MAX_SHIM_VERSION").ok();
    let params = Params::parse(
        &input,
        &arguments.id,
        &arguments.namespace,
        max_version.as_deref(),
    );
    // Its configuration, if it has one already, says nothing of a group.
    let is_sandbox = sandbox::is_bundle(&bundle);
    let found = if is_sandbox {
        socket::live_address(&bundle)
    } else {
        existing(&bundle, &arguments.id)?
    };
    let (address, daemon) = if let Some(address) = found {
        bundle::write_file(&bundle, ADDRESS_FILE, address.as_bytes()).map_err(io("write address"))?;
        (address, None)
    } else {
        if is_sandbox && !params.options.is_empty() {
            // The call that creates it does not tell them.
            bundle::write_file(&bundle, OPTIONS_FILE, &params.options)
                .map_err(io("write the runtime options"))?;
        }
        let (address, waiting) = spawn(arguments, &params, &bundle)?;
        (address, Some(waiting))
    };
    // containerd 2 says that it knows version 2 alone, as 1.7 did, but without version 3 it starts a shim for each of
    // the sandbox's containers. Only 2 has bundles of sandboxes.
    let protocol = match params.protocol {
        Protocol::Text if is_sandbox => Protocol::Json,
        protocol => protocol,
    };
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(&params::answer(protocol, &address))
        .map_err(io("print the address"))?;
    stdout.flush().map_err(io("print the address"))?;
    failpoint::reach("bootstrap.printed");
    if let Some(mut daemon) = daemon {
        daemon.write_all(GO).map_err(io("let the daemon go"))?;
    }
    Ok(())
}

/// The address of a living shim for this container: its own from an earlier `start`, or that of its pod or group. Their
/// bundles lie beside this one.
fn existing(bundle: &Path, id: &str) -> Result<Option<String>, StartError> {
    if let Some(address) = socket::live_address(bundle) {
        return Ok(Some(address));
    }
    let config = Config::read(bundle).map_err(StartError::Config)?;
    let group = config.group().filter(|group| *group != id && is_valid_id(group));
    let (Some(group), Some(siblings)) = (group, bundle.parent()) else {
        return Ok(None);
    };
    let named = siblings.join(group);
    let found = socket::live_address(&named).map(|address| (named, address));
    if found.is_none() {
        bundle::write_file(bundle, GROUP_FILE, group.as_bytes()).map_err(io("write the group"))?;
    }
    let Some((owner, address)) = found.or_else(|| member_of_group(siblings, group)) else {
        return Ok(None);
    };
    std::fs::copy(owner.join(SHIM_PID_FILE), bundle.join(SHIM_PID_FILE)).map_err(io("copy shim.pid"))?;
    Ok(Some(address))
}

/// For a group that is not named after one of its containers: the bundle of one that has a living shim, and its address.
fn member_of_group(bundles: &Path, group: &str) -> Option<(PathBuf, String)> {
    let bundles = std::fs::read_dir(bundles)
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    let is_member =
        |bundle: &PathBuf| std::fs::read(bundle.join(GROUP_FILE)).is_ok_and(|name| name == group.as_bytes());
    let mut members = bundles.filter(is_member);
    members.find_map(|bundle| Some((bundle.clone(), socket::live_address(&bundle)?)))
}

/// Makes a daemon, and returns its address and the pipe on which it waits for [`GO`].
fn spawn(arguments: &Arguments, params: &Params, bundle: &Path) -> Result<(String, PipeWriter), StartError> {
    let called_by_containerd = !arguments.publish_binary.is_empty();
    let folder = socket::folder(&params.socket_folder, &arguments.address, called_by_containerd);
    let path = socket::new_path(&folder)?;
    let address = format!("unix://{}", path.display());
    // First of all: by it `delete` finds the socket, however far this gets.
    bundle::write_file(bundle, ADDRESS_FILE, address.as_bytes()).map_err(io("write address"))?;
    let result = (|| {
        let listener = socket::listen(&path)?;
        failpoint::reach("bootstrap.listening");
        let (pid, waiting) = spawn_daemon(arguments, params, &listener, &path)?;
        failpoint::reach("bootstrap.spawned");
        bundle::write_file(bundle, SHIM_PID_FILE, pid.to_string().as_bytes())
            .map_err(io("write shim.pid"))?;
        Ok(waiting)
    })();
    let waiting = result.inspect_err(|_: &StartError| {
        let _ = std::fs::remove_file(&path);
        let _ = std::fs::remove_file(bundle.join(ADDRESS_FILE));
        let _ = std::fs::remove_file(bundle.join(SHIM_PID_FILE));
    })?;
    Ok((address, waiting))
}

fn spawn_daemon(
    arguments: &Arguments,
    params: &Params,
    listener: &std::os::unix::net::UnixListener,
    path: &Path,
) -> Result<(u32, PipeWriter), StartError> {
    let (waits, waiting) = std::io::pipe().map_err(io("make a pipe"))?;
    let mut command = Command::new(this_program().map_err(io("find this program"))?);
    command.args([
        "-namespace",
        &arguments.namespace,
        "-id",
        &arguments.id,
        "-address",
        &arguments.address,
    ]);
    if !arguments.publish_binary.is_empty() {
        command.args(["-publish-binary", &arguments.publish_binary]);
    }
    command.arg("-socket").arg(path);
    if arguments.debug || params.debug {
        command.arg("-debug");
    }
    if !params.ttrpc_address.is_empty() {
        command.env("TTRPC_ADDRESS", &params.ttrpc_address);
    }
    command.stdin(waits).stdout(Stdio::null()).stderr(Stdio::null());
    sys::daemon_command(
        &mut command,
        sys::duplicate(listener).map_err(io("duplicate the socket"))?,
    );
    let daemon = command.spawn().map_err(io("start the daemon"))?;
    adjust_oom_score(daemon.id());
    Ok((daemon.id(), waiting))
}

/// The name it was started by, so that `ps` shows `containerd-shim-berth-v1` where it is called that.
fn this_program() -> io::Result<PathBuf> {
    std::env::current_exe()
}

/// A shim is one step more likely to be killed for memory than its manager, so that the manager is never first: the
/// rule of containerd's shims. Without the right to set it, it stays as inherited.
fn adjust_oom_score(pid: u32) {
    const SCORE_MAX: i32 = 1000;
    let parent = std::os::unix::process::parent_id();
    let score = std::fs::read_to_string(format!("/proc/{parent}/oom_score_adj"));
    let Some(score) = score.ok().and_then(|text| text.trim().parse::<i32>().ok()) else {
        return;
    };
    let _ = std::fs::write(
        format!("/proc/{pid}/oom_score_adj"),
        (score + 1).min(SCORE_MAX).to_string(),
    );
}
