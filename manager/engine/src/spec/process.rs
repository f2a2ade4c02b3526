//! What runs: arguments, environment, identity, capabilities. For the main process, and for one more process
//! in a running container.

use oci_spec::image::ImageConfiguration;
use serde_json::{Value, json};

use super::capabilities;
use super::user::User;
use crate::container::Container;
use crate::exec::ExecRequest;
use crate::request::CreateRequest;
use crate::{Error, signal};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const SIGTERM: u32 = 15;
/// Where the program is that is the first process of containers with `--init`: docker's name for it.
pub(super) const INIT: &str = "/sbin/docker-init";

/// Entrypoint and command together: those of the request, else those of the image. An entrypoint of its own
/// also puts the image's command aside.
pub(crate) fn command(request: &CreateRequest, image: &ImageConfiguration) -> Result<Vec<String>, Error> {
    let config = image.config().as_ref();
    let of_image = |list: Option<&Option<Vec<String>>>| list.cloned().flatten().unwrap_or_default();
    let (mut args, fallback) = match &request.entrypoint {
        Some(entrypoint) => (entrypoint.clone(), Vec::new()),
        None => (
            of_image(config.map(oci_spec::image::Config::entrypoint)),
            of_image(config.map(oci_spec::image::Config::cmd)),
        ),
    };
    // `--entrypoint ""` means: none.
    if args.len() == 1 && args[0].is_empty() {
        args.clear();
    }
    args.extend(if request.command.is_empty() {
        fallback
    } else {
        request.command.clone()
    });
    if args.is_empty() {
        return Err(Error::invalid(
            "command",
            "neither the request nor the image says what to run",
        ));
    }
    crate::request::check_strings("command", &args)?;
    Ok(args)
}

/// The signal that asks it to stop: the request's, else the image's, else TERM.
pub(crate) fn stop_signal(request: &CreateRequest, image: &ImageConfiguration) -> Result<u32, Error> {
    if !request.stop_signal.is_empty() {
        return signal::parse("stop_signal", &request.stop_signal);
    }
    match image
        .config()
        .as_ref()
        .and_then(|config| config.stop_signal().as_deref())
    {
        Some(name) if !name.is_empty() => signal::parse("image.stop_signal", name),
        _ => Ok(SIGTERM),
    }
}

/// The ports that the image exposes, as it writes them.
pub(crate) fn exposed(image: &ImageConfiguration) -> &[String] {
    let config = image.config().as_ref();
    config
        .and_then(|config| config.exposed_ports().as_deref())
        .unwrap_or_default()
}

/// As whom the main process runs, unresolved.
pub(crate) fn wanted_user<'a>(request: &'a CreateRequest, image: &'a ImageConfiguration) -> &'a str {
    if !request.user.is_empty() {
        return &request.user;
    }
    image
        .config()
        .as_ref()
        .and_then(|config| config.user().as_deref())
        .unwrap_or_default()
}

/// `process` of config.json. Before the image's variables it has those about the machine, `hostname` and `links`.
pub(super) fn main(
    container: &Container,
    image: &ImageConfiguration,
    user: &User,
    capabilities: &[String],
    (hostname, links): (&str, &[String]),
) -> Value {
    let request = &*container.request;
    let config = image.config().as_ref();
    let cwd = match (
        request.working_dir.as_str(),
        config.and_then(|config| config.working_dir().as_deref()),
    ) {
        ("", None | Some("")) => "/".to_owned(),
        ("", Some(image)) if image.starts_with('/') => image.to_owned(),
        ("", Some(image)) => format!("/{image}"),
        (asked, _) => asked.to_owned(),
    };
    let of_image = config
        .and_then(|config| config.env().as_ref())
        .map(Vec::as_slice)
        .unwrap_or_default();
    let mut args = container.command.clone();
    if request.has_init() {
        args.splice(0..0, [INIT.to_owned(), "--".to_owned()]);
    }
    let mut process = json!({
        "terminal": request.tty,
        "user": identity(user),
        "args": args,
        "env": environment(hostname, request.tty, user, &[links, of_image, &request.env]),
        "cwd": cwd,
        "capabilities": sets(capabilities),
        "oomScoreAdj": oom_score_adj(request.resources.oom_score_adj),
        "rlimits": super::resources::rlimits(&request.resources.ulimits),
    });
    if request.tty && request.tty_columns > 0 && request.tty_rows > 0 {
        process["consoleSize"] = json!({"width": request.tty_columns, "height": request.tty_rows});
    }
    process
}

/// What nobody has asked for is no reason to refuse a start: systemd starts a user's services with 100, and only root
/// lowers it again.
fn oom_score_adj(asked: i32) -> i32 {
    if asked != 0 || !image::is_in_user_namespace() {
        return asked;
    }
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    own.trim().parse().unwrap_or(0).max(asked)
}

/// The process of an exec, as a variation of the container's main process `base`.
pub(crate) fn exec(base: &Value, request: &ExecRequest, user: Option<&User>) -> Value {
    let mut process = base.clone();
    process["terminal"] = json!(request.tty);
    process["args"] = json!(request.args);
    if !request.working_dir.is_empty() {
        process["cwd"] = json!(request.working_dir);
    }
    if let Some(object) = process.as_object_mut() {
        object.remove("consoleSize");
    }
    if let Some((columns, rows)) = request.window.filter(|_| request.tty) {
        process["consoleSize"] = json!({"width": columns, "height": rows});
    }
    let mut env: Vec<String> = strings(&base["env"]);
    if let Some(user) = user {
        process["user"] = identity(user);
        set(&mut env, &format!("HOME={}", user.home));
    }
    if request.tty {
        set(&mut env, "TERM=xterm");
    }
    for entry in &request.env {
        set(&mut env, entry);
    }
    process["env"] = json!(env);
    if request.privileged {
        process["capabilities"] = sets(&capabilities::all_known_here());
    }
    process
}

/// Docker's defaults, then each of `lists` over what came before.
fn environment(hostname: &str, tty: bool, user: &User, lists: &[&[String]]) -> Vec<String> {
    let mut env = vec![PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if tty {
        env.push("TERM=xterm".to_owned());
    }
    for entry in lists.iter().copied().flatten() {
        set(&mut env, entry);
    }
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={}", user.home));
    }
    env
}

/// Lists of variables, each over what came before.
pub(crate) fn merged(lists: &[&[String]]) -> Vec<String> {
    let mut env = Vec::new();
    for entry in lists.iter().copied().flatten() {
        set(&mut env, entry);
    }
    env
}

/// Replace the variable of that name, or add it. What is no variable (an image may say so) is left out.
fn set(env: &mut Vec<String>, entry: &str) {
    let Some(end) = entry.find('=').filter(|&at| at > 0) else {
        return;
    };
    let name = &entry[..=end];
    match env.iter_mut().find(|present| present.starts_with(name)) {
        Some(present) => entry.clone_into(present),
        None => env.push(entry.to_owned()),
    }
}

fn identity(user: &User) -> Value {
    let mut groups = user.additional_gids.clone();
    // The primary group is among the supplementary ones (CVE-2022-36109: a file could deny it otherwise).
    if !groups.contains(&user.gid) {
        groups.insert(0, user.gid);
    }
    json!({"uid": user.uid, "gid": user.gid, "additionalGids": groups})
}

/// Not inheritable, or a program with file capabilities could keep more than its author meant
/// (CVE-2022-24769).
fn sets(capabilities: &[String]) -> Value {
    json!({"bounding": capabilities, "effective": capabilities, "permitted": capabilities})
}

fn strings(value: &Value) -> Vec<String> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.as_str().map(str::to_owned))
        .collect()
}
