//! Security labels: `AppArmor` profiles, and `SELinux` labels of processes and mounts. A kernel has one of both at most;
//! hack/vm-tests boots machines with each. The `SELinux` tests need the policy of that machine (hack/vm/selinux.cil).

use integration::{Bundle, Runtime, Sandbox, run};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Whether `AppArmor` is on and profiles can be loaded; if not, the reason is printed.
fn is_apparmor_here() -> bool {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    let here =
        enabled.is_ok_and(|text| text.starts_with('Y')) && integration::command_exists("apparmor_parser");
    if !here {
        println!("skipped: needs AppArmor and apparmor_parser (hack/vm-tests has both)");
    }
    here
}

/// Whether `SELinux` enforces the policy of the virtual machine; if not, the reason is printed.
fn is_selinux_here() -> bool {
    let label = fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
    let here = Path::new("/sys/fs/selinux/enforce").exists() && label.contains(":host_t:");
    if !here {
        println!("skipped: needs SELinux with hack/vm/selinux.cil (hack/vm-tests --boot selinux)");
    }
    here
}

/// A loaded `AppArmor` profile that allows all but to write `denied` files; gone when dropped.
struct Profile {
    name: String,
    denied: &'static str,
}

impl Profile {
    fn load(name: String, denied: &'static str) -> Self {
        let profile = Self { name, denied };
        profile.parse("--replace");
        profile
    }

