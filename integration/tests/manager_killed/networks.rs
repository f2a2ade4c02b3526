//! kill -9 of the manager at moments that a seed decides, while clients make networks and volumes, run containers on
//! them, connect, disconnect, publish, prune and remove. Each client knows what was acknowledged to it.

use crate::at_random::{Caller, Over, SEED, kill_at_random};
use crate::{DEADLINE, Witness, assert_no_strays};
use integration::{Done, Manager, Random, Sandbox, kills, run};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const CLIENTS: u64 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    Absent,
    /// Made, and not running.
    Idle,
    Running,
}

/// What a client knows of its things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    network: bool,
    volume: bool,
    container: Container,
    joined: bool,
}

const NOTHING: Known = Known {
    network: false,
    volume: false,
    container: Container::Absent,
    joined: false,
};

struct Client<'a> {
    caller: Caller,
    number: u64,
    image: String,
    over: &'a AtomicBool,
    acknowledged: &'a AtomicU32,
}

impl Client<'_> {
    fn ctl(&self, args: &[&str]) -> Done {
        self.caller.ctl(args)
    }

    fn name(&self, kind: &str) -> String {
        format!("{kind}{}", self.number)
    }

    fn look(&self) -> Known {
        let [network, volume, container] = ["net", "vol", "on"].map(|kind| self.name(kind));
        let found = self.caller.inspect(
            &["inspect", "--type", "container", &container],
            "no such container",
        );
        let state = found.as_ref().and_then(|found| found["state"].as_str());
        Known {
            network: self
                .caller
                .inspect(&["network", "inspect", &network], "not found")
                .is_some(),
            volume: self
                .caller
                .inspect(&["volume", "inspect", &volume], "no such volume")
                .is_some(),
            container: match state {
                None => Container::Absent,
                Some("running" | "restarting") => Container::Running,
                Some("created" | "exited") => Container::Idle,
                Some(other) => panic!("{container} is {other}"),
            },
            joined: found.is_some_and(|found| found["networks"][&network].is_object()),
        }
    }

    /// What a running container sees of its network is what is on record.
    fn check_inside(&self, known: Known, asked: &[&str]) {
        let until = Instant::now() + DEADLINE;
        let container = self.name("on");
        let address = format!("10.{}.0.", 90 + self.number);
        let look = "busybox ip -4 -o addr; cat /etc/hosts";
        loop {
            let done = self.ctl(&["exec", &container, "sh", "-c", look]);
            if done.code == 0 {
                let of_network = done.stdout.matches(&address).count();
                // The link tells its address and its broadcast address.
                let wanted = if known.joined { 3 } else { 0 };
                assert_eq!(of_network, wanted, "after {asked:?}: {done}");
                return;
            }
            assert!(Instant::now() < until, "nothing runs in it: {done}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ask for something. What is acknowledged is so from then on; what is not is as before or as asked for, each thing
    /// for itself.
    fn change(&self, before: Known, args: &[&str], asked: Known) -> Known {
        let done = self.ctl(args);
        let now = self.look();
        if done.code == 0 {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
            assert_eq!(now, asked, "{args:?} was acknowledged: {done}");
        } else {
            let is_one = |now: bool, before: bool, asked: bool| now == before || now == asked;
            let containers = [before.container, asked.container, Container::Idle];
            assert!(
                is_one(now.network, before.network, asked.network)
                    && is_one(now.volume, before.volume, asked.volume)
                    && is_one(now.joined, before.joined, asked.joined)
                    && containers.contains(&now.container),
                "{args:?} made {now:?} of {before:?}: {done}"
            );
        }
        if now.container == Container::Running {
            self.check_inside(now, args);
        }
        now
    }

    /// Without an answer it may be on its way, so it is asked for until it is gone.
    fn remove(&self, before: Known) -> Known {
        let container = self.name("on");
        let until = Instant::now() + DEADLINE;
        let mut done = self.ctl(&["rm", "-f", &container]);
        while self.look().container != Container::Absent {
            assert!(Instant::now() < until, "it can't be removed: {done}");
            done = self.ctl(&["rm", "-f", &container]);
        }
        Known {
            container: Container::Absent,
            joined: false,
            ..before
        }
    }

    fn work(&self, mut random: Random) {
        let mut known = NOTHING;
        while !self.over.load(Ordering::Relaxed) {
            known = self.step(known, random.below(6));
        }
        let known = self.remove(known);
        self.tidy(known);
    }

    fn step(&self, known: Known, choice: u64) -> Known {
        let [network, volume, container] = ["net", "vol", "on"].map(|kind| self.name(kind));
        let label = format!("client={}", self.number);
        let filter = format!("label={label}");
        let subnet = format!("10.{}.0.0/24", 90 + self.number);
        let mounted = format!("{volume}:/data");
        match (known.container, choice) {
            (_, 0) if !known.network => {
                let args = [
                    "network", "create", "--subnet", &subnet, "--label", &label, &network,
                ];
                let asked = Known {
                    network: true,
                    ..known
                };
                self.change(known, &args, asked)
            }
            (_, 1) if !known.volume => {
                let asked = Known {
                    volume: true,
                    ..known
                };
                self.change(known, &["volume", "create", "--label", &label, &volume], asked)
            }
            (Container::Absent, 2) if known.network => {
                let asked = Known {
                    network: false,
                    ..known
                };
                self.change(known, &["network", "rm", &network], asked)
            }
            (Container::Absent, 3) => {
                let (network, volume) = (["network", "prune"], ["volume", "prune", "--all"]);
                let prune = if known.network { &network[..] } else { &volume };
                let args = [prune, &["--force", "--filter", &filter]].concat();
                let asked = Known {
                    network: false,
                    volume: known.volume && known.network,
                    ..known
                };
                self.change(known, &args, asked)
            }
            (Container::Absent, _) => {
                let mut args = vec![
                    "run",
                    "-d",
                    "--restart",
                    "unless-stopped",
                    "--name",
                    &container,
                    "-p",
                    "80",
                ];
                let joined = known.network && choice == 4;
                if joined {
                    args.extend(["--network", &network, "--network-alias", "web"]);
                }
                if known.volume {
                    args.extend(["-v", &mounted]);
                }
                args.extend([self.image.as_str(), "sleep", "1000"]);
                let asked = Known {
                    container: Container::Running,
                    joined,
                    ..known
                };
                self.change(known, &args, asked)
            }
            (Container::Idle, 0..=3) => {
                let asked = Known {
                    container: Container::Running,
                    ..known
                };
                self.change(known, &["start", &container], asked)
            }
            (Container::Running, 2 | 3) if known.joined => {
                // Where its ports come in by this network, this is refused.
                let asked = Known {
                    joined: false,
                    ..known
                };
                self.change(known, &["network", "disconnect", &network, &container], asked)
            }
            (Container::Running, 2..=4) if known.network => {
                let asked = Known {
                    joined: true,
                    ..known
                };
                self.change(known, &["network", "connect", &network, &container], asked)
            }
            (_, _) => self.remove(known),
        }
    }

    fn tidy(&self, mut known: Known) {
        while known != NOTHING {
            let choice = if known.network { 2 } else { 3 };
            known = self.step(known, choice);
        }
    }
}

/// All that the kernel has of networks, but for the default one's own.
fn left(manager: &Manager) -> String {
    let bridges = run(manager
        .inside("ip")
        .args(["-br", "link", "show", "type", "bridge"]))
    .ok();
    let bridges: Vec<_> = bridges.lines().filter(|line| line.starts_with("br-")).collect();
    let rules = run(manager.inside("nft").args(["list", "table", "inet", "berth"])).ok();
    let rules: Vec<_> = rules
        .lines()
        .filter(|line| line.contains("br-") || line.contains("elements"))
        .collect();
    [bridges, rules].concat().join("\n")
}

#[test]
fn networks_volumes_and_ports_survive_kills_at_any_moment() {
    let mut random = Random::seeded(SEED);
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let witness = Witness::start(&manager, &image);
    let (over, acknowledged) = (AtomicBool::new(false), AtomicU32::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| Client {
            caller: Caller::of(&manager),
            number,
            image: image.clone(),
            over: &over,
            acknowledged: &acknowledged,
        })
        .collect();
    let mut killed = 0;
    thread::scope(|scope| {
        let _over = Over(&over);
        for client in &clients {
            let random = Random::new(random.number());
            scope.spawn(move || client.work(random));
        }
        killed = kill_at_random(&mut manager, &witness, &mut random, kills(0));
    });
    let acknowledged = acknowledged.into_inner();
    println!("{killed} kills, {acknowledged} changes acknowledged");
    assert!(acknowledged > 0, "nothing was done at all");
    assert_no_strays(&manager);
    assert_eq!(left(&manager), "");
    witness.assert_whole(&manager);
}
