//! What others who are slow, or gone, cost a container's log: readers of it, and servers that it is sent to.

use integration::{Manager, Sandbox, eventually, run};
use nix::sched::{CloneFlags, setns};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Shutdown, TcpListener};
use std::process::Command;
use std::time::Duration;

/// Prints when it is told to.
const WAIT: &str = "until [ -e /go ]; do usleep 10000; done; ";

fn start(manager: &Manager, options: &[&str], image: &str, script: &str) {
    let name = ["run", "-d", "--network", "none", "--name", "web"];
    let args = [&name[..], options, &[image, "sh", "-c", script]].concat();
    manager.ctl(&args).ok();
}

/// How much the files of a log take.
fn kept_bytes(manager: &Manager) -> u64 {
    let id = manager.inspect("web")["id"].as_str().expect("an id").to_owned();
    let folder = manager.root().join("containers").join(id);
    let entries = fs::read_dir(folder).expect("look at the log's folder");
    entries
        .filter_map(|entry| entry.expect("an entry").metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

#[test]
fn a_client_that_hardly_reads_does_not_keep_the_log_from_rotating() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let options = ["--log-opt", "max-size=1m", "--log-opt", "max-file=2"];
    let script = format!(
        "echo first; {WAIT} yes | head -c 80000000; touch /half; \
        while [ -e /half ]; do seq 1 5000; usleep 100000; done; echo last"
    );
    start(&manager, &options, &image, &script);
    let mut reader = manager.ctl_spawned(&["logs", "-f", "web"]);
    let mut output = reader.stdout.take().expect("its output");
    let mut errors = reader.stderr.take().expect("its errors");
    let mut first = [0; 6];
    output.read_exact(&mut first).expect("read the first line");
    manager.ctl(&["exec", "web", "touch", "/go"]).ok();
    eventually("all is written", || {
        (manager.ctl(&["exec", "web", "ls", "/half"]).code == 0).then_some(())
    });
    // A bit more than nothing, again and again.
    let mut some = vec![0; 4096];
    eventually("the log is as small as it was to be", || {
        output.read_exact(&mut some).expect("read some");
        std::thread::sleep(Duration::from_millis(500));
        (kept_bytes(&manager) < 4 << 20).then_some(())
    });
    manager.ctl(&["exec", "web", "rm", "/half"]).ok();
    let told = std::thread::spawn(move || {
        let mut told = String::new();
        errors.read_to_string(&mut told).expect("read what is told");
        told
    });
    let mut rest = Vec::new();
    output.read_to_end(&mut rest).expect("read the rest");
    assert!(rest.ends_with(b"last\n"));
    assert!(told.join().expect("read").contains("the client was too slow"));
    reader.wait().expect("it ends");
}

#[test]
fn a_syslog_server_that_is_gone_without_a_word_stalls_nobody_for_long() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let netns = format!("berth-{}", sandbox.id());
    let path = format!("/run/netns/{netns}");
    let listening = std::thread::spawn(move || {
        let netns = fs::File::open(path).expect("open the manager's network namespace");
        // This thread's alone.
        setns(netns, CloneFlags::CLONE_NEWNET).expect("enter the manager's network namespace");
        TcpListener::bind("127.0.0.1:0").expect("listen")
    });
    let server = listening.join().expect("listen");
    let address = format!(
        "syslog-address=tcp://{}",
        server.local_addr().expect("an address")
    );
    let options = ["--log-driver", "syslog", "--log-opt", &address];
    let script = format!("echo first; {WAIT} seq 1 300000; echo last");
    start(&manager, &options, &image, &script);
    // The manager's look whether there is a server comes before the containers.
    let mut streams = server.incoming().map(|stream| stream.expect("a connection"));
    let stream = streams
        .find_map(|stream| {
            let mut line = String::new();
            let mut reader = BufReader::new(stream);
            (reader.read_line(&mut line).expect("read") > 0).then_some(reader)
        })
        .expect("a container's");
    // No packet comes through any more, and nobody says so.
    run(Command::new("ip").args(["-n", &netns, "link", "set", "lo", "down"])).ok();
    manager.ctl(&["exec", "web", "touch", "/go"]).ok();
    eventually("the container ends", || {
        (manager.inspect("web")["state"] == "exited").then_some(())
    });
    assert_eq!(manager.ctl(&["logs", "-n", "1", "web"]).ok(), "last\n");
    drop(stream.into_inner().shutdown(Shutdown::Both));
    manager.ctl(&["rm", "web"]).ok();
}
