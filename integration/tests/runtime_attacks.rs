//! The techniques behind runc's published holes, tried against our runtime. `runtime_exec` has the overwriting of
//! the host's binary (CVE-2019-5736), `runtime_refusals` ids that leave the state folder, `runtime_seccomp` other
//! architectures' numbers.

use integration::{Bundle, Runtime, Sandbox, run};
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

/// A marker outside the rootfs that no container may touch.
fn outside(sandbox: &Sandbox) -> std::path::PathBuf {
    let folder = sandbox.path().join("outside");
    fs::create_dir_all(&folder).expect("make a folder");
    fs::write(folder.join("marker"), "host\n").expect("write the marker");
    folder
}

#[track_caller]
fn assert_untouched(folder: &std::path::Path) {
    let names: Vec<_> = fs::read_dir(folder)
        .expect("list it")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(names, ["marker"], "something was made outside the rootfs");
    assert_eq!(
        fs::read_to_string(folder.join("marker")).expect("read it"),
        "host\n"
    );
}

#[test]
fn mount_targets_that_are_links_to_the_host_stay_in_the_rootfs() {
    // CVE-2019-19921, CVE-2021-30465: the rootfs holds links where the config mounts.
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let folder = outside(&sandbox);
    let source = sandbox.path().join("source");
    fs::create_dir_all(&source).expect("make a folder");
    for (number, link) in [
        folder.display().to_string(),
        "../../outside".to_owned(),
        "../../../../../../../../..".to_owned() + &folder.display().to_string(),
    ]
    .iter()
    .enumerate()
    {
        let mut bundle = Bundle::named(&sandbox, &format!("bundle{number}"), &["/bin/true"]);
        symlink(link, bundle.rootfs().join("data")).expect("make the link");
        for destination in ["/data/new/folder", "/data", "/tmp/../data/x"] {
            bundle.push(
                "/mounts",
                json!({"destination": destination, "type": "bind", "source": source, "options": ["rbind"]}),
            );
        }
        // Refused or mounted inside: never outside.
        let _ = runtime.run(&bundle, sandbox.id());
        assert_untouched(&folder);
        sandbox.assert_clean();
    }
}

#[test]
fn proc_and_sys_behind_links_or_under_other_file_systems_are_refused() {
    // CVE-2019-16884, CVE-2023-27561: labels and sysctls would be written to something that is no procfs.
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::named(&sandbox, "linked", &["/bin/true"]);
    fs::remove_dir(bundle.rootfs().join("proc")).expect("remove /proc");
    fs::create_dir_all(bundle.rootfs().join("evil/self/attr")).expect("make a false /proc");
    symlink("evil", bundle.rootfs().join("proc")).expect("link /proc");
    let refused = runtime.run(&bundle, sandbox.id()).refused();
    assert!(refused.contains("proc"), "{refused}");
    bundle = Bundle::named(&sandbox, "false", &["/bin/true"]);
    bundle.set(
        "/mounts/0",
        json!({"destination": "/proc", "type": "tmpfs", "source": "tmpfs"}),
    );
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    let done = runtime.run(&bundle, sandbox.id());
    assert!(!bundle.rootfs().join("proc/sys").exists(), "{done}");
    sandbox.assert_clean();
}

#[test]
fn a_working_directory_by_a_leaked_descriptor_is_refused() {
    // CVE-2024-21626: the runtime's descriptor of the host's cgroup folder, as the working directory.
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    for number in 3..20 {
        let mut bundle = Bundle::named(
            &sandbox,
            &format!("bundle{number}"),
            &["/bin/sh", "-c", "pwd -P; ls ../../../.."],
        );
        bundle.set("/process/cwd", json!(format!("/proc/self/fd/{number}")));
        let done = runtime.run(&bundle, sandbox.id());
        assert_ne!(done.code, 0, "a working directory outside the rootfs: {done}");
    }
    let bundle = Bundle::named(&sandbox, "plain", &["/bin/sleep", "1000"]);
    runtime.detach(&bundle, sandbox.id());
    for number in 3..20 {
        let done = runtime.call(&[
            "exec",
            "--cwd",
            &format!("/proc/self/fd/{number}"),
            sandbox.id(),
            "/bin/sh",
            "-c",
            "pwd -P",
        ]);
        assert_ne!(done.code, 0, "a working directory outside the rootfs: {done}");
    }
    runtime.delete(sandbox.id());
}

