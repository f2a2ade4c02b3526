//! Completion at the key, in a real shell: names of what the manager has.

use integration::{Manager, Sandbox, binary, run};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// What bash offers for a line that is being typed, after `managerctl completion bash`.
#[track_caller]
fn offered(mut bash: Command, line: &str) -> Vec<String> {
    // As readline does it: the line in words, which `:` and `=` end too, and the function that is registered for the
    // command, with what it will replace.
    let script = r#"
        source <(managerctl completion bash)
        spaced=${1//:/ : } spaced=${spaced//=/ = }
        words=($spaced)
        [[ $1 == *' ' ]] && words+=('')
        current=${1##*[ :=]}
        COMP_WORDS=("${words[@]}") COMP_CWORD=$((${#words[@]} - 1)) COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9
        spec=$(complete -p managerctl)
        [[ $spec =~ -F\ ([^ ]+) ]] && "${BASH_REMATCH[1]}" managerctl "$current" "${COMP_WORDS[COMP_CWORD-1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let done = run(bash.args(["-c", script, "bash", line]));
    assert_eq!(done.stderr, "", "nothing is said beside what is typed");
    done.stdout
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| line.trim().to_owned())
        .collect()
}

/// bash that finds `managerctl`, and by it the manager.
fn bash(manager: &Manager) -> Command {
    let mut command = manager.inside("bash");
    environment(&mut command, &manager.socket());
    command
}

fn environment(command: &mut Command, socket: &Path) {
    let programs = binary("managerctl").parent().expect("a folder").to_owned();
    let path = std::env::var("PATH").expect("a PATH");
    command.env("PATH", format!("{}:{path}", programs.display()));
    command.env("BERTH_SOCKET", socket);
    command.env_remove("BERTH_CONTEXT").env_remove("BERTH_HOST");
}

#[test]
fn bash_offers_the_names_that_fit() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    manager.ctl(&["tag", &image, "tools:v1"]).ok();
    manager
        .ctl(&["run", "-d", "--name", "web-runs", &image, "sleep", "1000"])
        .ok();
    manager
        .ctl(&["create", "--name", "web-made", &image, "true"])
        .ok();
    manager.ctl(&["volume", "create", "data-1"]).ok();
    manager.ctl(&["network", "create", "net-1"]).ok();
    // A list that is late is an empty one.
    let offers = |line: &str| {
        let mut tries = (0..20).map(|_| offered(bash(&manager), line));
        tries.find(|names| !names.is_empty()).unwrap_or_default()
    };

    assert_eq!(offers("managerctl rm web-"), ["web-made", "web-runs"]);
    assert_eq!(offers("managerctl start web-"), ["web-made"]);
    assert_eq!(offers("managerctl exec web-"), ["web-runs"]);
    assert_eq!(offers("managerctl inspect web-r"), ["web-runs"]);
    assert_eq!(offers("managerctl rmi too"), ["tools:v1"]);
    assert_eq!(
        offers("managerctl run tools:"),
        ["v1"],
        "of which `tools:` is there"
    );
    assert_eq!(offers("managerctl run tools:v"), ["v1"]);
    assert_eq!(offers("managerctl run --network=net"), ["net-1"]);
    assert_eq!(offers("managerctl run --network net"), ["net-1"]);
    assert_eq!(offers("managerctl network rm n"), ["net-1", "none"]);
    assert_eq!(offers("managerctl volume rm d"), ["data-1"]);
    assert_eq!(
        offers("managerctl volume rm ").first().map(String::as_str),
        Some("data-1")
    );
    assert_eq!(offers("managerctl no-such-thi"), [""; 0]);
    // Words of the command line itself, as before.
    assert!(offers("managerctl unp").contains(&"unpause".to_owned()));
    assert!(offers("managerctl run --mem").contains(&"--memory".to_owned()));
    // The manager that is meant on the line, and not that of the environment.
    let elsewhere = format!("managerctl --socket {} rm web-m", manager.socket().display());
    let mut other = manager.inside("bash");
    environment(&mut other, Path::new("/no/such.sock"));
    assert_eq!(offered(other, &elsewhere), ["web-made"]);
    manager.ctl(&["network", "rm", "net-1"]).ok();
}

#[test]
fn without_a_manager_nothing_is_offered_and_nobody_waits() {
    let sandbox = Sandbox::new();
    let socket = sandbox.path().join("silent.sock");
    let line = "managerctl rm we";
    let offers = |socket: &Path| {
        let mut bash = Command::new("bash");
        environment(&mut bash, socket);
        bash.env("HOME", sandbox.path());
        let began = Instant::now();
        assert_eq!(offered(bash, line), [""; 0]);
        began.elapsed()
    };
    offers(&socket);
    // One that takes connections, and never answers.
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("listen");
    let took = offers(&socket);
    assert!(took < Duration::from_secs(5), "{took:?}");
}
