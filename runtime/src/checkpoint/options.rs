//! What the command line says about a checkpoint's images and how CRIU shall treat what it finds.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;

use super::message::Message;
use crate::cli::Values;
use crate::error::{Context, Error, Result};

/// Flags of both commands.
#[derive(Debug)]
pub(crate) struct Options {
    /// `--criu`.
    pub(super) program: Option<String>,
    images: PathBuf,
    work: Option<PathBuf>,
    tcp_established: bool,
    external_sockets: bool,
    pub(super) shell_job: bool,
    file_locks: bool,
    lazy_pages: bool,
    auto_dedup: bool,
    manage_cgroups: u64,
}

/// `criu_cg_mode`.
const CGROUPS_SOFT: u64 = 3;

impl Options {
    pub(crate) fn read(global: &Values, flags: &Values) -> Result<Self> {
        let path = |flag: &str| flags.get(flag).filter(|path| !path.is_empty()).map(PathBuf::from);
        let manage_cgroups = match flags.get("manage-cgroups-mode").unwrap_or_default() {
            "" | "soft" => CGROUPS_SOFT,
            "ignore" => 0,
            "full" => 4,
            "strict" => 5,
            other => {
                return Err(Error::Refused(format!(
                    "--manage-cgroups-mode {other:?}: must be soft, full, strict or ignore"
                )));
            }
        };
        for kind in flags.all("empty-ns") {
            if kind != "network" {
                return Err(Error::Refused(format!(
                    "--empty-ns {kind:?}: only network can be left empty"
                )));
            }
        }
        Ok(Self {
            program: global.get("criu").map(str::to_owned),
            images: path("image-path").unwrap_or_else(|| "checkpoint".into()),
            work: path("work-path"),
            tcp_established: flags.is_on("tcp-established"),
            external_sockets: flags.is_on("ext-unix-sk"),
            shell_job: flags.is_on("shell-job"),
            file_locks: flags.is_on("file-locks"),
            lazy_pages: flags.is_on("lazy-pages"),
            auto_dedup: flags.is_on("auto-dedup"),
            manage_cgroups,
        })
    }

    pub(super) fn images(&self) -> &Path {
        &self.images
    }

    /// Opens the folders; with `make` they are made where they are missing.
    pub(super) fn folders(&self, make: bool) -> Result<Folders> {
        let open = |path: &Path| {
            if make {
                let done = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
                done.context(|| format!("make {}", path.display()))?;
            }
            File::open(path).context(|| format!("open {}", path.display()))
        };
        Ok(Folders {
            images: open(&self.images)?,
            work: self.work.as_deref().map(open).transpose()?,
            logs: std::path::absolute(self.work.as_ref().unwrap_or(&self.images)).unwrap_or_default(),
        })
    }

    /// What goes into `criu_opts` of a dump as well as of a restore.
    pub(super) fn request(&self, folders: &Folders, log_file: &str, root: &Path) -> Message {
        // Network devices are the caller's affair, which has made them and makes them again.
        let empty = CloneFlags::CLONE_NEWNET.bits() as u64;
        let mut request = Message::default()
            .number(1, folders.images.as_raw_fd() as u64)
            .switch(4, self.external_sockets)
            .switch(5, self.tcp_established)
            .switch(7, self.shell_job)
            .switch(8, self.file_locks)
            .number(9, 4)
            .text(10, log_file)
            .switch(12, true)
            .text(13, &root.to_string_lossy())
            .switch(16, self.auto_dedup)
            .switch(24, true)
            .number(34, self.manage_cgroups)
            .number(38, empty)
            .switch(48, self.lazy_pages);
        if let Some(work) = &folders.work {
            request = request.number(17, work.as_raw_fd() as u64);
        }
        request
    }
}

/// Where CRIU reads or writes; it opens them by our descriptors' numbers.
#[derive(Debug)]
pub(super) struct Folders {
    images: File,
    work: Option<File>,
    logs: PathBuf,
}

impl Folders {
    /// The error with the first complaint of CRIU's log, and where the rest stands.
    pub(super) fn explain(&self, error: Error, log_file: &str) -> Error {
        let path = self.logs.join(log_file);
        let text = fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        // Of these none is the reason: what it can't raise or make for itself, and that it has failed.
        let noise = [
            "RLIMIT_NOFILE",
            "tun: ",
            "cgroupd: ",
            "FAILED.",
            "failed with",
            "exited, status",
        ];
        let is_reason =
            |line: &&str| line.contains("Error (") && !noise.iter().any(|word| line.contains(word));
        match text.lines().rfind(is_reason) {
            Some(reason) => Error::Refused(format!("{error}: {} (see {})", reason.trim(), path.display())),
            None => error,
        }
    }
}

/// `ADDRESS:PORT` of `--page-server`, as CRIU's message.
pub(super) fn page_server(text: &str) -> Result<Message> {
    let wrong = || Error::Refused(format!("--page-server {text:?}: must be ADDRESS:PORT"));
    let (address, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let address = address.trim_matches(['[', ']']);
    if address.is_empty() || port == 0 {
        return Err(wrong());
    }
    Ok(Message::default().text(1, address).number(2, port.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_server_has_an_address_and_a_port() {
        assert!(page_server("10.0.0.1:27").is_ok());
        assert!(page_server("[::1]:27").is_ok());
        for wrong in ["", "host", "host:", ":1", "host:0", "host:70000"] {
            assert!(page_server(wrong).is_err(), "{wrong}");
        }
    }
}
