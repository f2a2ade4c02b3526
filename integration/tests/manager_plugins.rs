//! Volumes of a plugin: a process of its own, around docker's helpers for plugins, on a real socket.

use integration::{Manager, Peers, Sandbox, eventually};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command};

/// The plugin `test`, with its state in a folder.
struct Plugin {
    folder: PathBuf,
    socket: PathBuf,
    program: PathBuf,
    child: Option<Child>,
}

impl Plugin {
    fn start(sandbox: &Sandbox) -> Option<Plugin> {
        let program = Peers::built()?.join("volume-plugin");
        if !program.is_file() {
            println!("skipped: there is no volume plugin (hack/peers-go builds it)");
            return None;
        }
        let folder = sandbox.path().join("plugin");
        let sockets = sandbox.path().join("plugins");
        fs::create_dir_all(&folder).expect("make the plugin's folder");
        fs::create_dir_all(&sockets).expect("make the folder of sockets");
        let socket = sockets.join("test.sock");
        let mut plugin = Plugin {
            folder,
            socket,
            program,
            child: None,
        };
        plugin.run();
        Some(plugin)
    }

    fn run(&mut self) {
        let mut command = Command::new(&self.program);
        let child = command.arg(&self.folder).arg(&self.socket).spawn();
        self.child = Some(child.expect("start the plugin"));
        eventually("the plugin listens", || self.socket.exists().then_some(()));
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("end the plugin");
            child.wait().expect("wait for the plugin");
        }
        let _ = fs::remove_file(&self.socket);
    }

    fn behave(&self, how: &str) {
        fs::write(self.folder.join("behave"), how).expect("tell the plugin how to behave");
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// How often each volume was to be mounted for a container, less how often that was to be undone: what is left to a
    /// plugin that goes by no ids, and counts.
    fn balance(&self) -> BTreeMap<String, i32> {
        let mut balance = BTreeMap::new();
        for line in self.log().lines() {
            let step = match line.split_once(' ') {
                Some(("mount", of)) => (of, 1),
                Some(("unmount", of)) => (of, -1),
                _ => continue,
            };
            *balance.entry(step.0.to_owned()).or_default() += step.1;
        }
        balance
    }

    fn users(&self, volume: &str) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join("users").join(volume)).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn is_mounted(&self, volume: &str) -> bool {
        let place = self.folder.join("mounts").join(volume);
        let table = fs::read_to_string("/proc/self/mountinfo").expect("read the mounts");
        table.contains(&format!(" {} ", place.display()))
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.end();
    }
}

fn start(sandbox: &Sandbox) -> Option<(Plugin, Manager)> {
    let plugin = Plugin::start(sandbox)?;
    let mut manager = Manager::start(sandbox);
    manager.stop();
    let folders = sandbox.path().join("plugins").display().to_string();
    manager.set_options(&["--plugin-folders", &folders, "--plugin-timeout", "2"]);
    manager.start_again();
    Some((plugin, manager))
}

fn shown(manager: &Manager, name: &str) -> Value {
    let text = manager.ctl(&["volume", "inspect", name]).ok();
    let mut all: Value = serde_json::from_str(&text).expect("inspect prints JSON");
    all[0].take()
}

