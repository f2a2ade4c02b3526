//! kill -9 of the manager at moments that a seed decides, while clients work: each of them knows what was
//! acknowledged to it, and holds the next manager to that.

use crate::{Witness, assert_no_strays, find, inspect, remove, spawn_unattended};
use integration::{Done, Image, Layer, Manager, Random, Sandbox, binary, kills, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// `BERTH_SEED` in the environment repeats another run's decisions.
pub(crate) const SEED: u64 = 0x0062_6572_7468;
const CLIENTS: u64 = 3;
/// No new round begins after this.
const PATIENCE: Duration = Duration::from_secs(12);
const DEADLINE: Duration = Duration::from_secs(90);

/// What a client knows of its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Absent,
    Created,
    Running,
    Exited,
}

/// Asks whichever manager is there.
pub(crate) struct Caller {
    socket: PathBuf,
}

impl Caller {
    pub(crate) fn of(manager: &Manager) -> Self {
        Self {
            socket: manager.socket(),
        }
    }

    pub(crate) fn ctl(&self, args: &[&str]) -> Done {
        run(Command::new(binary("managerctl"))
            .arg("--socket")
            .arg(&self.socket)
            .args(args))
    }

    /// What the manager, or the next one, tells of a thing; nothing if it says `none` of it.
    pub(crate) fn inspect(&self, args: &[&str], none: &str) -> Option<Value> {
        let until = Instant::now() + DEADLINE;
        loop {
            let done = self.ctl(args);
            if done.code == 0 {
                let mut all: Value = serde_json::from_str(&done.stdout).expect("inspect prints JSON");
                return Some(all[0].take());
            }
            if done.stderr.contains(none) {
                return None;
            }
            assert!(Instant::now() < until, "no manager answers: {done}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

struct Client<'a> {
    caller: Caller,
    name: String,
    image: String,
    over: &'a AtomicBool,
    acknowledged: &'a AtomicU32,
}

impl Client<'_> {
    fn ctl(&self, args: &[&str]) -> Done {
        self.caller.ctl(args)
    }

    /// What the manager, or the next one, says of the container.
    fn look(&self) -> Known {
        let inspect = ["inspect", "--type", "container", &self.name];
        let Some(found) = self.caller.inspect(&inspect, "no such container") else {
            return Known::Absent;
        };
        match found["state"].as_str() {
            Some("created") => Known::Created,
            // Ended unasked; its policy starts it.
            Some("running" | "restarting") => Known::Running,
            Some("exited") => Known::Exited,
            other => panic!("{} is {other:?}", self.name),
        }
    }

    /// Ask for something. What is acknowledged is so from then on. What is not has to be looked for: it is as
    /// before, as asked for, or at `halfway`.
    fn ask(&self, before: Known, args: &[&str], asked: Known, halfway: Known) -> Known {
        let done = self.ctl(args);
        let now = self.look();
        if done.code == 0 {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
            assert_eq!(now, asked, "{args:?} was acknowledged: {done}");
        } else {
            assert!(
                [before, asked, halfway].contains(&now),
                "{args:?} made {now:?} of {before:?}: {done}"
            );
        }
        now
    }

    /// Ask for an end. Without an answer it may be on its way and come at any time, so then it is asked for until
    /// it has come.
    fn ask_for_end(&self, args: &[&str], asked: Known) -> Known {
        let done = self.ctl(args);
        if done.code == 0 {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
            let now = self.look();
            assert_eq!(now, asked, "{args:?} was acknowledged: {done}");
            return now;
        }
        let until = Instant::now() + DEADLINE;
        while self.look() != Known::Absent {
            let done = self.ctl(&["rm", "-f", &self.name]);
            assert!(Instant::now() < until, "it can't be removed: {done}");
        }
        Known::Absent
    }

    fn work(&self, mut random: Random) {
        use Known::{Absent, Created, Exited, Running};
        let (name, image) = (self.name.as_str(), self.image.as_str());
        let mut known = Absent;
        while !self.over.load(Ordering::Relaxed) {
            known = match (known, random.below(5)) {
                (Absent, 0) => {
                    let args = ["create", "--name", name, image, "sleep", "1000"];
                    self.ask(known, &args, Created, Absent)
                }
                (Absent, 1) => self.ask_for_end(&["run", "--rm", "--name", name, image, "true"], Absent),
                (Absent, _) => {
                    // Whoever ends it by hand wants that to last, over all managers.
                    let run = ["run", "-d", "--restart", "unless-stopped", "--name", name];
                    let args = [&run[..], &[image, "sleep", "1000"]].concat();
                    self.ask(known, &args, Running, Created)
                }
                (Created | Exited, 0..=2) => self.ask(known, &["start", name], Running, known),
                (Running, 0 | 1) => {
                    let done = self.ctl(&["exec", name, "echo", "hello"]);
                    assert!(done.code != 0 || done.stdout == "hello\n", "{done}");
                    let now = self.look();
                    assert_eq!(now, Running, "an exec ended it: {done}");
                    now
                }
                (Running, 2) => self.ask_for_end(&["kill", name], Exited),
                (Running, 3) => self.ask_for_end(&["stop", "-t", "0", name], Exited),
                (_, _) => self.ask_for_end(&["rm", "-f", name], Absent),
            };
        }
        self.ask_for_end(&["rm", "-f", name], Absent);
    }

    /// Pull and remove an image over and over.
    fn pull(&self) {
        while !self.over.load(Ordering::Relaxed) {
            for (verb, there) in [("pull", true), ("rmi", false)] {
                let done = self.ctl(&[verb, &self.image]);
                let until = Instant::now() + DEADLINE;
                let mut list = self.ctl(&["images"]);
                while list.code != 0 {
                    assert!(Instant::now() < until, "no manager answers: {list}");
                    thread::sleep(Duration::from_millis(5));
                    list = self.ctl(&["images"]);
                }
                if done.code == 0 {
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                    assert_eq!(
                        list.stdout.contains("/other"),
                        there,
                        "{verb} was acknowledged: {list}"
                    );
                }
            }
        }
    }
}

/// Ends the clients' work when the test ends, however it does.
pub(crate) struct Over<'a>(pub(crate) &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Kill the manager and start the next one, for a time and at least `enough` times. How often it was.
pub(crate) fn kill_at_random(
    manager: &mut Manager,
    witness: &Witness,
    random: &mut Random,
    enough: u32,
) -> u32 {
    let mut killed = 0;
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until || killed < enough {
        thread::sleep(Duration::from_millis(random.below(600)));
        manager.kill();
        killed += 1;
        if random.below(3) == 0 {
            // The next one dies while it puts things right.
            let mut hasty = spawn_unattended(manager, "");
            thread::sleep(Duration::from_millis(random.below(80)));
            hasty.kill().expect("kill a manager");
            hasty.wait().expect("wait for a manager");
            killed += 1;
        }
        manager.start_again();
        witness.assert_unharmed(manager);
    }
    killed
}

#[test]
fn what_was_acknowledged_survives_kills_at_any_moment() {
    let mut random = Random::seeded(SEED);
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let witness = Witness::start(&manager, &image);
    let other = Image::new(vec![Layer::from_files(&[("motd", "hello\n")])]);
    let other = manager.registry().push(&other, "other:1");
    let (over, acknowledged) = (AtomicBool::new(false), AtomicU32::new(0));
    let client = |name: String, image: &str| Client {
        caller: Caller::of(&manager),
        name,
        image: image.to_owned(),
        over: &over,
        acknowledged: &acknowledged,
    };
    let clients: Vec<_> = (0..CLIENTS)
        .map(|i| client(format!("client{i}"), &image))
        .collect();
    let puller = client(String::new(), &other);
    let mut killed = 0;
    thread::scope(|scope| {
        let _over = Over(&over);
        for client in &clients {
            let random = Random::new(random.number());
            scope.spawn(move || client.work(random));
        }
        scope.spawn(|| puller.pull());
        killed = kill_at_random(&mut manager, &witness, &mut random, kills(0));
    });
    println!("{killed} kills");
    assert!(acknowledged.into_inner() > 0, "nothing was done at all");
    assert_no_strays(&manager);
    witness.assert_whole(&manager);
}

/// The pid of a container's shim, while the container has one.
fn shim_of(manager: &Manager, id: &str) -> Option<Pid> {
    let path = manager.state().join("bundles").join(id).join("shim.pid");
    let pid = fs::read_to_string(path).ok()?.trim().parse().ok()?;
    Some(Pid::from_raw(pid))
}

/// Containers end by themselves all the time, whether there is a manager or not, and some lose their shim.
#[test]
fn exits_that_come_while_managers_and_shims_are_killed_are_told_truly() {
    const STATUS: u32 = 7;
    const CROWD: usize = 3;
    let mut random = Random::seeded(SEED);
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let names: Vec<String> = (0..CROWD).map(|number| format!("ends{number}")).collect();
    let mut shims = 0;
    for _ in 0..kills(8) {
        let script = format!("usleep {}; exit {STATUS}", random.below(300_000));
        let moment = Duration::from_millis(random.below(400));
        let (started, victim) = thread::scope(|scope| {
            let start = |name| manager.ctl(&["run", "-d", "--name", name, &image, "sh", "-c", &script]);
            let starts: Vec<_> = names
                .iter()
                .map(|name| scope.spawn(move || start(name)))
                .collect();
            thread::sleep(moment);
            let running = manager.ctl(&["ps", "-q", "--no-trunc"]).stdout;
            let victim = running.lines().next().filter(|_| random.below(2) == 0);
            if let Some(shim) = victim.and_then(|id| shim_of(&manager, id)) {
                shims += u32::from(kill(shim, Signal::SIGKILL).is_ok());
            }
            kill(Pid::from_raw(manager.pid().cast_signed()), Signal::SIGKILL).expect("kill the manager");
            let started: Vec<_> = starts
                .into_iter()
                .map(|start| start.join().expect("a start"))
                .collect();
            (started, victim.map(str::to_owned))
        });
        manager.kill();
        manager.start_again();
        for (name, start) in names.iter().zip(&started) {
            let context = format!("{name} after {moment:?}, {victim:?} lost its shim: {start}");
            let id = start.stdout.trim();
            if start.code == 0 {
                let told = manager.ctl(&["wait", name]).ok();
                let is_true = told.trim() == STATUS.to_string();
                // Killed with its shim, or ended when nobody saw it.
                let is_lost = victim.as_deref() == Some(id) && ["137", "255"].contains(&told.trim());
                assert!(is_true || is_lost, "{told} {context}");
                assert_eq!(
                    inspect(&manager, name)["exit"]["code"].to_string(),
                    told.trim(),
                    "{context}"
                );
            }
            if find(&manager, name).is_some() {
                remove(&manager, name);
            }
        }
        assert_no_strays(&manager);
    }
    println!("{} kills of managers, {shims} of shims", kills(8));
}
