//! What goes on when a shim is dead: calls of the runtime, and the container.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use containerd_shim_protos::{api, ttrpc};
use integration::{Sandbox, binary, eventually, is_gone, is_linux_since};

use crate::{INIT_STATUS, KILLED, Stage, UNKNOWN, kill};

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
    let is_told = is_linux_since((6, 15), "the exit status of a process that is nobody's child");
    let told = if is_told { INIT_STATUS } else { KILLED };
    assert_eq!(found.exit_status, told);
    drop(gate);
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
