//! kill -9 of the shim, of the runtime, of containerd and of the container's processes, at failpoints and at random
//! moments. Whatever was told is true and stays true, the container is found and its exit told, and nothing is left:
//! no process, mount, cgroup, socket or state.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use containerd_shim_protos::types::mount::Mount;
use containerd_shim_protos::{api, ttrpc};
use integration::{
    Bundle, Containerd, Done, Sandbox, Shim, Streams, adopt_orphans, binary, eventually, finish, is_gone, run,
};

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

/// Numbers that nobody foresees, without a crate for it.
struct Random(u64);

impl Random {
    /// A test that fails has its seed in its output.
    fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seed = now.expect("a time").as_nanos() as u64 | 1;
        println!("random moments of the seed {seed}");
        Self(seed)
    }

    /// Marsaglia's xorshift.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn moment(&mut self, longest: Duration) -> Duration {
        Duration::from_micros(self.below(longest.as_micros() as u64))
    }
}

fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
    // Some have ended by themselves.
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL);
}

#[test]
fn a_shim_killed_at_a_failpoint_leaves_what_delete_finds() {
    // What was reaped and is not on disk yet is lost with the shim. Init ends at once: its end may be on disk before its
    // start is told, and is killed only where it was not started.
    let (never, unstarted, known) = (&[UNKNOWN][..], &[KILLED][..], &[INIT_STATUS][..]);
    let started = &[KILLED, INIT_STATUS, UNKNOWN][..];
    let failpoints = [
        ("create.mounted", never),
        ("create.recorded", never),
        ("create.called", unstarted),
        ("create.made", unstarted),
        ("create.told", unstarted),
        ("start.called", started),
        ("start.made", started),
        ("start.told", started),
        ("exit.reaped", never),
        ("exit.recorded", known),
        ("exit.told", known),
        ("delete.called", known),
        ("delete.made", known),
        ("delete.told", known),
    ];
    let stage = Stage::new(&format!("exit {INIT_STATUS}"));
    for (failpoint, statuses) in failpoints {
        for _ in 0..5 {
            let shim = stage.shim_that_dies_at(failpoint);
            let told = live(&shim, None);
            let found = stage.clean_up(&shim);
            let context = format!("{failpoint}: {found:?} after {told:?}");
            assert!(statuses.contains(&found.exit_status), "{context}");
            for status in [told.exit, told.deleted].into_iter().flatten() {
                assert_eq!(status, INIT_STATUS, "{context}");
            }
            assert!(told.pid.is_none_or(|pid| pid == found.pid), "{context}");
        }
    }
}

#[test]
fn a_shim_killed_around_an_exec_has_its_exit_on_disk() {
    let stage = Stage::gated();
    for (failpoint, is_on_disk) in [
        ("exec.called", false),
        ("exec.made", false),
        ("exec.told", false),
        ("exit.reaped", false),
        ("exit.recorded", true),
        ("exit.told", true),
    ] {
        for _ in 0..5 {
            let (shim, gate) = (stage.shim_that_dies_at(failpoint), stage.gate());
            let told = live(&shim, Some(&gate));
            assert!(
                told.exec.is_none_or(|status| status == EXEC_STATUS),
                "{failpoint}: {told:?}"
            );
            eventually("the shim is dead", || is_gone(shim.pid()).then_some(()));
            let record = fs::read_to_string(shim.bundle.join("e.exit.json")).unwrap_or_default();
            let recorded = record.contains(&format!("\"exit_status\":{EXEC_STATUS},"));
            assert_eq!(recorded, is_on_disk, "{failpoint}: {record}");
            assert_eq!(stage.clean_up(&shim).exit_status, KILLED, "{failpoint}");
        }
    }
}

#[test]
fn a_shim_killed_while_it_mounts_a_root_leaves_the_layers_of_the_image_alone() {
    let stage = Stage::gated();
    let layer = stage.sandbox.path().join("layer");
    fs::create_dir(&layer).expect("make a layer");
    fs::write(layer.join("kept"), "").expect("write a file of the layer");
    let shim = stage.shim_that_dies_at("create.layers");
    let mut root = Mount::new();
    root.type_ = "overlay".into();
    let lower = format!("lowerdir={}:{}", layer.display(), stage.bundle.rootfs().display());
    root.options = vec![
        lower,
        "uidmap=0:100000:65536".into(),
        "gidmap=0:100000:65536".into(),
    ];
    let mut request = shim.request();
    request.rootfs = vec![root];
    let created = shim.tasks.create(ttrpc::context::with_timeout(0), &request);
    assert!(created.is_err(), "{created:?}");
    let mounted = shim.bundle.join("layers/0/kept");
    let refused = fs::remove_file(mounted).expect_err("the layer is mounted read-only");
    assert_eq!(
        refused.kind(),
        std::io::ErrorKind::ReadOnlyFilesystem,
        "{refused}"
    );
    stage.clean_up(&shim);
    // What containerd does with a bundle now reaches no layer.
    assert!(!shim.bundle.join("layers").exists());
    assert!(layer.join("kept").exists());
}

