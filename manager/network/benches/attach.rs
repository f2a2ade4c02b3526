//! What the network costs a container's start: `cargo bench -p network`. Needs root; runs in a network
//! namespace of its own.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use network::{Bridge, Endpoint};
use nix::sched::{CloneFlags, unshare};

const ROUNDS: u32 = 200;

fn main() {
    unshare(CloneFlags::CLONE_NEWNET).expect("unshare (this needs root)");
    let bridge = Bridge::default();
    let started = Instant::now();
    bridge.ensure().unwrap();
    println!("first ensure   {:>8.3} ms", milliseconds(started.elapsed()));

    let container = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        File::open("/proc/thread-self/ns/net").unwrap()
    });
    let container = container.join().unwrap();
    let address = Ipv4Addr::new(172, 30, 0, 2);
    let endpoint = Endpoint::only("benchmark", address, container.as_fd());
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        times[0].push(time(|| bridge.ensure().unwrap()));
        times[1].push(time(|| bridge.attach(&endpoint).unwrap()));
        times[2].push(time(|| bridge.detach("benchmark").unwrap()));
    }
    for (name, mut times) in ["next ensure", "attach", "detach"].into_iter().zip(times) {
        times.sort();
        let [median, worst] = [times[times.len() / 2], times[times.len() - 1]];
        println!(
            "{name:14} {:>8.3} ms median {:>8.3} ms worst",
            milliseconds(median),
            milliseconds(worst)
        );
    }
}

fn time(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
