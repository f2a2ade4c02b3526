//! The techniques behind the published holes of runc, crun and youki, tried against our runtime. Some are elsewhere:
//! `runtime_exec` has the overwriting of the host's binary by who is joined (CVE-2019-5736), `runtime_mounts` the races
//! for mount targets (CVE-2021-30465, CVE-2024-45310), `runtime_rootless` a user's cgroups (CVE-2023-25809),
//! `runtime_refusals` ids that leave the state folder, `runtime_seccomp` other architectures' numbers.

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
fn sources_in_the_rootfs_that_are_links_to_the_host_stay_in_it() {
    // The host's path to such a source leads through the image.
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let folder = outside(&sandbox);
    let bundle_with_links = |name: &str| {
        let bundle = Bundle::named(&sandbox, name, &["/bin/sh", "-c", "cat /t/marker; ls /t2"]);
        let real = bundle.rootfs().join("real/data");
        fs::create_dir_all(&real).expect("make a folder");
        symlink(&folder, real.join("link")).expect("make the link");
        symlink("real", bundle.rootfs().join("lnk")).expect("make the link");
        // The place in the rootfs that the link to the host names.
        let place = bundle
            .rootfs()
            .join(folder.strip_prefix("/").expect("an absolute path"));
        fs::create_dir_all(&place).expect("make a folder");
        fs::write(place.join("marker"), "image\n").expect("write a marker");
        bundle
    };
    let bind = |source: &std::path::Path, destination: &std::path::Path| json!({"destination": destination, "type": "bind", "source": source, "options": ["rbind"]});
    let t = std::path::Path::new("/t");
    for (name, user_namespace) in [("plain", false), ("mapped", true)] {
        let mut bundle = bundle_with_links(name);
        if user_namespace {
            bundle.push("/linux/namespaces", json!({"type": "user"}));
            for ids in ["/linux/uidMappings", "/linux/gidMappings"] {
                bundle.set(ids, json!([{"containerID": 0, "hostID": 0, "size": 65536}]));
            }
        }
        let source = bundle.rootfs().join("real/data/link");
        // No other mount is near.
        bundle.push("/mounts", bind(&source, t));
        let done = runtime.run(&bundle, sandbox.id());
        assert_eq!(done.stdout, "image\n", "{done}");
        // An earlier one is, through another link.
        let earlier = bind(&sandbox.path().join("volume"), "/lnk/data".as_ref());
        fs::create_dir_all(sandbox.path().join("volume")).expect("make a volume");
        let _ = symlink(&folder, sandbox.path().join("volume/link"));
        let own = bundle.config["mounts"].as_array_mut().expect("mounts").pop();
        bundle
            .push("/mounts", earlier)
            .push("/mounts", own.expect("a mount"));
        let done = runtime.run(&bundle, sandbox.id());
        assert_eq!(done.stdout, "image\n", "{done}");
    }
    // Bundle and config each name the rootfs by a link, or don't.
    let alias = sandbox.path().join("alias");
    for (name, of_bundle) in [("by-link", true), ("by-name", false)] {
        let mut bundle = bundle_with_links(name);
        let _ = fs::remove_file(&alias);
        symlink(bundle.path(), &alias).expect("link the bundle");
        let (given, named) = if of_bundle {
            (alias.clone(), bundle.path().to_owned())
        } else {
            (bundle.path().to_owned(), alias.clone())
        };
        bundle.push("/mounts", bind(&named.join("rootfs/real/data/link"), t));
        if of_bundle {
            // So are destinations that have the host's path.
            bundle.push("/mounts", bind(&folder, &named.join("rootfs/t2")));
        }
        bundle.write();
        let mut command = runtime.command(&["run", "--bundle"]);
        let done = run(command.arg(&given).arg(sandbox.id()));
        let listed = if of_bundle { "marker\n" } else { "" };
        assert_eq!(done.stdout, format!("image\n{listed}"), "{name}: {done}");
        assert_untouched(&folder);
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
fn a_file_over_one_of_procfs_takes_no_sysctl() {
    // CVE-2025-52881: what is meant for the kernel goes to a file that somebody laid over procfs.
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let cover = sandbox.path().join("cover");
    fs::write(&cover, "0\n").expect("write a file");
    let mut bundle = Bundle::new(&sandbox, "cat /proc/sys/net/ipv4/ip_forward");
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    for place in ["/proc/sys/net/ipv4/ip_forward", "/proc/sys"] {
        let inner = runtime.over("run", &bundle, sandbox.id(), &[]);
        let mut command = Command::new("unshare");
        let script = "mount --bind \"$0\" \"$1\" && shift && exec \"$@\"";
        // In place of the whole folder, a copy that can't be written: as in a container.
        let source = if place == "/proc/sys" {
            place
        } else {
            cover.to_str().expect("a path")
        };
        let script = if place == "/proc/sys" {
            script.replace(" && shift", " && mount -o remount,bind,ro \"$1\" && shift")
        } else {
            script.to_owned()
        };
        command.args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            &script,
            source,
            place,
        ]);
        command.arg(inner.get_program()).args(inner.get_args());
        assert_eq!(run(&mut command).ok(), "1\n", "{place}");
        assert_eq!(fs::read_to_string(&cover).expect("read it"), "0\n", "{place}");
    }
}