#[test]
fn a_working_directory_that_is_a_link_stays_in_the_rootfs() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let folder = outside(&sandbox);
    let mut bundle = Bundle::new(&sandbox, "pwd -P; ls");
    symlink(&folder, bundle.rootfs().join("work")).expect("make the link");
    bundle.set("/process/cwd", json!("/work"));
    let done = runtime.run(&bundle, sandbox.id());
    assert!(!done.stdout.contains("marker"), "{done}");
    assert_untouched(&folder);
}

#[test]
fn no_descriptor_of_the_runtime_reaches_the_program() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let bundle = Bundle::new(
        &sandbox,
        "ls -l /proc/self/fd | grep -c -v -E ' [0-2] -> |total|/proc/' ; sleep 1000",
    );
    let child = runtime.spawn(&bundle, sandbox.id());
    integration::eventually("the container runs", || {
        (runtime.status(sandbox.id())? == "running").then_some(())
    });
    let pid = runtime.state(sandbox.id()).expect("a state")["pid"].to_string();
    integration::eventually("the program has replaced the runtime", || {
        fs::read_link(format!("/proc/{pid}/exe"))
            .is_ok_and(|exe| exe.ends_with("busybox"))
            .then_some(())
    });
    let mut open: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("list its descriptors")
        .flatten()
        .map(|e| e.file_name().into_string().expect("a number"))
        .collect();
    open.sort();
    assert_eq!(open[..3], ["0", "1", "2"]);
    // The shell itself may hold one more (its script, a pipe), never one of ours.
    for number in &open[3..] {
        let target = fs::read_link(format!("/proc/{pid}/fd/{number}")).expect("read a descriptor");
        assert!(
            !target.to_string_lossy().contains("cgroup") && !target.starts_with(sandbox.path()),
            "{number} is {}",
            target.display()
        );
    }
    let exec = runtime.exec(sandbox.id(), "ls /proc/self/fd | wc -l");
    assert_eq!(
        exec.stdout, "4\n",
        "the three, and the folder that is listed: {exec}"
    );
    runtime.delete(sandbox.id());
    let _ = runtime.finish(child);
}

#[test]
fn the_hosts_null_device_is_in_no_hands_of_the_container() {
    // With it a root without a user namespace could take it from everybody: chmod 0 /proc/self/fd/0.
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let same = "stat -L -c '%F %d:%i' /proc/self/fd/0 /dev/null | sort -u | cut -d: -f1";
    let bundle = Bundle::new(&sandbox, &format!("{same}; sleep 1000"));
    let mut command = runtime.over("run", &bundle, sandbox.id(), &[]);
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the runtime");
    integration::eventually("the container runs", || {
        (runtime.status(sandbox.id())? == "running").then_some(())
    });
    let exec = runtime.exec(sandbox.id(), same).ok();
    runtime.delete(sandbox.id());
    let run = runtime.finish(child).stdout;
    for shown in [&run, &exec] {
        assert_eq!(
            shown.lines().count(),
            1,
            "the stream and the device are one: {shown}"
        );
        assert!(shown.starts_with("character special file"), "{shown}");
    }
}

