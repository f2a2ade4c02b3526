//! `checkpoint`: saves a container. It ends then, unless it is to run on.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::major;

use super::criu::{self, Criu, Kind, Moment, Place};
use super::message::Message;
use super::options::{self, Options};
use super::{DESCRIPTORS, external_mount, external_namespace, with_configuration};
use crate::cgroup;
use crate::cli::Values;
use crate::create::cgroup_context;
use crate::delete::destroy;
use crate::error::{Context, Error, Result};
use crate::id::Id;
use crate::mounts;
use crate::namespaces::Namespaces;
use crate::state::{Container, Status};

const LOG: &str = "dump.log";

/// Major numbers of consoles, and of pseudoterminals (the kernel's admin-guide/devices.txt).
const TERMINALS: [u64; 10] = [4, 5, 136, 137, 138, 139, 140, 141, 142, 143];

/// Flags of `checkpoint` alone.
#[derive(Debug)]
pub(crate) struct Dump {
    leave_running: bool,
    memory_only: bool,
    parent: Option<String>,
    page_server: Option<Message>,
    /// A descriptor of ours that gets a zero byte when lazy pages can be fetched.
    status_fd: Option<u32>,
}

impl Dump {
    pub(crate) fn read(flags: &Values, options: &Options) -> Result<Self> {
        let parent = flags.get("parent-path").filter(|path| !path.is_empty());
        if let Some(path) = parent {
            // CRIU keeps it as a link, that has to be right wherever the images go.
            if Path::new(path).is_absolute() {
                return Err(Error::Refused(
                    "--parent-path must be relative to --image-path".into(),
                ));
            }
            let place = options.images().join(path);
            if !place.is_dir() {
                return Err(Error::Refused(format!(
                    "--parent-path: {} is no folder",
                    place.display()
                )));
            }
        }
        let page_server = flags.get("page-server").filter(|text| !text.is_empty());
        let status_fd = flags.get("status-fd").filter(|text| *text != "-1");
        let status_fd = status_fd.map(|text| {
            text.parse()
                .map_err(|_| Error::Refused(format!("--status-fd {text:?}: not a number")))
        });
        Ok(Self {
            leave_running: flags.is_on("leave-running"),
            memory_only: flags.is_on("pre-dump"),
            parent: parent.map(str::to_owned),
            page_server: page_server.map(options::page_server).transpose()?,
            status_fd: status_fd.transpose()?,
        })
    }
}

