//! kill -9 of the shim, of the runtime, of containerd and of the container's processes, at failpoints and at random
//! moments. Whatever was told is true and stays true, the container is found and its exit told, and nothing is left:
//! no process, mount, cgroup, socket or state.
//!
//! `failpoints` ends shims at each place between two states that others can see, and `at_random` shims, runtimes and
//! containers' processes anywhere; `under_containerd` kills shims and containerd itself, and `outliving` is about what
//! goes on when a shim is dead. hack/kills makes hundreds of kills of each. `manager_killed` is the like for the manager.

mod at_random;
mod failpoints;
mod outliving;
mod under_containerd;

use std::fs;
use std::io::Write;
use std::process::Command;

use containerd_shim_protos::{api, ttrpc};
use integration::{Bundle, Random, Sandbox, Shim, Streams, adopt_orphans, eventually, is_gone};

/// What the container's init ends with, and an exec in it.
const INIT_STATUS: u32 = 3;
const EXEC_STATUS: u32 = 7;
/// What is told of a process that was killed.
const KILLED: u32 = 137;
/// What is told when nobody saw the end, or there was no process.
const UNKNOWN: u32 = 255;

/// A bundle over which one shim after the other lives.
struct Stage {
    sandbox: Sandbox,
    bundle: Bundle,
}

impl Stage {
    fn new(script: &str) -> Self {
        adopt_orphans();
        let sandbox = Sandbox::new();
        let bundle = Bundle::new(&sandbox, script);
        let gate = bundle.rootfs().join("gate");
        nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).expect("make a fifo");
        Self { sandbox, bundle }
    }

    /// Its init waits until a line is written into [`Stage::gate`].
    fn gated() -> Self {
        Self::new(&format!("read line < /gate; exit {INIT_STATUS}"))
    }

    /// To be kept open until init has read from it.
    fn gate(&self) -> fs::File {
        let path = self.bundle.rootfs().join("gate");
        let both = fs::OpenOptions::new().read(true).write(true).open(path);
        both.expect("open the gate")
    }

    /// The shim's command line, to be killed at a failpoint.
    fn command(&self, verb: &str, failpoint: &str) -> Command {
        let mut command = Shim::command(&self.sandbox, self.bundle.path(), self.sandbox.id(), verb);
        command.env("BERTH_SHIM_FAILPOINT", failpoint);
        command
    }

    #[track_caller]
    fn shim(&self) -> Shim {
        Shim::start(&self.sandbox, &self.bundle)
    }

    #[track_caller]
    fn shim_that_dies_at(&self, failpoint: &str) -> Shim {
        self.bundle.write();
        let mut start = self.command("start", failpoint);
        Shim::start_by(&self.sandbox, self.bundle.path(), self.sandbox.id(), &mut start)
    }

    /// What containerd does when a shim's connection breaks; then nothing may be left.
    #[track_caller]
    fn clean_up(&self, shim: &Shim) -> api::DeleteResponse {
        let gone = format!(
            "the shim is dead, which for a failpoint takes a debug build: {}",
            shim.pid()
        );
        eventually(&gone, || is_gone(shim.pid()).then_some(()));
        let response = shim.clean_up();
        self.assert_clean();
        response
    }

    /// Ends a shim whose container was deleted.
    #[track_caller]
    fn shut_down(&self, shim: Shim) {
        shim.shutdown();
        self.assert_clean();
    }

    /// Nothing is left but the bundle, of which the next shim gets only what a client makes.
    #[track_caller]
    fn assert_clean(&self) {
        self.sandbox.assert_clean();
        for entry in fs::read_dir(self.bundle.path())
            .expect("read the bundle")
            .flatten()
        {
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                fs::remove_file(entry.path()).expect("remove a file of the bundle");
            }
        }
    }
}

/// What a shim told of a container's life, as far as it went.
#[derive(Debug, Default)]
struct Told {
    pid: Option<u32>,
    exec: Option<u32>,
    exit: Option<u32>,
    deleted: Option<u32>,
}

/// Create, start, exec, open the gate, wait and delete, until something fails. Without a gate there is no exec.
fn live(shim: &Shim, gate: Option<&fs::File>) -> Told {
    let mut told = Told::default();
    let mut go_on = || -> ttrpc::Result<()> {
        told.pid = Some(shim.try_create_logged()?);
        shim.try_start("")?;
        if let Some(mut gate) = gate {
            shim.add_exec("e", &format!("exit {EXEC_STATUS}"), &Streams::default())?;
            shim.try_start("e")?;
            told.exec = Some(shim.try_wait("e")?);
            shim.delete("e")?;
            gate.write_all(b"\n").expect("open the gate");
        }
        told.exit = Some(shim.try_wait("")?);
        told.deleted = Some(shim.delete("")?.exit_status);
        Ok(())
    };
    let _ = go_on();
    told
}

/// Moments that nobody foresees.
fn unforeseen() -> Random {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Random::seeded(now.expect("a time").as_nanos() as u64)
}

fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
    // Some have ended by themselves.
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL);
}

/// Kills in round after round until there were `enough`, however few come of one; but not for ever.
fn rounds(enough: u32, mut round: impl FnMut() -> u32) {
    let rounds_max = 100 + 5 * enough;
    let mut kills = 0;
    for _ in 0..rounds_max {
        kills += round();
        if kills >= enough {
            println!("{kills} kills");
            return;
        }
    }
    panic!("{kills} kills in {rounds_max} rounds: does the test still find what it is to kill?");
}