/// A runtime that first does something else for a call of one kind.
fn slow_runtime(sandbox: &Sandbox, verb: &str, first: &str) -> String {
    let path = sandbox.path().join("slow");
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *\" {verb} \"*) {first};; esac\nexec {} \"$@\"\n",
        binary("runtime").display()
    );
    fs::write(&path, script).expect("write a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("make it executable");
    path.display().to_string()
}

#[test]
fn a_create_that_outlives_its_shim_is_waited_for_or_killed() {
    let stage = Stage::gated();
    let sandbox = &stage.sandbox;
    let never = sandbox.path().join("never");
    nix::unistd::mkfifo(&never, nix::sys::stat::Mode::S_IRWXU).expect("make a fifo");
    for (first, is_made) in [
        ("sleep 0.5".to_owned(), true),
        (format!("read line < {}", never.display()), false),
    ] {
        let runtime = slow_runtime(sandbox, "create", &first);
        let shim = stage.shim_that_dies_at("create.called");
        let request = shim.request_with(|options| options.binary_name = runtime);
        let created = shim.tasks.create(ttrpc::context::with_timeout(0), &request);
        assert!(created.is_err(), "{created:?}");
        let start = Instant::now();
        let found = stage.clean_up(&shim);
        let expected = if is_made { KILLED } else { UNKNOWN };
        assert_eq!((found.pid > 0, found.exit_status), (is_made, expected), "{first}");
        // containerd waits no longer.
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
}

#[test]
fn a_container_that_outlives_its_shim_and_ends_by_itself_has_its_own_status() {
    let stage = Stage::gated();
    let (shim, gate) = (stage.shim(), stage.gate());
    // It ends after `delete` has begun, and before it is killed.
    let (opened, pid) = (stage.bundle.rootfs().join("gate"), shim.bundle.join("init.pid"));
    let first = format!(
        "echo > {}; while kill -0 $(cat {}); do sleep 0.01; done 2>/dev/null",
        opened.display(),
        pid.display()
    );
    let runtime = slow_runtime(&stage.sandbox, "delete", &first);
    let request = shim.request_with(|options| options.binary_name = runtime);
    shim.tasks
        .create(ttrpc::context::with_timeout(0), &request)
        .expect("create");
    shim.start_process("");
    kill(shim.pid());
    let found = stage.clean_up(&shim);
    // Linux before 6.15 tells nobody.
    let told = if kernel_is_at_least(6, 15) {
        INIT_STATUS
    } else {
        KILLED
    };
    assert_eq!(found.exit_status, told);
    drop(gate);
}

fn kernel_is_at_least(major: u32, minor: u32) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("read the release");
    let mut numbers = release.split('.').map(|word| word.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(major), Some(minor))
}

#[test]
fn a_create_that_is_under_way_does_not_survive_a_shutdown() {
    let stage = Stage::gated();
    let hold = stage.sandbox.path().join("hold");
    nix::unistd::mkfifo(&hold, nix::sys::stat::Mode::S_IRWXU).expect("make a fifo");
    let wait = format!("read line < {}", hold.display());
    let logger = stage.sandbox.path().join("logger");
    fs::write(&logger, format!("#!/bin/sh\n{wait}\nexec 5>&-\ncat <&3\n")).expect("write the logger");
    fs::set_permissions(&logger, fs::Permissions::from_mode(0o755)).expect("make it executable");
    let limit = || ttrpc::context::with_duration(Duration::from_mins(1));
    for (runtime, stdout) in [
        (slow_runtime(&stage.sandbox, "create", &wait), String::new()),
        (
            binary("runtime").display().to_string(),
            format!("binary://{}", logger.display()),
        ),
    ] {
        let shim = stage.shim();
        let pid = shim.pid();
        let mut request = shim.request_with(|options| options.binary_name.clone_from(&runtime));
        request.stdout = stdout;
        thread::scope(|scope| {
            let created = scope.spawn(|| shim.tasks.create(limit(), &request));
            eventually("the create is under way", || shim.state("").ok().map(drop));
            let mut shutdown = api::ShutdownRequest::new();
            shutdown.id.clone_from(&shim.id);
            shutdown.now = true;
            shim.tasks.shutdown(limit(), &shutdown).expect("shutdown");
            fs::write(&hold, "\n").expect("let it go on");
            let refused = created.join().expect("no panic").expect_err("the shim ends");
            assert!(refused.to_string().contains("ending"), "{refused}");
        });
        eventually("the shim ends", || is_gone(pid).then_some(()));
        stage.assert_clean();
    }
}

