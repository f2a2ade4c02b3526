//! Another machine than the manager's.

use crate::manager::Manager;
use crate::process::run;
use crate::registry::inside;
use crate::sandbox::Sandbox;
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::thread;

/// A network namespace behind the manager's host, at 192.0.2.2, which knows no way to the containers.
pub struct Outside {
    name: String,
}

impl Outside {
    /// Make it, on a link of the manager's host that is `uplink` there, with 192.0.2.1.
    #[track_caller]
    pub fn new(sandbox: &Sandbox, manager: &Manager) -> Self {
        let outside = Self {
            name: format!("berth-{}-outside", sandbox.id()),
        };
        let name = &*outside.name;
        run(Command::new("ip").args(["netns", "add", name])).ok();
        let on_host = |line: &str| run(manager.inside("ip").args(line.split(' '))).ok();
        on_host(&format!("link add uplink type veth peer name eth0 netns {name}"));
        on_host("address add 192.0.2.1/24 dev uplink");
        on_host("link set uplink up");
        run(Command::new("ip").args(["-n", name, "address", "add", "192.0.2.2/24", "dev", "eth0"])).ok();
        run(Command::new("ip").args(["-n", name, "link", "set", "eth0", "up"])).ok();
        outside
    }

    /// A program there.
    pub fn inside(&self, program: &str) -> Command {
        inside(&Path::new("/run/netns").join(&self.name), program)
    }

    /// A port on which the next caller is told the address it came from.
    ///
    /// # Panics
    /// When it cannot be had.
    pub fn tell_next_caller(&self) -> u16 {
        let netns = File::open(format!("/run/netns/{}", self.name)).expect("open the namespace");
        let listen = move || {
            setns(netns, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("listen")
        };
        let listener = thread::spawn(listen).join().expect("the listener is made");
        let port = listener.local_addr().expect("the listener's address").port();
        thread::spawn(move || {
            let (mut stream, caller) = listener.accept().expect("accept");
            writeln!(stream, "{}", caller.ip()).expect("tell the caller");
        });
        port
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}
