//! A virtual machine whose power can be cut. It boots from what hack/vm/image has made, with a program of the test's
//! as process 1 in place of systemd, so that it is there in seconds.

use crate::process::run;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// A running machine, until it is dropped.
pub struct Vm {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    console: PathBuf,
}

impl Vm {
    /// The folder that hack/vm/image has printed, which hack/test passes on; without it, says that the test is skipped.
    pub fn image() -> Option<PathBuf> {
        let image = std::env::var_os("BERTH_VM_IMAGE").map(PathBuf::from);
        if image.is_none() {
            println!("skipped: BERTH_VM_IMAGE does not name the folder that hack/vm/image has printed");
        }
        image
    }

    /// Boot: `programs`, mounted at /berth, can't be written, and its `init` is process 1; `data` is the block device
    /// /dev/vdc; `variables` are in init's environment. What is written to /dev/ttyS1 is [`Vm::said`].
    ///
    /// # Panics
    /// When qemu can't be started.
    pub fn boot(image: &Path, programs: &Path, data: &Path, variables: &[(&str, &str)]) -> Vm {
        let drive =
            |path: &Path, options: &str| format!("file={},if=virtio,format=raw,{options}", path.display());
        let variables: Vec<String> = variables
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let console = data.with_extension("console");
        let mut child = Command::new("qemu-system-x86_64")
            .args([
                "-accel",
                "tcg,thread=multi,tb-size=512",
                "-cpu",
                "max",
                "-smp",
                "2",
                "-m",
                "2048",
            ])
            .args([
                "-display",
                "none",
                "-monitor",
                "none",
                "-no-reboot",
                "-nic",
                "none",
            ])
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .args(["-serial", "stdio"])
            .arg("-kernel")
            .arg(image.join("vmlinuz"))
            .arg("-initrd")
            .arg(image.join("initrd.gz"))
            .arg("-append")
            .arg(format!(
                "console=ttyS0 quiet panic=-1 mitigations=off audit=0 berth_init=/berth/init {}",
                variables.join(" ")
            ))
            .arg("-drive")
            .arg(drive(&image.join("disk"), "snapshot=on,cache=unsafe"))
            .arg("-drive")
            .arg(drive(programs, "readonly=on"))
            // What the machine has not written to its disk is lost with it, whatever the host has cached.
            .arg("-drive")
            .arg(drive(data, "cache=unsafe"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start qemu-system-x86_64");
        let said = Arc::<Mutex<Vec<String>>>::default();
        let sink = Arc::clone(&said);
        let lines = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let line = line.trim_end().to_owned();
                sink.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Vm { child, said, console }
    }

    /// The lines so far.
    pub fn said(&self) -> Vec<String> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What its kernel has said.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    /// Whether it has ended by itself.
    ///
    /// # Panics
    /// When the kernel does not tell.
    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().expect("look at the machine").is_some()
    }

    /// Cut its power; all that it has said.
    pub fn cut(mut self) -> Vec<String> {
        self.end();
        self.said()
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.end();
    }
}

/// Make an ext4 of `megabytes` in the file `disk`, with what is in `folder`.
///
/// # Panics
/// When the file can't be made.
pub fn make_disk(disk: &Path, megabytes: u64, folder: Option<&Path>) {
    let file = fs::File::create(disk).expect("make a disk");
    file.set_len(megabytes << 20).expect("size a disk");
    let mut mkfs = Command::new("mkfs.ext4");
    mkfs.arg("-q");
    if let Some(folder) = folder {
        mkfs.arg("-d").arg(folder);
    }
    run(mkfs.arg(disk)).ok();
}
