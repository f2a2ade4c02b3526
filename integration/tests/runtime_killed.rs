//! kill -9 of the runtime at each of its system calls: the next `delete --force` cleans all.

use integration::{Bundle, Runtime, Sandbox, run};
use std::process::Command;

/// The calls that make or change something outside the process; strace kills the runtime at each one in turn.
const CALLS: &[&str] = &[
    "mkdir",
    "mkdirat",
    "openat",
    "write",
    "clone3",
    "rename",
    "renameat",
    "renameat2",
    "sendmsg",
    "sendto",
    "recvmsg",
    "recvfrom",
    "read",
    "unlink",
    "unlinkat",
    "rmdir",
    "close",
    "exit_group",
];

fn at_every_call(verb: &str, change: impl Fn(&mut Bundle), prepare: impl Fn(&Runtime, &Bundle, &str)) {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(&sandbox, "exec sleep 1000");
    change(&mut bundle);
    bundle.write();
    let id = sandbox.id();
    let mut kills = 0;
    for call in CALLS {
        for number in 1..60 {
            prepare(&runtime, &bundle, id);
            let plain = runtime.command(&[]);
            let mut command = Command::new("strace");
            let inject = format!("inject={call}:signal=KILL:when={number}");
            command.args([
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                &format!("trace={call},clone3"),
                "-e",
                &inject,
            ]);
            if *call != "clone3" {
                // The clone gets as far as it can without its maker.
                command.args(["-e", "inject=clone3:delay_exit=20ms"]);
            }
            command.arg(plain.get_program()).args(plain.get_args());
            match verb {
                "create" => command.args(["create", "--bundle"]).arg(bundle.path()).arg(id),
                other => command.args([other, id]),
            };
            let done = run(&mut command);
            let killed = done.code == 137;
            kills += u32::from(killed);
            runtime.delete(id);
            let left = sandbox.leftovers();
            if !left.is_empty() {
                // A process that was killed a moment ago may still be on its way out.
                sandbox.assert_clean();
            }
            if !killed {
                break;
            }
        }
    }
    assert!(
        kills > 10,
        "only {kills} kills hit {verb}: is the list of calls still right?"
    );
}

#[test]
fn create_killed_at_any_call_leaves_what_delete_force_removes() {
    at_every_call("create", |_| (), |_, _, _| ());
}

#[test]
fn create_on_the_hosts_mounts_killed_at_any_call_leaves_what_delete_force_removes() {
    at_every_call(
        "create",
        |bundle| _ = bundle.without_mount_namespace(),
        |_, _, _| (),
    );
}

#[test]
fn start_killed_at_any_call_leaves_what_delete_force_removes() {
    at_every_call(
        "start",
        |_| (),
        |runtime, bundle, id| {
            runtime.create(bundle, id).ok();
        },
    );
}

#[test]
fn delete_killed_at_any_call_leaves_what_delete_force_removes() {
    at_every_call(
        "delete",
        |_| (),
        |runtime, bundle, id| {
            runtime.detach(bundle, id);
            runtime.call(&["kill", id, "KILL"]).ok();
            integration::eventually("the container has stopped", || {
                (runtime.status(id)? == "stopped").then_some(())
            });
        },
    );
}