#[test]
fn a_volume_of_a_plugin_is_made_used_shown_and_removed() {
    let sandbox = Sandbox::new();
    let Some((plugin, manager)) = start(&sandbox) else {
        return;
    };
    let image = manager.busybox();
    manager
        .ctl(&["volume", "create", "-d", "test", "-o", "size=1", "data"])
        .ok();
    assert!(
        plugin.log().contains("create data map[size:1]"),
        "{}",
        plugin.log()
    );
    manager
        .ctl(&[
            "run",
            "--rm",
            "-v",
            "data:/d",
            &image,
            "sh",
            "-c",
            "echo kept >/d/file",
        ])
        .ok();
    assert_eq!(
        fs::read_to_string(plugin.folder.join("data/data/file")).expect("the file"),
        "kept\n"
    );
    eventually("it is unmounted", || (!plugin.is_mounted("data")).then_some(()));
    // Two that use it at once, and one of them twice.
    let run = ["run", "-d", "--name"];
    manager
        .ctl(
            &[
                &run[..],
                &["one", "-v", "data:/a", "-v", "data:/b", &image, "sleep", "1000"],
            ]
            .concat(),
        )
        .ok();
    manager
        .ctl(
            &[
                &run[..],
                &[
                    "two",
                    "--mount",
                    "type=volume,src=data,dst=/a,volume-driver=test",
                    &image,
                    "sleep",
                    "1000",
                ],
            ]
            .concat(),
        )
        .ok();
    assert_eq!(plugin.users("data").len(), 2);
    assert_eq!(manager.ctl(&["exec", "one", "cat", "/b/file"]).ok(), "kept\n");
    manager.ctl(&["rm", "-f", "one"]).ok();
    eventually("one user is left", || {
        (plugin.users("data").len() == 1).then_some(())
    });
    assert_eq!(manager.ctl(&["exec", "two", "cat", "/a/file"]).ok(), "kept\n");
    let told = shown(&manager, "data");
    assert_eq!(
        (&told["driver"], &told["scope"], &told["status"]["users"]),
        (&"test".into(), &"local".into(), &1.into())
    );
    assert!(
        manager
            .ctl(&["volume", "rm", "data"])
            .refused()
            .contains("in use")
    );
    // One mount a container, however often that has the volume.
    let mut mounted: Vec<_> = plugin.balance().into_values().collect();
    mounted.sort_unstable();
    assert_eq!(mounted, [0, 0, 1], "{}", plugin.log());
    manager.ctl(&["restart", "-t", "0", "two"]).ok();
    manager.ctl(&["rm", "-f", "two"]).ok();
    let balance = plugin.balance();
    assert!(balance.values().all(|count| *count == 0), "{balance:?}");
    // What only the plugin knows is there as well.
    fs::create_dir(plugin.folder.join("data/theirs")).expect("make a volume behind our back");
    assert_eq!(manager.ctl(&["volume", "ls", "-q"]).ok(), "data\ntheirs\n");
    assert!(
        manager
            .ctl(&["volume", "create", "-d", "local", "data"])
            .refused()
            .contains("must be unique")
    );
    manager.ctl(&["volume", "prune", "-af"]).ok();
    manager.ctl(&["volume", "rm", "data", "theirs"]).ok();
    assert_eq!(manager.ctl(&["volume", "ls", "-q"]).ok(), "");
    let refused = manager
        .ctl(&["volume", "create", "-d", "nobody", "other"])
        .refused();
    assert!(refused.contains("\"nobody\" not found"), "{refused}");
}

#[test]
fn a_plugin_that_lies_is_slow_or_dead_harms_nobody_else() {
    let sandbox = Sandbox::new();
    let Some((mut plugin, manager)) = start(&sandbox) else {
        return;
    };
    let image = manager.busybox();
    manager.ctl(&["volume", "create", "-d", "test", "data"]).ok();
    manager
        .ctl(&["create", "--name", "one", "-v", "data:/d", &image, "true"])
        .ok();
    for (how, word) in [
        ("fail", "told to fail"),
        ("relative", "no absolute path"),
        ("up", "no plain path"),
        ("missing", "No such file"),
        ("none", "no Mountpoint"),
        ("huge", "longer than"),
        ("slow", "no answer within 2 s"),
    ] {
        plugin.behave(&format!("mount={how}"));
        let refused = manager.ctl(&["start", "one"]).refused();
        assert!(
            refused.contains("plugin test: VolumeDriver.Mount") && refused.contains(word),
            "{how}: {refused}"
        );
        assert_eq!(manager.ctl(&["run", "--rm", &image, "echo", "on"]).ok(), "on\n");
    }
    plugin.behave("");
    manager.ctl(&["start", "-a", "one"]).ok();
    plugin.end();
    let refused = manager.ctl(&["start", "one"]).refused();
    assert!(refused.contains("plugin \"test\" not found"), "{refused}");
    // Nobody takes connections on a socket that is there.
    drop(UnixListener::bind(&plugin.socket).expect("leave a socket"));
    let refused = manager.ctl(&["start", "one"]).refused();
    assert!(refused.contains("connect to"), "{refused}");
    assert!(manager.ctl(&["volume", "ls", "-q"]).ok().contains("data"));
    fs::remove_file(&plugin.socket).expect("take the socket away");
    plugin.run();
    manager.ctl(&["start", "-a", "one"]).ok();
    eventually("it is unmounted", || (!plugin.is_mounted("data")).then_some(()));
    manager.ctl(&["rm", "one"]).ok();
    manager.ctl(&["volume", "rm", "data"]).ok();
}

