//! Containers of a normal user: with one id or many, without cgroups, with a delegated group, and with the user's own
//! systemd. Where these tests need a user manager (systemd as process 1), they say so elsewhere.

use integration::{Bundle, Done, Sandbox, binary, command_exists, eventually, run};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

const USER: u32 = 1000;

/// The runtime as a normal user who has a container in the sandbox.
struct User<'a> {
    sandbox: &'a Sandbox,
    bundle: Bundle,
}

impl<'a> User<'a> {
    fn new(sandbox: &'a Sandbox, script: &str) -> Self {
        let mut bundle = Bundle::new(sandbox, script);
        fs::remove_file(bundle.path().join("config.json")).expect("remove the config of root");
        // The build folder may be out of the user's reach.
        fs::copy(binary("runtime"), sandbox.path().join("runtime")).expect("copy the runtime");
        let state = sandbox.path().join("user-state");
        fs::create_dir(&state).expect("make a state folder");
        sandbox.owns(&state);
        let user = format!("{USER}:{USER}");
        run(Command::new("chown")
            .args(["-R", &user])
            .arg(bundle.path())
            .arg(&state))
        .ok();
        let this = Self { sandbox, bundle };
        let spec = this.call(&["spec", "--rootless", "--bundle", &this.path()]);
        spec.ok();
        let text = fs::read_to_string(this.bundle.path().join("config.json")).expect("the config");
        bundle = this.bundle;
        bundle.config = serde_json::from_str(&text).expect("the config is JSON");
        bundle.set("/process/terminal", json!(false));
        bundle.set("/process/args", json!(["/bin/sh", "-c", script]));
        bundle.set("/root/readonly", json!(false));
        Self { sandbox, bundle }
    }

    fn path(&self) -> String {
        self.bundle.path().to_str().expect("a path").to_owned()
    }

    /// A program as this user, with the usual environment of a login.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        let (uid, gid) = (format!("--reuid={USER}"), format!("--regid={USER}"));
        command
            .args([&uid, &gid, "--clear-groups", "--inh-caps=-all", "--"])
            .arg(program);
        command.env("XDG_RUNTIME_DIR", format!("/run/user/{USER}"));
        command.current_dir(self.sandbox.path());
        command
    }

    fn runtime(&self) -> Command {
        self.command(&self.sandbox.path().join("runtime"))
    }

    fn call(&self, args: &[&str]) -> Done {
        let root = self.sandbox.path().join("user-state");
        run(self.runtime().arg("--root").arg(root).args(args))
    }

    fn run_with(&self, global: &[&str], flags: &[&str]) -> Done {
        self.bundle.write();
        let path = self.path();
        let rest = [&["--bundle", &path][..], flags, &[self.sandbox.id()]].concat();
        self.call(&[global, &["run"], &rest].concat())
    }
}

#[test]
fn a_user_is_root_inside_and_nobody_else() {
    let sandbox = Sandbox::new();
    let user = User::new(
        &sandbox,
        "id -u; cat /proc/self/uid_map; touch /x && echo wrote; hostname",
    );
    let output = user.run_with(&[], &[]).ok();
    let words: Vec<&str> = output.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "1000", "1", "wrote", "runc"]);
    sandbox.assert_clean();
}

#[test]
fn a_container_of_a_user_has_a_whole_life() {
    let sandbox = Sandbox::new();
    let user = User::new(&sandbox, "sleep 1000");
    let id = sandbox.id();
    user.run_with(&[], &["--detach"]).ok();
    assert_eq!(user.call(&["exec", id, "id", "-u"]).ok(), "0\n");
    let state: Value = serde_json::from_str(&user.call(&["state", id]).ok()).expect("state is JSON");
    assert_eq!(state["status"], "running");
    assert_eq!(user.call(&["delete", id]).code, 1);
    user.call(&["delete", "--force", id]).ok();
    sandbox.assert_clean();
}

/// A group in each hierarchy that belongs to the user, as systemd delegates them.
struct Delegated(Vec<std::path::PathBuf>);