#[test]
fn a_folder_of_the_host_is_no_proc() {
    // CVE-2019-16884: a volume at /proc, so that the AppArmor label is written to a file of the image.
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let folder = outside(&sandbox);
    for destination in [
        "/proc",
        "/proc/self",
        "/proc/self/attr",
        "/proc/sys/net",
        "/tmp/../proc/1",
    ] {
        let name = destination.replace(['/', '.'], "-");
        let mut bundle = Bundle::named(&sandbox, &name, &["/bin/true"]);
        bundle.push(
            "/mounts",
            json!({"destination": destination, "type": "bind", "source": folder, "options": ["bind"]}),
        );
        let refused = runtime.run(&bundle, sandbox.id()).refused();
        assert!(refused.contains("/proc"), "{destination}: {refused}");
        assert_untouched(&folder);
        sandbox.assert_clean();
    }
}

#[test]
fn a_sys_behind_a_link_is_refused() {
    // CVE-2023-27561, CVE-2023-28642, CVE-2025-54867.
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    for (name, place) in [("proc", "proc"), ("sys", "sys")] {
        let bundle = Bundle::named(&sandbox, name, &["/bin/true"]);
        fs::remove_dir(bundle.rootfs().join(place)).expect("remove the folder");
        fs::create_dir(bundle.rootfs().join("tmp/elsewhere")).expect("make another");
        symlink("/tmp/elsewhere", bundle.rootfs().join(place)).expect("make the link");
        let refused = runtime.run(&bundle, sandbox.id()).refused();
        assert!(refused.contains(place), "{refused}");
        sandbox.assert_clean();
    }
}

#[test]
fn the_program_that_is_started_is_never_the_runtime() {
    // CVE-2019-5736 by the image: its entry point is the program that executes it.
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let before = fs::read(integration::binary("runtime")).expect("read the runtime");
    let scripts = [
        ("script", "#!/proc/self/exe\n"),
        ("with-an-argument", "#!/proc/self/exe --help\n"),
        ("by-init", "#!/proc/1/exe --help\n"),
    ];
    for program in [
        "/proc/self/exe",
        "/proc/1/exe",
        "/bin/script",
        "/bin/with-an-argument",
        "/bin/by-init",
    ] {
        let bundle = Bundle::named(&sandbox, &program.replace('/', "-"), &[program, "--help"]);
        for (name, text) in scripts {
            let file = bundle.rootfs().join("bin").join(name);
            fs::write(&file, text).expect("write the script");
            run(Command::new("chmod").arg("755").arg(&file)).ok();
        }
        // Refused, or the stage between the runtime and the program runs itself, for as long as it is let.
        if runtime.run_with(&bundle, sandbox.id(), &["--detach"]).code == 0 {
            let pid = &runtime.state(sandbox.id()).expect("a state")["pid"];
            for _ in 0..2000 {
                let running = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
                assert_ne!(
                    running,
                    integration::binary("runtime"),
                    "{program}: the container runs the host's binary"
                );
            }
            runtime.delete(sandbox.id());
        }
        assert!(
            before == fs::read(integration::binary("runtime")).expect("read the runtime"),
            "the runtime's binary was changed"
        );
        sandbox.assert_clean();
    }
}