#[test]
fn after_a_crash_only_what_runs_is_mounted() {
    let sandbox = Sandbox::new();
    let Some((mut plugin, mut manager)) = start(&sandbox) else {
        return;
    };
    let image = manager.busybox();
    let with = ["-v", "data:/d", &image, "sleep", "1000"];
    manager.ctl(&["volume", "create", "-d", "test", "data"]).ok();
    manager
        .ctl(&[&["run", "-d", "--name", "witness"], &with[..]].concat())
        .ok();
    let witness = plugin.users("data");
    for (point, ends) in [
        ("plugin.mount-recorded", false),
        ("plugin.mounted", false),
        ("plugin.unmount-recorded", true),
        ("plugin.unmounted", true),
    ] {
        println!("{point}");
        manager
            .ctl(&[&["create", "--name", "one"], &with[..]].concat())
            .ok();
        manager.kill();
        manager.set_failpoint(Some(point));
        manager.start_again();
        if ends {
            manager.ctl(&["start", "one"]).ok();
            manager.ctl(&["kill", "one"]);
        } else {
            manager.ctl(&["start", "one"]).refused();
        }
        manager.await_end();
        manager.set_failpoint(None);
        manager.start_again();
        eventually("only the witness uses it", || {
            (plugin.users("data") == witness).then_some(())
        });
        assert_eq!(manager.ctl(&["exec", "witness", "ls", "-d", "/d"]).ok(), "/d\n");
        manager.ctl(&["rm", "-f", "one"]).ok();
    }
    // A plugin that is away at the end of a run is asked when it is back.
    plugin.end();
    manager.ctl(&["rm", "-f", "witness"]).ok();
    assert!(plugin.is_mounted("data"));
    plugin.run();
    eventually("it is unmounted", || (!plugin.is_mounted("data")).then_some(()));
    manager.kill();
    manager.set_failpoint(Some("plugin.removed"));
    manager.start_again();
    manager.ctl(&["volume", "rm", "data"]).refused();
    manager.await_end();
    manager.set_failpoint(None);
    manager.start_again();
    assert_eq!(manager.ctl(&["volume", "ls", "-q"]).ok(), "");
}

const MOUNT: &str = "type=volume,dst=/d,volume-driver=test";

#[test]
fn a_volume_goes_with_its_container_though_its_plugin_is_away() {
    let sandbox = Sandbox::new();
    let Some((mut plugin, mut manager)) = start(&sandbox) else {
        return;
    };
    let image = manager.busybox();
    let create = |name| ["create", "--name", name, "--mount", MOUNT, &image, "true"];
    manager.ctl(&create("one")).ok();
    let volume = manager.ctl(&["volume", "ls", "-q"]).ok().trim().to_owned();
    let data = plugin.folder.join("data").join(&volume);
    assert!(data.is_dir());
    plugin.end();
    manager.ctl(&["rm", "-v", "one"]).ok();
    assert_eq!(
        manager.ctl(&["volume", "ls", "-q"]).ok(),
        "",
        "nobody is to have it any more"
    );
    manager.kill();
    manager.start_again();
    assert_eq!(manager.ctl(&["volume", "ls", "-q"]).ok(), "");
    assert!(data.is_dir());
    plugin.run();
    eventually("it is removed", || (!data.exists()).then_some(()));
    eventually("it is forgotten", || {
        let events = manager.ctl(&[
            "events",
            "--since",
            "10m",
            "--until",
            "0s",
            "--filter",
            "type=volume",
        ]);
        (events.stdout.contains("destroy") && events.stdout.contains(&volume)).then_some(())
    });

    // And one whose plugin wants to keep it is there as before.
    manager.ctl(&create("two")).ok();
    plugin.behave("remove=fail");
    manager.ctl(&["rm", "-v", "two"]).ok();
    assert_eq!(manager.ctl(&["volume", "ls", "-q"]).ok().lines().count(), 1);
    plugin.behave("");
    manager.ctl(&["volume", "prune", "-f"]).ok();
}
