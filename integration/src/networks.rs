//! What tests ask of networks and of the containers on them, and the death of a manager in the middle of something.

use crate::manager::Manager;
use crate::process::{Done, run};
use serde_json::Value;

/// Run a container that does nothing for an hour.
///
/// # Panics
/// When it does not start.
#[track_caller]
pub fn run_detached(manager: &Manager, image: &str, name: &str, flags: &[&str]) {
    let named = ["run", "-d", "--name", name];
    manager
        .ctl(&[&named, flags, &[image, "sleep", "3600"]].concat())
        .ok();
}

/// Run a command, whose words are between single spaces, in a container.
#[track_caller]
pub fn exec(manager: &Manager, container: &str, command: &str) -> Done {
    let words: Vec<_> = command.split(' ').collect();
    manager.ctl(&[&["exec", container], &*words].concat())
}

impl Manager {
    /// Let the manager end at a failpoint in an operation, which so gets no answer, and start the next one.
    #[track_caller]
    pub fn die_at(&mut self, point: &str, operation: impl FnOnce(&Self)) {
        self.kill();
        self.set_failpoint(Some(point));
        self.start_again();
        operation(self);
        self.await_end();
        self.set_failpoint(None);
        self.start_again();
    }

    /// What `network inspect` tells.
    ///
    /// # Panics
    /// When there is no such network.
    #[track_caller]
    pub fn network(&self, name: &str) -> Value {
        let text = self.ctl(&["network", "inspect", name]).ok();
        let mut all: Value = serde_json::from_str(&text).expect("inspect prints JSON");
        all[0].take()
    }

    /// What `inspect` tells of a container's place on a network; null if it has none there.
    #[track_caller]
    pub fn place(&self, container: &str, network: &str) -> Value {
        self.inspect(container)["networks"][network].take()
    }

    /// All rules of the manager's host, as nft shows them.
    #[track_caller]
    pub fn rules(&self) -> String {
        run(self.inside("nft").args(["list", "ruleset"])).ok()
    }

    /// Whether busybox's `ping`, or `ping6`, in a container is answered within some seconds.
    pub fn pings(&self, container: &str, ping: &str, address: &str, seconds: &str) -> bool {
        let ping = [
            "exec", container, "busybox", ping, "-c", "1", "-w", seconds, address,
        ];
        self.ctl(&ping).code == 0
    }

    /// It is answered, however long a busy machine takes.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn assert_pings(&self, container: &str, ping: &str, address: &str) {
        assert!(
            self.pings(container, ping, address, "30"),
            "{container} to {address}"
        );
    }

    /// It is not answered in a time in which it would be.
    ///
    /// # Panics
    /// When it is.
    #[track_caller]
    pub fn assert_no_pings(&self, container: &str, ping: &str, address: &str) {
        assert!(
            !self.pings(container, ping, address, "2"),
            "{container} to {address}"
        );
    }
}