impl Delegated {
    fn new(name: &str) -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies = fs::read_dir(root).expect("list the hierarchies").flatten();
        let folders = hierarchies.map(|entry| entry.path()).chain([root.to_owned()]);
        let hierarchies = folders.filter(|folder| folder.join("cgroup.procs").exists());
        let mut made: Vec<_> = hierarchies.map(|folder| folder.join(name)).collect();
        // `cpu` and `cpuacct` can be links to one.
        made.retain(|group| fs::create_dir(group).is_ok());
        let user = format!("{USER}:{USER}");
        run(Command::new("chown").args(["-R", &user]).args(&made)).ok();
        Self(made)
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for group in &self.0 {
            let _ = fs::remove_dir(group);
        }
    }
}

#[test]
fn the_groups_of_a_user_can_not_be_changed_from_inside() {
    // CVE-2023-25809: bound with the host's /sys, groups that are delegated to the user would be the container's prey.
    let script = "find /sys/fs/cgroup -name cgroup.procs | while read file; do \
                  (: >> $file) 2>/dev/null && echo OPENED $file; mkdir ${file%/*}/new 2>/dev/null && echo MADE $file; done; echo end";
    for namespace in [true, false] {
        let sandbox = Sandbox::new();
        let _delegated = Delegated::new(&format!("{}-user", sandbox.id()));
        let mut user = User::new(&sandbox, script);
        let namespaces = user.bundle.config["linux"]["namespaces"]
            .as_array()
            .expect("namespaces");
        let mut namespaces: Vec<Value> = namespaces
            .iter()
            .filter(|each| each["type"] != "cgroup")
            .cloned()
            .collect();
        if namespace {
            namespaces.push(json!({"type": "cgroup"}));
        }
        user.bundle.set("/linux/namespaces", json!(namespaces));
        let done = user.run_with(&[], &[]);
        // The kernel shows cgroup v2 to the owner of a cgroup namespace only.
        if namespace || done.code == 0 {
            assert_eq!(done.ok(), "end\n");
        } else {
            assert!(done.stderr.contains("mount cgroup2"), "{done}");
        }
    }
}

#[test]
fn limits_without_a_group_of_ones_own_are_refused_by_field() {
    let sandbox = Sandbox::new();
    let mut user = User::new(&sandbox, "true");
    user.bundle.set(
        "/linux/cgroupsPath",
        json!(format!("/berth-test/{}", sandbox.id())),
    );
    user.bundle.set("/linux/resources", json!({"pids": {"limit": 5}}));
    let error = user.run_with(&[], &[]).refused();
    assert!(error.contains("linux.resources.pids.limit"), "{error}");
    sandbox.assert_clean();
}

#[test]
fn idmapped_binds_are_refused_by_field() {
    // Not mapped in silence: files would belong to others than the config says.
    let sandbox = Sandbox::new();
    let mut user = User::new(&sandbox, "true");
    let index = user.bundle.config["mounts"].as_array().expect("mounts").len();
    let maps = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
    for options in [json!(["bind"]), json!(["bind", "idmap"])] {
        let mut mount =
            json!({"destination": "/mapped", "type": "bind", "source": "/etc", "options": options});
        if mount["options"][1].is_null() {
            mount["uidMappings"] = maps.clone();
            mount["gidMappings"] = maps.clone();
        }
        user.bundle.push("/mounts", mount);
        let error = user.run_with(&[], &[]).refused();
        let words = format!("mounts[{index}].uidMappings: an idmapped bind needs root's rights");
        assert!(error.contains(&words), "{error}");
        user.bundle.config["mounts"].as_array_mut().expect("mounts").pop();
    }
    sandbox.assert_clean();
}

#[test]
fn subordinate_ids_are_mapped_by_newuidmap() {
    let listed = |file: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().any(|line| line.ends_with(":100000:65536"))
    };
    if !command_exists("newuidmap") || !listed("/etc/subuid") || !listed("/etc/subgid") {
        println!(
            "skipped: needs newuidmap, and user {USER} in /etc/subuid and /etc/subgid (hack/vm-tests has both)"
        );
        return;
    }
    let sandbox = Sandbox::new();
    let mut user = User::new(
        &sandbox,
        "chown 33:33 /etc/group && stat -c %u:%g /etc/group; id -u",
    );
    let maps = json!([
        {"containerID": 0, "hostID": USER, "size": 1},
        {"containerID": 1, "hostID": 100_000, "size": 65536},
    ]);
    user.bundle.set("/linux/uidMappings", maps.clone());
    user.bundle.set("/linux/gidMappings", maps);
    for set in ["bounding", "effective", "permitted"] {
        user.bundle
            .push(&format!("/process/capabilities/{set}"), json!("CAP_CHOWN"));
    }
    assert_eq!(user.run_with(&[], &[]).ok(), "33:33\n0\n");
    let meta = fs::metadata(user.bundle.rootfs().join("etc/group")).expect("the file");
    assert_eq!(meta.uid(), 100_032);
    user.bundle.set("/linux/uidMappings/1/hostID", json!(200_000));
    let error = user.run_with(&[], &[]).refused();
    assert!(error.contains("newuidmap"), "{error}");
    sandbox.assert_clean();
}