/// Saves a container.
pub(crate) fn checkpoint(root: &Path, id: &Id, dump: &Dump, options: &Options) -> Result<()> {
    let container = Container::load(root, id)?;
    match container.status()? {
        Status::Running | Status::Paused => {}
        status => {
            return Err(Error::Refused(format!(
                "container cannot be checkpointed in {} state",
                status.name()
            )));
        }
    }
    let program = criu::find(options.program.as_deref())?;
    let spec = container.spec()?;
    let record = &container.record;
    let folders = options.folders(true)?;

    let mut request = options
        .request(&folders, LOG, &record.rootfs)
        .number(2, record.pid as u64)
        .switch(3, dump.leave_running)
        .switch(15, dump.memory_only || dump.parent.is_some());
    request = with_configuration(request, &spec);
    if let Some(parent) = &dump.parent {
        request = request.text(14, parent);
    }
    if let Some(server) = &dump.page_server {
        request = request.message(11, server);
    }
    let groups = record.cgroups.named();
    if let Some(freezer) = groups.get("freezer").or_else(|| groups.get("")) {
        request = request.text(44, &freezer.to_string_lossy());
    }
    let namespaces = Namespaces::from_spec(&spec)?;
    for (kind, path) in namespaces.joined() {
        if let Some((name, key)) = external_namespace(kind) {
            let found = fs::metadata(path).context(|| format!("find namespace {}", path.display()))?;
            request = request.text(37, &format!("{name}[{}]:{key}", found.ino()));
        }
    }
    if !dump.memory_only {
        let plan = mounts::Plan::from_spec(&spec, &record.bundle)?;
        for external in plan.externals()? {
            request = external_mount(request, &external.destination, &external.destination);
        }
        for path in plan.externally_masked() {
            let seen = Path::new("/proc").join(record.pid.to_string()).join("root");
            let seen = seen.join(path.strip_prefix("/").unwrap_or(&path));
            if fs::symlink_metadata(&seen).is_ok_and(|found| !found.is_dir()) {
                request = external_mount(request, &path, Path::new("/dev/null"));
            }
        }
        for place in cgroup_mounts(record.pid, &record.cgroups)? {
            request = external_mount(request, &place, &place);
        }
        let streams = standard_streams(record.pid, options.shell_job)?;
        for name in streams.iter().filter(|name| name.starts_with("file[")) {
            request = request.text(37, name);
        }
        let path = options.images().join(DESCRIPTORS);
        let text = serde_json::to_vec(&streams).map_err(|e| Error::Refused(e.to_string()))?;
        fs::write(&path, text).context(|| format!("write {}", path.display()))?;
    }

    let kind = if dump.memory_only {
        Kind::PreDump
    } else {
        Kind::Dump
    };
    let on = |moment: Moment<'_>| match (moment.name, dump.status_fd) {
        ("status-ready", Some(number)) => {
            let path = format!("/proc/self/fd/{number}");
            fs::OpenOptions::new()
                .write(true)
                .open(&path)
                .and_then(|mut file| std::io::Write::write_all(&mut file, &[0]))
                .context(|| format!("write to --status-fd {number}"))
        }
        _ => Ok(()),
    };
    Criu::start(&program, &Place::default(), |_| Ok(Vec::new()))?
        .carry_out(kind, &request, on)
        .map_err(|error| folders.explain(error, LOG))?;
    if dump.leave_running || dump.memory_only {
        return Ok(());
    }
    destroy(&container)
}

/// Where the container sees its groups, if those are binds of the host's, as they are on v1 and hybrid hosts.
fn cgroup_mounts(pid: i32, groups: &cgroup::Paths) -> Result<Vec<PathBuf>> {
    let path = format!("/proc/{pid}/mountinfo");
    let text = fs::read_to_string(&path).context(|| format!("read {path}"))?;
    if cgroup_context(groups).unified {
        return Ok(Vec::new());
    }
    let place = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, place) = (fields.next()?, fields.next()?);
        (after.starts_with("cgroup") && root != "/").then(|| PathBuf::from(place))
    };
    Ok(text.lines().filter_map(place).collect())
}

/// What the three streams are, by the names that CRIU has for things of others: `pipe:[4711]` as the kernel shows it, and
/// `file[MOUNT:INODE]` for a file (`/dev/null` too) of a mount that is not the container's.
///
/// CRIU gives a terminal of the host's back only when `lent_terminals` are asked for, by `--shell-job`.
fn standard_streams(pid: i32, lent_terminals: bool) -> Result<Vec<String>> {
    let mounts = format!("/proc/{pid}/mountinfo");
    let mounts = fs::read_to_string(&mounts).context(|| format!("read {mounts}"))?;
    let own: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').next()).collect();
    let name = |number: i32| {
        let path = format!("/proc/{pid}/fd/{number}");
        let read = || -> std::io::Result<String> {
            let target = fs::read_link(&path)?.to_string_lossy().into_owned();
            if !target.starts_with('/') {
                return Ok(target);
            }
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}"))?;
            let mount = info
                .lines()
                .find_map(|line| line.strip_prefix("mnt_id:"))
                .unwrap_or_default()
                .trim();
            if own.contains(&mount) {
                return Ok(target);
            }
            let found = fs::metadata(&path)?;
            if found.file_type().is_char_device() && TERMINALS.contains(&major(found.rdev())) {
                if lent_terminals {
                    return Ok(target);
                }
                let text = "it is a terminal of the host: ask with --shell-job, and at restore too";
                return Err(std::io::Error::other(text));
            }
            let mount: u32 = mount.parse().map_err(std::io::Error::other)?;
            Ok(format!("file[{mount:x}:{:x}]", found.ino()))
        };
        match read() {
            // It has closed this one.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            other => other.context(|| format!("read {path}")),
        }
    };
    (0..3).map(name).collect()
}
