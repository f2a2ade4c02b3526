//! Shims, and containerd itself, are killed while `ctr` has containers run: under the machine's containerd, and under the
//! peers' newer one where hack/peers has fetched it.

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use integration::{Containerd, Done, Peers, Sandbox, adopt_orphans, eventually, finish, kills};

use crate::{EXEC_STATUS, INIT_STATUS, KILLED, UNKNOWN, kill, rounds, unforeseen};

/// Containers at once, under containerd.
const CROWD: usize = 4;

/// Some `ctr run` at once, during which `strike` is called. Tells what each of them ended with.
fn run_crowd(containerd: &Containerd, round: usize, strike: impl FnOnce()) -> Vec<Done> {
    let names: Vec<String> = (0..CROWD).map(|number| format!("c{round}-{number}")).collect();
    let script = format!("exit {INIT_STATUS}");
    let spawn = |name: &String| {
        let mut command = containerd.run_command(&["--rm"], name, &["/bin/sh", "-c", &script]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().expect("start ctr")
    };
    let running: Vec<_> = names.iter().map(spawn).collect();
    strike();
    let ended = running.into_iter().zip(names);
    ended
        .map(|(child, name)| finish(child, format!("ctr run {name}")))
        .collect()
}

/// How long it takes undisturbed, once everything is in memory.
fn length_of_a_crowd(containerd: &Containerd) -> Duration {
    run_crowd(containerd, 0, || ());
    let start = Instant::now();
    run_crowd(containerd, 0, || ());
    start.elapsed()
}

/// All that containerd knows of is removed, and then nothing may be left.
#[track_caller]
fn remove_all(containerd: &Containerd) {
    let list = |what: &str| containerd.ctr(&[what, "ls", "-q"]).ok();
    for task in list("task").lines() {
        containerd.ctr(&["task", "rm", "-f", task]);
    }
    for container in list("container").lines() {
        containerd.ctr(&["container", "rm", container]);
    }
    eventually("containerd knows of nothing any more", || {
        (list("task") + &list("container")).is_empty().then_some(())
    });
    eventually("no bundle is left", || {
        let bundles = fs::read_dir(containerd.bundle(""))
            .into_iter()
            .flatten()
            .flatten();
        // containerd gives a bundle such a name before it removes it, and forgets it when it is killed in between.
        let hidden = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with('.');
        bundles.into_iter().all(|entry| hidden(&entry)).then_some(())
    });
}

/// The shims of a test's containerd.
fn shims(sandbox: &Sandbox) -> Vec<u32> {
    let address = format!("\0-address\0{}/c.sock\0", sandbox.path().display());
    let pids = fs::read_dir("/proc").expect("read /proc").flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.contains(&address) && line.contains("\0-socket\0")
        })
        .collect()
}

/// containerd 2 with our shim, or nothing when hack/peers has fetched none.
fn newer(sandbox: &Sandbox) -> Option<Containerd> {
    Some(Containerd::newer_with_our_shim(sandbox, Peers::start(sandbox)?))
}

/// Refused, ended by itself, killed or not known: never anything else.
#[track_caller]
fn assert_known(done: &Done, moment: Duration) {
    let known = [1, INIT_STATUS, KILLED, UNKNOWN].map(u32::cast_signed);
    assert!(known.contains(&done.code), "{moment:?}: {done}");
}

fn kill_shims(sandbox: &Sandbox, containerd: Containerd) {
    adopt_orphans();
    let longest = length_of_a_crowd(&containerd);
    let (mut random, mut round) = (unforeseen(), 0);
    rounds(kills(20), || {
        round += 1;
        let (moment, mut kills) = (random.moment(longest), 0);
        let all = run_crowd(&containerd, round, || {
            thread::sleep(moment);
            let shims = shims(sandbox);
            kills = shims.len() as u32;
            shims.into_iter().for_each(kill);
        });
        for done in &all {
            assert_known(done, moment);
        }
        remove_all(&containerd);
        kills
    });
    drop(containerd);
    sandbox.assert_clean();
}

#[test]
fn shims_killed_at_any_moment_under_containerd_leave_nothing() {
    let sandbox = Sandbox::new();
    let containerd = Containerd::with_our_shim(&sandbox);
    kill_shims(&sandbox, containerd);
}

#[test]
fn shims_killed_at_any_moment_under_containerd_2_leave_nothing() {
    let sandbox = Sandbox::new();
    if let Some(containerd) = newer(&sandbox) {
        kill_shims(&sandbox, containerd);
    }
}

fn kill_containerd(sandbox: &Sandbox, mut containerd: Containerd) {
    adopt_orphans();
    containerd.run(&["-d"], "stays", &["/bin/sleep", "1000"]).ok();
    let longest = length_of_a_crowd(&containerd);
    let mut random = unforeseen();
    for round in 1..=kills(6) as usize {
        let moment = random.moment(longest);
        let pid = containerd.pid();
        let all = run_crowd(&containerd, round, || {
            thread::sleep(moment);
            kill(pid);
        });
        for done in &all {
            assert_known(done, moment);
        }
        containerd.kill();
        containerd.start_again();
        assert_eq!(
            containerd.status("stays").as_deref(),
            Some("RUNNING"),
            "{moment:?}"
        );
        // Its output is no matter: ctr loses that of an exec which ends before ctr has opened the fifo.
        let exec = containerd.exec(&[], "stays", &["/bin/sh", "-c", "exit 7"]);
        assert_eq!(exec.code, EXEC_STATUS.cast_signed(), "{exec}");
        for name in (0..CROWD).map(|number| format!("c{round}-{number}")) {
            containerd.ctr(&["task", "rm", "-f", &name]);
            containerd.ctr(&["container", "rm", &name]);
        }
        eventually("only the shim of the container that stays is left", || {
            (shims(sandbox).len() == 1).then_some(())
        });
    }
    containerd.remove("stays");
    remove_all(&containerd);
    drop(containerd);
    sandbox.assert_clean();
}

#[test]
fn a_containerd_killed_at_any_moment_finds_its_containers_again() {
    let sandbox = Sandbox::new();
    let containerd = Containerd::with_our_shim(&sandbox);
    kill_containerd(&sandbox, containerd);
}

#[test]
fn a_containerd_2_killed_at_any_moment_finds_its_containers_again() {
    let sandbox = Sandbox::new();
    if let Some(containerd) = newer(&sandbox) {
        kill_containerd(&sandbox, containerd);
    }
}