#[test]
fn a_start_or_a_delete_that_is_killed_can_be_repeated() {
    let stage = Stage::gated();
    stage.bundle.write();
    stage.sandbox.owns(&stage.sandbox.path().join("s"));
    // A daemon whose start never came to its end goes by itself.
    for failpoint in ["bootstrap.listening", "bootstrap.spawned", "bootstrap.printed"] {
        run(&mut stage.command("start", failpoint)).refused();
        run(&mut stage.command("delete", "none")).ok();
        stage.sandbox.assert_clean();
    }
    for failpoint in ["cleanup.alone", "cleanup.deleted"] {
        let shim = stage.shim();
        let pid = shim.create_logged();
        shim.start_process("");
        kill(shim.pid());
        run(&mut stage.command("delete", failpoint)).refused();
        let found = stage.clean_up(&shim);
        assert_eq!((found.pid, found.exit_status), (pid, KILLED), "{failpoint}");
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
    let mut random = Random::new();
    for _ in 0..120 {
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

/// Kills in round after round until there were `enough`, however few come of one; but not for ever.
fn rounds(enough: u32, mut round: impl FnMut() -> u32) {
    const ROUNDS_MAX: u32 = 500;
    let mut kills = 0;
    for _ in 0..ROUNDS_MAX {
        kills += round();
        if kills >= enough {
            return;
        }
    }
    panic!("{kills} kills in {ROUNDS_MAX} rounds: does the test still find what it is to kill?");
}

/// Kills processes below the shim that `choose` chooses, at random moments of the client's doings. Tells how many.
fn kill_below<T>(shim: &Shim, choose: impl Fn(u32) -> bool + Sync, client: impl FnOnce() -> T) -> (u32, T) {
    let (pid, stop) = (shim.pid(), AtomicBool::new(false));
    thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let mut random = Random::new();
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
    rounds(60, || {
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
    rounds(100, || {
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

#[test]
fn shims_killed_at_any_moment_under_containerd_leave_nothing() {
    adopt_orphans();
    let sandbox = Sandbox::new();
    let containerd = Containerd::with_our_shim(&sandbox);
    let longest = length_of_a_crowd(&containerd);
    let (mut random, mut kills) = (Random::new(), 0);
    for round in 1..20 {
        let moment = random.moment(longest);
        let all = run_crowd(&containerd, round, || {
            thread::sleep(moment);
            let shims = shims(&sandbox);
            kills += shims.len();
            shims.into_iter().for_each(kill);
        });
        for done in all {
            // Refused, ended by itself, or killed: never anything else.
            let known = [1, INIT_STATUS.cast_signed(), KILLED.cast_signed()];
            assert!(known.contains(&done.code), "{moment:?}: {done}");
        }
        remove_all(&containerd);
    }
    assert!(
        kills > 10,
        "only {kills} shims were killed: does the test still find them?"
    );
    drop(containerd);
    sandbox.assert_clean();
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

#[test]
fn a_containerd_killed_at_any_moment_finds_its_containers_again() {
    adopt_orphans();
    let sandbox = Sandbox::new();
    let mut containerd = Containerd::with_our_shim(&sandbox);
    containerd.run(&["-d"], "stays", &["/bin/sleep", "1000"]).ok();
    let longest = length_of_a_crowd(&containerd);
    let mut random = Random::new();
    for round in 1..8 {
        let moment = random.moment(longest);
        let pid = containerd.pid();
        run_crowd(&containerd, round, || {
            thread::sleep(moment);
            kill(pid);
        });
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
            (shims(&sandbox).len() == 1).then_some(())
        });
    }
    containerd.remove("stays");
    remove_all(&containerd);
    drop(containerd);
    sandbox.assert_clean();
}
