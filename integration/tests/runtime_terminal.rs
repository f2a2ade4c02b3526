//! A container on a terminal: in the foreground, and by the console socket.

use integration::{Bundle, Runtime, Sandbox, Terminal, eventually, is_linux_since, receive};
use serde_json::json;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

#[test]
fn the_foreground_terminal_is_interactive_and_follows_the_window() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::named(&sandbox, "bundle", &["/bin/sh"]);
    bundle.set("/process/terminal", json!(true));
    let mut terminal = Terminal::spawn(runtime.over("run", &bundle, sandbox.id(), &[]));
    terminal.expect("/ # ");
    terminal.send("tty; stty size\r");
    terminal.expect("/dev/pts/0");
    terminal.expect("24 80");
    terminal.resize(100, 30);
    eventually("the new size reaches the container", || {
        terminal.send("stty size; echo d''one\r");
        terminal.expect("done").contains("30 100").then_some(())
    });
    terminal.send("sleep 1000\r");
    eventually("the program runs", || {
        runtime
            .call(&["ps", sandbox.id()])
            .stdout
            .contains("sleep 1000")
            .then_some(())
    });
    terminal.send("\x03");
    terminal.expect("/ # ");
    terminal.send("exit 5\r");
    assert_eq!(terminal.exit_code(), 5);
}

#[test]
fn a_terminal_is_there_without_a_root_user_and_without_a_mount_namespace() {
    if !is_linux_since((6, 8), "a container without a mount namespace") {
        return;
    }
    let script = "tty; echo is $(id -u); echo shown > /dev/console; stat -c 'owned by %u' /dev/console";
    for without_root in [true, false] {
        let sandbox = Sandbox::new();
        let runtime = Runtime::new(&sandbox);
        let mut bundle = Bundle::new(&sandbox, script);
        bundle.set("/process/terminal", json!(true));
        let owner = if without_root {
            let map = json!([{"containerID": 1000, "hostID": 300_000, "size": 5}]);
            bundle
                .push("/linux/namespaces", json!({"type": "user"}))
                .set("/linux/uidMappings", map.clone())
                .set("/linux/gidMappings", map)
                .set("/process/user", json!({"uid": 1000, "gid": 1000}));
            let chown = ["-R", "300000:300000"];
            integration::run(
                std::process::Command::new("chown")
                    .args(chown)
                    .arg(bundle.rootfs()),
            )
            .ok();
            1000
        } else {
            bundle.without_mount_namespace();
            0
        };
        let mut terminal = Terminal::spawn(runtime.over("run", &bundle, sandbox.id(), &[]));
        assert_eq!(terminal.exit_code(), 0, "{}", terminal.screen());
        terminal.expect("/dev/pts/0");
        terminal.expect(&format!("is {owner}"));
        terminal.expect("shown");
        terminal.expect(&format!("owned by {owner}"));
        sandbox.assert_clean();
    }
}

#[test]
fn the_console_socket_gets_the_terminals_master() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(
        &sandbox,
        "stty size; read line; echo got $line; ls -l /dev/console | cut -c1; tty",
    );
    bundle
        .set("/process/terminal", json!(true))
        .set("/process/consoleSize", json!({"width": 90, "height": 40}));
    let path = sandbox.path().join("console.sock");
    let listener = UnixListener::bind(&path).expect("listen for the terminal");
    let flags = ["--detach", "--console-socket", path.to_str().expect("a path")];
    let child = runtime
        .over("run", &bundle, sandbox.id(), &flags)
        .stdin(std::process::Stdio::null())
        .spawn()
        .expect("start the runtime");
    let mut master = master_from(&listener);
    integration::finish(child, "runtime run".into()).stdout.clear();
    master.write_all(b"a line\n").expect("type");
    let mut text = String::new();
    let mut buffer = [0; 512];
    // Reading the master fails with EIO once the container's last process is gone.
    while let Ok(n @ 1..) = master.read(&mut buffer) {
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    for part in ["40 90", "got a line", "c\r\n", "/dev/pts/0"] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    runtime.delete(sandbox.id());
}

fn master_from(listener: &UnixListener) -> File {
    let (connection, _) = listener.accept().expect("accept the runtime");
    let (_, mut descriptors) = receive(&connection, &mut [0; 4096]).expect("receive the master");
    assert_eq!(descriptors.len(), 1);
    File::from(descriptors.remove(0))
}

#[test]
fn a_terminal_without_a_place_to_go_is_refused() {
    let sandbox = Sandbox::new();
    let runtime = Runtime::new(&sandbox);
    let mut bundle = Bundle::new(&sandbox, "true");
    bundle.set("/process/terminal", json!(true));
    let refused = runtime.create(&bundle, sandbox.id()).refused();
    assert!(refused.contains("console"), "{refused}");
}