#[test]
fn masked_paths_are_masked_by_the_real_null_device() {
    // CVE-2025-31133: the rootfs' own /dev/null (or a link in its place) as the source of the mask.
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let folder = outside(&sandbox);
    let mut bundle = Bundle::new(
        &sandbox,
        "cat /proc/sysrq-trigger /proc/kcore 2>&1 | head -c 20; stat -c %t:%T /proc/kcore; echo x > /proc/kcore && cat /etc/victim",
    );
    // /dev comes from the rootfs and holds a false null.
    let mounts = bundle.config["mounts"].as_array().expect("a list").clone();
    bundle.set(
        "/mounts",
        mounts
            .into_iter()
            .filter(|mount| {
                !mount["destination"]
                    .as_str()
                    .is_some_and(|at| at.starts_with("/dev"))
            })
            .collect(),
    );
    fs::write(bundle.rootfs().join("etc/victim"), "whole\n").expect("write a file");
    symlink("/etc/victim", bundle.rootfs().join("dev/null")).expect("make the false null");
    let done = runtime.run(&bundle, sandbox.id());
    if done.code == 0 {
        assert!(
            done.stdout.contains("1:3") && done.stdout.ends_with("whole\n"),
            "{done}"
        );
    } else {
        assert!(done.stderr.contains("null"), "{done}");
    }
    assert_untouched(&folder);
}

#[test]
fn masked_and_readonly_paths_behind_links_do_not_leave_the_rootfs() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let folder = outside(&sandbox);
    let mut bundle = Bundle::new(&sandbox, "true");
    symlink(&folder, bundle.rootfs().join("link")).expect("make the link");
    bundle
        .push("/linux/maskedPaths", json!("/link"))
        .push("/linux/readonlyPaths", json!("/link/marker"));
    let _ = runtime.run(&bundle, sandbox.id());
    assert_untouched(&folder);
    fs::write(folder.join("marker"), "host\n").expect("it is still writable");
}

#[test]
fn devices_replaced_by_links_in_the_rootfs_are_not_followed() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let folder = outside(&sandbox);
    let mut bundle = Bundle::new(&sandbox, "true");
    let mounts = bundle.config["mounts"].as_array().expect("a list").clone();
    bundle.set(
        "/mounts",
        mounts
            .into_iter()
            .filter(|mount| {
                !mount["destination"]
                    .as_str()
                    .is_some_and(|at| at.starts_with("/dev"))
            })
            .collect(),
    );
    fs::remove_dir(bundle.rootfs().join("dev")).expect("remove /dev");
    symlink(&folder, bundle.rootfs().join("dev")).expect("link /dev");
    let _ = runtime.run(&bundle, sandbox.id());
    assert_untouched(&folder);
}

#[test]
fn the_host_is_out_of_reach_by_cgroups_and_sysctls() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let script = "for f in /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/*/notify_on_release /sys/fs/cgroup/*/cgroup.procs; do [ -e $f ] && (echo 1 > $f) 2>/dev/null && echo WROTE $f; done; \
                  mkdir /sys/fs/cgroup/memory/x 2>/dev/null && echo MADE; (echo 1 > /proc/sys/kernel/sysrq) 2>/dev/null && echo SYSRQ; \
                  (echo x > /proc/sysrq-trigger) 2>/dev/null && echo TRIGGER; (echo '|/bin/x' > /proc/sys/kernel/core_pattern) 2>/dev/null && echo CORE; echo end";
    let bundle = Bundle::new(&sandbox, script);
    assert_eq!(runtime.run(&bundle, sandbox.id()).ok(), "end\n");
}

#[test]
fn the_members_of_a_mapped_group_gain_nothing_by_dropping_groups() {
    // setgroups in a user namespace of an unprivileged user would shed a group that denies access (CVE-2014-8989).
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(&sandbox, "cat /proc/self/setgroups; id -G");
    bundle.push("/linux/namespaces", json!({"type": "user"}));
    bundle.set(
        "/linux/uidMappings",
        json!([{"containerID": 0, "hostID": 200_000, "size": 1000}]),
    );
    bundle.set(
        "/linux/gidMappings",
        json!([{"containerID": 0, "hostID": 200_000, "size": 1000}]),
    );
    bundle.set("/process/user/additionalGids", json!([5000]));
    run(Command::new("chown")
        .args(["-R", "200000:200000"])
        .arg(bundle.rootfs()))
    .ok();
    let done = runtime.run(&bundle, sandbox.id());
    assert!(
        done.code != 0 && done.stderr.contains("5000"),
        "a group that is not mapped: {done}"
    );
    sandbox.assert_clean();
}