#[test]
fn capabilities_that_exec_adds_are_not_inheritable() {
    // CVE-2022-29162, CVE-2022-27650, CVE-2025-27612: files with inheritable capabilities would raise them again.
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let bundle = Bundle::new(&sandbox, "grep Cap /proc/self/status; sleep 1000");
    let child = runtime.spawn(&bundle, sandbox.id());
    integration::eventually("the container runs", || {
        (runtime.status(sandbox.id())? == "running").then_some(())
    });
    let exec = |flags: &[&str]| {
        let status = ["cat", "/proc/self/status"];
        let done = runtime.call(&[&["exec"], flags, &[sandbox.id()], &status].concat());
        done.ok()
    };
    let value = |text: &str, name: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .expect("a line of capabilities");
        u64::from_str_radix(line.split_whitespace().last().expect("a value"), 16).expect("a number")
    };
    let plain = exec(&[]);
    let more = exec(&["--cap", "CAP_SYS_PTRACE", "--cap", "CAP_SYS_ADMIN"]);
    let user = exec(&["--cap", "CAP_SYS_PTRACE", "--user", "1000"]);
    let (ptrace, admin) = (1 << 19, 1 << 21);
    assert_eq!(value(&plain, "CapEff") & (ptrace | admin), 0, "{plain}");
    assert_eq!(
        value(&more, "CapEff") & (ptrace | admin),
        ptrace | admin,
        "{more}"
    );
    for text in [&plain, &more, &user] {
        assert_eq!(value(text, "CapInh"), 0, "{text}");
    }
    runtime.delete(sandbox.id());
    let own = runtime.finish(child).stdout;
    assert_eq!(value(&own, "CapInh"), 0, "{own}");
}