    fn parse(&self, action: &str) {
        let text = format!(
            "profile {} flags=(attach_disconnected,mediate_deleted) {{\n  file,\n  signal,\n  deny {} w,\n}}\n",
            self.name, self.denied
        );
        let mut parser = Command::new("apparmor_parser")
            .args([action, "--skip-cache"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("start apparmor_parser");
        let mut stdin = parser.stdin.take().expect("its stdin");
        stdin.write_all(text.as_bytes()).expect("write the profile");
        drop(stdin);
        assert!(parser.wait().expect("wait for apparmor_parser").success());
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        self.parse("--remove");
    }
}

const ATTEMPTS: &str = "cat /proc/self/attr/current; for file in /tmp/one /tmp/two; do (echo x > $file) 2>/dev/null && echo $file; done; true";

#[test]
fn an_apparmor_profile_confines_the_process_and_those_that_join_it() {
    if !is_apparmor_here() {
        return;
    }
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let first = Profile::load(format!("{}-one", sandbox.id()), "/tmp/one");
    let second = Profile::load(format!("{}-two", sandbox.id()), "/tmp/two");
    let mut bundle = Bundle::new(&sandbox, ATTEMPTS);
    bundle.set("/process/apparmorProfile", json!(first.name));
    let confined = format!("{} (enforce)\n/tmp/two\n", first.name);
    assert_eq!(runtime.run(&bundle, sandbox.id()).ok(), confined);
    // The kernel has it as its word that the process is confined, with and without no_new_privs, and as a user.
    bundle.set("/process/noNewPrivileges", json!(false));
    assert_eq!(runtime.run(&bundle, sandbox.id()).ok(), confined);
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    fs::remove_file(bundle.rootfs().join("tmp/two")).expect("remove what the first left");
    assert_eq!(runtime.run(&bundle, sandbox.id()).ok(), confined);

    fs::remove_file(bundle.rootfs().join("tmp/two")).expect("remove what the user left");
    bundle.set("/process/user", json!({"uid": 0, "gid": 0}));
    bundle.set("/process/args", json!(["sleep", "1000"]));
    runtime.detach(&bundle, sandbox.id());
    assert_eq!(runtime.exec(sandbox.id(), ATTEMPTS).ok(), confined);
    let other = [
        "exec",
        "--apparmor",
        &second.name,
        sandbox.id(),
        "sh",
        "-c",
        ATTEMPTS,
    ];
    assert_eq!(
        runtime.call(&other).ok(),
        format!("{} (enforce)\n/tmp/one\n", second.name)
    );
    runtime.delete(sandbox.id());
    sandbox.assert_clean();
}

#[test]
fn an_apparmor_profile_that_is_not_loaded_is_refused_by_name() {
    if !is_apparmor_here() {
        return;
    }
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(&sandbox, "sleep 1000");
    runtime.detach(&bundle, sandbox.id());
    let exec = ["exec", "--apparmor", "no-such-profile", sandbox.id(), "true"];
    let is_named = |error: &str| {
        error.contains("AppArmor profile")
            && error.contains("no-such-profile")
            && error.contains("is it loaded")
    };
    let error = runtime.call(&exec).refused();
    assert!(is_named(&error), "{error}");
    assert_eq!(runtime.status(sandbox.id()).as_deref(), Some("running"));
    runtime.delete(sandbox.id());

    bundle.set("/process/apparmorProfile", json!("no-such-profile"));
    let error = runtime.create(&bundle, sandbox.id()).refused();
    assert!(is_named(&error), "{error}");
    assert_eq!(runtime.status(sandbox.id()), None);
    sandbox.assert_clean();
}

const CONTAINER: &str = "system_u:system_r:container_t:s0:c1";
const FILES: &str = "system_u:object_r:container_file_t:s0:c1";

/// A bundle whose process and mounts are labelled.
fn labelled(sandbox: &Sandbox, script: &str) -> Bundle {
    let mut bundle = Bundle::new(sandbox, script);
    bundle.set("/process/selinuxLabel", json!(CONTAINER));
    bundle.set("/linux/mountLabel", json!(FILES));
    bundle
}

/// The label of a file, as the host sees it.
fn label(path: &str) -> String {
    let getfattr = [
        "--absolute-names",
        "--only-values",
        "-n",
        "security.selinux",
        path,
    ];
    let label = run(Command::new("getfattr").args(getfattr)).ok();
    label.trim_end_matches('\0').to_owned()
}

#[test]
fn selinux_labels_the_process_and_those_that_join_it() {
    if !is_selinux_here() {
        return;
    }
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let script = format!(
        "tr '\\0' '\\n' < /proc/self/attr/current; grep -q _ses.{} /proc/keys && echo keyring;
         (echo x > /tmp/x) 2>/dev/null || echo refused; echo x > /dev/shm/x && echo allowed",
        sandbox.id()
    );
    let mut bundle = labelled(&sandbox, &script);
    // One of them is /proc/keys.
    bundle.set("/linux/maskedPaths", json!([]));
    let confined = format!("{CONTAINER}\nkeyring\nrefused\nallowed\n");
    assert_eq!(runtime.run(&bundle, sandbox.id()).ok(), confined);
    bundle.set("/process/noNewPrivileges", json!(false));
    assert_eq!(runtime.run(&bundle, sandbox.id()).ok(), confined);

    bundle.set("/process/args", json!(["sleep", "1000"]));
    runtime.detach(&bundle, sandbox.id());
    assert_eq!(runtime.exec(sandbox.id(), &script).ok(), confined);
    let other = "system_u:system_r:container_t:s0:c2";
    let exec = [
        "exec",
        "--process-label",
        other,
        sandbox.id(),
        "sh",
        "-c",
        &script,
    ];
    assert_eq!(
        runtime.call(&exec).ok(),
        format!("{other}\nkeyring\nrefused\nallowed\n")
    );
    runtime.delete(sandbox.id());
    sandbox.assert_clean();
}

#[test]
fn a_mount_label_is_on_the_files_of_every_file_system_that_takes_one() {
    if !is_selinux_here() {
        return;
    }
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = labelled(&sandbox, "touch /run/made; exec sleep 1000");
    let tmpfs = json!({"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]});
    bundle.push("/mounts", tmpfs);
    fs::create_dir(bundle.rootfs().join("masked")).expect("make a folder to be masked");
    bundle.push("/linux/maskedPaths", json!("/masked"));
    runtime.detach(&bundle, sandbox.id());
    let pid = runtime.state(sandbox.id()).expect("a container")["pid"].to_string();
    integration::eventually("the container has made its file", || {
        Path::new(&format!("/proc/{pid}/root/run/made"))
            .exists()
            .then_some(())
    });
    for file in [
        "dev",
        "dev/null",
        "dev/pts/ptmx",
        "dev/shm",
        "run",
        "run/made",
        "masked",
    ] {
        assert_eq!(label(&format!("/proc/{pid}/root/{file}")), FILES, "{file}");
    }
    // These are labelled by the kernel's own rules, and the image by its own.
    for file in ["proc/version", "sys/kernel", "sys/fs/cgroup", "bin/busybox"] {
        let label = label(&format!("/proc/{pid}/root/{file}"));
        assert!(label.contains(":file_t:"), "{file}: {label}");
    }
    runtime.delete(sandbox.id());
    sandbox.assert_clean();
}

#[test]
fn an_selinux_label_that_the_policy_does_not_know_is_refused() {
    if !is_selinux_here() {
        return;
    }
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let unknown = "system_u:system_r:nobody_t:s0";
    let mut bundle = labelled(&sandbox, "true");
    bundle.set("/process/selinuxLabel", json!(unknown));
    let error = runtime.create(&bundle, sandbox.id()).refused();
    assert!(
        error.contains("SELinux label")
            && error.contains(unknown)
            && error.contains("does the policy know it"),
        "{error}"
    );
    bundle.set("/process/selinuxLabel", json!(CONTAINER));
    bundle.set("/linux/mountLabel", json!(unknown));
    let error = runtime.create(&bundle, sandbox.id()).refused();
    assert!(error.contains(unknown), "{error}");
    assert_eq!(runtime.status(sandbox.id()), None);
    sandbox.assert_clean();
}
