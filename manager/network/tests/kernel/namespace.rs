//! Network namespaces for tests: threads and programs that run in them, and what `ip` and `nft` say there.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::panic::resume_unwind;
use std::process::Command;
use std::thread;

use network::{Bridge, Endpoint, Error};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::Value;

/// A network namespace, which lives as long as this (and what runs in it).
pub(crate) struct Namespace(File);

impl Namespace {
    pub(crate) fn new() -> Self {
        let opener = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("unshare (these tests need root)");
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self(opener.join().unwrap())
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// A path by which other programs can open it.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs `work` on a thread in this namespace.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                setns(self.fd(), CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            worker.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Runs a program here; its standard output. It has to succeed.
    pub(crate) fn command(&self, line: &str) -> String {
        self.run(|| output(line))
    }

    pub(crate) fn json(&self, line: &str) -> Value {
        let output = self.command(line);
        if output.trim().is_empty() {
            Value::Array(Vec::new())
        } else {
            serde_json::from_str(&output).unwrap()
        }
    }

    /// Makes a link that is up and has a carrier: one end of a pair, as every kernel that runs containers has.
    pub(crate) fn add_link(&self, name: &str) {
        self.command(&format!("ip link add {name} type veth peer name {name}-peer"));
        self.command(&format!("ip link set {name} up"));
        self.command(&format!("ip link set {name}-peer up"));
    }

    /// Names of all links, sorted.
    pub(crate) fn links(&self) -> Vec<String> {
        let links = self.json("ip -j link");
        let mut names: Vec<String> = links
            .as_array()
            .unwrap()
            .iter()
            .map(|link| link["ifname"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }

    /// The IPv4 addresses of a link, as `address/prefix`.
    pub(crate) fn addresses(&self, link: &str) -> Vec<String> {
        let found = self.json(&format!("ip -j -4 address show dev {link}"));
        let infos = found[0]["addr_info"].as_array().cloned().unwrap_or_default();
        infos
            .iter()
            .map(|info| format!("{}/{}", info["local"].as_str().unwrap(), info["prefixlen"]))
            .collect()
    }

    pub(crate) fn rules(&self) -> String {
        self.command("nft list ruleset")
    }

    pub(crate) fn attach(
        &self,
        bridge: &Bridge,
        id: &str,
        address: Ipv4Addr,
        to: &Self,
    ) -> Result<(), Error> {
        self.run(|| bridge.attach(&Endpoint::only(id, address, to.fd())))
    }
}

fn output(line: &str) -> String {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// A namespace that plays the host, with the default network made in it.
pub(crate) fn host_with_bridge() -> (Namespace, Bridge) {
    let (host, bridge) = (Namespace::new(), Bridge::default());
    host.run(|| bridge.ensure()).unwrap();
    (host, bridge)
}

/// A container's id, of which only the first digits differ.
pub(crate) fn id(number: u32) -> String {
    format!("{number:012x}{:052x}", 0)
}