#[test]
fn a_console_of_the_images_making_is_not_followed() {
    // CVE-2025-52565: what the image has at /dev/console, /dev/pts and /dev/ptmx is not believed.
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let folder = outside(&sandbox);
    let marker = folder.join("marker").display().to_string();
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("read");
    for (name, link, target) in [
        ("console-host", "dev/console", marker.as_str()),
        ("console-proc", "dev/console", "/proc/sys/kernel/core_pattern"),
        (
            "console-up",
            "dev/console",
            "../../../../../../../../../../proc/sysrq-trigger",
        ),
        ("pts-host", "dev/pts", folder.to_str().expect("a path")),
        ("ptmx-host", "dev/pts/ptmx", marker.as_str()),
    ] {
        let mut bundle = Bundle::named(
            &sandbox,
            name,
            &["/bin/sh", "-c", "tty; echo into-the-terminal; ls -l /dev/console"],
        );
        bundle.set("/process/terminal", json!(true));
        let mounts = bundle.config["mounts"].as_array().expect("a list").clone();
        // /dev is the image's; devpts is mounted only where the image's console is what is tried.
        let kept = mounts.into_iter().filter(|mount| {
            let place = mount["destination"].as_str().unwrap_or_default();
            !place.starts_with("/dev") || (place == "/dev/pts" && link == "dev/console")
        });
        bundle.set("/mounts", kept.collect());
        let place = bundle.rootfs().join(link);
        fs::create_dir_all(place.parent().expect("a parent")).expect("make its folder");
        symlink(target, &place).expect("make the link");
        let mut terminal = integration::Terminal::spawn(runtime.over("run", &bundle, sandbox.id(), &[]));
        let code = terminal.exit_code();
        let shown = terminal.screen();
        if link == "dev/console" {
            // Resolved in the rootfs, or refused; with a terminal of the container's own in either case.
            assert!(code != 0 || shown.contains("/dev/pts/0"), "{name}: {shown}");
        } else {
            assert_ne!(code, 0, "{name}: {shown}");
        }
        assert!(!shown.contains("host\n"), "{name}: {shown}");
        assert_untouched(&folder);
        assert_eq!(
            fs::read_to_string("/proc/sys/kernel/core_pattern").expect("read"),
            pattern,
            "{name}"
        );
        sandbox.assert_clean();
    }
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
fn no_working_directory_is_made_by_a_leaked_descriptor() {
    // The missing parts of it are made by the runtime, which has what its caller leaked still open.
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let folder = outside(&sandbox);
    for cwd in [
        "/proc/self/fd/9/evil",
        "/proc/thread-self/fd/9/evil/deep",
        "/link/evil",
    ] {
        let mut bundle = Bundle::named(&sandbox, &cwd.replace('/', "-"), &["/bin/true"]);
        symlink("/proc/self/fd/9", bundle.rootfs().join("link")).expect("make the link");
        bundle.set("/process/cwd", json!(cwd));
        let inner = runtime.over("run", &bundle, sandbox.id(), &[]);
        let mut command = Command::new("sh");
        command.args(["-c", "exec 9<\"$0\"; exec \"$@\""]).arg(&folder);
        command.arg(inner.get_program()).args(inner.get_args());
        let done = run(&mut command);
        assert_ne!(done.code, 0, "{cwd}: {done}");
        assert_untouched(&folder);
    }
}

#[test]
fn no_program_is_found_by_a_leaked_descriptor() {
    // CVE-2024-21626, by the program: it would be the host's, and the container's to write to.
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let folder = outside(&sandbox);
    fs::copy("/bin/busybox", folder.join("sh")).expect("copy a program");
    let leaking = |inner: &Command| {
        let mut command = Command::new("sh");
        command.args(["-c", "exec 9<\"$0\"; exec \"$@\""]).arg(&folder);
        command.arg(inner.get_program()).args(inner.get_args());
        run(&mut command)
    };
    let program = "/proc/self/fd/9/sh";
    let mut bundle = Bundle::named(&sandbox, "run", &[program, "-c", "echo ran"]);
    let done = leaking(&runtime.over("run", &bundle, sandbox.id(), &[]));
    assert!(done.code != 0 && !done.stdout.contains("ran"), "{done}");
    bundle = Bundle::named(&sandbox, "exec", &["/bin/sleep", "1000"]);
    runtime.detach(&bundle, sandbox.id());
    let done = leaking(&runtime.command(&["exec", sandbox.id(), program, "-c", "echo ran"]));
    assert!(done.code != 0 && !done.stdout.contains("ran"), "{done}");
    runtime.delete(sandbox.id());
}

#[test]
fn a_passwd_file_that_never_ends_or_never_opens_holds_up_nobody() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    for (name, make) in [
        ("fifo", "rm passwd && mkfifo passwd"),
        ("endless", "rm passwd && ln -s /dev/zero passwd"),
        ("terminal", "rm passwd && ln -s /dev/ptmx passwd"),
        ("folder", "rm passwd && mkdir passwd"),
        ("kernel", "rm passwd && ln -s /proc/kmsg passwd"),
    ] {
        let mut bundle = Bundle::named(&sandbox, name, &["/bin/sh", "-c", "echo home is $HOME"]);
        let etc = bundle.rootfs().join("etc");
        run(Command::new("sh").args(["-c", make]).current_dir(etc)).ok();
        bundle.set("/process/env", json!(["PATH=/bin"]));
        let done = runtime.run(&bundle, sandbox.id());
        assert_eq!(done.ok(), "home is /\n", "{name}");
    }
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

#[test]
fn a_stream_that_the_caller_has_closed_is_nobody_elses() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let bundle = Bundle::new(
        &sandbox,
        "readlink /proc/self/fd/0; exec >/shown; readlink /proc/self/fd/2",
    );
    let command = runtime.over("run", &bundle, sandbox.id(), &[]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$@\" <&- 2>&-", "sh"]);
    let done = run(shell.arg(command.get_program()).args(command.get_args()));
    assert_eq!(done.ok(), "/dev/null\n");
    let shown = fs::read_to_string(bundle.rootfs().join("shown")).expect("what it wrote");
    assert_eq!(shown, "/dev/null\n");
}
