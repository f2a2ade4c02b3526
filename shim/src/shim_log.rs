//! The shim's own log: lines in containerd's format, to the `log` fifo in the bundle that containerd reads, or to
//! `shim.log` there when nobody made such a fifo. A full fifo or disk never blocks or fails anything.

use std::cell::RefCell;
use std::fmt::Arguments;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::SystemTime;

use crate::timestamp;

/// `shim.log` does not grow beyond this.
const FILE_BYTES_MAX: u64 = 1 << 20;

struct Log {
    output: File,
    /// What may still be written; a fifo has no end.
    remaining_bytes: Option<u64>,
    debug: bool,
}

thread_local! {
    // The shim has one thread, and a log that every part may write to would else be handed through all of them.
    static LOG: RefCell<Option<Log>> = const { RefCell::new(None) };
}

/// Opens the log of a bundle. Without one, lines are dropped.
pub(crate) fn open(bundle: &Path, debug: bool) {
    let fifo = bundle.join("log");
    let is_fifo = fifo
        .symlink_metadata()
        .is_ok_and(|file| file.file_type().is_fifo());
    let log = if is_fifo {
        // Read and write: containerd may restart, and a fifo without a reader must be no error.
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(fifo)
            .map(|output| Log {
                output,
                remaining_bytes: None,
                debug,
            })
    } else {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(bundle.join("shim.log"))
            .and_then(|output| {
                let used = output.metadata()?.len();
                Ok(Log {
                    output,
                    remaining_bytes: Some(FILE_BYTES_MAX.saturating_sub(used)),
                    debug,
                })
            })
    };
    LOG.set(log.ok());
}

fn line(level: &str, message: Arguments) {
    LOG.with_borrow_mut(|log| {
        let Some(log) = log else { return };
        if level == "debug" && !log.debug {
            return;
        }
        let now = timestamp::rfc3339(SystemTime::now());
        let text = format!(
            "time=\"{now}\" level={level} msg={:?} runtime=berth\n",
            message.to_string()
        );
        if let Some(remaining) = &mut log.remaining_bytes {
            let Some(left) = remaining.checked_sub(text.len() as u64) else {
                return;
            };
            *remaining = left;
        }
        let _ = log.output.write_all(text.as_bytes());
    });
}

pub(crate) fn debug(message: Arguments) {
    line("debug", message);
}

pub(crate) fn info(message: Arguments) {
    line("info", message);
}

pub(crate) fn warn(message: Arguments) {
    line("warning", message);
}

pub(crate) fn error(message: Arguments) {
    line("error", message);
}
