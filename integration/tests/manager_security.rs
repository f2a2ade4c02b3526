//! Profiles and labels of somebody's own.

use integration::{Manager, Sandbox};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// What `sh -c script` says in a new container with these flags, and with what it ends.
fn sh(manager: &Manager, flags: &[&str], image: &str, script: &str) -> (String, i32) {
    let done = manager.ctl(&[&["run", "--rm"], flags, &[image, "sh", "-c", script]].concat());
    (format!("{}{}", done.stdout, done.stderr), done.code)
}

fn write(folder: &Path, name: &str, profile: &Value) -> String {
    let path = folder.join(name);
    fs::write(&path, serde_json::to_string_pretty(profile).expect("JSON")).expect("write a profile");
    format!("seccomp={}", path.display())
}

#[test]
fn a_profile_of_ones_own_is_heeded() {
    let sandbox = Sandbox::new();
    let mut manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let refusing = |more: Value| {
        let mut rule = json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28});
        let rule_fields = rule.as_object_mut().expect("an object");
        rule_fields.extend(more.as_object().expect("an object").clone());
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    };
    let folder = sandbox.path();
    let plain = write(folder, "plain.json", &refusing(json!({})));
    let with_admin = write(
        folder,
        "admin.json",
        &refusing(json!({"includes": {"caps": ["CAP_SYS_ADMIN"]}})),
    );
    let without = write(
        folder,
        "without.json",
        &refusing(json!({"excludes": {"caps": ["CAP_SYS_ADMIN"]}})),
    );
    let newer = write(
        folder,
        "newer.json",
        &refusing(json!({"includes": {"minKernel": "999.0"}})),
    );
    for (flags, refused) in [
        (vec![plain.as_str()], true),
        (vec![plain.as_str(), "--privileged"], true),
        (vec![with_admin.as_str()], false),
        (vec![with_admin.as_str(), "--cap-add=SYS_ADMIN"], true),
        (vec![without.as_str()], true),
        (vec![without.as_str(), "--cap-add=SYS_ADMIN"], false),
        (vec![newer.as_str()], false),
    ] {
        let flags = [&["--security-opt"], &flags[..]].concat();
        let (told, code) = sh(&manager, &flags, &image, "mkdir /made");
        assert_eq!(told.contains("No space left"), refused, "{flags:?}: {told}");
        assert_eq!(code != 0, refused, "{flags:?}");
    }
    // It is the container's own for good: the file may go, and so may the manager.
    manager
        .ctl(&[
            "run",
            "-d",
            "--name",
            "one",
            "--security-opt",
            &plain,
            &image,
            "sleep",
            "1000",
        ])
        .ok();
    fs::remove_file(folder.join("plain.json")).expect("remove the profile");
    manager.kill();
    manager.start_again();
    manager.ctl(&["restart", "-t", "0", "one"]).ok();
    let refused = manager.ctl(&["exec", "one", "mkdir", "/made"]).refused();
    assert!(refused.contains("No space left"), "{refused}");
    let options = &manager.inspect("one")["request"]["isolation"]["securityOpts"];
    assert!(
        options[0]
            .as_str()
            .is_some_and(|text| text.contains("\"errnoRet\":28")),
        "{options}"
    );
}

#[test]
fn a_profile_that_is_none_is_refused_before_anything_is_made() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    let text = sandbox.path().join("text.json");
    fs::write(&text, "no JSON").expect("write a profile");
    let odd = json!({"defaultAction": "SCMP_ACT_FLY"});
    for (option, words) in [
        (format!("seccomp={}", text.display()), "text.json"),
        (write(sandbox.path(), "odd.json", &odd), "SCMP_ACT_FLY"),
        (write(sandbox.path(), "list.json", &json!([])), "profile"),
        ("label=colour:red".to_owned(), "label=disable, or"),
    ] {
        let refused = manager
            .ctl(&["create", "--security-opt", &option, &image, "true"])
            .refused();
        assert!(refused.contains(words), "{refused}");
    }
    assert_eq!(manager.ctl(&["ps", "-aq"]).ok(), "");
}

/// Labels are the runtime's to set (`runtime_labels`); here they reach it.
#[test]
fn a_label_is_for_machines_that_have_labels() {
    let sandbox = Sandbox::new();
    let manager = Manager::start(&sandbox);
    let image = manager.busybox();
    if Path::new("/sys/fs/selinux/enforce").exists() {
        eprintln!("skipped: SELinux is on here");
        return;
    }
    let flags = [
        "--security-opt",
        "label=type:container_t",
        "--security-opt",
        "label=level:s0:c1",
    ];
    let (told, code) = sh(&manager, &flags, &image, "true");
    assert!(code != 0 && told.contains("SELinux"), "{told}");
    let off = [&flags[..], &["--security-opt", "label=disable"]].concat();
    assert_eq!(sh(&manager, &off, &image, "true").1, 0);
}