/// Starts the user's own systemd; `false` where there can be none.
fn start_user_manager() -> bool {
    if !Path::new("/run/systemd/system").is_dir() || !Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
    {
        println!("skipped: needs systemd as process 1, and cgroup v2 alone (hack/vm-tests has both)");
        return false;
    }
    run(Command::new("systemctl").args(["start", &format!("user@{USER}.service")])).ok();
    eventually("the user's systemd is up", || {
        Path::new(&format!("/run/user/{USER}/systemd/private"))
            .exists()
            .then_some(())
    });
    true
}

const LIMITED: &str = "sleep 1000";

fn limits() -> Value {
    json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 33}})
}

fn group_of(user: &User<'_>) -> std::path::PathBuf {
    let state: Value =
        serde_json::from_str(&user.call(&["state", user.sandbox.id()]).ok()).expect("state is JSON");
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", state["pid"])).expect("its group");
    let path = cgroup.trim().strip_prefix("0::/").expect("a group");
    Path::new("/sys/fs/cgroup").join(path)
}

fn file(folder: &Path, name: &str) -> String {
    let path = folder.join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.trim().to_owned()
}

#[test]
fn the_users_systemd_makes_a_scope_with_limits() {
    if !start_user_manager() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut user = User::new(&sandbox, LIMITED);
    user.bundle.set(
        "/linux/cgroupsPath",
        json!(format!("user.slice:berth:{}", sandbox.id())),
    );
    user.bundle.set("/linux/resources", limits());
    user.run_with(&["--systemd-cgroup"], &["--detach"]).ok();
    let folder = group_of(&user);
    let unit = format!("berth-{}.scope", sandbox.id());
    let expected = format!("user@{USER}.service/user.slice/{unit}");
    assert!(folder.ends_with(expected), "{}", folder.display());
    assert_eq!(file(&folder, "memory.max"), "67108864");
    assert_eq!(file(&folder, "pids.max"), "33");
    assert_eq!(user.call(&["exec", sandbox.id(), "id", "-u"]).ok(), "0\n");
    user.call(&["update", "--pids-limit", "44", sandbox.id()]).ok();
    assert_eq!(file(&folder, "pids.max"), "44");
    user.call(&["pause", sandbox.id()]).ok();
    user.call(&["resume", sandbox.id()]).ok();
    user.call(&["delete", "--force", sandbox.id()]).ok();
    assert!(!folder.exists());
    let mut show = user.command(Path::new("systemctl"));
    let shown = run(show.args(["--user", "show", "--value", "-p", "LoadState", &unit]));
    assert_eq!(shown.ok(), "not-found\n");
    sandbox.assert_clean();
}

#[test]
fn a_delegated_group_is_used_and_limited() {
    if !start_user_manager() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut user = User::new(&sandbox, LIMITED);
    // Beside the group of the caller.
    user.bundle.set("/linux/cgroupsPath", json!(sandbox.id()));
    user.bundle.set("/linux/resources", limits());
    user.bundle.write();
    let mut service = user.command(Path::new("systemd-run"));
    service
        .args([
            "--user",
            "--wait",
            "--pipe",
            "--quiet",
            "-p",
            "Delegate=yes",
            "-p",
            "KillMode=process",
            "--",
        ])
        .arg(sandbox.path().join("runtime"))
        .arg("--root")
        .arg(sandbox.path().join("user-state"))
        .args(["run", "--detach", "--bundle", &user.path(), sandbox.id()]);
    run(&mut service).ok();
    let folder = group_of(&user);
    assert!(
        folder.ends_with(format!("app.slice/{}", sandbox.id())),
        "{}",
        folder.display()
    );
    assert_eq!(file(&folder, "memory.max"), "67108864");
    assert_eq!(file(&folder, "pids.max"), "33");
    user.call(&["delete", "--force", sandbox.id()]).ok();
    assert!(!folder.exists());
    sandbox.assert_clean();
}
