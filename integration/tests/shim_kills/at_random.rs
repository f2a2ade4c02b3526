//! Shims, runtimes and containers' processes are killed at moments that nobody has chosen.

use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use containerd_shim_protos::ttrpc;
use integration::{Shim, Streams, eventually, kills};

use crate::{EXEC_STATUS, INIT_STATUS, KILLED, Stage, Told, UNKNOWN, kill, live, rounds, unforeseen};

/// As [`live`], with a client that tries again whatever fails, until the container has ended by itself.
fn live_stubbornly(shim: &Shim, mut gate: fs::File) -> Told {
    let delete = |exec: &str| {
        eventually("a delete that is not killed", || match shim.delete(exec) {
            Ok(deleted) => Some(Some(deleted.exit_status)),
            Err(ttrpc::Error::RpcStatus(status)) if status.code() == ttrpc::Code::NOT_FOUND => Some(None),
            Err(_) => None,
        })
    };
    let pid = eventually("a start that is not killed", || {
        let created = shim.try_create_logged();
        let started = created.and_then(|pid| shim.try_start("").map(|_| pid));
        if started.is_err() {
            delete("");
        }
        started.ok()
    });
    let exec = eventually("an exec that is not killed", || {
        shim.add_exec("e", &format!("exit {EXEC_STATUS}"), &Streams::default())
            .expect("exec");
        let status = shim.try_start("e").ok().map(|_| shim.wait("e"));
        delete("e");
        status
    });
    gate.write_all(b"\n").expect("open the gate");
    let exit = shim.wait("");
    Told {
        pid: Some(pid),
        exec: Some(exec),
        exit: Some(exit),
        deleted: delete(""),
    }
}

#[test]
fn a_shim_killed_at_any_moment_loses_no_exit_that_was_told() {
    let stage = Stage::gated();
    let shim = stage.shim();
    let start = Instant::now();
    assert_eq!(live(&shim, Some(&stage.gate())).deleted, Some(INIT_STATUS));
    let longest = start.elapsed() * 5 / 4;
    stage.shut_down(shim);
    let mut random = unforeseen();
    for _ in 0..kills(100) {
        let shim = stage.shim();
        let (moment, gate) = (random.moment(longest), stage.gate());
        let told = thread::scope(|scope| {
            let life = scope.spawn(|| live(&shim, Some(&gate)));
            thread::sleep(moment);
            kill(shim.pid());
            life.join().expect("a life")
        });
        // At once, as containerd does, whatever the shim had under way.
        let found = stage.clean_up(&shim);
        let context = format!("killed after {moment:?}: {found:?} after {told:?}");
        assert!(
            [KILLED, INIT_STATUS, UNKNOWN].contains(&found.exit_status),
            "{context}"
        );
        assert!(told.exec.is_none_or(|status| status == EXEC_STATUS), "{context}");
        for status in [told.exit, told.deleted].into_iter().flatten() {
            assert_eq!(
                (status, found.exit_status),
                (INIT_STATUS, INIT_STATUS),
                "{context}"
            );
        }
        assert!(told.pid.is_none_or(|pid| pid == found.pid), "{context}");
    }
}

/// The processes below one, the nearest first.
fn descendants(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        found.extend(
            children
                .split_whitespace()
                .filter_map(|child| child.parse::<u32>().ok()),
        );
        next += 1;
    }
    found.split_off(1)
}

/// Whether a process below the shim is a call of the runtime. The container's own has the same arguments until it is
/// started, but leads a session.
fn is_call(pid: u32) -> bool {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(") ").map(|(_, fields)| fields);
    let session = fields.and_then(|fields| fields.split(' ').nth(3)?.parse::<u32>().ok());
    line.contains("\0--log\0") && session.is_some_and(|session| session != pid)
}

/// Kills processes below the shim that `choose` chooses, at random moments of the client's doings. Tells how many.
fn kill_below<T>(shim: &Shim, choose: impl Fn(u32) -> bool + Sync, client: impl FnOnce() -> T) -> (u32, T) {
    let (pid, stop) = (shim.pid(), AtomicBool::new(false));
    thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let mut random = unforeseen();
            let mut kills = 0;
            while !stop.load(Ordering::Relaxed) {
                let found = descendants(pid).into_iter().find(|pid| choose(*pid));
                thread::sleep(random.moment(Duration::from_millis(5)));
                if let Some(pid) = found.filter(|pid| choose(*pid)) {
                    kill(pid);
                    kills += 1;
                }
            }
            kills
        });
        let result = client();
        stop.store(true, Ordering::Relaxed);
        (killer.join().expect("the killer"), result)
    })
}

#[test]
fn a_runtime_killed_at_any_moment_is_told_as_a_failure_and_can_be_called_again() {
    let stage = Stage::gated();
    rounds(kills(60), || {
        let shim = stage.shim();
        let (kills, told) = kill_below(&shim, is_call, || live_stubbornly(&shim, stage.gate()));
        let statuses = (told.exec, told.exit, told.deleted);
        assert_eq!(
            statuses,
            (Some(EXEC_STATUS), Some(INIT_STATUS), Some(INIT_STATUS))
        );
        stage.shut_down(shim);
        kills
    });
}

#[test]
fn processes_of_a_container_killed_at_any_moment_are_told_as_killed() {
    let stage = Stage::gated();
    rounds(kills(100), || {
        let shim = stage.shim();
        let theirs = |pid| !is_call(pid);
        let (kills, told) = kill_below(&shim, theirs, || live(&shim, Some(&stage.gate())));
        let is_told = |status: Option<u32>, own| status.is_none_or(|status| [own, KILLED].contains(&status));
        assert!(
            is_told(told.exec, EXEC_STATUS) && is_told(told.exit, INIT_STATUS),
            "{told:?}"
        );
        if told.deleted.is_some() {
            assert_eq!(told.deleted, told.exit);
        } else if told.pid.is_some() {
            // Something was refused because a process was gone.
            let _ = shim.kill("", 9);
            let exit = shim.wait("");
            assert!(is_told(Some(exit), INIT_STATUS), "{exit}");
            assert_eq!(shim.delete("").expect("delete").exit_status, exit);
        }
        stage.shut_down(shim);
        kills
    });
}
