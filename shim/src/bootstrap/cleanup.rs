//! `delete`: what a shim that died left behind is found and taken away, and the exit is told as far as it is known.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use protobuf::Message;

use super::living::Living;
use super::{calls, farewell};
use crate::arguments::Arguments;
use crate::bundle::{self, ADDRESS_FILE, ExitRecord, INIT_PID_FILE};
use crate::delete::delete_response;
use crate::exit::complain_unless_recorded;
use crate::runtime::{CallLog, Runtime};
use crate::sys::SignalPipe;
use crate::task::{Exit, is_valid_bundle, is_valid_id};
use crate::{failpoint, mounts, sandbox, socket};

/// What a process ends with that the runtime's forced delete kills.
const KILLED: u32 = 128 + libc::SIGKILL as u32;
/// Nobody saw the container end, or it never began: `UnknownExitStatus` of containerd's client, 255 in dockerd too.
const STATUS_UNKNOWN: u32 = 255;

#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    #[error("{0:?} is no container id")]
    BadId(String),
    #[error("bundle {} is no absolute path", .0.display())]
    BadBundle(PathBuf),
    #[error("unmount what is in {}: {error}", path.display())]
    Unmount { path: PathBuf, error: io::Error },
    #[error("{what}: {error}")]
    Io { what: &'static str, error: io::Error },
}

/// Goes through all steps even when one fails, and tells of what failed on stderr; only what would leave a mount in
/// the bundle is an error, because the caller removes the bundle next.
pub fn delete(arguments: &Arguments) -> Result<(), CleanupError> {
    let id = &arguments.id;
    if !is_valid_id(id) {
        return Err(CleanupError::BadId(id.clone()));
    }
    let bundle = bundle_path(arguments)?;
    let begun = Instant::now();
    // SIGTERM for all that belongs to a service must not stop this half-way: it does no more than to interrupt a wait.
    let _signals = SignalPipe::install();
    // One that never got as far as Create, or back from Delete, has no container and no calls.
    let runtime = Runtime::read(&bundle);
    let mut living = None;
    if let Some(runtime) = &runtime {
        living = Living::find(runtime, id, &bundle);
        calls::outlast(&bundle, runtime.shim, begun);
        living = living.or_else(|| Living::find(runtime, id, &bundle));
    }
    failpoint::reach("cleanup.alone");
    let pid = bundle::read_pid(&bundle.join(INIT_PID_FILE)).unwrap_or(0);
    let mut record = read_record(&bundle, id, pid);
    if record.is_none() && living.is_some() {
        // If this is killed in the middle, the next one finds a dead process and knows why.
        record = Some(write_record(&bundle, id, pid, KILLED));
    }
    let mut unmounted = Ok(());
    for member in sandbox::members(&bundle) {
        calls::outlast(&member.bundle, member.runtime.shim, begun);
        delete_container(&member.runtime, &member.id, &bundle);
        unmounted = unmounted.and(unmount_rootfs(&member.bundle));
    }
    if let Some(runtime) = runtime {
        delete_container(&runtime, id, &bundle);
    }
    failpoint::reach("cleanup.killed");
    if let Some(living) = living {
        // The shim may have been alive, and have written what it saw. And the process may have ended by itself after all.
        record = read_record(&bundle, id, pid).or(record);
        let told = living.exit_status();
        if let Some(status) = told
            && record.as_ref().is_none_or(|record| record.exit_status != status)
        {
            record = Some(write_record(&bundle, id, pid, status));
        }
    }
    failpoint::reach("cleanup.deleted");
    remove_socket(&bundle, id);
    let removed = sandbox::remove_files(&bundle).map_err(|error| CleanupError::Unmount {
        path: bundle.clone(),
        error,
    });
    unmounted.and(removed).and(unmount_rootfs(&bundle))?;
    let unknown = Exit {
        status: STATUS_UNKNOWN,
        at: SystemTime::now(),
    };
    let exit = record.as_ref().map_or(unknown, ExitRecord::exit);
    let response = delete_response(record.map_or(pid, |record| record.pid), exit);
    let bytes = response.write_to_bytes().unwrap_or_default();
    io::stdout()
        .write_all(&bytes)
        .and_then(|()| io::stdout().flush())
        .map_err(|error| CleanupError::Io {
            what: "print the exit",
            error,
        })
}

/// What the shim has left. A record of another pid tells of an earlier container in the same bundle.
fn read_record(bundle: &Path, id: &str, pid: u32) -> Option<ExitRecord> {
    ExitRecord::read(bundle).filter(|record| record.id == id && (pid == 0 || record.pid == pid))
}

/// Puts an end on record that was found out just now.
fn write_record(bundle: &Path, id: &str, pid: u32, status: u32) -> ExitRecord {
    let exit = Exit {
        status,
        at: SystemTime::now(),
    };
    let record = ExitRecord::new(id, pid, exit, false);
    complain_unless_recorded(&record, record.write(bundle));
    record
}

fn bundle_path(arguments: &Arguments) -> Result<PathBuf, CleanupError> {
    let bundle = if arguments.bundle.is_empty() {
        std::env::current_dir().map_err(|error| CleanupError::Io {
            what: "find the bundle",
            error,
        })?
    } else {
        PathBuf::from(&arguments.bundle)
    };
    if is_valid_bundle(&bundle) {
        Ok(bundle)
    } else {
        Err(CleanupError::BadBundle(bundle))
    }
}

fn unmount_rootfs(bundle: &Path) -> Result<(), CleanupError> {
    mounts::unmount_rootfs(bundle).map_err(|error| CleanupError::Unmount {
        path: bundle.to_owned(),
        error,
    })
}

/// The runtime kills and removes the container.
fn delete_container(runtime: &Runtime, id: &str, bundle: &Path) {
    let log = CallLog::shared(bundle);
    match runtime.delete(id, true, log.path()).status() {
        Ok(status) if status.success() => {}
        Ok(status) => {
            let why = log.last_error().unwrap_or_else(|| status.to_string());
            eprintln!("{} delete --force {id}: {why}", runtime.name());
        }
        Err(error) => eprintln!("start the runtime {}: {error}", runtime.binary.display()),
    }
}

/// The socket of a dead shim. One that lives, such as that of a pod, keeps its own.
fn remove_socket(bundle: &Path, id: &str) {
    if let Some(path) = socket::read_address(bundle).and_then(|address| socket::path_of(&address)) {
        if let Err(method) = farewell::bid(&path, id) {
            eprintln!(
                "the shim at {} lives, but does not answer {method} for {id}",
                path.display()
            );
        }
        if socket::live_address(bundle).is_none() {
            socket::remove(&path);
        }
    }
    let _ = std::fs::remove_file(bundle.join(ADDRESS_FILE));
}
