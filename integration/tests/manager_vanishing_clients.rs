//! Clients that go away in the middle of what they have asked for: it is done to its end.

use integration::{Manager, Sandbox, eventually};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Longer than a manager takes to see that a client has closed its connection.
const NOTICED: Duration = Duration::from_millis(300);

/// Start the manager so that it stands still at `point` as long as the file exists whose path this gives.
fn stand_still(manager: &mut Manager, sandbox: &Sandbox, point: &str) -> PathBuf {
    let standing = sandbox.path().join(format!("standing-{point}"));
    fs::write(&standing, "").expect("make the sign");
    manager.kill();
    manager.set_failpoint(Some(&format!("{point}@{}", standing.display())));
    manager.start_again();
    standing
}

/// Ask for something, and go away while the manager stands still at `point` of it.
fn ask_and_vanish(manager: &mut Manager, sandbox: &Sandbox, point: &str, args: &[&str]) {
    let standing = stand_still(manager, sandbox, point);
    let mut client = manager.ctl_spawned(args);
    let line = format!("failpoint=\"{point}\"");
    eventually("the manager stands still", || {
        let log = manager.log();
        let plain = log
            .replace("\u{1b}[3m", "")
            .replace("\u{1b}[0m", "")
            .replace("\u{1b}[2m", "");
        plain.contains(&line).then_some(())
    });
    client.kill().expect("end the client");
    client.wait().expect("wait for the client");
    std::thread::sleep(NOTICED);
    fs::remove_file(&standing).expect("take the sign away");
}

#[test]
fn a_container_whose_client_has_gone_is_there_or_its_name_is_free() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    for point in ["create.leased", "store.after-commit", "create.volumes-recorded"] {
        let create = [
            "create",
            "--name",
            "one",
            "-v",
            "data:/data",
            &image,
            "echo",
            "made",
        ];
        ask_and_vanish(&mut manager, &sandbox, point, &create);
        eventually("the container is there", || {
            let ids = manager.ctl(&["ps", "-a", "-q"]).ok();
            (ids.lines().count() == 1).then_some(())
        });
        assert_eq!(manager.ctl(&["start", "-a", "one"]).ok(), "made\n");
        manager.ctl(&["rm", "one"]).ok();
    }
}

#[test]
fn a_volume_whose_client_has_gone_is_made_or_removed() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    ask_and_vanish(
        &mut manager,
        &sandbox,
        "volume.recorded",
        &["volume", "create", "data"],
    );
    let folder = manager.root().join("volumes/data/_data");
    eventually("its folder is made", || folder.exists().then_some(()));
    ask_and_vanish(&mut manager, &sandbox, "volume.marked", &["volume", "rm", "data"]);
    eventually("its name is free", || {
        let created = integration::run(&mut manager.ctl_command(&["volume", "create", "data"]));
        (created.code == 0).then_some(())
    });
    manager.ctl(&["volume", "rm", "data"]).ok();
}
