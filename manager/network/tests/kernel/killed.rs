//! A manager that is killed anywhere leaves what the next one can mend.

use std::env;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use network::{Bridge, Endpoint};

use crate::namespace::{Namespace, id};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 2);
/// Tells this test's own program, run again, to be the manager that gets killed; holds a container's namespace.
const VICTIM: &str = "BERTH_TEST_VICTIM_NETNS";

#[test]
fn after_a_kill_at_any_moment_the_next_start_works() {
    if let Some(netns) = env::var_os(VICTIM) {
        be_killed(&File::open(netns).unwrap());
    }
    let (host, container, bridge) = (Namespace::new(), Namespace::new(), Bridge::default());
    let (host_links, container_links) = (host.links(), container.links());
    for round in 0..40 {
        host.run(|| {
            let mut victim = Command::new(env::current_exe().unwrap())
                .args([
                    "--exact",
                    "--nocapture",
                    "killed::after_a_kill_at_any_moment_the_next_start_works",
                ])
                .env(VICTIM, container.path())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            // It says when it begins; then it is somewhere in its cycle of some milliseconds.
            let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
            assert!(lines.map_while(Result::ok).any(|line| line.ends_with("begin")));
            thread::sleep(Duration::from_micros(round * 397));
            victim.kill().unwrap();
            victim.wait().unwrap();

            // What a manager does when it starts and finds a container without a network.
            bridge.ensure().unwrap();
            bridge.detach(&id(1)).unwrap();
            assert_eq!(bridge.attached().unwrap(), []);
            bridge
                .attach(&Endpoint::only(&id(1), ADDRESS, container.fd()))
                .unwrap();
            bridge.detach(&id(1)).unwrap();
            bridge.remove().unwrap();
        });
        assert_eq!(
            (host.links(), container.links()),
            (host_links.clone(), container_links.clone())
        );
        assert_eq!(host.rules(), "");
    }
}

fn be_killed(netns: &File) -> ! {
    let bridge = Bridge::default();
    println!("\nbegin");
    loop {
        bridge.ensure().unwrap();
        bridge
            .attach(&Endpoint::only(&id(1), ADDRESS, netns.as_fd()))
            .unwrap();
        bridge.detach(&id(1)).unwrap();
        bridge.remove().unwrap();
    }
}
