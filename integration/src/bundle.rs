//! Bundles made by code, and the built `runtime` to run them.

use crate::process::{Done, binary, describe, finish, run, spawn_captured};
use crate::sandbox::Sandbox;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

/// Fill `rootfs` with a static busybox, a link for each command that tests use, and the usual folders and users.
///
/// # Panics
/// Without `/bin/busybox` (Debian's busybox-static).
pub fn busybox_rootfs(rootfs: &Path) {
    const APPLETS: &[&str] = &[
        "[",
        "awk",
        "base64",
        "basename",
        "cat",
        "chmod",
        "chown",
        "cp",
        "cut",
        "date",
        "dd",
        "df",
        "dmesg",
        "echo",
        "env",
        "expr",
        "false",
        "find",
        "getopt",
        "grep",
        "groups",
        "head",
        "hostname",
        "id",
        "ifconfig",
        "ip",
        "kill",
        "ln",
        "ls",
        "mkdir",
        "mkfifo",
        "mknod",
        "mktemp",
        "mount",
        "mv",
        "nc",
        "nproc",
        "nslookup",
        "od",
        "ping",
        "printf",
        "ps",
        "pwd",
        "readlink",
        "renice",
        "rm",
        "rmdir",
        "route",
        "sed",
        "seq",
        "sh",
        "sha256sum",
        "sleep",
        "sort",
        "stat",
        "stty",
        "sync",
        "tail",
        "tar",
        "tee",
        "test",
        "time",
        "timeout",
        "top",
        "touch",
        "tr",
        "trap",
        "true",
        "tty",
        "umask",
        "umount",
        "uname",
        "unshare",
        "usleep",
        "vi",
        "wc",
        "wget",
        "which",
        "whoami",
        "xargs",
        "yes",
    ];
    for folder in [
        "bin", "dev", "etc", "home", "proc", "root", "run", "sys", "tmp", "usr", "var",
    ] {
        fs::create_dir_all(rootfs.join(folder)).expect("make a rootfs folder");
    }
    fs::set_permissions(
        rootfs.join("tmp"),
        std::os::unix::fs::PermissionsExt::from_mode(0o1777),
    )
    .expect("open /tmp");
    fs::copy("/bin/busybox", rootfs.join("bin/busybox")).expect("copy /bin/busybox (package busybox-static)");
    for applet in APPLETS {
        symlink("busybox", rootfs.join("bin").join(applet)).expect("link a busybox command");
    }
    let users = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000:Alice:/home/alice:/bin/sh\n";
    fs::write(rootfs.join("etc/passwd"), users).expect("write the users");
    fs::write(
        rootfs.join("etc/group"),
        "root:x:0:\nalice:x:1000:\nstaff:x:50:alice\n",
    )
    .expect("write the groups");
}

/// A bundle in the sandbox: busybox, and the config that `runtime spec` writes, without a terminal.
pub struct Bundle {
    path: PathBuf,
    /// The config.json, written anew before each command of [`Runtime`].
    pub config: Value,
}

impl Bundle {
    /// A bundle in the folder `bundle` of the sandbox, that runs `script` in a shell.
    #[track_caller]
    pub fn new(sandbox: &Sandbox, script: &str) -> Self {
        Self::named(sandbox, "bundle", &["/bin/sh", "-c", script])
    }

    /// A bundle in the folder `name` of the sandbox, that runs `args`.
    #[track_caller]
    pub fn named(sandbox: &Sandbox, name: &str, args: &[&str]) -> Self {
        let path = sandbox.path().join(name);
        fs::create_dir_all(path.join("rootfs")).expect("make the bundle");
        busybox_rootfs(&path.join("rootfs"));
        run(Command::new(binary("runtime")).arg("spec").current_dir(&path)).ok();
        let text = fs::read_to_string(path.join("config.json")).expect("read the default config");
        let mut config: Value = serde_json::from_str(&text).expect("the default config is JSON");
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(args);
        config["root"]["readonly"] = json!(false);
        config["linux"]["cgroupsPath"] = json!(format!("/berth-test/{}", sandbox.id()));
        Self { path, config }
    }

    /// The bundle's folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The rootfs on the host.
    pub fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    /// Set the value at a JSON pointer such as `/linux/resources/pids/limit`; missing objects are made.
    #[track_caller]
    pub fn set(&mut self, pointer: &str, value: Value) -> &mut Self {
        let mut place = &mut self.config;
        for key in pointer.split('/').skip(1) {
            place = match place {
                Value::Array(list) => &mut list[key.parse::<usize>().expect("an index")],
                other => &mut other[key],
            };
        }
        *place = value;
        self
    }

    /// Append to the array at a JSON pointer.
    #[track_caller]
    pub fn push(&mut self, pointer: &str, value: Value) -> &mut Self {
        match self.config.pointer(pointer) {
            Some(Value::Array(list)) => {
                let mut list = list.clone();
                list.push(value);
                self.set(pointer, Value::Array(list))
            }
            _ => self.set(pointer, json!([value])),
        }
    }

    /// Take the mount namespace away, and what needs one.
    pub fn without_mount_namespace(&mut self) -> &mut Self {
        let namespaces = self.config["linux"]["namespaces"]
            .as_array()
            .into_iter()
            .flatten();
        let others: Vec<Value> = namespaces
            .filter(|namespace| namespace["type"] != "mount")
            .cloned()
            .collect();
        self.set("/linux/namespaces", json!(others))
            .set("/linux/maskedPaths", json!([]))
            .set("/linux/readonlyPaths", json!([]))
    }

    /// Write config.json.
    pub fn write(&self) {
        fs::write(self.path.join("config.json"), self.config.to_string()).expect("write config.json");
    }
}

/// The built `runtime` with its state in the sandbox.
pub struct Runtime {
    root: PathBuf,
    program: PathBuf,
}

impl Runtime {
    /// Berth's own. Its state folder must be empty at the end of the test.
    pub fn new(sandbox: &Sandbox) -> Self {
        let root = sandbox.path().join("state");
        fs::create_dir_all(&root).expect("make the state folder");
        sandbox.owns(&root);
        Self {
            root,
            program: binary("runtime"),
        }
    }

    /// The state folder (`--root`).
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A command line: `runtime --root … ARGS`.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).args(args);
        command
    }

    /// Run a command to its end.
    #[track_caller]
    pub fn call(&self, args: &[&str]) -> Done {
        run(&mut self.command(args))
    }

    /// `runtime run` in the foreground, to the container's end.
    #[track_caller]
    pub fn run(&self, bundle: &Bundle, id: &str) -> Done {
        self.run_with(bundle, id, &[])
    }

    /// `runtime run` with more flags.
    #[track_caller]
    pub fn run_with(&self, bundle: &Bundle, id: &str, flags: &[&str]) -> Done {
        run(&mut self.over("run", bundle, id, flags))
    }

    /// `runtime create`.
    #[track_caller]
    pub fn create(&self, bundle: &Bundle, id: &str) -> Done {
        run(&mut self.over("create", bundle, id, &[]))
    }

    /// Start `runtime run` in the foreground and go on; its output is piped, for [`finish`](crate::finish).
    #[track_caller]
    pub fn spawn(&self, bundle: &Bundle, id: &str) -> Child {
        spawn_captured(&mut self.over("run", bundle, id, &[]))
    }

    /// `runtime run --detach`, or the test fails.
    #[track_caller]
    pub fn detach(&self, bundle: &Bundle, id: &str) {
        self.run_with(bundle, id, &["--detach"]).ok();
    }

    /// `runtime exec` of a shell script.
    #[track_caller]
    pub fn exec(&self, id: &str, script: &str) -> Done {
        self.call(&["exec", id, "/bin/sh", "-c", script])
    }

    /// `runtime delete --force`, or the test fails.
    #[track_caller]
    pub fn delete(&self, id: &str) {
        self.call(&["delete", "--force", id]).ok();
    }

    /// The `status` that `runtime state` tells, or nothing for a container that is not there.
    pub fn status(&self, id: &str) -> Option<String> {
        self.state(id)
            .map(|state| state["status"].as_str().expect("a status").to_owned())
    }

    /// What `runtime state` tells.
    pub fn state(&self, id: &str) -> Option<Value> {
        let done = self.call(&["state", id]);
        (done.code == 0).then(|| serde_json::from_str(&done.stdout).expect("state is JSON"))
    }

    /// The command line of `create` or `run` over a bundle, whose config.json is written first.
    pub fn over(&self, verb: &str, bundle: &Bundle, id: &str, flags: &[&str]) -> Command {
        bundle.write();
        let mut command = self.command(&[verb, "--bundle"]);
        command.arg(bundle.path()).args(flags).arg(id);
        command
    }

    /// Wait for the end of a spawned `run`.
    #[track_caller]
    pub fn finish(&self, child: Child) -> Done {
        finish(child, describe(&self.command(&["run"])))
    }
}
